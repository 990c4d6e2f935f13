"""What every dataset is made of: pairs of an image and a caption, with the boxes of what the caption names."""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Box:
    """One object: its kind, its bounding box in pixels of the image, and whether the caption names it.

    word: the caption's word for it ("mice" for two boxes of kind "mouse"), empty where it is not known or not named.
    mask: (H, W) bool, its visible pixels in the whole image, where they are known.
    """

    label: str
    x: int
    y: int
    w: int
    h: int
    named: bool = True
    word: str = ""
    mask: np.ndarray | None = field(default=None, repr=False, compare=False)

    def rectangle(self, shape):
        """The pixels inside the box, in an image of shape (H, W).  -> (H, W) bool"""
        return inside((self.x, self.y, self.x + self.w, self.y + self.h), shape[::-1])


@dataclass(frozen=True)
class Pair:
    """An image, its caption, the boxes that are known, and an id that is unique in its dataset."""

    image: Image.Image
    caption: str
    boxes: list[Box] = field(default_factory=list)
    id: str = ""

    def region(self, named=True, masks=False):
        """The pixels inside any box, or mask, that the caption names (or that it does not).  -> (H, W) bool"""
        found = np.zeros((self.image.height, self.image.width), bool)
        for box in self.boxes:
            if box.named == named:
                found |= box.mask if masks else box.rectangle(found.shape)
        return found

    def words(self):
        """The caption's words that stand for something in the picture, as a set."""
        return {box.word for box in self.boxes if box.named and box.word}


def inside(view, size):
    """The pixels of an image of (width, height) in a view: left, top, right, bottom, as of Attribution.views.  -> (H, W) bool"""
    (left, top, right, bottom), (width, height) = view, size
    seen = np.zeros((height, width), bool)
    seen[max(0, round(top)) : round(bottom), max(0, round(left)) : round(right)] = True
    return seen


def hull(mask):
    """The tight box of a mask that is not empty.  (H, W) bool -> x, y, w, h"""
    x, y, right, bottom = Image.fromarray(mask).getbbox()
    return x, y, right - x, bottom - y


class Pairs(Sequence):
    """Pairs that are each read, from its Record, when it is asked for, and not kept: data[i] is a Pair, data[a:b] again Pairs."""

    def __init__(self, records):
        self._records = records
        first = {}
        for record in records:
            other = first.setdefault(record.id, record)
            if other is not record:
                raise ValueError(f"two pairs have the id {record.id!r}, {other.where} and {record.where}: give each its own")

    def __len__(self):
        return len(self._records)

    def __getitem__(self, i):
        """ValueError or OSError where the pair cannot be read; the message names the pair, its place and the remedy."""
        if isinstance(i, slice):
            return Pairs(self._records[i])
        record = self._records[i]
        try:
            return record.read()
        except (OSError, ValueError, TypeError) as error:
            kind = next((kind for kind in (FileNotFoundError, OSError) if isinstance(error, kind)), ValueError)
            raise kind(f"pair {record.id!r} ({record.where}): {error}") from error

    @property
    def ids(self):
        """The unique name of each pair, known without opening an image."""
        return [record.id for record in self._records]

    def digest(self):
        """A hash of what is known without opening an image: texts, boxes, image files' names and sizes; a Dataset's fingerprint."""
        state = hashlib.blake2b(digest_size=16)
        for record in self._records:
            state.update(repr(record.content()).encode() + b"\n")
        return state.hexdigest()


def readable(pairs):
    """The pairs that can be read, all at once, as a list; a warning says of the others why not.  ValueError where none can."""
    found, problems = [], []
    for i in range(len(pairs)):
        try:
            found.append(pairs[i])
        except (ValueError, OSError) as error:
            problems.append(str(error))
    if not found:
        raise ValueError(f"none of {len(pairs)} pairs can be read; the first: {problems[0]}")
    if problems:
        warnings.warn(f"{len(problems)} of {len(pairs)} pairs are left out; the first: {problems[0]}", stacklevel=2)
    return found
