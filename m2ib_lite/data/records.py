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
FORM = "give a JSON list of objects with label, x, y, w, h in pixels, and perhaps word and named"


@dataclass(frozen=True, slots=True)
class Record:
    """Row `index` of `rows`, a dict of columns; `columns` are the names asked for those of image and caption.

    where: its place, for messages.  folder: what the paths in it are relative to.
    """

    id: str
    where: str
    rows: Sequence
    index: int
    columns: tuple[str, str]
    folder: Path

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
        boxes = parse_boxes(row.get("boxes"))
        check_words(boxes, caption)
        image = self._open(image, row.get("status"))
        boxes = [fit(box, row.get(DRAWN_IN, image.size), image.size) for box in boxes]
        if row.get("mask_file_name"):
            boxes = with_masks(boxes, np.asarray(decode(self.folder / row["mask_file_name"])), image.size)
        return Pair(image, caption, boxes, self.id)

    def _open(self, image, status):
        if image is None:
            raise ValueError(f"it has no image (status: {status}): fetch it again, or take the pair out")
        if isinstance(image, Mapping):  # as `datasets` gives an image that it does not decode
            image = image.get("bytes") or image.get("path")
        if isinstance(image, str) and image.startswith(ADDRESSES):
            raise ValueError(f"its image {image} is an address: {fetching('TABLE.csv', *self.columns)}")
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


def parse_boxes(entries):
    """A list of dicts, its JSON, or nothing -> a list of Box.  ValueError, which names the entry, for anything else."""
    try:
        entries = json.loads(entries) if entries and isinstance(entries, str) else entries or []
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its boxes cannot be read ({error}): {FORM}") from error
    if not isinstance(entries, list):
        raise ValueError(f"its boxes are {entries!r}: {FORM}")
    return [_parse_box(entry) for entry in entries]


def _parse_box(entry):
    try:
        box = Box(**entry, mask=None)
        box = replace(box, **{side: round(getattr(box, side)) for side in "xywh"})
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"its box {entry!r} cannot be read ({error}): {FORM}") from error
    for name, kind in (("label", str), ("word", str), ("named", bool)):
        if not isinstance(getattr(box, name), kind):
            raise ValueError(f"its box {entry!r} has a {name} that is no {kind.__name__}: {FORM}")
    if box.w <= 0 or box.h <= 0:
        raise ValueError(f"its box {entry!r} is empty: give w and h above zero once rounded")
    return box


def check_words(boxes, caption):
    """ValueError where a named box's word is none of the caption's."""
    known = re.findall(r"\w+", caption)
    for box in boxes:
        if box.named and box.word and box.word not in known:
            raise ValueError(f"its box {box.label!r} has the word {box.word!r}: give one word as the caption writes it")


def fit(box, drawn_in, size):
    """A box drawn in a picture of (width, height) drawn_in, in the same picture at another size; what sticks out is cut off.

    ValueError for a box that lies wholly outside.
    """
    left, right = _span(box.x, box.w, drawn_in[0], size[0])
    top, bottom = _span(box.y, box.h, drawn_in[1], size[1])
    if left >= right or top >= bottom:
        raise ValueError(f"its {box} lies outside the picture of {drawn_in[0]} x {drawn_in[1]} pixels: give pixels inside it")
    return replace(box, x=left, y=top, w=right - left, h=bottom - top)


def _span(start, length, before, after):
    """Start and end, in a picture `after` pixels long, of what was drawn in one of `before`; whole pixels, none too few."""
    return max(0, start * after // before), min(after, -(-(start + length) * after // before))


def with_masks(boxes, bits, size):
    """The boxes, each with its pixels in a bit map of (H, W) whole numbers: box k is there where 2**k is set."""
    if bits.shape != (size[1], size[0]) or bits.dtype.kind not in "ui":
        raise ValueError(f"its mask is {bits.shape} {bits.dtype}: give a gray one of the image's size, 2**k for box k")
    return [replace(box, mask=bits >> k & 1 == 1) for k, box in enumerate(boxes)]


def columns_in(there, image, caption, name="it"):
    """Which of the columns `there` hold image and caption: of those names, or else of usual ones.  ValueError where none does."""
    found = []
    for option, asked in (("image", image), ("caption", caption)):
        names = [name for name in (asked, *OTHERS[option]) if name in there]
        if not names:
            listed = ", ".join(map(str, there))
            raise ValueError(f"{name} has no column {asked!r} but {listed}: say load_pairs(..., {option}='its name')")
        found.append(names[0])
    return found


def as_records(rows, name, folder, image="image", caption="caption"):
    """A record for each row of {place: dict}.  An id is the row's, or the image's name, with -2, -3, ... where others have it.

    name: of the table, for messages.  ValueError where no row has an image or a caption, or all images are addresses.
    """
    there = dict.fromkeys(column for row in rows.values() if PROBLEM not in row for column in row)
    picture, text = columns_in(there, image, caption, name) if there else (image, caption)
    images = [row.get(picture) for row in rows.values()]
    if any(images) and all(str(image).startswith(ADDRESSES) for image in images if image):
        raise ValueError(f"the images of {name} are addresses: {fetching(name, picture, text)}")
    wheres = [f"{name}, {place}" for place in rows]
    given = ["" if row.get("id") is None else str(row["id"]) for row in rows.values()]
    ids = unique(given, [str(image or where) for image, where in zip(images, wheres, strict=True)])
    listed = list(rows.values())
    return [Record(id, where, listed, i, (image, caption), folder) for i, (id, where) in enumerate(zip(ids, wheres, strict=True))]


def fetching(table, image, caption):
    """How to make files of a table of addresses; img2dataset needs a header, which the TSV of Conceptual Captions lacks."""
    kind, header = table.rpartition(".")[2], ""
    if kind == "tsv":
        header, table = f"{{ printf '{caption}\\t{image}\\n'; cat {table}; }} > headed.tsv && ", "headed.tsv"
    columns = f"--url_col {image} --caption_col {caption}"
    command = f"{header}img2dataset --url_list {table} --input_format {kind} {columns} --resize_mode no --output_folder pictures"
    return f"fetch them with `{command}` (pip install img2dataset), then load_pairs('pictures')"


def unique(given, names):
    """Each pair's given id, or else its name, or the first of name-2, name-3, ... that no pair has."""
    taken, numbers, ids = set(given), {}, []
    for own, name in zip(given, names, strict=True):
        found = own or name
        while not own and found in taken:
            numbers[name] = numbers.get(name, 1) + 1
            found = f"{name}-{numbers[name]}"
        taken.add(found)
        ids.append(found)
    return ids
