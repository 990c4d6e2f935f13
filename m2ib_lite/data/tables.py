"""Pairs that a table lists: captions.csv or captions.jsonl beside the images, and the TSV of Conceptual Captions."""

import csv
import json
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from reprlib import repr as shown

import numpy as np
from PIL import Image

from ..models import check_caption
from .boxes import check_words, fit, parse_boxes
from .download import open_url
from .images import open_image
from .pairs import Box, Pair

TABLES = ("captions.csv", "captions.jsonl")  # what a folder is looked through for


@dataclass(frozen=True, slots=True)
class Listed:
    """What a table says of a pair.  image: a file below `folder`, or an http(s) address, as the table writes it.

    where: the table and the line.  drawn_in: the (width, height) of the picture that the boxes were drawn in, None for that of
    the file.  problem: why the line makes no pair, said when it is read.
    """

    id: str
    where: str
    image: str
    caption: str
    folder: Path
    boxes: tuple[Box, ...] = ()
    drawn_in: tuple[int, int] | None = None
    problem: str = ""
    mask: str = ""

    def read(self):
        """The pair, its image opened.  ValueError or OSError where it is bad."""
        if self.problem:
            raise ValueError(self.problem)
        check_caption(self.caption)
        check_words(self.boxes, self.caption)
        image = open_url(self.image) if "://" in self.image else open_image(self.folder / self.image)
        boxes = fit(self.boxes, self.drawn_in or image.size, image.size)
        if self.mask:
            labels = np.asarray(Image.open(self.folder / self.mask))
            boxes = [replace(box, mask=labels >> k & 1 == 1) for k, box in enumerate(boxes)]
        return Pair(image, self.caption, boxes, self.id)

    def content(self):
        """All of it but the folder's place, and the bytes of the file, counted."""
        try:
            size = (self.folder / self.image).stat().st_size
        except (OSError, ValueError):  # an address, a missing file, a name that can be no file's
            size = None
        return self.id, self.image, self.caption, self.boxes, self.drawn_in, self.problem, size


def read_folder(folder, root=None):
    """The pairs of a folder's captions.csv or captions.jsonl; see `read_captions`."""
    found = [folder / name for name in TABLES if (folder / name).exists()]
    if len(found) != 1:
        raise FileNotFoundError(f"{folder} has {len(found) or 'no'} tables of captions: give it one of {' or '.join(TABLES)}")
    return read_captions(found[0], root)


def read_captions(path, root=None):
    """The pairs of a CSV with a header, or of a file with a JSON object a line.  -> a list of Listed

    Columns: image, caption; id where pairs have a name of their own; boxes, a JSON list of {"label", "x", "y", "w", "h"} in
    pixels of the image, each perhaps with "word", the caption's word for it, and "named": false for what the caption leaves
    out.  The id is the image's name where none is given, with -2, -3, ... where other pairs show it too.
    root: the folder that images are looked for in, the table's own unless given.
    """
    rows = list(csv_rows(path, ("image", "caption")) if path.suffix.lower() == ".csv" else json_rows(path))
    numbers, taken = {}, {_given_id(row) for _, row, _ in rows}
    folder = root or path.parent
    return [_listed(f"{path.name}, line {line}", row, problem, folder, numbers, taken) for line, row, problem in rows]


def _listed(where, row, problem, folder, numbers, taken):
    """One of them.  numbers: the last one that an image's name got; taken: the ids that are."""
    image, caption, boxes = row.get("file_name", row.get("image")), row.get("caption"), ()
    if not (isinstance(image, str) and image and isinstance(caption, str)):
        problem = problem or f"its image is {shown(image)} and its caption {shown(caption)}: give both as text"
    written = row.get("boxes") or []  # a CSV's cell holds JSON, an object has the list itself
    try:
        boxes = parse_boxes(json.loads(written) if isinstance(written, str) else written)
    except (ValueError, OverflowError, RecursionError) as error:
        problem = problem or f"its boxes cannot be read: {error}"
    name = _given_id(row) or _unused(str(image or where), numbers, taken)
    return Listed(name, where, str(image), str(caption), folder, boxes, problem=problem, mask=row.get("mask_file_name", ""))


def _given_id(row):
    return "" if row.get("id") is None else str(row["id"])


def _unused(image, numbers, taken):
    """The image's name, or the first of name-2, name-3, ... that no pair has."""
    name = image
    while name in taken:
        numbers[image] = numbers.get(image, 1) + 1
        name = f"{image}-{numbers[image]}"
    taken.add(name)
    return name


def read_tsv(path, root=None):
    """The pairs of a TSV as Conceptual Captions has it: caption, tab, http(s) address or path, no header.  -> a list of Listed"""
    records = []
    with lines_of(path) as lines:
        for number, line in enumerate(lines, 1):
            cells = line.rstrip("\r\n").split("\t")
            problem = "" if len(cells) == 2 else f"it has {len(cells)} columns: give two, the caption, a tab, the image"
            if cells[0].startswith(("http://", "https://")):
                problem = "its first column is an address: give the caption first, then the image"
            if line.strip():
                where, folder = f"{path.name}, line {number}", root or path.parent
                records.append(Listed(f"line-{number}", where, cells[-1].strip(), cells[0], folder, problem=problem))
    return records


@contextmanager
def lines_of(path):
    """The lines of a UTF-8 file, a byte order mark left out.  ValueError where it cannot be read as that."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as lines:
            yield lines
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}): save it again in that encoding") from error


@contextmanager
def csv_of(path):
    """A reader of a CSV with a header.  ValueError where its quotes are wrong."""
    with lines_of(path) as lines:
        reader = csv.DictReader(lines, strict=True)
        try:
            yield reader
        except csv.Error as error:
            message = f"{path}, line {reader.reader.line_num} is not CSV ({error}): close its quotes and double those inside"
            raise ValueError(message) from error


def csv_columns(path):
    """The names in a CSV's first line."""
    with csv_of(path) as reader:
        return reader.fieldnames or []


def csv_rows(path, needed):
    """(line, {column: text}, why it is no row) of each row of a CSV; ValueError where a needed column is not there."""
    columns = csv_columns(path)
    if missing := [name for name in needed if name not in columns]:
        there = ", ".join(columns) or "none"
        raise ValueError(f"{path} has no column {', '.join(missing)}: its first line names {there}; rename a column")
    with csv_of(path) as reader:
        for row in reader:
            whole = None not in row and None not in row.values()
            problem = "" if whole else f"it has not the {len(columns)} columns of the first line: put quotes around a comma"
            yield reader.line_num, row if whole else {}, problem


def json_rows(path):
    """(line, object, why it is none) of each line of a JSONL file that is not blank."""
    with lines_of(path) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            row, problem = {}, "it is not a JSON object: write one a line"
            try:
                row = json.loads(line)
                json.dumps(row, ensure_ascii=False).encode()
            except UnicodeEncodeError:  # JSON can say "\ud800", which no table of results can hold
                row, problem = {}, "it holds half a character (a surrogate): write the whole one"
            except (ValueError, RecursionError) as error:
                problem = f"it is not JSON ({error}): write one object a line"
            yield number, *((row, "") if isinstance(row, dict) and row else ({}, problem))
