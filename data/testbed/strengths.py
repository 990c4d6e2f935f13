"""How weak a planted shortcut an audit still finds: biased twins of other strengths, trained, and audited by M2IB.

    python data/testbed/strengths.py     # half an hour on 2 cores; models that are in build/strengths are not trained again

Writes data/expected/strengths.csv, which notebook 09 shows: for each strength, setting and marker the effect on its finding's
films, and what an audit of N_FILMS films of that strength (with "fast" maps) says of the marker for the word of SAID.
"""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from draw import SEED
from shortcuts import GOES_WITH, GREY, MARKERS, PHRASE, film
from train import MODELS

from m2ib_lite import explain, load_model
from m2ib_lite.evaluate import SETTINGS, audit, effects, judge_audit, method_options, on_patches, on_phrase, paint

N_FILMS = 256
ROOT = Path(__file__).parents[2]
STRENGTHS = (0.95, 0.9, 0.85, 0.8, 0.65)
SAID = {"letter": "pneumothorax", "tube": "pleural", "ring": "consolidation", "phrase": "finding"}  # the word that is looked at


def model_of(strength):
    """The biased twin of a strength, trained where there is none.  -> its folder"""
    folder = MODELS / "radiographs-biased" if strength == STRENGTHS[0] else ROOT / "build" / "strengths" / str(strength)
    if not (folder / "README.md").exists():  # which is written last
        script = [sys.executable, Path(__file__).with_name("train.py"), "radiographs-biased"]
        subprocess.run([*script, "--strength", str(strength), "--out", folder], check=True)
    return folder


def effects_of_all(clip, plain):
    """What each marker adds to the cosine of each film that has none.  -> {marker: (B,)}"""
    shown = {marker: [paint(pair, marker, GREY) for pair in plain] for marker in MARKERS}
    shown["phrase"] = [replace(pair, caption=PHRASE + pair.caption) for pair in plain]
    return {marker: effects(clip, plain, pairs) for marker, pairs in shown.items()}


def judge_markers(found, films, moved):
    """`judge_audit` of one audit for each marker that its modality can hold."""
    text = found.modality == "text"
    on = {"phrase": on_phrase(found, PHRASE)} if text else {marker: on_patches(found, films, marker) for marker in MARKERS}
    tables = [judge_audit(found, where, moved[of] * where.any(axis=1)).assign(marker=of) for of, where in on.items()]
    return pd.concat(tables, ignore_index=True)


def judged(clip, films, maps, moved):
    """`judge_audit` of these maps for every marker, the phrase by the words' maps and the others by the images'."""
    found = [audit(clip, films, maps, modality, SEED) for modality in ("image", "text")]
    return pd.concat([judge_markers(one, films, moved) for one in found], ignore_index=True)


def study(strength):
    """One row for each setting and marker."""
    clip = load_model(str(model_of(strength)))
    films, plain = ([film(index, SEED, strength=strength, plain=plain) for index in range(N_FILMS)] for plain in (False, True))
    moved, labels, rows = effects_of_all(clip, plain), np.array([pair.boxes[0].label for pair in films]), []
    for kind in SETTINGS:
        maps = explain(clip, films, **method_options(clip, kind, SEED, medical=True, quality="fast")["M2IB"])
        table = judged(clip, films, maps, moved).set_index(["marker", "word"])
        for marker, word in SAID.items():
            effect = moved[marker][labels == GOES_WITH[marker]].mean()
            row = dict(strength=strength, settings=kind, marker=marker, word=word, effect=effect)
            rows.append(row | table.loc[(marker, word), ["used", "score", "rank"]].to_dict())
    return pd.DataFrame(rows)


if __name__ == "__main__":
    pd.concat(map(study, STRENGTHS)).round(4).to_csv(ROOT / "data" / "expected" / "strengths.csv", index=False)
