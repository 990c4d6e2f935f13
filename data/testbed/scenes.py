"""Emoji scenes with true boxes, masks and naming words: what Conceptual Captions is to the paper.

A scene depends on (index, seed, split) alone.  One pair of kinds in ten is held out: it never shares a training scene, and
every test scene of two kinds or more shows such a pair, so that a test scene is a new combination.
"""

import csv
from functools import cache
from pathlib import Path

import numpy as np
from backgrounds import PLACES, SIZE
from PIL import Image

from m2ib_lite.data import Box, Pair, hull

SPRITES = Path(__file__).parent / "sprites"
SPRITE, COLUMNS = 64, 11  # of the atlas
SIDES = (28, 36)  # an object's side in pixels
STEP, MARGIN = 8, 2  # objects stand on a grid: free positions make learning several times slower
MOST_OBJECTS = 6
KIND_WEIGHTS = np.array([0.15, 0.3, 0.3, 0.25])  # of scenes with 1, 2, 3, 4 kinds of object
COUNT_WORDS = ("", "", "two", "three")
TEMPLATES = (  # {there} agrees with the first object, {place} may be empty
    "{things} {place}",
    "{things} {place}",
    "we can see {things} {place}",
    "a picture of {things} {place}",
    "{place} there {be} {things}",
    "there {be} {things} {place}",
    "here {be} {things} {place}",
    "look at {things} {place}",
    "someone has drawn {things} {place}",
)


