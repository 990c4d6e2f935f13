"""Boxes as tables write them, and in the pixels of the image that was opened."""

import math
import re
from dataclasses import replace

from .pairs import Box

NEEDED, OPTIONAL = ("label", "x", "y", "w", "h"), {"word": str, "named": bool}


def parse_boxes(entries):
    """[{"label", "x", "y", "w", "h"}, ...], each perhaps with "word" and "named" -> a tuple of Box.  ValueError otherwise."""
    if not isinstance(entries, list):
        raise ValueError(f"its boxes are {entries!r}: give a JSON list of objects with {', '.join(NEEDED)}")
    return tuple(map(parse_box, entries))


def parse_box(entry):
    """One of them as a Box."""
    if not isinstance(entry, dict) or not set(NEEDED) <= set(entry) <= {*NEEDED, *OPTIONAL}:
        raise ValueError(f"its box {entry!r} is no object with {', '.join(NEEDED)} and perhaps word and named")
    numbers = [entry[name] for name in NEEDED[1:]]
    finite = all(isinstance(number, int | float) and math.isfinite(number) for number in numbers)
    if not finite or min(map(round, numbers[2:])) <= 0:
        raise ValueError(f"its box {entry!r} needs numbers, in pixels, with w and h above zero once rounded")
    for name, kind in {"label": str, **OPTIONAL}.items():
        if not isinstance(entry.get(name, kind()), kind):
            raise ValueError(f"its box {entry!r} has a {name} that is no {kind.__name__}")
    rest = {name: entry[name] for name in OPTIONAL if name in entry}
    return Box(entry["label"], *(round(number) for number in numbers), **rest)


def check_words(boxes, caption):
    """ValueError where a named box's word is none of the caption's."""
    known = re.findall(r"\w+", caption)
    for box in boxes:
        if box.named and box.word and box.word not in known:
            raise ValueError(f"its box {box.label!r} has the word {box.word!r}: give one word as the caption writes it")


def fit(boxes, drawn_in, size):
    """Boxes drawn in a picture of (width, height) drawn_in, in the same picture at another size: a list of Box.

    What sticks out is cut off.  ValueError for a box that lies wholly outside.
    """
    fitted = []
    for box in boxes:
        left, right = _span(box.x, box.w, drawn_in[0], size[0])
        top, bottom = _span(box.y, box.h, drawn_in[1], size[1])
        if left >= right or top >= bottom:
            place = f"{box.x}, {box.y}, {box.w}, {box.h}"
            raise ValueError(f"its box {box.label!r} at {place} lies outside the picture of {drawn_in[0]} x {drawn_in[1]} pixels")
        fitted.append(replace(box, x=left, y=top, w=right - left, h=bottom - top))
    return fitted


def _span(start, length, before, after):
    """Start and end, in a picture `after` pixels long, of what was drawn in one of `before`; whole pixels, none too few."""
    return max(0, start * after // before), min(after, -(-(start + length) * after // before))
