"""One function for all data: shipped, in a table, in shards as img2dataset writes them, on the hub, or rows in memory.

A table is {line: a dict of columns}; a line that makes no row is one with its PROBLEM and harms no other, whereas `datasets`' own
csv and json builders give up a whole file for one torn line.
"""

import csv
import io
import json
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from numbers import Integral
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from ..models import TESTBED
from .pairs import Pairs
from .records import DRAWN_IN, OTHERS, PROBLEM, as_records, columns_in, make_records

AUDITED = ("shortcuts", "shortcuts_plain", "snow", "snow_plain")  # with planted markers, and without
SHIPPED = ("scenes", "radiographs", "retrieval", *AUDITED)  # folders beside the models, drawn with SEED by data/testbed/draw.py
SEED = 1
TABLES = ("metadata.jsonl", "metadata.csv", "captions.csv", "captions.jsonl")  # what a folder is looked through for
MS_CXR = {"category_name", "label_text", "path", "dicom_id", "x", "y", "w", "h", "image_width", "image_height"}
OURS = ("boxes", "mask_file_name", "status")  # columns that are read where they are
KEYS = ("key", "__key__")  # of a shard, in Parquet and in a tar
SHARDS = (".parquet", ".tar")


def load_pairs(source, count=None, seed=None, root=None, image="image", caption="caption"):
    """Pairs of an image and a caption, each read when it is asked for.  -> Pairs

    source: a name of SHIPPED; "photographs", which installed packages bring; a table .csv, .jsonl or .tsv, a shard .parquet or
    .tar, or a folder of either (docs/data.md says what is in them); a hub name "owner/name", or "owner/name:split"; rows, such
    as a `datasets.Dataset` or a list of dicts.  image, caption: those columns.  count: so many, all unless given: of what is
    shipped the first, else drawn with `seed` (0) and left in their order.  root: what paths are relative to, the table's folder.
    OSError, ValueError or TypeError where nothing in the source can be read; a bad pair is an error when it is asked for.
    """
    for name, value, least in (("count", count, 1), ("seed", seed, 0)):
        if value is not None and (not isinstance(value, Integral) or value < least):
            raise ValueError(f"{name} is {value!r}: give a whole number of at least {least}, or None")
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
        return read_rows(source, image, caption, folder=root)
    if source == "photographs":
        return photographs()
    path = TESTBED / source if source in SHIPPED else Path(source)
    if path.is_file():
        return read_file(path, root or path.parent, image, caption)
    if path.is_dir():
        tables = [path / name for name in TABLES if (path / name).exists()]
        files = tables or sorted(file for file in path.iterdir() if file.suffix in SHARDS)
        if len(tables) > 1 or not files:
            raise FileNotFoundError(f"{path} has {len(tables)} tables: give it one of {', '.join(TABLES)}, or shards {SHARDS}")
        return [record for file in files for record in read_file(file, root or path, image, caption)]
    if re.fullmatch(r"[\w.-]+/[\w.-]+(:\w+)?", str(source)) and path.suffix not in {*READERS, *SHARDS} and not path.parent.exists():
        return read_hub(str(source), image, caption)
    names = ", ".join([*SHIPPED, "photographs"])
    raise FileNotFoundError(f"no data {str(source)!r}: give {names}, the path of existing data, or a hub name owner/name")


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


def lines_of(path):
    """The lines of a UTF-8 file, a byte order mark left out.  ValueError where it cannot be read as that."""
    try:
        return io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}): save it again in that encoding") from error


def csv_rows(path, **options):
    """Of a CSV with a header.  ValueError where its quotes are wrong, after which no line is certain."""
    rows, reader = {}, csv.DictReader(lines_of(path), strict=True, **options)
    try:
        for row in reader:
            whole = None not in row and None not in row.values()
            problem = f"it has not the columns {', '.join(reader.fieldnames)}: quote what holds a separator"
            rows[f"line {reader.line_num}"] = row if whole else {PROBLEM: problem}
    except csv.Error as error:
        number = reader.reader.line_num
        raise ValueError(f"{path}, line {number} is not CSV ({error}): close its quotes and double those inside") from error
    return rows


def json_rows(path):
    """Of a file with a JSON object on each line that is not blank."""
    return {f"line {number}": _object(line) for number, line in enumerate(lines_of(path), 1) if line.strip()}


def _object(line):
    try:
        row = json.loads(line)
        json.dumps(row, ensure_ascii=False).encode()  # fails for "\ud800", which JSON can say, but no table of results can hold
    except (ValueError, RecursionError) as error:
        return {PROBLEM: f"it is not JSON ({error}): write one object a line, without half a character (a surrogate)"}
    return row if isinstance(row, dict) and row else {PROBLEM: "it is not a JSON object: write one a line"}


def phrases(rows, folder):
    """The rows of MS-CXR, radiologists' boxes in MIMIC-CXR, those of one phrase of one picture made one.

    folder: that of MIMIC-CXR-JPG which holds `files`, or `files`.  Boxes are in pixels of the original, the file may be smaller.
    """
    groups, found, numbers = {}, {}, Counter()
    for line, row in rows.items():
        groups.setdefault((row.get("dicom_id", line), row.get("label_text")), {})[line] = row
    for (picture, _), group in groups.items():
        numbers[picture] += 1
        found[next(iter(group))] = _phrase(list(group.values()), f"{picture}-{numbers[picture]}", folder)
    return found