@cache
def kinds():
    """The rows of sprites/sprites.csv, a dict each: singular, plural, article, codepoint."""
    with open(SPRITES / "sprites.csv", newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


@cache
def _atlas():
    return Image.open(SPRITES / "sprites.png").convert("RGBA")


@cache
def _sprite(kind, side):
    """(side, side, 4) int32 RGBA."""
    left, top = kind % COLUMNS * SPRITE, kind // COLUMNS * SPRITE
    sprite = _atlas().crop((left, top, left + SPRITE, top + SPRITE))
    return np.asarray(sprite.resize((side, side), Image.Resampling.LANCZOS), dtype=np.int32)


@cache
def held_out(n_kinds):
    """The symmetric (n, n) table of the pairs of kinds that no training scene shows together, one in ten."""
    table = np.triu(np.random.default_rng(7).random((n_kinds, n_kinds)) < 0.1, k=1)
    return table | table.T


def _choose_kinds(rng, n, split, first=None):
    """n different kinds: in training no held-out pair among them, in the test split always one where n > 1."""
    forbidden = held_out(len(kinds()))
    chosen = [int(rng.integers(len(forbidden))) if first is None else first]
    while len(chosen) < n:
        allowed = ~forbidden[chosen].any(axis=0) if split == "train" else np.ones(len(forbidden), bool)
        if split == "test" and len(chosen) == 1:
            allowed = forbidden[chosen[0]].copy()
        allowed[chosen] = False
        chosen.append(int(rng.choice(np.flatnonzero(allowed))))
    return [chosen[i] for i in rng.permutation(n)] if first is None else chosen


def _choose_counts(rng, n):
    """1 to 3 of each kind, no more than MOST_OBJECTS in all, most often one."""
    counts = [1 + int(draw > 0.6) + int(draw > 0.85) for draw in rng.random(n)]
    while sum(counts) > MOST_OBJECTS:
        counts[int(np.argmax(counts))] -= 1
    return counts


def _place(rng, side, taken):
    """A grid position for a square that overlaps the taken (x, y, side) rows least, of 24 drawn ones."""
    spots = MARGIN + STEP * rng.integers(0, (SIZE - 2 * MARGIN - side) // STEP + 1, size=(24, 2))
    if not taken:
        return spots[0]
    near = np.array(taken)
    apart = np.maximum(spots[:, None], near[None, :, :2])
    meet = np.minimum(spots[:, None] + side, near[None, :, :2] + near[None, :, 2:])
    overlap = np.clip(meet - apart, 0, None).prod(axis=-1).sum(axis=1)
    return spots[int(overlap.argmin())]


def _paint(canvas, sprite, x, y):
    """Lay a sprite over the canvas in place; its opaque pixels as a (SIZE, SIZE) bool mask."""
    side = len(sprite)
    window = canvas[y : y + side, x : x + side]
    alpha = sprite[..., 3:]
    window[:] = (sprite[..., :3] * alpha + window * (255 - alpha)) // 255
    mask = np.zeros((SIZE, SIZE), bool)
    mask[y : y + side, x : x + side] = alpha[..., 0] > 127
    return mask


def _phrase(kind, count):
    """("two mice", "mice"): the words for so many of a kind, and the one that names it."""
    row = kinds()[kind]
    noun = row["singular"] if count == 1 else row["plural"]
    determiner = row["article"] if count == 1 else COUNT_WORDS[count]
    return f"{determiner} {noun}".strip(), noun.split()[-1]


def _caption(rng, phrases, plural_first, place):
    *rest, last = phrases
    things = f"{', '.join(rest)} and {last}" if rest else last
    template = TEMPLATES[int(rng.integers(len(TEMPLATES)))]
    place = place if rng.random() < 0.5 else ""
    return " ".join(template.format(things=things, be="are" if plural_first else "is", place=place).split())


def _box(kind, mask, named, word):
    label = kinds()[kind]["singular"].split()[-1]
    return Box(label, *hull(mask), named, word if named else "", mask)


def scene(index, seed=0, split="test", max_kinds=4, distractors=True, first=None, place=None, cropped=False):
    """One scene as a Pair; see `scenes`.

    first: the kind that the caption names first; cropped: the picture does not show it.  place: one of PLACES, the ground."""
    if split not in ("train", "test"):
        raise ValueError(f"split is {split!r}: choose 'train' or 'test'")
    rng = np.random.default_rng([("test", "train").index(split), seed, index])
    weights = KIND_WEIGHTS[:max_kinds] / KIND_WEIGHTS[:max_kinds].sum()
    n_kinds = 1 + int(rng.choice(max_kinds, p=weights))
    chosen, counts = _choose_kinds(rng, n_kinds, split, first), _choose_counts(rng, n_kinds)
    n_named = int(rng.integers(1, n_kinds + 1)) if distractors else n_kinds
    drawn = list(PLACES)[int(rng.integers(len(PLACES)))]
    ground = PLACES[drawn](rng)
    if place:  # with numbers of its own, so that all else stays as it is
        ground = PLACES[place](np.random.default_rng(index))
    canvas, place = ground.clip(0, 255).astype(np.uint8), place or drawn
    phrases = [_phrase(kind, count) for kind, count in zip(chosen[:n_named], counts, strict=False)]
    taken, objects = [], []
    for rank, (kind, count) in enumerate(zip(chosen, counts, strict=True)):
        for _ in range(0 if cropped and rank == 0 else count):
            side = int(rng.choice(SIDES))
            x, y = _place(rng, side, taken)
            taken.append((x, y, side))
            mask = _paint(canvas, _sprite(kind, side), x, y)
            objects = [(*thing[:2], thing[2] & ~mask) for thing in objects] + [(rank, kind, mask)]
    boxes = [_box(k, mask, r < n_named, phrases[r][1] if r < n_named else "") for r, k, mask in objects if mask.any()]
    plural_first = counts[0] > 1 or not kinds()[chosen[0]]["article"]
    caption = _caption(rng, [words for words, _ in phrases], plural_first, place)
    return Pair(Image.fromarray(canvas), caption, boxes, f"scenes-{split}-{seed}-{index}")


def scenes(n, seed=0, split="test", max_kinds=4, distractors=True):
    """n scenes, a list of Pair: 112 x 112 px RGB, an English caption, a box and a mask for each object.

    seed and split: 'test' scenes show combinations that no 'train' scene does.  max_kinds: at most so many kinds of object.
    distractors=False: the caption names every object.
    """
    return [scene(index, seed, split, max_kinds, distractors) for index in range(n)]


def distinct_scenes(n, seed=0):
    """n test scenes whose captions name every object, no two of them the same set of kinds: the pairs for retrieval."""
    found, index = {}, 0
    while len(found) < n:
        pair = scene(index, seed, distractors=False)
        found.setdefault(frozenset(box.label for box in pair.boxes), pair)
        index += 1
    return list(found.values())
