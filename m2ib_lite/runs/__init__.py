"""Every metric for every pair of a large data set, written as it comes; a run that was killed goes on where it was."""

from functools import partial, reduce
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from ..data import load_pairs
from ..data.load import SHIPPED, name_of
from ..evaluate import digest, method_options, sources, versions
from ..metrics import t_interval
from ..models import load_model
from ..options import check_positive
from ..rivals import RIVALS
from . import store
from .cluster import spread
from .scoring import Scorer


def evaluate_data(
    model,
    data,
    out,
    methods=("M2IB",),
    count=None,
    seed=0,
    root=None,
    tokenizer=None,
    device="auto",
    dtype="float32",
    batch_size=8,
    shard=100,
    ray=None,
    workers=None,
    **ours,
):
    """Every metric of `scores` for every pair and method, as the folder `out`; called again, a run goes on where it was cut off.

    model, tokenizer, device, dtype: as load_model; data, count, seed (of the noise too), root: as load_pairs; ours: as explain.
    ray: "local", or the address of a Ray cluster that reads model and data by the same paths; workers: there, unless one a GPU.
    ValueError for a bad option, or a run in `out` at work or begun with others; OSError for a full disk.  -> `summarise`
    """
    check_positive(batch_size=batch_size, shard=shard, workers=workers or 1)
    if workers and not ray:
        raise ValueError(f"workers is {workers}: give ray, too, local or the address of a cluster")
    drawn = not (isinstance(data, str) and data in SHIPPED)  # what is shipped has a seed of its own
    pairs = load_pairs(data, count, seed if drawn else None, root)
    source = str(model), device, getattr(torch, dtype), tokenizer
    clip, folder = load_model(*source), Path(out)
    options = chosen(clip, methods, seed, ours)
    given = dict(model=model, tokenizer=tokenizer, data=name_of(data), root=root, seed=seed, dtype=dtype, batch_size=batch_size)
    make = partial(spread, model=source, address=ray, workers=workers) if ray else in_order
    with store.only_run(folder):
        store.settle(folder, given | dict(shard=shard, methods=options) | depends_on(clip, pairs))
        files = fill(folder / store.SCORES, pairs, shard, Scorer(clip, options, batch_size), make)
        summary, bad = summarise(store.read_shard(path)[0] for path in files)
        with store.written_whole(folder / "summary.csv") as part:
            summary.to_csv(part, index=False)
        return summary, bad


def depends_on(clip, pairs):
    """What scores depend on besides the options: the model, the pairs, the code of this package and of the libraries."""
    of_model = {"device": clip.device.type, "model digest": digest(clip, {})}
    return of_model | {"pairs": len(pairs), "data digest": pairs.digest(), "code": sources()} | versions()


def chosen(clip, methods, seed, ours):
    """The methods of these names, in any case.  -> {name: options}; ValueError for an unknown one, or M2IB's options without it."""
    wanted, known = [name.strip().lower() for name in methods], ["m2ib", *RIVALS]
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise ValueError(f"no method {', '.join(map(repr, unknown))}: there are {', '.join(known)}")
    if ours and "m2ib" not in wanted:
        raise ValueError(f"{', '.join(ours)}: only M2IB takes that, so add m2ib to the methods")
    options = dict(zip(known, method_options(clip, "best", seed, **ours).items(), strict=True))
    return dict(options[name] for name in known if name in wanted)


def fill(folder, pairs, shard, scorer, make):
    """Make the shards that are missing or broken.  make: `in_order` or `spread`  -> the files of all"""
    files = {folder / f"{n:09d}.parquet": range(len(pairs))[n : n + shard] for n in range(0, len(pairs), shard)}
    sizes = {path: store.read_shard(path)[1] for path in files}
    there = sum(len(places) for path, places in files.items() if sizes[path])
    print(f"{there} of {len(pairs)} pairs are there", flush=True)
    if not there:
        scorer.try_out()
    with tqdm(total=len(pairs), initial=there, unit="pair") as bar:
        for path, table, batch_size in make(files, sizes, pairs, scorer, done=bar.update):
            store.write_shard(path, table, batch_size)
    return list(files)


def in_order(files, sizes, pairs, scorer, done):
    """The shards without a size, one by one; each starts with the batch size that the one before ended with.

    files: {path: places of its pairs}.  sizes: {path: batch size}.  done(n) is told of every n pairs.  -> path, scores, batch size
    """
    for path, places in files.items():
        if not sizes[path]:
            yield path, scorer.table(pairs, places, done), scorer.batch_size
        scorer.batch_size = sizes[path] or scorer.batch_size


def sums(table):
    """A shard's number, sum and sum of squares by method and metric, also of M2IB less each rival; its bad pairs by method."""
    scores, bad = table[table["error"].isna()], table[table["error"].notna()].fillna({"method": "not read"})
    index = ["pair", "modality", "metric"]
    wide = scores.pivot(index=index, columns="method", values="value")
    if "M2IB" in wide:
        above = wide.drop(columns="M2IB").rsub(wide["M2IB"], axis=0).add_prefix("M2IB - ")
        scores = pd.concat([scores, above.reset_index().melt(index, var_name="method").dropna()])
    groups = scores.assign(square=scores["value"] ** 2).groupby(["method", "modality", "metric"])
    found = groups.agg(pairs=("value", "count"), total=("value", "sum"), squares=("square", "sum"))
    return found, bad.groupby("method")["pair"].nunique()


def summarise(tables):
    """Means with 95% t intervals, of "M2IB - rival" those of a paired t test, from the tables of the shards, one at a time.
    -> DataFrame of method, modality, metric, pairs, mean, low, high; the number of bad pairs by method"""
    found, bad = reduce(lambda a, b: [x.add(y, fill_value=0) for x, y in zip(a, b, strict=True)], map(sums, tables))
    mean = found["total"] / found["pairs"]
    variance = (found["squares"] - found["pairs"] * mean**2) / (found["pairs"] - 1)
    low, high = t_interval(mean, np.sqrt(variance.clip(lower=0)), found["pairs"])  # rounding takes a constant's below 0
    return pd.DataFrame(dict(pairs=found["pairs"].astype(int), mean=mean, low=low, high=high)).reset_index(), bad.astype(int)
