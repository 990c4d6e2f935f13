"""What one pair is read from: a row of columns, which came from a table, a shard, or memory."""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..models import check_caption
from .images import decode, open_image
from .pairs import Box, Pair

OTHERS = {"image": ("file_name", "jpg", "jpeg", "png", "webp"), "caption": ("text", "txt")}  # names that do as well
PROBLEM, DRAWN_IN = ("problem",), ("width", "height")  # columns of our own, which no table has: their names are no text
ADDRESSES = ("http://", "https://")
FETCH = "fetch them (see docs/data.md) with `img2dataset --url_list {} --url_col {} --caption_col {} ...`, then give their folder"
FORM = (
    "give a JSON list of objects with label, x, y, w, h in pixels, w and h above zero, perhaps named, a bool, and a caption's word"
)


@dataclass(frozen=True, slots=True)
class Record:
    """Row `index` of `rows`, a dict of columns, of which two are asked for as image and caption."""

    id: str
    where: str  # for messages
    rows: Sequence
    index: int
    columns: tuple[str, str]
    folder: Path  # that its paths are relative to

    def read(self):
        """The pair, its image opened.  ValueError, TypeError or OSError where it is bad."""
        row = self.rows[self.index]
        if not isinstance(row, Mapping):
            raise ValueError(f"it is a {type(row).__name__}: give a dict of columns")
        if PROBLEM in row:
            raise ValueError(row[PROBLEM])
        image, caption = (row[name] for name in columns_in(row, *self.columns))
        check_caption(caption)
        if caption.startswith(ADDRESSES):
            raise ValueError(f"its caption {caption} is an address: give the caption first, then the image")
        boxes = parse_boxes(row.get("boxes"), caption)
        image = self._open(image, row.get("status"))
        boxes = [fit(box, row.get(DRAWN_IN, image.size), image.size) for box in boxes]
        if row.get("mask_file_name"):
            bits = np.asarray(decode(self.folder / row["mask_file_name"]))
            if bits.shape != (image.height, image.width) or bits.dtype.kind not in "ui":
                raise ValueError(f"its mask is {bits.shape} {bits.dtype}: give a gray one of the image's size, 2**k for box k")
            boxes = [replace(box, mask=bits >> k & 1 == 1) for k, box in enumerate(boxes)]
        return Pair(image, caption, boxes, self.id)

    def _open(self, image, status):
        if image is None:
            raise ValueError(f"it has no image (status: {status}): fetch it again, or take the pair out")
        if isinstance(image, Mapping):  # as `datasets` gives an image that it does not decode
            image = image.get("bytes") or image.get("path")
        if isinstance(image, str) and image.startswith(ADDRESSES):
            raise ValueError(f"its image {image} is an address: {FETCH.format('TABLE', *self.columns)}")
        return open_image(self.folder / image if isinstance(image, str | Path) else image)

    def content(self):
        """What is known of it without opening an image; see Pairs.digest."""
        if hasattr(self.rows, "_fingerprint"):
            return self.id, self.columns, self.rows._fingerprint
        row = self.rows[self.index]
        row = row if isinstance(row, Mapping) else {}
        known = [value for value in row.values() if isinstance(value, str | list | tuple)]
        for name in (self.columns[0], *OTHERS["image"]):
            if isinstance(row.get(name), str):
                with suppress(OSError, ValueError):  # an address, a missing file, a name that can be no file's
                    known.append((self.folder / row[name]).stat().st_size)
        return self.id, self.columns, known


def parse_boxes(entries, caption):
    """A list of dicts, its JSON, or nothing -> a list of Box.  ValueError for anything else, which names the entry."""
    boxes, words = [], re.findall(r"\w+", caption)
    entry = entries = entries or []
    try:
        for entry in json.loads(entries) if isinstance(entries, str) else entries:
            box = Box(**entry, mask=None)
            box = replace(box, **{side: round(getattr(box, side)) for side in "xywh"})
            texts = isinstance(box.label, str) and isinstance(box.word, str)
            if not (texts and isinstance(box.named, bool) and min(box.w, box.h) > 0):
                raise ValueError("it has a value of another kind")
            if box.named and box.word and box.word not in words:
                raise ValueError(f"its word {box.word!r} is none of the caption's")
            boxes.append(box)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"its box {entry!r} cannot be read ({error}): {FORM}") from error
    return boxes


def fit(box, drawn_in, size):
    """A box drawn in a picture of size drawn_in, in that picture at another size, cut at its edges; ValueError outside."""
    place, extent, drawn_in, size = np.array([(box.x, box.y), (box.w, box.h), drawn_in, size], object)  # of Python's whole numbers
    start = np.maximum(0, place * size // drawn_in)
    end = np.minimum(size, -(-(place + extent) * size // drawn_in))  # rounded up
    if (start >= end).any():
        raise ValueError(f"its {box} lies outside the picture of {drawn_in[0]} x {drawn_in[1]} pixels: give pixels inside it")
    return replace(box, **dict(zip("xywh", [*start, *(end - start)], strict=True)))


def columns_in(there, image, caption, name="it"):
    """Which of the columns `there` hold image and caption: of those names, or else of usual ones.  ValueError where none does."""
    found = []
    for option, asked in (("image", image), ("caption", caption)):
        names = [name for name in (asked, *OTHERS[option]) if name in there]
        if not names:
            columns = ", ".join(map(str, there))
            raise ValueError(f"{name} has no column {asked!r} but {columns}: say load_pairs(..., {option}='its name')")
        found.append(names[0])
    return found


def as_records(rows, name, folder, image="image", caption="caption"):
    """A record for each row, {place: dict}, of the table `name`.  ValueError without those columns or if all are addresses."""
    there = dict.fromkeys(column for row in rows.values() if PROBLEM not in row for column in row)
    picture, text = columns_in(there, image, caption, name) if there else (image, caption)
    images = [row.get(picture) for row in rows.values()]
    if any(images) and all(str(image).startswith(ADDRESSES) for image in images if image):
        raise ValueError(f"the images of {name} are addresses: {FETCH.format(name, picture, text)}")
    wheres = [f"{name}, {place}" for place in rows]
    given = ["" if row.get("id") is None else str(row["id"]) for row in rows.values()]
    names = [str(image or where) for image, where in zip(images, wheres, strict=True)]
    return make_records(list(rows.values()), wheres, given, names, (image, caption), folder)


def make_records(rows, wheres, given, names, columns, folder):
    """A record for each row; its id is the given one, or else its name, or the first of name-2, name-3, ... that no other has."""
    taken, numbers, records = set(given), {}, []
    for i, (id, name) in enumerate(zip(given, names, strict=True)):
        own = id or name
        while not id and own in taken:
            numbers[name] = numbers.get(name, 1) + 1
            own = f"{name}-{numbers[name]}"
        taken.add(own)
        records.append(Record(own, wheres[i], rows, i, columns, folder))
    return records
