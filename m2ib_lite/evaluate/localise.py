"""How well maps find what the captions name, where boxes or masks say it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from .. import metrics
from ..data import inside
from ..word_maps import explain_words

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
    """The attribution with each image map from its minimum at 0 to its maximum at 1, what is negative counted as 0: a map with an
    offset (RISE) or with signs (NIB, KernelSHAP) is compared by what it puts forward."""
    if attribution.image_maps is None:
        return attribution
    return replace(attribution, image_maps=torch.stack([metrics.unit_scale(patches) for patches in attribution.image_maps]))


def check_captions(attribution, captions):
    """ValueError, which names the first difference, where an attribution is not of pairs with these captions in this order."""
    remedy = f"give the pairs that the {attribution.method} attribution was made of, in its order"
    if len(attribution) != len(captions):
        raise ValueError(f"{len(captions)} pairs and an attribution of {len(attribution)}: {remedy}")
    for i, (own, other) in enumerate(zip(attribution.captions, captions, strict=True)):
        if own != other:
            raise ValueError(f"pair {i} says {other!r}, its place in the attribution {own!r}: {remedy}")


def matched(attribution, pairs):
    """Each pair, the pixels of its image that the model saw, the heat of its unit map there, None without boxes, its words' scores,
    which of them are relevant.  The pixels: an index for an (H, W) array."""
    check_captions(attribution, [pair.caption for pair in pairs])
    unit = unit_maps(attribution)
    for i, pair in enumerate(pairs):
        seen = attribution.seen(i)
        pixels = np.ix_(seen.any(axis=1), seen.any(axis=0))
        known = any(box.named for box in pair.boxes) and unit.image_maps is not None
        words, scores = ([], None) if unit.text_maps is None else unit.words(i)
        yield pair, pixels, unit.heat(i)[pixels] if known else None, scores, [word in pair.words() for word in words]


def localisation(attribution, pairs, truth="boxes", power=None):
    """How well the maps find what the captions name: a tidy table of pair, modality, metric, value, chance, method.

    Image maps are those of `unit_maps` over the pixels that the model saw, and so are chance and truth, the "boxes" or "masks"; how
    much of the truth lies there is the metric "truth seen".  words are whole.  power: also the energy inside of the maps raised to
    it, which keeps their order.  A pair without what a score needs (a box or mask that was seen, an unnamed object, a word in the
    picture, a map) has no row.  ValueError for other pairs.
    """
    masks, rows = truth == "masks", []
    for pair, pixels, heat, scores, relevant in matched(attribution, pairs):
        if heat is not None and not (masks and any(box.mask is None for box in pair.boxes)):
            whole = pair.region(True, masks)
            named, others = whole[pixels], (pair.region(False, masks) & ~whole)[pixels]
            rows.append((pair.id, "image", "truth seen", named.sum() / max(1, whole.sum()), 1.0))
            found = {name: score(heat, named) for name, score in IMAGE_SCORES.items() if named.any()}
            if power and named.any():
                found["energy inside at power"] = metrics.energy_inside(heat**power, named)
            rows += [(pair.id, "image", name, value, named.mean()) for name, value in found.items()]
            if named.any() and others.any():
                rows.append((pair.id, "image", "named preference", metrics.named_preference(heat, named, others), 0.5))
        if any(relevant):
            precision = metrics.average_precision(scores.cpu(), relevant)
            rows.append((pair.id, "text", "word precision", precision, metrics.chance_precision(relevant)))
    return tidy(rows, attribution.method)


def occurrences(attribution, pairs):
    """Whether every occurrence of every named object, and every word that names one, is found: a tidy table as localisation's.

    "instances hit", by rank, "instances seen", by sight, and "words hit" are shares, "all instances hit" and so on 0 or 1; see
    metrics.instances_hit and instances_seen.  An object that the model saw nothing of is not asked for.
    chance: not known, None; compare with the `random` control.
    """
    rows = []
    for pair, pixels, heat, scores, relevant in matched(attribution, pairs):
        hits, masks = [], [box.rectangle(pair.image.size[::-1])[pixels] for box in pair.boxes if box.named]
        named = [mask for mask in masks if mask.any()]
        if heat is not None and named:
            hits.append(("image", "instances hit", metrics.instances_hit(heat, named)))
            hits.append(("image", "instances seen", metrics.instances_seen(heat, named)))
        if any(relevant):
            hits.append(("text", "words hit", metrics.words_hit(scores.cpu(), relevant)))
        for modality, name, share in hits:
            rows += [(pair.id, modality, name, share, None), (pair.id, modality, f"all {name}", float(share == 1), None)]
    return tidy(rows, attribution.method)


def word_heats(clip, pair, method, **options):
    """The maps of `explain_words` for those words of a pair that name something in its picture.  -> {word: (H, W)}"""
    words = sorted(pair.words(), key=pair.caption.index)
    found = explain_words(clip, pair, phrases=words, method=method, **options)
    return {word: found.heat(word) for word in words}


def word_game(heats, pair, method, view=None):
    """Whether the map of each word finds what that word names: a tidy table as localisation's, a row for each word and metric.

    heats: {word: (H, W)}, words of pair.words(), ValueError for others.  1 where the highest point in the boxes of the word's own
    is higher than all others, "pointing game", or than those in the other named boxes, if there are any, "own object"; a tie is 0.
    view: what the model saw of the image, as `Clip.view` gives it, all unless given; the rest does not count, and a word none of
    whose own was seen has no row.
    """
    rows = []
    for word, heat in heats.items():
        if word not in pair.words():
            raise ValueError(f"{word!r} names nothing in pair {pair.id}: give words of {sorted(pair.words())}")
        seen = inside(view or (0, 0, *pair.image.size), pair.image.size)
        boxes = [(box.word, box.rectangle(heat.shape) & seen) for box in pair.boxes if box.named]
        own = np.any([mask for of, mask in boxes if of == word], axis=0)
        words, rest = {of for of, mask in boxes if of and mask.any()}, seen & ~own
        others = np.any([mask for _, mask in boxes], axis=0) & ~own
        if own.any() and rest.any():
            rows.append((pair.id, "image", "pointing game", float(heat[own].max() > heat[rest].max()), own.sum() / seen.sum()))
        if own.any() and others.any():
            rows.append((pair.id, "image", "own object", float(heat[own].max() > heat[others].max()), 1 / len(words)))
    return tidy(rows, method)
