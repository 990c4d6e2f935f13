"""Whether an audit by RISE or KernelSHAP finds more where they have more passes, at their published settings.

    python data/testbed/passes.py     # half an hour on 2 cores

Writes data/expected/passes.csv, which notebook 09 shows: for each method, number of passes for a picture and modality, the area
under the ROC over words and markers of both twins, and the shares of used words found and of the clean twin's accused.
"""

import pandas as pd
from draw import SEED
from sklearn.metrics import roc_auc_score
from strengths import ROOT, effects_of_all, judged
from train import MODELS

from m2ib_lite import load_model
from m2ib_lite.data import load_pairs
from m2ib_lite.evaluate import METHODS, method_options

N_FILMS, PATCHES = 128, 49
PASSES = {"KernelSHAP": [dict(samples=samples) for samples in (2, 5, 10)]}
PASSES["RISE"] = [dict(image_masks=masks) for masks in (98, 245, 490, 2000)]


def units(method, options):
    """The judged words and markers of both twins."""
    tables = []
    for twin, (clip, moved) in twins.items():
        maps = METHODS[method](clip, films, **method_options(clip, "published", SEED, medical=True)[method] | options)
        tables.append(judged(clip, films, maps, moved).assign(twin=twin))
    table = pd.concat(tables).query("word not in ['frontal', 'view']")  # which are the phrase
    return table.assign(modality=table["marker"].eq("phrase").map({True: "text", False: "image"}), accused=table["score"] > 1)


def study(method, options):
    """One row for each modality."""
    for modality, part in units(method, options).groupby("modality"):
        passes = options.get("image_masks") or options["samples"] * PATCHES
        clean = part[part["twin"] == "radiographs-clean"].groupby("word")["accused"].any()
        area, found = roc_auc_score(part["used"].astype(bool), part["score"]), part["accused"][part["used"].astype(bool)]
        yield dict(method=method, passes=passes, modality=modality, area=area, found=found.mean(), clean=clean.mean())


if __name__ == "__main__":
    films, plain = (list(load_pairs(name, N_FILMS)) for name in ("shortcuts", "shortcuts_plain"))
    clips = {name: load_model(str(MODELS / name)) for name in ("radiographs-biased", "radiographs-clean")}
    twins = {name: (clip, effects_of_all(clip, plain)) for name, clip in clips.items()}
    rows = [row for method, of in PASSES.items() for options in of for row in study(method, options)]
    pd.DataFrame(rows).round(3).to_csv(ROOT / "data" / "expected" / "passes.csv", index=False)
