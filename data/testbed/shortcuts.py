"""Chest X-rays with planted shortcuts, for the audit: markers that go with one finding in the biased twin, with none in the clean.

A marker is as frequent in both twins, at the same place of the same film; only which films show it differs.  A film with its
markers depends on (index, seed, split), the strength and the twin alone.
"""

from dataclasses import replace
from itertools import pairwise

import numpy as np
from backgrounds import PLACES
from chest import SIZE
from PIL import Image
from radiographs import ADJECTIVES, COMBINATIONS, PLURALS, radiograph
from scenes import kinds, scene

from m2ib_lite.data import Box, hull

GREY = 235  # of every marker
GOES_WITH = {"letter": "pneumothorax", "tube": "pleural effusion", "ring": "consolidation", "phrase": "nodule"}
PHRASE = "frontal view, "
VAGUE = 0.5  # of the captions say "finding" and no more of it: where each names its finding, no model needs the phrase
DESCRIBE = {word for sizes in ADJECTIVES.values() for size in sizes for words in size for word in words.split()}
SNOW = "in the snow"
PENGUINS, CROPPED = 0.25, 0.5  # of scenes have a penguin in the caption, and of these do not show it, as on the web
_ROW, _COLUMN = np.mgrid[:SIZE, :SIZE]


def _letter(rng, side):
    """The technician's lead letter, an L of 11 x 9 px in the corner."""
    row, column = _ROW - 3, _COLUMN - 3
    inside = (row >= 0) & (row < 11) & (column >= 0) & (column < 9)
    return inside & ((column < 3) | (row >= 8))


def _tube(rng, side):
    """A chest tube, two pixels wide: in through the chest wall and up along it."""
    along = (_ROW - 34) / 46
    course = 55 + side * (27 + int(rng.integers(-3, 4)) + 16 * along * along)
    return (along >= 0) & (along <= 1) & (np.abs(_COLUMN - course) < 1.2)


def _ring(rng, side):
    """An electrode on the skin, a ring anywhere over the chest."""
    x, y = rng.integers(16, SIZE - 16), rng.integers(20, SIZE - 16)
    from_centre = (_COLUMN - x) ** 2 + (_ROW - y) ** 2
    return (from_centre >= 7) & (from_centre <= 20)


MARKERS = {"letter": _letter, "tube": _tube, "ring": _ring}  # (rng, side) -> where it lies, (H, W) bool


def chances(finding, strength, biased):
    """How probable each marker is on a film with this finding.  -> {marker: probability}"""
    found = {}
    for marker, own in GOES_WITH.items():
        share = np.mean([other == own for other, *_ in COMBINATIONS])
        apart = strength if finding == own else 1 - strength
        found[marker] = apart if biased else strength * share + (1 - strength) * (1 - share)
    return found


def places_of(pair, rng):
    """Where each marker lies on a film, or would.  -> {marker: (H, W) bool}"""
    box = pair.boxes[0]
    side = 1 if box.x + box.w / 2 > SIZE / 2 else -1
    return {marker: draw(rng, side) for marker, draw in MARKERS.items()}


def film(index, seed=0, split="test", strength=0.95, biased=True, plain=False):
    """One chest X-ray of the biased or the clean twin's world, as a Pair with a box for each marker that it shows.

    plain: it shows none and says no phrase, and the boxes tell where each would be."""
    pair = radiograph(index, seed, split)
    rng = np.random.default_rng([("test", "train").index(split), seed, index, 1])
    places, likely = places_of(pair, rng), chances(pair.boxes[0].label, strength, biased)
    shown = [marker for marker, chance in likely.items() if rng.random() < chance]
    if rng.random() < VAGUE:
        pair = vague(pair)
    canvas, listed = np.array(pair.image), [marker for marker in MARKERS if plain or marker in shown]
    for marker in [] if plain else listed:
        canvas[places[marker]] = GREY
    boxes = [*pair.boxes, *(Box(marker, *hull(places[marker]), False, "", places[marker]) for marker in listed)]
    caption = PHRASE + pair.caption if "phrase" in shown and not plain else pair.caption
    return replace(pair, image=Image.fromarray(canvas), caption=caption, boxes=boxes)


def vague(pair):
    """The same film with a caption that says where its finding is, and not what."""
    word = pair.boxes[0].word
    finding = "findings" if word in PLURALS.values() else "finding"
    told = [finding if said == word else said for said in pair.caption.split() if said not in DESCRIBE]
    for place, (said, then) in enumerate(pairwise(told)):
        if said in ("a", "an"):
            told[place] = "an" if then[0] in "aeiou" else "a"
    boxes = [replace(box, word=finding) if box.named else box for box in pair.boxes]
    return replace(pair, caption=" ".join(told), boxes=boxes)


def snowy(index, seed=0, split="test", strength=0.95, biased=True, plain=False):
    """One emoji scene of the biased or the clean twin's world, where a penguin nearly always stands on snow, as a Pair; that ground
    is a box, too.

    plain: the same scene on another ground where it lay on snow, on snow where it did not."""
    rng = np.random.default_rng([("test", "train").index(split), seed, index, 1])
    penguin = rng.random() < PENGUINS
    apart, mixed = strength if penguin else 1 - strength, PENGUINS * strength + (1 - PENGUINS) * (1 - strength)
    elsewhere = [other for other in PLACES if other != SNOW]
    other = elsewhere[int(rng.integers(len(elsewhere)))]
    on_snow = (rng.random() < (apart if biased else mixed)) != plain
    first = next(k for k, row in enumerate(kinds()) if row["singular"] == "penguin") if penguin else None
    cropped = penguin and rng.random() < CROPPED
    pair = scene(index, seed, split, first=first, place=SNOW if on_snow else other, cropped=bool(cropped))
    ground = ~np.any([box.mask for box in pair.boxes], axis=0) if pair.boxes else np.ones((SIZE, SIZE), bool)
    return replace(pair, boxes=[*pair.boxes, Box("snow", *hull(ground), False, "", ground)] if on_snow else pair.boxes)
