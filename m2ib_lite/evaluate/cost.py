"""What a method costs: passes through the towers, which are the same everywhere, and seconds, which are not."""

import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from functools import partial

import pandas as pd
import torch

from ..hooks import replace

MODALITIES, DIRECTIONS = ("image", "text"), ("forward", "backward")


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


def passes(method, clip, pair, **options):
    """How often one pair goes through each tower: a dict "image forward" ... "text backward" of runs of a block / blocks.

    A last block that runs for the pooled position alone counts whole.
    """
    with counted_blocks(clip) as runs:
        method(clip, pair.image, pair.caption, progress=False, **options)
    blocks = [len(tower.blocks) for tower in clip.towers]
    return {f"{m} {d}": runs[m, d] / n for m, n in zip(MODALITIES, blocks, strict=True) for d in DIRECTIONS}


def seconds(method, clip, pair, **options):
    """The wall clock time of one call for one pair, the device's queue emptied before and after."""
    wait = torch.cuda.synchronize if clip.device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    method(clip, pair.image, pair.caption, progress=False, **options)
    wait()
    return time.perf_counter() - start


def cost(methods, clip, pairs, repeats=3):
    """One row a pair and method: its passes and the median of its seconds over repeats, each of which asks all methods in turn.

    methods: {name: (method, options)}.  The passes are counted first, which warms up.  -> DataFrame
    """
    rows = []
    for pair in pairs:
        found = {name: passes(method, clip, pair, **options) for name, (method, options) in methods.items()}
        times = []
        for _ in range(repeats):
            times.append({name: seconds(method, clip, pair, **options) for name, (method, options) in methods.items()})
        median = pd.DataFrame(times).median()
        rows += [dict(pair=pair.id, method=name, **found[name], seconds=median[name]) for name in methods]
    return pd.DataFrame(rows)
