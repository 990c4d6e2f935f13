"""A run over a large data set: what it depends on, its shards in order, its summary."""

from importlib.metadata import version
from pathlib import Path

import torch
from tqdm.auto import tqdm

from ..data import load_pairs
from ..data.load import name_of
from ..evaluate import METHODS, digest, method_options, sources
from ..models import load_model
from ..side import check_positive
from . import store
from .scoring import Scorer
from .summary import summarise

LIBRARIES = ("captum", "numpy", "pillow", "scikit-image", "scikit-learn", "scipy", "torch", "transformers")


def named(methods):
    """Names of methods in any case -> those of METHODS, in its order.  ValueError for an unknown one."""
    known, wanted = {name.lower(): name for name in METHODS}, [name.strip().lower() for name in methods]
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise ValueError(f"no method {', '.join(map(repr, unknown))}: there are {', '.join(known)}")
    return [name for name in METHODS if name.lower() in wanted]


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
    **ours,
):
    """Every metric of `scores` for every pair of `data` and every method, into the folder `out`; goes on where a run was cut off.

    model, tokenizer, device, dtype: as load_model; data (rows: image, caption), count, seed, root: as load_pairs; ours: as explain.
    Memory is bounded by the `shard` pairs that are written at once.  out/scores holds the rows, those of `tidy` with an error:
    a bad pair has one that says why.  out/manifest.json: what they depend on.  Stopped at any moment, even by a crash of the
    machine, and called again, it ends with the rows of an unbroken run; broken files are made again.  -> `summarise`, the means
    also in summary.csv
    ValueError for a bad option, another run at work in `out`, or one there that depends on something else; OSError for a full disk.
    """
    names, folder = named(methods), Path(out)
    check_positive(batch_size=batch_size, shard=shard)
    if ours and "M2IB" not in names:
        raise ValueError(f"{', '.join(ours)}: only M2IB takes that, so add m2ib to the methods")
    options = {name: options for name, options in method_options(seed, **ours).items() if name in names}
    pairs, clip = load_pairs(data, count, seed, root), load_model(str(model), device, getattr(torch, dtype), tokenizer)
    places = dict(model=model, tokenizer=tokenizer, data=name_of(data), root=root)
    settings = {name: place and str(place) for name, place in places.items()} | dict(seed=seed, dtype=dtype)
    settings |= dict(batch_size=batch_size, shard=shard, methods=options)
    with store.only_run(folder):
        store.settle(folder, {**settings, **circumstances(clip, pairs)})
        files = store.shards(folder, len(pairs), shard)
        fill(files, pairs, Scorer(clip, options, batch_size))
        summary, bad = summarise(store.read_shard(path)[0] for path in files)
        store.write_whole(folder / "summary.csv", summary.to_csv(index=False).encode())
    return summary, bad


def circumstances(clip, pairs):
    """What scores depend on besides the settings: the contents of the model and the data, the kind of device, the code."""
    contents = {"model digest": digest(clip, {}), "pairs": len(pairs), "data digest": pairs.digest()}
    return {**contents, "device": clip.device.type, "code": sources(), **{library: version(library) for library in LIBRARIES}}


def fill(files, pairs, scorer):
    """Make the shards that are missing or broken, in order; one starts with the batch size that the one before ended with."""
    sizes = {path: store.read_shard(path)[1] for path in files}
    there = sum(len(places) for path, places in files.items() if sizes[path])
    print(f"{there} of {len(pairs)} pairs are there", flush=True)
    if not there:
        scorer.try_out()
    with tqdm(total=len(pairs), initial=there, unit="pair") as bar:
        for path, places in files.items():
            if not sizes[path]:
                table = scorer.table(pairs, places, bar.update)
                store.write_shard(path, table, scorer.batch_size)
            scorer.batch_size = sizes[path] or scorer.batch_size