def _phrase(rows, id, folder):
    """One row with the boxes of all."""
    first = rows[0]
    if PROBLEM in first:
        return first
    image = first["path"].removeprefix("files/")
    image = f"files/{image}" if (folder / "files").is_dir() else image
    phrase = dict(id=id, image=image, caption=first["label_text"])
    try:
        boxes = [dict(label=row["category_name"], **{side: float(row[side]) for side in "xywh"}) for row in rows]
        sizes = {(round(float(row["image_width"])), round(float(row["image_height"]))) for row in rows}
    except (ValueError, OverflowError) as error:
        return {**phrase, PROBLEM: f"{error}: x, y, w, h, image_width and image_height are pixels"}
    if len(sizes) > 1 or min(min(sizes)) <= 0:
        return {**phrase, PROBLEM: f"its picture has the sizes {sorted(sizes)}: give its true size"}
    return {**phrase, "boxes": boxes, DRAWN_IN: sizes.pop()}


def read_rows(rows, image, caption, name="row", where=None, folder=None):
    """A record for each row of a `datasets.Dataset` or what else has a length and gives dicts.  TypeError for others."""
    if hasattr(rows, "keys") or not (hasattr(rows, "__len__") and hasattr(rows, "__getitem__")):
        remedy = "of a dict of splits give one, of a table of pandas df.to_dict('records')"
        raise TypeError(f"pairs come from a path or from rows with a length, not from {type(rows).__name__}: {remedy}")
    columns, keys = (image, caption), range(len(rows))
    if hasattr(rows, "cast_column"):
        import datasets  # takes a second

        columns = columns_in(rows.column_names, image, caption, where or type(rows).__name__)
        keys = next((rows[column] for column in KEYS if where and column in rows.column_names), keys)
        if not rows.format["type"]:  # else it gives what its owner made of it
            rows = rows.select_columns([name for name in rows.column_names if name in (*columns, *OURS)])
            if isinstance(rows.features[columns[0]], datasets.Image):
                rows = rows.cast_column(columns[0], datasets.Image(decode=False))  # `open_image` checks and decodes
    where = where or f"a row of {type(rows).__name__}"
    names = [f"{name}-{key}" for key in keys]
    return make_records(rows, [where] * len(rows), [""] * len(rows), names, columns, folder or Path())


def read_hub(name, image, caption):
    """The records of a data set "owner/name" of the hub, or "owner/name:split".  OSError where the hub does not give it."""
    import datasets
    from huggingface_hub import HfApi, constants

    place, _, split = name.partition(":")
    try:
        if not constants.HF_HUB_OFFLINE:
            HfApi().dataset_info(place, timeout=3)  # seconds; alone, `load_dataset` tries for half a minute
        rows = datasets.load_dataset(place, split=split or None)
    except Exception as error:  # of httpx, huggingface_hub and datasets
        remedy = "give the path of existing data or a name that the hub has; HF_HUB_OFFLINE=1 takes what was kept of it"
        raise OSError(f"no data {name!r} here, and none from the hub ({error}): {remedy}") from None
    if isinstance(rows, Mapping):
        if len(rows) > 1:
            raise ValueError(f"{name} has the splits {', '.join(rows)}: give one, as in '{place}:{next(iter(rows))}'")
        (rows,) = rows.values()
    return read_rows(rows, image, caption)


READERS = {
    ".csv": csv_rows,
    ".jsonl": json_rows,
    ".tsv": partial(csv_rows, fieldnames=["caption", "image"], delimiter="\t", quoting=csv.QUOTE_NONE),  # as Conceptual Captions
}


def read_file(path, folder, image, caption):
    """The records of one table, perhaps MS-CXR, or of one shard; where a shard cannot be read, that is one bad pair."""
    kind = path.suffix.lower()
    if kind in READERS:
        rows = READERS[kind](path)
        rows = phrases(rows, folder) if any(set(row) >= MS_CXR for row in rows.values()) else rows
        return as_records(rows, path.name, folder, image, caption)
    if kind not in SHARDS:
        raise ValueError(f"{path} is no {', '.join([*READERS, *SHARDS])}: give such a table, or a folder that has one")
    import datasets

    try:
        if kind == ".tar":
            rows = datasets.load_dataset("webdataset", data_files=str(path), split="train")
        else:
            columns = set(pq.read_schema(path).names)
            if columns >= {"key", "status"} and not columns & {"image", *OTHERS["image"]}:
                return as_records(listed_rows(path), path.name, folder)
            rows = datasets.Dataset.from_parquet(str(path))
    except Exception as error:  # of datasets and Arrow
        cause = error.__cause__ or error
        if isinstance(cause, MemoryError) or getattr(cause, "errno", None):  # the machine's fault, not the shard's
            raise
        torn = {PROBLEM: f"it cannot be read ({cause}): write it again, as img2dataset does when run again"}
        return as_records({"all of it": torn}, path.name, folder)
    return read_rows(rows, image, caption, path.stem, path.name, folder)


def listed_rows(path):
    """Of a Parquet file that lists img2dataset's downloads: the pictures in the folder beside it, and those that failed."""
    files = [file for file in path.with_suffix("").glob("*") if file.suffix not in (".txt", ".json")]
    pictures = {file.stem: f"{path.stem}/{file.name}" for file in files}
    in_tar, rows = path.with_suffix(".tar").exists(), {}
    for row in pq.read_table(path).to_pylist():
        if not (in_tar and row["status"] == "success"):
            key, known = row["key"], dict(caption=row.get("caption"), status=row["status"])
            rows[key] = dict(known, id=f"{path.stem}-{key}", image=pictures.get(key))
    return rows
