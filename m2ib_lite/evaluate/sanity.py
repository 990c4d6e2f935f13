"""Do maps depend on what the model has learned?  The cascading randomisation of Adebayo et al. 2018 (paper, Figure 4)."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from .. import metrics
from ..side import BAR_DELAY, asked
from .attributions import METHODS
from .localise import check_captions, tidy


def stages(tower):
    """What each stage randomises in a tower, in order, with all before it: "projection", into the shared space, SigLIP's head; of 6
    blocks "block 5" and the norm after it, "blocks 5-4" to "blocks 5-0"; "random", embeddings too.  -> {stage: modules}"""
    last, top = len(tower.blocks) - 1, [tower.project, tower.final_norm]
    found = {"projection": [tower.project], f"block {last}": [*top, tower.blocks[last]]}
    found |= {f"blocks {last}-{lowest}": [*top, *tower.blocks[lowest:]] for lowest in reversed(range(last))}
    return found | {"random": [tower.project, tower.model]}


def parameters(clip, stage, modality):
    """What a stage randomises in the tower of one modality, or in both.  ValueError where a tower has no such stage."""
    found = []
    for name in asked(modality):
        known = stages(getattr(clip, name))
        if stage not in known:
            raise ValueError(f"the {name} tower of {clip.name} has no stage {stage!r}: give one of {', '.join(known)}")
        found += [weight.detach() for module in known[stage] for weight in module.parameters()]
    return found


@contextmanager
def randomised(clip, stage, modality="both", seed=0):
    """The clip with fresh weights in one of the `stages`, as its family draws them; a weight is the same in each stage of a seed.

    modality: "image" or "text" leaves the other tower as it is.  In place; each weight comes back bit for bit, whatever happens.
    ValueError where a tower has no such stage.  (Adebayo et al. 2018, section 3.1)
    """
    weights, fresh = (parameters(one, stage, modality) for one in (clip, clip.untrained(seed)))
    kept = [weight.clone() for weight in weights]
    try:
        for weight, drawn in zip(weights, fresh, strict=True):
            weight.copy_(drawn)
        yield clip
    finally:
        for weight, own in zip(weights, kept, strict=True):
            weight.copy_(own)


def agreement(one, other, pairs):
    """How alike the maps of two attributions of the same pairs are.  -> tidy rows, under the name of the first one's method

    Spearman's correlation in each modality that both have, where a uniform map gets 0 and a caption of one word has no row; for
    images also SSIM, of the heats.  ValueError for other pairs; image maps without words may be of other captions, as a control.
    """
    check_captions(one, [pair.caption for pair in pairs])
    check_captions(replace(other, captions=one.captions) if other.text_maps is None else other, one.captions)
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

    originals: the Attribution of these pairs by each method, the model as it is; options: {method: those it was made with}.
    modality: "image" or "text", the tower that is randomised and compared.  only: some stages.  -> tidy rows with their stage
    """
    tables = []
    for stage in tqdm(only or stages(getattr(clip, modality)), desc=f"{modality} tower", unit="stage", delay=BAR_DELAY):
        with randomised(clip, stage, modality, seed):
            for one in (one for one in originals if getattr(one, f"{modality}_maps") is not None):
                own = (options or {}).get(one.method, {})
                other = METHODS[one.method](clip, pairs, progress=False, modality=modality, **own)
                tables.append(agreement(one, other, pairs).assign(stage=stage))
    return pd.concat(tables, ignore_index=True)
