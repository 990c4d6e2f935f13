"""One function for all data: shipped, listed in a table, in shards, on the hub, or rows in memory."""

import re
import warnings
from dataclasses import replace
from importlib.util import find_spec
from numbers import Integral
from pathlib import Path

import numpy as np

from ..models import TESTBED
from .pairs import Pairs
from .records import as_records
from .shards import read_hub, read_rows, read_shard
from .tables import MS_CXR, csv_rows, json_rows, phrases, tsv_rows

SHIPPED = ("scenes", "radiographs", "retrieval")  # folders beside the models, drawn with SEED by data/testbed/draw.py
SEED = 1
TABLES = ("metadata.jsonl", "metadata.csv", "captions.csv", "captions.jsonl")  # what a folder is looked through for
READERS = {".csv": csv_rows, ".jsonl": json_rows, ".tsv": tsv_rows}
SHARDS = (".parquet", ".tar")


def load_pairs(source, count=None, seed=None, root=None, image="image", caption="caption"):
    """Pairs of an image and a caption, each read when it is asked for.  -> Pairs

    source: "scenes", "radiographs" or "retrieval", which are shipped; "photographs", which installed packages bring; a table .csv,
    .jsonl or .tsv, a shard .parquet or .tar, or a folder of either (README's table says what is in them); a hub name "owner/name",
    or "owner/name:split"; rows, such as a `datasets.Dataset` or a list of dicts.  image, caption: the names of those columns.
    count: so many of them, fewer being a warning: of what is shipped the first, else drawn with `seed` (0 unless given) and left
    in their order; all unless given.  root: the folder that paths are relative to, the table's own unless given.
    OSError, ValueError or TypeError where nothing in the source can be read; a bad pair is an error when it is asked for.
    """
    if count is not None and (not isinstance(count, Integral) or count < 1):
        raise ValueError(f"count is {count!r}: give a whole number above zero, or None for all")
    if seed is not None and (not isinstance(seed, Integral) or seed < 0):
        raise ValueError(f"seed is {seed!r}: give a whole number, zero or more")
    shipped = isinstance(source, str) and source in SHIPPED
    if shipped and seed not in (None, SEED):
        command = f"python data/testbed/draw.py {source} --seed {seed} --count {count or 100} --out FOLDER"
        raise ValueError(f"{source} are shipped as drawn with seed {SEED}: draw others with `{command}`, and give the folder")
    records = find_records(source, root and Path(root), image, caption)
    if not records:
        raise ValueError(f"{name_of(source)} has no pairs: give it at least one")
    if count and count > len(records):
        warnings.warn(f"{name_of(source)} has {len(records)} pairs, not {count}: all of them are taken", stacklevel=2)
    order = np.arange(len(records)) if shipped else np.random.default_rng(seed or 0).permutation(len(records))
    return Pairs([records[i] for i in np.sort(order[:count])])


def find_records(source, root, image, caption):
    """What the pairs of a source are read from: a list of records."""
    if not isinstance(source, str | Path):
        if not (hasattr(source, "__len__") and hasattr(source, "__getitem__")):
            raise TypeError(f"pairs come from a path or from rows with a length, not from {type(source).__name__}")
        return read_rows(source, image, caption, folder=root)
    if source == "photographs":
        return photographs()
    path = TESTBED / source if source in SHIPPED else Path(source)
    if path.is_dir():
        return read_folder(path, root, image, caption)
    if path.exists():
        return read_file(path, root, image, caption)
    if re.fullmatch(r"[\w.-]+/[\w.-]+(:\w+)?", str(source)) and path.suffix not in {*READERS, *SHARDS} and not path.parent.exists():
        return read_hub(str(source), image, caption)
    names = ", ".join([*SHIPPED, "photographs"])
    raise FileNotFoundError(f"no data {str(source)!r}: give {names}, the path of existing data, or a hub name owner/name")


def read_folder(folder, root, image, caption):
    """The records of a folder's one table, or of its shards."""
    found = [folder / name for name in TABLES if (folder / name).exists()]
    if len(found) == 1:
        return read_file(found[0], root, image, caption)
    shards = sorted(path for path in folder.iterdir() if path.suffix in SHARDS)
    if found or not shards:
        raise FileNotFoundError(f"{folder} has {len(found) or 'no'} tables: give it one of {', '.join(TABLES)}, or shards {SHARDS}")
    return [record for path in shards for record in read_shard(path, root or folder, image, caption)]


def read_file(path, root, image, caption):
    """The records of one table, in the form of MS-CXR where it has those columns, or of one shard."""
    kind, folder = path.suffix.lower(), root or path.parent
    if kind in SHARDS:
        return read_shard(path, folder, image, caption)
    if kind not in READERS:
        raise ValueError(f"{path} is no {', '.join([*READERS, *SHARDS])}: give such a table, or a folder that has one")
    rows = READERS[kind](path)
    if any(set(row) >= MS_CXR for row in rows.values()):
        rows = phrases(rows, folder)
    return as_records(rows, path.name, folder, image, caption)


def photographs():
    """Photographs that skimage, sklearn and matplotlib bring, with captions and boxes of our own.  -> a list of records"""
    folder = TESTBED / "photographs"
    records = as_records(json_rows(folder / "captions.jsonl"), "captions.jsonl", folder)
    packages = [record.rows[record.index]["image"].split("/")[0] for record in records]
    folders = [Path(find_spec(package).origin).parents[1] for package in packages]
    return [replace(record, folder=folder) for record, folder in zip(records, folders, strict=True)]


def name_of(source):
    """How messages call a source."""
    return str(source) if isinstance(source, str | Path) else type(source).__name__
