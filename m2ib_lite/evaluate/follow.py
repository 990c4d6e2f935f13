"""M2IB watched on its way: the maps and the two terms of the loss after each of some numbers of steps."""

from itertools import chain

import pandas as pd
import torch
from einops import rearrange

from ..attribution import Attribution
from ..bottleneck import START, capacity, descend, terms
from ..explain import cosine_to, noise_source
from ..hooks import frozen
from ..rivals import sides


def problem(side, layer):
    """What `explain` optimises in one tower: R (B, T, D), the cosine (S, B, T, D) -> (S, B), the valid positions (B, T)."""
    hidden, places = side.enter(layer + 1), torch.arange(side.content.shape[1], device=side.content.device)
    valid = torch.ones_like(side.content) if side.is_image else places <= side.pooled[:, None]
    return hidden, cosine_to(side.target, side.tower, layer, side.inputs), valid


def walk(side, steps, layer, beta, sigma2, samples, lr, seed):
    """After each of these numbers of steps: n, what each position keeps (B, T), the two terms on noise that was not fitted."""
    hidden, similarity, valid = problem(side, layer)
    shape = samples, valid.sum(dim=1).tolist(), hidden.shape[-1]
    draw, unseen = (noise_source(s, side.inputs, *shape) for s in (seed, seed + 1))
    noise = unseen()
    alphas = descend(hidden, similarity, valid, draw, beta=beta, sigma2=sigma2, lr=lr)
    for n, alpha in zip(range(max(steps) + 1), chain([torch.full_like(hidden, START)], alphas), strict=False):
        if n in steps:
            yield n, capacity(hidden, alpha, sigma2).sum(dim=-1), terms(hidden, alpha, similarity, valid, noise, beta, sigma2)


def follow(clip, pairs, modality, steps, layer, beta, sigma2, samples=10, lr=1.0, seed=0, batch_size=16):
    """The maps of one tower after each of these numbers of steps, those of `explain`, and the two terms of the loss there.

    modality: "image" or "text"; layer, beta, sigma2: that tower's; 0 steps is the start.  -> {n: Attribution without the
    other's maps}, and a DataFrame of pair, modality, steps, compression and fitting, as in bottleneck.terms.
    """
    maps, tokens, rows = {n: [] for n in steps}, [], []
    with frozen(clip.model):
        for start in range(0, len(pairs), batch_size):
            chunk = pairs[start : start + batch_size]
            image, text, words = sides(clip, [pair.image for pair in chunk], [pair.caption for pair in chunk])
            side, tokens = image if modality == "image" else text, tokens + words
            for n, scores, both in walk(side, steps, layer, beta, sigma2, samples, lr, seed):
                maps[n] += side.pick(scores)
                rows += [(pair.id, modality, n, *row) for pair, row in zip(chunk, torch.stack(both, dim=1).tolist(), strict=True)]
    table = pd.DataFrame(rows, columns=["pair", "modality", "steps", "compression", "fitting"])
    return {n: attribution_of(clip, pairs, modality, found, tokens) for n, found in maps.items()}, table


def attribution_of(clip, pairs, modality, found, tokens):
    """One vector (n,) a pair as an Attribution that has this modality's maps alone."""
    image_maps = rearrange(found, "b (gh gw) -> b gh gw", gh=clip.grid[0]) if modality == "image" else None
    text_maps = found if modality == "text" else None
    images, captions = [pair.image for pair in pairs], [pair.caption for pair in pairs]
    return Attribution(image_maps, text_maps, tokens, images, captions, [clip.view(image.size) for image in images])
