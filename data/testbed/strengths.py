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


def study(strength):
    """One row for each setting and marker."""
    clip = load_model(str(model_of(strength)))
    films = [film(index, SEED, strength=strength) for index in range(N_FILMS)]
    plain = [film(index, SEED, strength=strength, plain=True) for index in range(N_FILMS)]
    with_it = {marker: [paint(pair, marker, GREY) for pair in plain] for marker in MARKERS}
    with_it["phrase"] = [replace(pair, caption=PHRASE + pair.caption) for pair in plain]
    moved = {marker: effects(clip, plain, pairs) for marker, pairs in with_it.items()}
    rows, labels = [], np.array([pair.boxes[0].label for pair in films])
    for kind in SETTINGS:
        maps = explain(clip, films, **method_options(clip, kind, SEED, medical=True, quality="fast")["M2IB"])
        image, text = (audit(clip, films, maps, modality, SEED) for modality in ("image", "text"))
        on = {marker: (image, on_patches(image, films, marker)) for marker in MARKERS} | {"phrase": (text, on_phrase(text, PHRASE))}
        for marker, (found, where) in on.items():
            finding = labels == GOES_WITH[marker]
            judged = judge_audit(found, where, moved[marker] * where.any(axis=1)).set_index("word").loc[SAID[marker]]
            row = dict(strength=strength, settings=kind, marker=marker, word=SAID[marker], effect=moved[marker][finding].mean())
            rows.append(row | judged[["used", "score", "rank"]].to_dict())
    return pd.DataFrame(rows)


if __name__ == "__main__":
    pd.concat(map(study, STRENGTHS)).round(4).to_csv(ROOT / "data" / "expected" / "strengths.csv", index=False)
