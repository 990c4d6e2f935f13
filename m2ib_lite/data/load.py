"""One function for all data: generated, listed in a table, or rows of a dataset."""

import warnings
from dataclasses import replace
from importlib.util import find_spec
from numbers import Integral
from pathlib import Path

import numpy as np

from ..models import TESTBED
from .collection import Pairs
from .mscxr import read_mscxr
from .rows import read_rows
from .tables import csv_columns, read_captions, read_folder, read_tsv

SHIPPED = ("scenes", "radiographs", "retrieval")  # folders beside the models, drawn with SEED by data/testbed/draw.py
SEED = 1


def load_pairs(source, count=None, seed=None, root=None, image="image", caption="caption"):
    """Pairs of an image and a caption, each read when it is asked for.  -> Pairs

    source: "scenes" or "radiographs", drawn with `seed`; "photographs", a dozen that installed packages bring; a folder with
    captions.csv or captions.jsonl, or such a file (see `read_captions`); a TSV as Conceptual Captions has it; the CSV of
    MS-CXR; or rows, such as a `datasets.Dataset`, whose columns `image` and `caption` are.
    count: so many of them, drawn with `seed` and left in their order, fewer pairs being a warning; all unless given, 100 of
    what is drawn.  root: the folder that a table's images are looked for in, its own unless given.
    FileNotFoundError, ValueError or TypeError where there is no such source, or nothing in it can be read; what is wrong with
    one pair is said when that pair is asked for.
    """
    if count is not None and (not isinstance(count, Integral) or count < 1):
        raise ValueError(f"count is {count!r}: give a whole number above zero, or None for all")
    if seed is not None and (not isinstance(seed, Integral) or seed < 0):
        raise ValueError(f"seed is {seed!r}: give a whole number, zero or more")
    if isinstance(source, str) and source in SHIPPED:
        if seed not in (None, SEED):
            command = f"python data/testbed/draw.py {source} --seed {seed} --count {count or 100} --out FOLDER"
            raise ValueError(f"{source} are shipped as drawn with seed {SEED}: draw others with `{command}`, and give the folder")
        return Pairs(read_captions(TESTBED / source / "metadata.jsonl")[:count])
    records = find_records(source, root and Path(root), image, caption)
    if not records:
        raise ValueError(f"{name_of(source)} has no pairs: give it at least one")
    if count and count > len(records):
        warnings.warn(f"{name_of(source)} has {len(records)} pairs, not {count}: all of them are taken", stacklevel=2)
    chosen = np.sort(np.random.default_rng(seed or 0).permutation(len(records))[:count])
    return Pairs([records[i] for i in chosen])


def find_records(source, root, image, caption):
    """What the pairs of a source that is not generated are read from: a list of records."""
    if not isinstance(source, str | Path):
        if not (hasattr(source, "__len__") and hasattr(source, "__getitem__")):
            raise TypeError(f"pairs come from a path or from rows with a length, not from {type(source).__name__}")
        return read_rows(source, image, caption)
    if source == "photographs":
        return photographs()
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"no data {str(source)!r}: give {', '.join(SHIPPED)}, photographs, or the path of existing data")
    if path.is_dir():
        return read_folder(path, root)
    kinds = {".csv": read_csv, ".jsonl": read_captions, ".tsv": read_tsv}
    if path.suffix.lower() not in kinds:
        raise ValueError(f"{path} is no {', '.join(kinds)}: give such a table, or a folder that has one")
    return kinds[path.suffix.lower()](path, root)


def read_csv(path, root):
    """The CSV of MS-CXR, known by its column dicom_id, or captions.  -> a list of records"""
    return (read_mscxr if "dicom_id" in csv_columns(path) else read_captions)(path, root)


def photographs():
    """Photographs that skimage, sklearn and matplotlib bring, with captions and boxes of our own.  -> a list of records"""
    records = read_captions(TESTBED / "photographs" / "captions.jsonl")
    packages = {record.image.split("/")[0] for record in records}
    folders = {package: Path(find_spec(package).origin).parents[1] for package in packages}
    return [replace(record, folder=folders[record.image.split("/")[0]]) for record in records]


def name_of(source):
    """How messages call a source."""
    return str(source) if isinstance(source, str | Path) else type(source).__name__
