"""The scores of some pairs by some methods; what goes wrong with one pair becomes a row that says so."""

import errno
import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from PIL import Image

from ..data import Pair
from ..evaluate import METHODS, confidence, localisation, occurrences
from ..models import Clip

OF_THE_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE}


def scores(clip, name, pairs, options):
    """Every metric that looks at a pair alone, of one method's maps: tidy rows.  ValueError where a map is not finite.

    Confidence for all pairs; localisation and occurrences where boxes are known, " of masks" where masks are.
    """
    images, captions = [pair.image for pair in pairs], [pair.caption for pair in pairs]
    attribution = METHODS[name](clip, images, captions, batch_size=len(pairs), progress=False, **options)
    if not all(maps.isfinite().all() for maps in (attribution.image_maps, *attribution.text_maps)):
        raise ValueError(f"a map of {name} is not finite: take dtype float32")
    masks = localisation(attribution, pairs, "masks").query("modality == 'image'")
    masks = masks.assign(metric=masks["metric"] + " of masks")
    tables = [localisation(attribution, pairs), masks, occurrences(attribution, pairs)]
    tables.append(confidence(clip, attribution, pairs, batch_size=len(pairs)))
    return pd.concat([table for table in tables if len(table)])


def failure(pair_id, error, method=None):
    """The row of a pair without scores: by one method, or, where it could not be read, by all."""
    return pd.DataFrame([dict(pair=pair_id, method=method, error=error)])


def described(error):
    """What a row says of an exception; raises it again where it is no fault of a pair but of the machine, which another start may
    find well: a full disk or memory, too many open files, a broken device."""
    numbers = {getattr(e, "errno", None) for e in (error, error.__cause__)}
    if isinstance(error, torch.AcceleratorError | MemoryError) or OF_THE_MACHINE & numbers:
        raise error
    return f"{type(error).__name__}: {error}"


@dataclass
class Scorer:
    """options: those of each method, by name.  batch_size: of the pairs that are read and explained at once; it shrinks where
    the device has not enough memory."""

    clip: Clip
    options: dict[str, dict]
    batch_size: int

    def try_out(self):
        """Each method on noise, so that what would fail for every pair fails before the first."""
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        for name, options in self.options.items():
            scores(self.clip, name, [Pair(Image.fromarray(noise), "a")], options)

    def table(self, data, places, done):
        """The rows of the pairs of data at some places, pair by pair; done(n) is told of every n pairs.  -> DataFrame"""
        ids = data.ids[places.start : places.stop]
        tables, waiting = [], list(zip(ids, places, strict=True))
        with warnings.catch_warnings(record=True) as caught:
            while waiting:
                now, waiting = waiting[: self.batch_size], waiting[self.batch_size :]
                pairs, failures = read(data, now)
                tables += failures + [table for name in self.options for table in self.tables(name, pairs)]
                done(len(now))
        if caught:
            message = f"{len(caught)} warnings in the pairs from {ids[0]} to {ids[-1]}, the last: {caught[-1].message}"
            warnings.warn(message, stacklevel=2)
        order = {pair_id: rank for rank, pair_id in enumerate(ids)}
        return pd.concat(tables).sort_values("pair", key=lambda pair: pair.map(order), kind="stable", ignore_index=True)

    def tables(self, name, pairs):
        """The tables of one method, of halves where memory does not suffice for all, of one pair each where one is bad."""
        if not pairs:
            return []
        try:
            return [scores(self.clip, name, pairs, self.options[name])]
        except torch.OutOfMemoryError as error:
            problem, size = described(error), max(1, len(pairs) // 2)
            self.batch_size = min(self.batch_size, size)
        except Exception as error:
            problem, size = described(error), 1
        if len(pairs) == 1:
            return [failure(pairs[0].id, problem, name)]
        torch.cuda.empty_cache()  # here, where no traceback holds on to tensors any more
        parts = [pairs[start : start + size] for start in range(0, len(pairs), size)]
        return [table for part in parts for table in self.tables(name, part)]


def read(data, places):
    """(id, place) of some pairs -> the pairs, and a table for each that could not be read"""
    pairs, failures = [], []
    for pair_id, i in places:
        try:
            pairs.append(data[i])
        except Exception as error:
            failures.append(failure(pair_id, described(error)))
    return pairs, failures
