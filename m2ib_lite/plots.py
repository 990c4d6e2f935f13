"""Attributions as pictures: an Attribution in, matplotlib Axes out.  Nothing here calls show()."""

import math
from itertools import cycle
from textwrap import shorten

import matplotlib.pyplot as plt
import numpy as np
import torch
from einops import rearrange
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea, VPacker
from matplotlib.patches import Rectangle
from PIL import Image

from .metrics import bootstrap_interval
from .words import whole_words

IMAGE_COLOURS, TEXT_COLOURS = plt.get_cmap("inferno").with_extremes(bad="white"), "Oranges"
OPACITY = 0.6  # of a heat over its image
LINE = 26  # letters in a line of words
SMALL = 8  # points, for words in a narrow column
FULL = {"nats": 1.0}  # by unit: a map whose maximum stays below this is not stretched to full brightness
UNSEEN = "pale: the model did not see it"


def method_looks(methods):
    """M2IB in orange, other methods in greys that marks tell apart: ten colours tangle.  -> {method: colour}, {method: mark}"""
    greys = map(tuple, plt.get_cmap("Greys")(np.linspace(0.35, 1, len(methods))))
    colours = {method: "tab:orange" if method.startswith("M2IB") else next(greys) for method in methods}
    return colours, dict(zip(methods, cycle("osD^v<>PX*h"), strict=False))


def error_bar(values, most=1.0):
    """For seaborn's `errorbar`: the ends of a mean's 95% interval, as in a Check's table.  most: see metrics.bootstrap_interval"""
    return bootstrap_interval(values, most)[1:]


def own_scale(scores, unit):
    """What is dark and what is bright for one map: no information, or in a unit without such a zero its lowest score, what is below
    0 counting as 0; and its highest score, or FULL where that is more.  A flat map starts at 0.  -> Normalize"""
    least, most = max(0.0, float(scores.min())), float(scores.max())
    least = 0.0 if unit in FULL or least >= most else least
    return Normalize(least, max(most, FULL.get(unit, least)))


def seen_heat(attribution, i):
    """The heat of pair i, masked where the model did not see the image.  -> (H, W) masked array"""
    return np.ma.array(attribution.heat(i), mask=~attribution.seen(i))


def draw_image(ax, image, boxes=(), **options):
    """An image without ticks, the boxes of what the caption names in red, as in the paper."""
    ax.imshow(image, **options)
    for box in boxes:
        if box.named:
            ax.add_patch(Rectangle((box.x - 0.5, box.y - 0.5), box.w, box.h, fill=False, edgecolor="red", linewidth=1))
    ax.set(xticks=[], yticks=[], anchor="N")  # at the height of its neighbours


def draw_heat(ax, image, heat, scale, boxes=()):
    """A heat (H, W) over its image in grey, what it masks pale; `scale` is a Normalize from what is dark to what is bright."""
    draw_image(ax, image.convert("L"), cmap="gray", vmin=0, vmax=255)
    draw_image(ax, heat, boxes, cmap=IMAGE_COLOURS, norm=scale, alpha=OPACITY)


def overlay(image, heat, scale):
    """What draw_heat shows, as a picture of the image's own size.  -> RGB PIL image"""
    colours = Image.fromarray(IMAGE_COLOURS(scale(heat), bytes=True)[..., :3].copy())
    return Image.blend(image.convert("L").convert("RGB"), colours, OPACITY)


def shade(share):
    """The ground of a word, RGBA, and the colour of its letters, for its share of the highest score."""
    return plt.get_cmap(TEXT_COLOURS)(0.9 * share), "white" if share > 0.7 else "black"


def draw_words(ax, words, scores, scale, size=11):
    """The words in reading order, at most LINE letters a line, each on a ground as dark as its score on `scale`."""
    lines, room = [], 0
    for word, score in zip(words, scores, strict=True):
        colour, letters = shade(float(scale(float(score))))
        ground = dict(boxstyle="round,pad=0.25", facecolor=colour, edgecolor="none")
        style = dict(size=size, bbox=ground, parse_math=False, color=letters)
        if not lines or len(word) + 1 > room:
            lines.append([])
            room = LINE
        lines[-1].append(TextArea(word, textprops=style))
        room -= len(word) + 1
    rows = [HPacker(children=line, pad=0, sep=size * 0.8) for line in lines]
    page = VPacker(children=rows, pad=0, sep=size * 1.1, align="left")
    ax.add_artist(AnchoredOffsetbox(loc="center left", child=page, frameon=False, pad=0, borderpad=0.5))
    ax.axis("off")


