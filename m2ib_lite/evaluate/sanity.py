"""Do maps depend on what the model has learned?  The cascading randomisation of Adebayo et al. 2018 (paper, Figure 4)."""

from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from .. import metrics
from ..side import BAR_DELAY, MODALITIES, asked
from .attributions import METHODS
from .localise import tidy


def stages(tower):
    """What each stage randomises in a tower, by name, in order; each holds the ones before it.  -> {stage: modules}

    Of 6 blocks: "projection", into the shared space, SigLIP's head; "block 5", with the projection and the norm before it;
    "blocks 5-4" to "blocks 5-0", from the output down to a block; "random", every parameter, embeddings too.
    """
    last, found = len(tower.blocks) - 1, {"projection": [tower.project]}
    for lowest in range(last, -1, -1):
        name = f"block {last}" if lowest == last else f"blocks {last}-{lowest}"
        found[name] = [tower.project, tower.final_norm, *tower.blocks[lowest:]]
    return found | {"random": [tower.project, tower.model]}


def parameters(clip, stage, modality):
    """What a stage randomises in the tower of one modality, or in both.  ValueError where a tower has no such stage."""
    found = []
    for name, tower in zip(MODALITIES, clip.towers, strict=True):
        if modality in (name, "both"):
            known = stages(tower)
            if stage not in known:
                raise ValueError(f"the {name} tower of {clip.name} has no stage {stage!r}: give one of {', '.join(known)}")
            found += [weight for module in known[stage] for weight in module.parameters()]
    return found


@torch.no_grad()
def overwrite(weights, values):
    """Put values into weights, in place."""
    for weight, value in zip(weights, values, strict=True):
        weight.copy_(value)


@contextmanager
def randomised(clip, stage, modality="both", seed=0):
    """The clip with fresh weights in a stage of the cascade (see `stages`), drawn as its family draws them before training.

    modality: "image" or "text" leaves the other tower as it is.  A weight is redrawn alike in every stage of the same seed.
    In place, and each weight comes back bit for bit, whatever happens.  (Adebayo et al. 2018, section 3.1)
    ValueError where a tower has no such stage.
    """
    asked(modality)
    weights, fresh = (parameters(one, stage, modality) for one in (clip, clip.untrained(seed)))
    kept = [weight.detach().clone() for weight in weights]
    try:
        overwrite(weights, fresh)
        yield clip
    finally:
        overwrite(weights, kept)


def agreement(one, other, pairs):
    """How alike the maps of two attributions of the same pairs are.  -> tidy rows, under the name of the first one's method

    Spearman's correlation in each modality that both have, where a uniform map gets 0 and a caption of one word has no order and
    no row; for images also SSIM, of the heats over the image's pixels.
    """
    rows = []
    for i, pair in enumerate(pairs):
        if one.image_maps is not None and other.image_maps is not None:
            heats, maps = (one.heat(i), other.heat(i)), (one.image_maps[i].cpu(), other.image_maps[i].cpu())
            rows.append((pair.id, "image", "Spearman", metrics.rank_correlation(*maps), 0.0))
            uniform = metrics.structural_similarity(heats[0], np.zeros_like(heats[0]))
            rows.append((pair.id, "image", "SSIM", metrics.structural_similarity(*heats), uniform))
        if one.text_maps is not None and other.text_maps is not None and len(one.text_maps[i]) > 1:
            correlation = metrics.rank_correlation(one.text_maps[i].cpu(), other.text_maps[i].cpu())
            rows.append((pair.id, "text", "Spearman", correlation, 0.0))
    return tidy(rows, one.method)


def cascade(clip, pairs, originals, modality, seed=0, options=None, only=None):
    """How alike the maps of the model are to those of the model with more and more of one tower randomised, stage by stage.

    originals: the Attribution of each method of the model as it is; options: {method: its options}, those the originals were made
    with.  modality: "image" or "text", the tower that is randomised and whose maps are compared.  only: some of the stages.
    -> tidy rows with their stage
    """
    images, captions, tables = [pair.image for pair in pairs], [pair.caption for pair in pairs], []
    names = only or stages(clip.image if modality == "image" else clip.text)
    for stage in tqdm(names, desc=f"{modality} tower", unit="stage", delay=BAR_DELAY):
        with randomised(clip, stage, modality, seed):
            for one in originals:
                own = (options or {}).get(one.method, {})
                other = METHODS[one.method](clip, images, captions, progress=False, modality=modality, **own)
                tables.append(agreement(one, other, pairs).assign(stage=stage))
    return pd.concat(tables, ignore_index=True)
