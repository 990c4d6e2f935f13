"""What a method costs: passes through the towers, which are the same everywhere, and seconds, which are not."""

import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from functools import partial

import pandas as pd
import torch

from ..hooks import replace
from ..side import MODALITIES

DIRECTIONS = ("forward", "backward")


@contextmanager
def counted_blocks(clip):
    """Count what runs inside the block: a Counter of (modality, direction), a run of one block on one input each."""
    runs = Counter()

    def count(modality, output):
        runs[modality, "forward"] += len(output)
        if output.requires_grad:
            output.register_hook(lambda slope: runs.update({(modality, "backward"): len(slope)}))
        return output

    with ExitStack() as stack:
        for modality, tower in zip(MODALITIES, clip.towers, strict=True):
            for block in tower.blocks:  # each passes its second layer norm once, also where a method opens it up
                stack.enter_context(replace(block.layer_norm2, partial(count, modality)))
        yield runs


def cost_of_one(method, clip, pair, **options):
    """What one call for one pair takes: runs of a block / blocks as "image forward" ... "text backward", and "seconds".

    A last block that runs for the pooled position alone counts whole.  The clock waits for a GPU; counting adds next to nothing.
    """
    wait = torch.cuda.synchronize if clip.device.type == "cuda" else lambda: None
    with counted_blocks(clip) as runs:
        wait()
        start = time.perf_counter()
        method(clip, pair.image, pair.caption, progress=False, **options)
        wait()
        seconds = time.perf_counter() - start
    blocks = [len(tower.blocks) for tower in clip.towers]
    passes = {f"{m} {d}": runs[m, d] / n for m, n in zip(MODALITIES, blocks, strict=True) for d in DIRECTIONS}
    return dict(**passes, seconds=seconds)


def cost(methods, clip, pairs):
    """One row a pair and method, as in `cost_of_one`; the methods take turns, so that a slow moment meets all of them.

    methods: {name: (method, options)}.  The first pair goes once more before all, to warm up.  -> DataFrame
    """
    rows = []
    for pair in [pairs[0], *pairs]:
        for name, (method, options) in methods.items():
            rows.append(dict(pair=pair.id, method=name, **cost_of_one(method, clip, pair, **options)))
    return pd.DataFrame(rows[len(methods) :])
