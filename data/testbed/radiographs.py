"""Phantom chest X-rays with findings, phrases and boxes: what MIMIC-CXR and MS-CXR are to the paper.

Drawings for testing attribution methods: nothing clinical follows from them.  The patient's left is the picture's right.
A radiograph depends on (index, seed, split) alone, and len(COMBINATIONS) of them in a row, from a multiple of that on, show each
combination of a finding and a place once: batches of that size never repeat one.
"""

from functools import cache

import numpy as np
from chest import Chest, ellipse, ramp

from m2ib_lite.data import Box, Pair, hull

SIDES = {"right": (-1,), "left": (1,), "bilateral": (-1, 1), "": (1,)}  # where the columns lie, seen from the midline
ZONES = {"upper": (22, 33), "mid": (28, 53), "lower": (32, 72), "hila": (15, 54)}  # centres in a lung: from the midline, down
LUNGS = [(side, zone) for zone in ("upper", "mid", "lower") for side in ("left", "right")]
BASES = [(side, "lower") for side in ("left", "right", "bilateral")]
COMBINATIONS = (  # (finding, side, zone)
    *(("opacity", *place) for place in [*LUNGS, BASES[2]]),
    *(("consolidation", *place) for place in [*LUNGS, BASES[2]]),
    *(("nodule", *place) for place in LUNGS),
    *(("atelectasis", *place) for place in BASES),
    *(("pleural effusion", *place) for place in BASES),
    *(("pneumothorax", side, zone) for zone in ("apex", "rim") for side in ("left", "right")),
    ("cardiomegaly", "", "heart"),
    ("edema", "bilateral", "hila"),
)
HIDES = {"apex": ("upper",), "rim": ("upper", "mid", "lower"), "heart": ("mid", "lower"), "hila": ("upper", "mid", "lower")}
SEEN = 0.12  # a pixel that a finding covers to this share is its own

EXTENT = (("small", "tiny", "minimal"), ("moderate", ""), ("large", "extensive"))
ADJECTIVES = {  # for each of the three sizes that a finding is drawn in
    "opacity": (("ill-defined", "patchy", "hazy", "subtle", "focal", ""),) * 3,
    "consolidation": (("local", "focal", ""), ("dense", "airspace", ""), ("dense", "extensive", "")),
    "nodule": (("small", "tiny", "round"), ("discrete", "well-defined", "round"), ("large", "dense round", "")),
    "atelectasis": (("linear", "plate-like", "subsegmental", ""),) * 3,
    "pleural effusion": EXTENT,
    "pneumothorax": EXTENT,
    "cardiomegaly": (("mild", "minimal"), ("moderate", ""), ("severe",)),
    "edema": (("mild", ""), ("diffuse", "interstitial"), ("severe", "extensive")),
}
TEMPLATES = {  # {a}: adjective, {n}: noun, {side}, {zone}, {zones}: agrees with the side
    "upper": ("{a} {n} in the {side} upper {lobes}", "{a} {side} upper {lobe} {n}", "{a} {n} in the {side} upper {lungs}"),
    "mid": ("{a} {n} in the {side} midlung", "{a} {side} midlung {n}", "{a} {n} in the {side} mid {lungs}"),
    "lower": ("{a} {n} in the {side} lower {lobes}", "{a} {side} lower {lobe} {n}", "{a} {n} at the {side} lung {bases}"),
    "atelectasis": ("{a} {n} at the {side} {bases}", "{a} {side} basilar {n}", "{a} {n} in the {side} lower {lobes}"),
    "pleural effusion": (
        "{a} {side} pleural {n}",
        "{a} {side} {n}",
        "{a} {side} pleural {n} with blunting of the costophrenic {angles}",
    ),
    "apex": ("{a} {side} apical {n}", "{a} {n} at the {side} apex"),
    "rim": ("{a} {side} {n}", "{a} {side} lateral {n}", "{a} {side} {n} with a visible pleural line"),
    "heart": ("{a} {n}", "{a} {n}", "{a} {n} with an enlarged cardiac silhouette"),
    "hila": ("{a} pulmonary {n}", "{a} perihilar {n}", "{a} bilateral {n} with vascular congestion"),
}
FRAMES = ("{}",) * 5 + ("there {be} {a} {}", "{} {be} seen", "chest x-ray shows {a} {}", "frontal radiograph with {a} {}")
PLURALS = {"opacity": "opacities", "consolidation": "consolidations", "effusion": "effusions"}
COUNTED = ("opacity", "nodule", "effusion", "pneumothorax")  # "an opacity", but "consolidation"


