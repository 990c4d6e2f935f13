"""The scores of some pairs by some methods; what goes wrong with one pair becomes a row that says so."""

import errno
import warnings
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pandas as pd
import torch
from PIL import Image

from ..data import Pair
from ..evaluate import METHODS, confidence, localisation, occurrences
from ..models import Clip

OF_THE_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE}


def scores(clip, name, pairs, options):
    """Every metric that looks at a pair alone, of one method's maps: tidy rows.  ValueError where a map is not finite."""
    attribution = METHODS[name](clip, pairs, batch_size=len(pairs), progress=False, **options)
    if not all(maps.isfinite().all() for maps in (attribution.image_maps, *(attribution.text_maps or []))):
        raise ValueError(f"a map of {name} is not finite: take dtype float32")
    masks = localisation(attribution, pairs, "masks").query("modality == 'image'")
    masks = masks.assign(metric=masks["metric"] + " of masks")
    cosines = dict(value=attribution.similarity.tolist(), chance=attribution.others.mean(dim=1).tolist(), method=attribution.method)
    similarity = pd.DataFrame(dict(pair=[pair.id for pair in pairs], modality="pair", metric="similarity", **cosines))
    tables = [localisation(attribution, pairs), masks, occurrences(attribution, pairs), similarity]
    tables.append(confidence(clip, attribution, pairs, batch_size=len(pairs)))
    return pd.concat([table for table in tables if len(table)])


def failure(pair_id, error, method=None):
    """The row of a pair that has no scores by one method, or could not be read.  A fault of the machine is raised again."""
    numbers = {getattr(e, "errno", None) for e in (error, error.__cause__)}
    if isinstance(error, torch.AcceleratorError | MemoryError) or OF_THE_MACHINE & numbers:
        raise error
    return pd.DataFrame([dict(pair=pair_id, method=method, error=f"{type(error).__name__}: {error}")])


def read(data, places):
    """The pairs of (id, place); of one that cannot be read, `failure`."""
    found = []
    for pair_id, place in places:
        try:
            found.append(data[place])
        except Exception as error:
            found.append(failure(pair_id, error))
    return found


@dataclass
class Scorer:
    """options: those of each method, by name.  batch_size: pairs at once; it shrinks where the device has not enough memory."""

    clip: Clip
    options: dict[str, dict]
    batch_size: int

    def try_out(self):
        """Each method on a gray ramp, so that what would fail for every pair fails before the first."""
        pair = Pair(Image.linear_gradient("L").convert("RGB"), "a")
        for name, options in self.options.items():
            scores(self.clip, name, [pair], options)

    def table(self, data, places, done):
        """The rows of the pairs of data at some places, pair by pair; done(n) is told of every n pairs.  -> DataFrame"""
        ids, tables = data.ids[places.start : places.stop], []
        with warnings.catch_warnings(record=True) as caught, ThreadPoolExecutor(1) as reader:
            for batch in self.batches(reader, data, deque(zip(ids, places, strict=True))):
                pairs = [pair for pair in batch if isinstance(pair, Pair)]
                tables += [bad for bad in batch if not isinstance(bad, Pair)]
                tables += [table for name in self.options for table in self.scored(name, pairs)]
                done(len(batch))
        if caught:
            warnings.warn(f"{len(caught)} warnings from {ids[0]} to {ids[-1]}, the last: {caught[-1].message}", stacklevel=2)
        return pd.concat(tables).set_index("pair").loc[ids].reset_index()

    def batches(self, reader, data, waiting):
        """What `read` finds, a batch at a time, each read by the reader's thread while the one before is at work."""

        def submit():
            return reader.submit(read, data, [waiting.popleft() for _ in range(min(self.batch_size, len(waiting)))])

        coming = submit()
        while now := coming.result():
            coming = submit()
            yield now

    def scored(self, name, pairs):
        """The tables of one method, of halves where memory does not suffice for all, of one pair each where one is bad."""
        try:
            return [scores(self.clip, name, pairs, self.options[name])] if pairs else []
        except Exception as error:
            problem, size = failure(pairs[0].id, error, name), 1
            if isinstance(error, torch.OutOfMemoryError):
                size = max(1, len(pairs) // 2)
                self.batch_size = min(self.batch_size, size)
        if len(pairs) == 1:
            return [problem]
        torch.cuda.empty_cache()  # here, where no traceback holds on to tensors any more
        parts = [pairs[start : start + size] for start in range(0, len(pairs), size)]
        return [table for part in parts for table in self.scored(name, part)]
