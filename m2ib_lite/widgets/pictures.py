"""What the explorer shows, as PNG and as colours of words."""

from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from ..data import Images, png
from ..plots import overlay, own_scale

SIDE = 280  # pixels of a picture on the screen, its longer side
FINE = 448  # pixels of the longer side of what is drawn from: a map has no more to show, and a photograph takes long
MARK = (80, 255, 255)


def outlined(picture, segment):
    """The edge of a Segment's mask and its box, drawn into a picture of the screen's size."""
    mask = Image.fromarray(segment.mask).convert("L").resize(picture.size, Image.Resampling.BILINEAR)
    mask = mask.point(lambda v: 255 * (v > 127))
    edge = np.asarray(mask) > np.asarray(mask.filter(ImageFilter.MinFilter(3)))
    picture.paste("white", mask=Image.fromarray(edge))
    if segment.box:
        zoom = picture.width / segment.mask.shape[1]
        ImageDraw.Draw(picture).rectangle([zoom * side for side in segment.corners], outline=MARK, width=2)


def draw_map(clip, attribution, level):
    """The map of one pair over its image, with the mask above `level`, a share of its range, and its box; 0: none.
    -> PNG bytes, and a line of what it shows"""
    (image,) = attribution.images
    shrunk = max(1, max(image.size) / FINE)
    if shrunk > 1:
        image = image.resize([max(1, round(side / shrunk)) for side in image.size], Image.Resampling.BOX)
    small = replace(attribution, images=Images([image]), views=[clip.view(image.size)])
    heat = small.heat(0)
    picture = ImageOps.contain(overlay(image, heat, own_scale(heat, small.unit)), (SIDE, SIDE))
    note = f"maximum {heat.max():.3g} {small.unit} per patch"
    if level:
        (segment,) = small.segments("share", level=level)
        outlined(picture, segment)
        note += f"<br>mask {segment.mask.mean():.1%} of the picture"
        if segment.box:
            x, y, width, height = (round(shrunk * side) for side in segment.box)
            note += f", box {width} × {height} at {x}, {y}"
    return png(picture), note
