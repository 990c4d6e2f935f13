"""How well maps find what the captions name, where boxes or masks say it."""

from dataclasses import replace

import pandas as pd
import torch

from .. import metrics

IMAGE_SCORES = {
    "energy inside": metrics.energy_inside,
    "pointing game": metrics.pointing_game,
    "IoU at 0.3": metrics.iou_at,
    "IoU at Otsu": metrics.iou_otsu,
    "IoU at best": metrics.iou_best,
}


def tidy(rows, method):
    """(pair, modality, metric, value, chance) rows of one method as the long table that every notebook reads."""
    return pd.DataFrame(rows, columns=["pair", "modality", "metric", "value", "chance"]).assign(method=method)


def unit_maps(attribution):
    """The attribution with each image map from its minimum at 0 to its maximum at 1, what is negative counted as 0.

    So a map with an offset (RISE) or with signs (NIB, KernelSHAP) is compared by what it puts forward.
    """
    if attribution.image_maps is None:
        return attribution
    return replace(attribution, image_maps=torch.stack([metrics.unit_scale(patches) for patches in attribution.image_maps]))


def relevance(pair, words):
    """Which of the caption's words stand for something in the picture.  -> a list of bool"""
    return [word in pair.words() for word in words]


def has_truth(pair, masks=False):
    """Whether the boxes, or masks, of what the caption names are known."""
    return any(box.named for box in pair.boxes) and not (masks and any(box.mask is None for box in pair.boxes))


def localisation(attribution, pairs, truth="boxes"):
    """How well the maps find what the captions name: a tidy table of pair, modality, metric, value, chance, method.

    Image maps are those of `unit_maps` over the image's pixels; truth: "boxes" or "masks"; words are whole.  A pair that cannot
    have a score (no box or mask, no unnamed object, no word in the picture, no map of that modality) has no row for it.
    """
    attribution, rows = unit_maps(attribution), []
    for i, pair in enumerate(pairs):
        if attribution.image_maps is not None and has_truth(pair, masks=truth == "masks"):
            scores = image_scores(attribution.heat(i), pair, masks=truth == "masks")
            rows += [(pair.id, "image", name, value, chance) for name, value, chance in scores]
        if attribution.text_maps is not None:
            words, scores = attribution.words(i)
            relevant = relevance(pair, words)
            if any(relevant):
                precision = metrics.average_precision(scores.cpu(), relevant)
                rows.append((pair.id, "text", "word precision", precision, metrics.chance_precision(relevant)))
    return tidy(rows, attribution.method)


def image_scores(heat, pair, masks):
    """What one heat (H, W) is worth: name, value and chance of each score that the pair can have."""
    named, unnamed = (pair.region(named, masks) for named in (True, False))
    yield from ((name, score(heat, named), named.mean()) for name, score in IMAGE_SCORES.items())
    if (unnamed & ~named).any():
        yield "named preference", metrics.named_preference(heat, named, unnamed & ~named), 0.5


def occurrences(attribution, pairs):
    """Whether every occurrence of every named object, and every word that names one, is found.  -> tidy table

    "instances hit" and "words hit" are shares, "all instances hit" and "all words hit" 0 or 1; see metrics.instances_hit.
    A map that knows nothing has no simple chance here: compare with the `random` control.  A pair without named boxes
    has no row.
    """
    attribution, rows = unit_maps(attribution), []
    for i, pair in enumerate(pairs):
        if not has_truth(pair):
            continue
        shape = (pair.image.height, pair.image.width)
        hit = metrics.instances_hit(attribution.heat(i), [box.rectangle(shape) for box in pair.boxes if box.named])
        rows += [(pair.id, "image", "instances hit", hit, None), (pair.id, "image", "all instances hit", float(hit == 1), None)]
        words, scores = attribution.words(i)
        relevant = relevance(pair, words)
        if any(relevant):
            hit = metrics.words_hit(scores.cpu(), relevant)
            rows += [(pair.id, "text", "words hit", hit, None), (pair.id, "text", "all words hit", float(hit == 1), None)]
    return tidy(rows, attribution.method)
