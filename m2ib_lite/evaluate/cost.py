"""What a method costs: passes through the towers, which are the same everywhere, and seconds, which are not."""

import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from functools import partial

import pandas as pd
import torch

from ..hooks import replace
from ..side import MODALITIES


@contextmanager
def counted_blocks(clip):
    """Count what runs inside the block: a Counter of (modality, "forward" or "backward"), one for one block on one input."""
    runs = Counter()

    def count(modality, output):
        runs[modality, "forward"] += len(output)
        if output.requires_grad:
            output.register_hook(lambda slope: runs.update({(modality, "backward"): len(slope)}))

    with ExitStack() as stack:
        for modality, tower in zip(MODALITIES, clip.towers, strict=True):
            for block in tower.blocks:  # each passes its second layer norm once, also where a method opens it up
                stack.enter_context(replace(block.layer_norm2, partial(count, modality)))
        yield runs


def cost_of_one(method, clip, pair, **options):
    """What one call for one pair takes: "seconds", and runs of a block / blocks as "image forward" ... "text backward", where the
    last block counts whole if it runs for the pooled position alone."""
    clip.embed_others()  # a model's work, not a pair's: done once
    wait = torch.cuda.synchronize if clip.device.type == "cuda" else lambda: None  # the clock waits for a GPU
    with counted_blocks(clip) as runs:
        wait()
        start = time.perf_counter()
        method(clip, pair, progress=False, **options)
        wait()
        seconds = time.perf_counter() - start
    passes = {}
    for modality, tower in zip(MODALITIES, clip.towers, strict=True):
        passes |= {f"{modality} {way}": runs[modality, way] / len(tower.blocks) for way in ("forward", "backward")}
    return dict(**passes, seconds=seconds)


def cost(methods, clip, pairs):
    """One row a pair and method, as in `cost_of_one`, of methods {name: (method, options)}.  They take turns, so that a slow moment
    meets all of them; the first pair goes once more before all, to warm up.  -> DataFrame"""
    turns = [(pair, *method) for pair in [pairs[0], *pairs] for method in methods.items()]
    rows = [dict(pair=pair.id, method=name, **cost_of_one(call, clip, pair, **options)) for pair, name, (call, options) in turns]
    return pd.DataFrame(rows[len(methods) :])
