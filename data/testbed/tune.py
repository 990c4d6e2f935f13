"""Choose a testbed model's default layer, beta and standardise on the pictures of one seed; the notebooks report on another's.

python data/testbed/tune.py               # writes m2ib.json, tuning.csv and others.txt into data/models/scenes
python data/testbed/tune.py radiographs   # and into data/models/radiographs

Chosen by scores that look at a map's order alone: the image's by the mean of pointing game, best IoU and instances hit, the text's
by the precision of the words that are in the picture.  Order alone would as soon have a map that is squeezed to nothing, so a
setting counts only where half of the maps reach the nat that `plot` draws at full brightness.  sigma2 stays 1.
others.txt: captions of other pictures, and some that say nothing.
"""

import argparse
import json
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from radiographs import radiographs
from scenes import scenes
from tqdm import tqdm

from m2ib_lite import explain, load_model, models
from m2ib_lite.evaluate import localisation, occurrences
from m2ib_lite.models import BUILT_IN
from m2ib_lite.plots import FULL
from m2ib_lite.side import MODALITIES

SEED, N_PAIRS, N_OTHERS, N_EMPTY = 0, 40, 24, 8
DOMAINS = {"scenes": ("testbed", scenes), "radiographs": ("radiographs", radiographs)}  # the model's name, its pictures
CHOSEN_BY = {"image": ["pointing game", "IoU at best", "instances hit"], "text": ["word precision"]}
BETAS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


def measure(clip, pairs, modality, layer, beta, standardise):
    """One row for one setting of one tower: the means of its scores, their mean, and the median of its maps' maxima in nats."""
    own = dict(layer=layer, beta=beta, standardise=standardise)
    found = explain(clip, pairs, modality=modality, sigma2=1.0, quality="fast", batch_size=20, progress=False, **own)
    table = pd.concat([localisation(found, pairs), occurrences(found, pairs)])
    means = table.groupby("metric")["value"].mean()[CHOSEN_BY[modality]]
    maxima = [scores.max().item() for scores in (found.text_maps if modality == "text" else found.image_maps)]
    return dict(modality=modality, **own, score=means.mean(), **means, nats=np.median(maxima))


def write_others(folder, captions):
    """The first different captions, and the end of the list for all models, whose captions say nothing."""
    empty = Path(models.__file__).with_name("others.txt").read_text().splitlines()[-N_EMPTY:]
    lines = [*list(dict.fromkeys(captions))[:N_OTHERS], *empty]
    (folder / "others.txt").write_text("".join(f"{line}\n" for line in lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("domain", nargs="?", choices=list(DOMAINS), default="scenes")
    name, draw = DOMAINS[parser.parse_args().domain]
    clip, pairs, folder = load_model(name), draw(N_PAIRS, seed=SEED), BUILT_IN[name]
    write_others(folder, [pair.caption for pair in pairs])
    depths = [range(-1, len(tower.blocks) - 1) for tower in clip.towers]
    grid = [(modality, *setting) for modality, depth in zip(MODALITIES, depths) for setting in product(depth, BETAS, (False, True))]
    table = pd.DataFrame([measure(clip, pairs, *setting) for setting in tqdm(grid, desc="settings")])
    strong = table[table["nats"] >= FULL["nats"]].sort_values("score")
    taken = [strong[strong["modality"] == modality].iloc[-1] for modality in MODALITIES]
    chosen = {option: [row[option].item() for row in taken] for option in ("layer", "beta", "standardise")}
    table.round(4).to_csv(folder / "tuning.csv", index=False)
    (folder / "m2ib.json").write_text(json.dumps(chosen) + "\n")
    print(chosen)


if __name__ == "__main__":
    main()
