"""What the explorer shows, as PNG and as colours of words."""

import io
from dataclasses import replace

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from PIL import Image, ImageDraw, ImageFilter

from ..data import Images
from ..plots import TEXT_COLOURS, overlay, own_scale

SIDE = 280  # pixels of a picture on the screen, its longer side
FINE = 448  # pixels of the longer side of what is drawn from: a map has no more to show, and a photograph takes long
MARK = (80, 255, 255)


def enlarge(picture):
    """A picture of any size with its longer side on the screen's scale."""
    zoom = SIDE / max(picture.size)
    return picture.resize([max(1, round(zoom * side)) for side in picture.size], Image.Resampling.BICUBIC)


def png(picture):
    """A picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def of_screen(clip, attribution):
    """The one pair of an Attribution over its image made small enough to draw at once, and how many times smaller it is."""
    (image,), shrunk = attribution.images, max(1, max(attribution.images[0].size) / FINE)
    if shrunk > 1:
        image = image.resize([max(1, round(side / shrunk)) for side in image.size], Image.Resampling.BOX)
    return replace(attribution, images=Images([image]), views=[clip.view(image.size)]), shrunk


def outlined(picture, segment):
    """The edge of a Segment's mask and its box, drawn into a picture of the screen's size."""
    mask = (
        Image.fromarray(segment.mask).convert("L").resize(picture.size, Image.Resampling.BILINEAR).point(lambda v: 255 * (v > 127))
    )
    edge = np.asarray(mask) > np.asarray(mask.filter(ImageFilter.MinFilter(3)))
    picture.paste("white", mask=Image.fromarray(edge))
    if segment.box:
        zoom = picture.width / segment.mask.shape[1]
        ImageDraw.Draw(picture).rectangle([zoom * side for side in segment.corners], outline=MARK, width=2)


def draw_map(clip, attribution, level):
    """The map of one pair over its image, with the mask above `level`, a share of its range, and its box; 0: none.
    -> PNG bytes, and a line of what it shows"""
    small, shrunk = of_screen(clip, attribution)
    heat = small.heat(0)
    (image,) = small.images
    picture = enlarge(overlay(image, heat, own_scale(heat, small.unit)))
    note = f"maximum {heat.max():.3g} {small.unit} per patch"
    if level:
        (segment,) = small.segments("share", level=level)
        outlined(picture, segment)
        note += f"<br>mask {segment.mask.mean():.1%} of the picture"
        if segment.box:
            x, y, width, height = (round(shrunk * side) for side in segment.box)
            note += f", box {width} × {height} at {x}, {y}"
    return png(picture), note


def shade(share):
    """The ground of a word and its letters, for its share of the highest score, as plots.draw_words has them."""
    return to_hex(colormaps[TEXT_COLOURS](0.9 * share)), "white" if share > 0.7 else "black"
