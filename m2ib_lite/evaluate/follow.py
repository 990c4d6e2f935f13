"""M2IB watched on its way: the maps and the two terms of the loss after each of some numbers of steps."""

from dataclasses import replace

import pandas as pd
import torch

from ..bottleneck import capacity, descend, terms
from ..explain import noise_source, problem
from ..side import MODALITIES, attribute_sides


def follow(clip, pairs, modality, steps, layer, beta, sigma2, lr=1.0, seed=0, standardise=False, batch_size=16, **noise):
    """The maps of one tower after each of these numbers of steps, those of `explain`, and the two terms of the loss there.

    modality: "image" or "text"; layer, beta, sigma2, standardise: that tower's; noise: samples=10, antithetic=False; 0 steps is
    the start.  The terms are of noise that was not fitted.  -> {n: Attribution without the other's maps}, and a DataFrame of pair,
    modality, steps, compression and fitting, as in bottleneck.terms.
    """
    maps, losses = {n: [] for n in steps}, {n: [] for n in steps}
    loss = dict(beta=beta, sigma2=sigma2)

    def find(side):
        hidden, similarity, valid = problem(side, standardise)
        draw, unseen = (noise_source(s, side.inputs, valid, hidden.shape[-1], **noise) for s in (seed, seed + 1))
        fresh = unseen()
        for n, alpha in zip(range(max(steps) + 1), descend(hidden, similarity, valid, draw, **loss, lr=lr), strict=False):
            if n in maps:
                maps[n] += side.pick(capacity(hidden, alpha, sigma2).sum(dim=-1))
                losses[n] += torch.stack(terms(hidden, alpha, similarity, valid, fresh, **loss), dim=1).tolist()
        return maps[n][-len(side.hidden) :]

    kind = dict(layers=[layer if name == modality else 0 for name in MODALITIES], method="M2IB", unit="nats")
    found = attribute_sides(find, clip, pairs, None, batch_size, False, modality, **kind)
    rows = [(pair.id, modality, n, *both) for n in steps for pair, both in zip(pairs, losses[n], strict=True)]
    table = pd.DataFrame(rows, columns=["pair", "modality", "steps", "compression", "fitting"])
    if modality == "image":
        maps = {n: torch.stack(rows).view_as(found.image_maps) for n, rows in maps.items()}
    return {n: replace(found, **{f"{modality}_maps": rows}) for n, rows in maps.items()}, table
