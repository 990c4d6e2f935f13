"""How much the pair's cosine keeps or loses where the input is degraded by its own map.

Pixels are normalised, so that 0 is the channel mean.  A word that is taken out becomes the blank (padding) token; BOS and EOS stay,
and the embedding is read where the whole caption's was.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange

from .. import metrics
from ..hooks import frozen
from ..options import check_positive
from ..side import sides
from .localise import check_captions, tidy, unit_maps

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
    """Gaussian blur of `sigma` pixels, the borders repeated.  (B, 3, n, n) -> same"""
    n, reach, device = pixels.shape[-1], math.ceil(3 * sigma), pixels.device
    steps = torch.arange(-reach, reach + 1, device=device)
    bell = torch.exp(-0.5 * (steps / sigma) ** 2)
    sources = (torch.arange(n, device=device)[:, None] + steps).clamp(0, n - 1)  # what lies beyond the ends counts as the ends
    mix = torch.zeros(n, n, device=device).scatter_add(1, sources, (bell / bell.sum()).expand(n, -1)).to(pixels.dtype)
    return mix @ pixels @ mix.mT  # a convolution as wide as this is many times slower


def cosine(side, inputs):
    """y of each pair for other inputs of the same captions or images, read where their own embedding is.  -> (B,)"""
    return side.score(side.tower.embed(inputs), -1)


def curve(side, scores, start, end):
    """y of B pairs while positions go from their `start` to their `end` input in STEPS equal steps, the highest scores first, equal
    ones in reading order.  scores: (B, n) of the side's patches or tokens, NaN where nothing changes.  -> (B, STEPS + 1)"""
    order = scores.nan_to_num(-torch.inf).argsort(dim=1, descending=True, stable=True)
    ranks, counts = order.argsort(dim=1), (~scores.isnan()).sum(dim=1, keepdim=True)
    if side.is_image:
        patches = rearrange(ranks, "b (gh gw) -> b 1 gh gw", gh=side.clip.grid[0])
        ranks, counts = F.interpolate(patches.float(), start.shape[-2:]), counts[..., None, None]
    steps = (end.where(ranks * STEPS < step * counts, start) for step in range(STEPS + 1))
    return torch.stack([cosine(side, inputs) for inputs in steps], dim=1)


def judged(side, ids, scores, kept, removed, hidden):
    """Rows of one tower's maps.  kept: inputs with only the important; removed, hidden: where deletion ends, insertion starts."""
    before, after = (cosine(side, inputs).cpu() for inputs in (side.inputs, kept))
    deletion, insertion = curve(side, scores, side.inputs, removed), curve(side, scores, hidden, side.inputs)
    found = {"drop": metrics.drop(before, after), "increase": metrics.increase(before, after)}
    found |= {"deletion AUC": metrics.area_under(deletion.cpu()), "insertion AUC": metrics.area_under(insertion.cpu())}
    for name, values in found.items():
        yield from ((pair, side.modality, name, float(value), torch.nan) for pair, value in zip(ids, values, strict=True))


def confidence(clip, attribution, pairs, batch_size=32):
    """What the maps of `pairs` are worth to the model: a tidy table of pair, modality, metric, value, chance, method.

    drop, increase, in percent: pixels times the map of `unit_maps`, words from the median up.  In cosine, deletion AUC (lower is
    better): patches go to the channel mean, words to the blank, the most important first, in 10 equal steps; insertion AUC (higher
    is better): they come back, from a blur as wide as a patch or from blanks.  chance: not known, NaN; see the random control.
    batch_size bounds the memory.  ValueError for a bad one, or for other pairs than the attribution's.
    """
    check_positive(batch_size=batch_size)
    check_captions(attribution, [pair.caption for pair in pairs])
    ids, unit, rows = [pair.id for pair in pairs], unit_maps(attribution), []
    with torch.no_grad(), frozen(clip.model):
        for start in range(0, len(ids), batch_size):
            chunk = slice(start, start + batch_size)
            image, text, _ = sides(clip, attribution.images[chunk], attribution.captions[chunk])
            pixels, words = image.inputs, text.inputs
            kept, blurred = keep_pixels(pixels, unit.image_maps[chunk]), blur(pixels, sigma=pixels.shape[-1] / clip.grid[1])
            rows += judged(image, ids[chunk], attribution.image_maps[chunk].flatten(1), kept, 0 * pixels, blurred)
            if attribution.text_maps is not None:  # LeGrad has none
                scores, blanks = spread(attribution.text_maps[chunk], text.content), words.masked_fill(text.content, clip.blank)
                rows += judged(text, ids[chunk], scores, keep_words(words, scores, clip.blank), blanks, blanks)
    return tidy(rows, attribution.method)