def colour_bar(figure, axes, colours, label, aspect=28, unit="nats"):
    """A bar below axes whose maps have each an own_scale; aspect: how many times as long as thick."""
    look = dict(location="bottom", shrink=0.8, aspect=aspect, pad=0.02, label=label, ticks=[0, 1])
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), colours), ax=axes, **look)
    bar.set_ticklabels(["0" if unit in FULL else "lowest", "highest"])


def row_heights(images, width, room):
    """Inches for each image, at most as high as its `width`, and for what is written around it."""
    return [width * min(1, max(0.5, image.height / image.width)) + room for image in images]


def plot_pairs(attribution, rows=None, boxes=None):
    """One row a pair: the image and what its cosine says, its map and its words, colours and their ends as of own_scale.  -> Figure
    rows: which pairs, all by default.  boxes: the Box list of each pair of the attribution; the named ones are drawn."""
    if attribution.image_maps is None or attribution.text_maps is None:
        raise ValueError("the attribution holds the maps of one modality alone: ask for modality='both' to draw pairs")
    rows = [attribution.place(i) for i in (range(len(attribution)) if rows is None else rows)]
    heights = row_heights([attribution.images[i] for i in rows], 2.3, 0.5)
    size = dict(figsize=(8.6, sum(heights) + 0.7), height_ratios=heights, width_ratios=[1, 1, 1.35])
    figure, axes = plt.subplots(len(rows), 3, squeeze=False, layout="constrained", **size)
    for (left, middle, right), i in zip(axes, rows, strict=True):
        marks, heat, (words, scores) = boxes[i] if boxes else (), seen_heat(attribution, i), attribution.words(i)
        draw_image(left, attribution.images[i], marks)
        scale, of_words = own_scale(heat, attribution.unit), own_scale(scores, attribution.unit)
        draw_heat(middle, attribution.images[i], heat, scale, marks)
        draw_words(right, words, scores, of_words)
        left.set_xlabel(attribution.verdict(i).replace(", ", ",\n"), fontsize=9)
        ends = f"{scale.vmin:.3g} to {scale.vmax:.3g} {attribution.unit} per patch"
        middle.set_xlabel(f"{ends},\n{UNSEEN}" if heat.mask.any() else ends, fontsize=9)
        right.set_title(f"{of_words.vmin:.3g} to {of_words.vmax:.3g} {attribution.unit} per word", fontsize=9, y=-0.13, loc="left")
    for column, colours in ((1, IMAGE_COLOURS), (2, TEXT_COLOURS)):
        colour_bar(figure, axes[:, column], colours, attribution.method, unit=attribution.unit)
    return figure


