"""How much the pair's cosine keeps or loses where the input is degraded by its own map.

Pixels are the model's, normalised, so that 0 is the channel mean.  A word that is taken out becomes the blank (padding) token; BOS
and EOS stay, and the embedding is read where the whole caption's was.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange

from .. import metrics
from ..hooks import frozen
from ..side import check_positive, sides
from .localise import tidy, unit_maps

STEPS = 10  # of a deletion or insertion curve, from nothing changed to everything
PIXELS_ABOVE, WORDS_ABOVE = 0.75, 0.5  # the quantiles of a map from which on pixels and words count as the most important


def over_pixels(maps, pixels):
    """Image maps over the model's pixels, bilinear between patch centres.  (B, gh, gw) -> (B, 1, H, W)"""
    return F.interpolate(maps[:, None].to(pixels.dtype), pixels.shape[-2:], mode="bilinear")


def spread(text_maps, content):
    """Scores of content tokens at their places, NaN elsewhere.  [(n,)] of B captions, (B, T) bool -> (B, T)"""
    scores = torch.full(content.shape, torch.nan, device=content.device)
    scores[content] = torch.cat(text_maps)
    return scores


def keep_pixels(pixels, unit_maps):
    """Each pixel times its score, from maps in [0, 1].  (B, 3, H, W), (B, gh, gw) -> (B, 3, H, W)  (paper, figure 3, column 3)"""
    return pixels * over_pixels(unit_maps, pixels)


def remove_pixels(pixels, maps):
    """The channel mean for the pixels that score above the 75th percentile.  Shapes as keep_pixels.  (paper, figure 3, column 4)"""
    heats = over_pixels(maps, pixels.float())
    bounds = torch.stack([heat.quantile(PIXELS_ABOVE) for heat in heats])  # one by one: quantile takes 16 million numbers at most
    return pixels.masked_fill(heats > bounds[:, None, None, None], 0)


def keep_words(ids, scores, blank):
    """The blank for the words that score below the median.  ids: (B, T); scores: of `spread`  (paper, figure 3, column 3)"""
    return ids.masked_fill(scores < scores.nanquantile(WORDS_ABOVE, dim=1, keepdim=True), blank)


def remove_words(ids, scores, blank):
    """The blank for the words that score above the median.  As keep_words.  (paper, figure 3, column 4)"""
    return ids.masked_fill(scores > scores.nanquantile(WORDS_ABOVE, dim=1, keepdim=True), blank)


def blur(pixels, sigma):
    """Gaussian blur of `sigma` pixels, the borders repeated.  (B, 3, H, W) -> same"""
    rows, columns = (bells(n, sigma, pixels.device).to(pixels.dtype) for n in pixels.shape[-2:])
    return rows @ pixels @ columns.mT  # a convolution as wide as this is many times slower


def bells(n, sigma, device):
    """How much of each of n places goes into each of them; what lies beyond the ends counts as the ends.  -> (n, n)"""
    steps = torch.arange(-math.ceil(3 * sigma), math.ceil(3 * sigma) + 1, device=device)
    bell = torch.exp(-0.5 * (steps / sigma) ** 2)
    sources = (torch.arange(n, device=device)[:, None] + steps).clamp(0, n - 1)
    return torch.zeros(n, n, device=device).scatter_add(1, sources, (bell / bell.sum()).expand(n, -1))


def cosine(side, inputs):
    """y of each pair for other inputs of the same captions or images, read where their own embedding is.  -> (B,)"""
    return side.score(side.tower.embed(inputs), -1)


def curve(side, scores, start, end):
    """y while positions go from their `start` to their `end` input in STEPS equal steps, the highest scores first.

    side: of B pairs; scores: (B, n) of its patches or tokens, NaN where nothing changes, equal ones in reading order; start, end:
    inputs as the side's.  -> (B, STEPS + 1)
    """
    order = scores.masked_fill(scores.isnan(), -torch.inf).argsort(dim=1, descending=True, stable=True)
    ranks, counts = order.argsort(dim=1), (~scores.isnan()).sum(dim=1, keepdim=True)
    points = []
    for step in range(STEPS + 1):
        changed = ranks * STEPS < step * counts
        if side.is_image:
            patches = rearrange(changed, "b (gh gw) -> b 1 gh gw", gh=side.clip.grid[0])
            changed = F.interpolate(patches.float(), start.shape[-2:]).bool()
        points.append(cosine(side, end.where(changed, start)))
    return torch.stack(points, dim=1)


def judged(side, scores, kept, removed, hidden):
    """The four metrics of one tower's maps, {name: (B,)}.

    scores: as in `curve`.  kept: inputs with only the important; removed: where deletion ends; hidden: where insertion starts.
    """
    before, after = (cosine(side, inputs).cpu() for inputs in (side.inputs, kept))
    curves = dict(deletion=curve(side, scores, side.inputs, removed), insertion=curve(side, scores, hidden, side.inputs))
    areas = {f"{name} AUC": metrics.area_under(points.cpu()) for name, points in curves.items()}
    return {"drop": metrics.drop(before, after), "increase": metrics.increase(before, after), **areas}


def confidence(clip, attribution, pairs, batch_size=32):
    """What the maps of `pairs` are worth to the model: a tidy table of pair, modality, metric, value, chance, method.

    drop, increase: only the important is kept; pixels times the map of `unit_maps`, words from the median up.  In percent.
    deletion AUC (lower is better): patches go to the channel mean, words to the blank, the most important first, in 10 equal
    steps; insertion AUC (higher is better): they come back, from a blur as wide as a patch or from blanks alone.  In cosine.
    chance: not known, NaN; the random control stands for it.  batch_size bounds the memory.  ValueError for a bad one.
    """
    check_positive(batch_size=batch_size)
    unit, rows = unit_maps(attribution).image_maps, []
    with torch.no_grad(), frozen(clip.model):
        for start in range(0, len(pairs), batch_size):
            chunk = slice(start, start + batch_size)
            image, text, _ = sides(clip, attribution.images[chunk], attribution.captions[chunk])
            pixels, ids = image.inputs, text.inputs
            blurred = blur(pixels, sigma=pixels.shape[-1] / clip.grid[1])
            of_image = judged(
                image, attribution.image_maps[chunk].flatten(1), keep_pixels(pixels, unit[chunk]), 0 * pixels, blurred
            )
            words, blanks = spread(attribution.text_maps[chunk], text.content), ids.masked_fill(text.content, clip.blank)
            of_text = judged(text, words, keep_words(ids, words, clip.blank), blanks, blanks)
            for modality, found in (("image", of_image), ("text", of_text)):
                for name, values in found.items():
                    rows += [(pair.id, modality, name, float(v), math.nan) for pair, v in zip(pairs[chunk], values, strict=True)]
    return tidy(rows, attribution.method)