def _spot(chest, rng, side, zone, wide, high):
    """An ellipse near the middle of a zone: 1 in its centre, 0 on its border, negative outside."""
    across, down = ZONES[zone]
    across, down = across + int(rng.integers(-4, 5)) / 2, down + int(rng.integers(-6, 7)) / 2
    return ellipse(side * chest.u - across, chest.v - down, wide, high)


def _opacity(chest, rng, side, zone, size):
    """Faint, with no border that one could name."""
    haze = np.maximum(_spot(chest, rng, side, zone, 15 + size, 13 + size), 0)
    return chest.air * haze * chest.patches(rng) * 0.6, 170


def _consolidation(chest, rng, side, zone, size):
    """Dense, with a border."""
    ragged = _spot(chest, rng, side, zone, 12 + size, 11 + size) + 0.8 * chest.patches(rng) - 0.7
    return 0.95 * ramp(3 * chest.air) * ramp(3 * ragged), chest.airless + 30


def _nodule(chest, rng, side, zone, size):
    """Small, round and sharp."""
    return chest.air * 0.95 * ramp(2 * _spot(chest, rng, side, zone, 3.6 + 0.6 * size, 3.6 + 0.6 * size)), 195


def _atelectasis(chest, rng, side, zone, size):
    """Two or three thin lines at the base."""
    across, down = ZONES[zone]
    t = side * chest.u - across + 3
    course = chest.v - down + 4 + int(rng.integers(-6, 7)) / 20 * t
    lines = sum(ramp(1.5 - np.abs(course - 5 * k)) for k in range(2 + size // 2))
    return chest.air * lines * (0.9 * ramp((12 + size - np.abs(t)) / 4)), 180


def _effusion(chest, rng, side, zone, size):
    """It fills the base up to a meniscus that climbs the chest wall."""
    t = np.maximum(side * chest.u, 0)
    level = (93, 85, 77)[size] + int(rng.integers(-2, 3)) - 0.011 * t * t
    return ramp(3 * chest.air) * ramp((chest.v - level) / 3) * (t > 0), chest.airless + 14


def _pneumothorax(chest, rng, side, zone, size):
    """A dark rim without markings, and the thin line of the pleura: over the apex, or along the whole side."""
    t, wide = side * chest.u, (4, 6, 8)[size]
    depth = wide + 1 - chest.rim if zone == "rim" else wide + 22 - chest.v - 0.02 * (t - 18) ** 2
    line = ramp(1.3 - np.abs(depth))
    covered = np.maximum(0.85 * ramp(depth), 0.6 * line)
    return chest.air * covered * (ramp((86 - chest.v) / 4) * (t > 0)), 14 + 130 * line


def _cardiomegaly(chest, rng, side, zone, size):
    """A heart that takes more than half of the chest's width: tissue where there was air."""
    return chest.heart((1.32, 1.42, 1.52)[size]) * ramp((92 - chest.v) / 4), chest.airless + 8


def _edema(chest, rng, side, zone, size):
    """A haze around the hilum."""
    haze = np.maximum(1.2 * _spot(chest, rng, side, zone, 24 + size, 30 + size), 0)
    return chest.air * haze * chest.patches(rng) * (0.5 + 0.06 * size), 180


PAINTERS = {  # (chest, rng, side, zone, size) -> how much of each pixel the finding covers (H, W), and with what grey
    "opacity": _opacity,
    "consolidation": _consolidation,
    "nodule": _nodule,
    "atelectasis": _atelectasis,
    "pleural effusion": _effusion,
    "pneumothorax": _pneumothorax,
    "cardiomegaly": _cardiomegaly,
    "edema": _edema,
}


def _pick(rng, options):
    return options[int(rng.integers(len(options)))]


def _phrase(rng, finding, side, zone, size):
    """("two nodules ...", "nodules"): a radiologist's phrase for a finding, and the word in it that names the finding."""
    both, noun = side == "bilateral", finding.split()[-1]
    plural = noun in PLURALS and (both or (noun == "opacity" and rng.integers(2) == 0))
    word = PLURALS[noun] if plural else noun
    ends = {f"{part}s": f"{part}s" if both else part for part in ("lobe", "lung", "base", "angle")}
    template = _pick(rng, TEMPLATES.get(finding) or TEMPLATES[zone])
    words = template.format(a=_pick(rng, ADJECTIVES[finding][size]), n=word, side=side, lobe="lobe", **ends)
    phrase = " ".join(words.split())
    article = ("an" if phrase[0] in "aeiou" else "a") if noun in COUNTED and not plural else ""
    framed = _pick(rng, FRAMES).format(phrase, a=article, be="are" if plural else "is")
    return " ".join(framed.split()), word


@cache
def _order(run, seed, split):
    return _generator(run, seed, split).permutation(len(COMBINATIONS)).tolist()


def _generator(index, seed, split):
    return np.random.default_rng([("test", "train").index(split), seed, index])


def _hidden_by(side, zone):
    return {(sign, part) for sign in SIDES[side] for part in HIDES.get(zone, (zone,))}


@cache
def _elsewhere(finding, side, zone):
    """The combinations of another finding in another place; none beside edema, which lies over both lungs."""
    here = _hidden_by(side, zone)
    return [other for other in COMBINATIONS if other[0] != finding and not here & _hidden_by(*other[1:])]


def radiograph(index, seed=0, split="test", distractors=True):
    """One radiograph as a Pair; see `radiographs`."""
    if split not in ("train", "test"):
        raise ValueError(f"split is {split!r}: choose 'train' or 'test'")
    rng = _generator(index, seed, split)
    chest = Chest(rng)
    run, place = divmod(index, len(COMBINATIONS))
    shown = [COMBINATIONS[_order(run, seed, split)[place]]]
    if distractors and (others := _elsewhere(*shown[0])) and rng.integers(3) == 0:
        shown.append(_pick(rng, others))
    density, boxes, phrases = chest.density, [], []
    for finding, side, zone in shown:
        size = int(rng.integers(3))
        phrase, word = _phrase(rng, finding, side, zone, size)
        named = not phrases
        phrases.append(phrase)
        for sign in SIDES[side]:
            covered, grey = PAINTERS[finding](chest, rng, sign, zone, size)
            density = density + covered * (grey - density)
            mask = covered > SEEN
            boxes.append(Box(finding, *hull(mask), named, word if named else "", mask))
    return Pair(chest.film(density), phrases[0], boxes, f"radiographs-{split}-{seed}-{index}")


def radiographs(n, seed=0, split="test", distractors=True):
    """n phantom radiographs, a list of Pair: 112 x 112 px RGB, a radiologist's phrase, a box and a mask for each finding.

    A bilateral finding has a box a side.  distractors: one in three shows a second finding elsewhere that the phrase does not name.
    """
    return [radiograph(index, seed, split, distractors) for index in range(n)]


def one_of_each(seed=0):
    """One test radiograph of each combination of a finding and a place, with nothing else in it, in the table's order."""
    pairs = radiographs(len(COMBINATIONS), seed, distractors=False)
    return [pairs[place] for place in np.argsort(_order(0, seed, "test"))]