def plot_methods(attributions, rows, boxes=None, figure=None):
    """One row a pair, its caption above, one column a method: its map over the image, colours as of own_scale.  -> Figure
    attributions: of the same pairs, one a method.  rows, boxes: as in plot_pairs.  figure: a part of one to draw in, or its own."""
    rows, columns = [attributions[0].place(i) for i in rows], len(attributions) + 1
    heights = row_heights([attributions[0].images[i] for i in rows], 0.82, 0.25)
    figure = figure or plt.figure(figsize=(0.88 * columns, sum(heights) + 0.4), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
    for line, i in zip(axes, rows, strict=True):
        marks, image = boxes[i] if boxes else (), attributions[0].images[i]
        draw_image(line[0], image, marks)
        line[0].set_title(" ", fontsize=9)  # room for the caption, which spans the row
        caption, place = shorten(attributions[0].captions[i], 12 * columns), ((0, 1), (0, 3), "axes fraction", "offset points")
        line[0].annotate(caption, *place, fontsize=9, parse_math=False, in_layout=False)
        for ax, attribution in zip(line[1:], attributions, strict=True):
            heat = seen_heat(attribution, i)
            draw_heat(ax, image, heat, own_scale(heat, attribution.unit), marks)
    for ax, title in zip(axes[0], ["image", *(attribution.method for attribution in attributions)], strict=True):
        ax.set_title(title.replace(", ", ",\n"), fontsize=9, pad=18)
    figure.supxlabel("" if all(attributions[0].seen(i).all() for i in rows) else UNSEEN, fontsize=9)
    return figure


def plot_words(found, columns=5):
    """What the caption's cosine says, the image, then each word of a WordMaps above its map, as in plot_pairs; what weighs less is
    fainter.  -> Figure"""
    count, image = len(found.words) + 1, found.maps.images[0]
    heights = row_heights([image] * math.ceil(count / columns), 1.75, 0.25)
    size = dict(figsize=(1.75 * columns, sum(heights) + 0.3), layout="constrained")
    figure, axes = plt.subplots(len(heights), columns, squeeze=False, **size)
    draw_image(axes.flat[0], image)
    axes.flat[0].set_title("word and its weight:", fontsize=9)
    figure.suptitle(found.maps.verdict(0), fontsize=9)
    for i, (ax, word, weight) in enumerate(zip(axes.flat[1:], found.words, found.weights.tolist(), strict=False)):
        heat, share = seen_heat(found.maps, i), weight / max(found.weights.max().item(), 1e-9)
        draw_heat(ax, image, heat, own_scale(heat, found.maps.unit))
        figure.supxlabel(UNSEEN if heat.mask.any() else "", fontsize=9)
        ax.images[-1].set_alpha(OPACITY * share)
        ax.set_title(f"{word}  {weight:.2f}", fontsize=9, alpha=0.4 + 0.6 * share, parse_math=False)
    for ax in axes.flat[count:]:
        ax.axis("off")
    return figure


def as_seen(clip, pixels):
    """The model's normalised pixels as a picture, what they lost as the channel mean.  (3, H, W) -> (H, W, 3) in [0, 1]"""
    mean, std = (torch.tensor(values, device=pixels.device) for values in (clip.processor.image_mean, clip.processor.image_std))
    return (rearrange(pixels.float(), "c h w -> h w c") * std + mean).clamp(0, 1).cpu().numpy()


def draw_degradation(axes, clip, attribution, i, inputs):
    """Pair i as its map degrades it: a column for the pair, one for its map, one for each of the degraded inputs, pictures above
    words; a word, or a piece of one, that became the blank is shown as <B>.
    axes: (2, 2 + the number of inputs).  inputs: (pixels (B, 3, H, W), ids (B, T)) of all the pairs each."""
    i = attribution.place(i)
    heat, (words, scores), tokens = seen_heat(attribution, i), attribution.words(i), attribution.tokens[i]
    _, places = whole_words(attribution.captions[i], tokens)
    content = clip.tokens(attribution.captions).content[i]
    draw_image(axes[0, 0], attribution.images[i])
    draw_words(axes[1, 0], words, 0 * scores, Normalize(0, 1), SMALL)
    draw_heat(axes[0, 1], attribution.images[i], heat, own_scale(heat, attribution.unit))
    draw_words(axes[1, 1], words, scores, own_scale(scores, attribution.unit), SMALL)
    for above, below, (pixels, ids) in zip(*axes[:, 2:], inputs, strict=True):
        draw_image(above, as_seen(clip, pixels[i]))
        pieces = ["<B>" if token == clip.blank else piece for piece, token in zip(tokens, ids[i][content], strict=True)]
        shown = ["".join(piece for piece, at in zip(pieces, places, strict=True) if at == n) for n in range(len(words))]
        draw_words(below, shown, 0 * scores, Normalize(0, 1), SMALL)


def plot_pair(attribution, i=0, boxes=()):
    """Image, overlay, and the words shaded by their score, for pair i.  -> Figure"""
    return plot_pairs(attribution, [i], {attribution.place(i): boxes})
