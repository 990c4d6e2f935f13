"""Choose a testbed model's default layer, beta and sigma2 on the pictures of one seed; the notebooks report on another's.

python data/testbed/tune.py               # writes m2ib.json and tuning.csv into data/models/scenes
python data/testbed/tune.py radiographs   # and into data/models/radiographs

The image's are chosen by the mean of three localisation scores, the text's by the precision of the words that are in the
picture: first layer and beta at sigma2 = 1, then sigma2 and beta at that layer.
"""

import argparse
import json
from itertools import product

import pandas as pd
from radiographs import radiographs
from scenes import scenes
from tqdm import tqdm

from m2ib_lite import explain, load_model
from m2ib_lite.evaluate import localisation
from m2ib_lite.models import BUILT_IN

SEED, N_PAIRS = 0, 64
DOMAINS = {"scenes": ("testbed", scenes), "radiographs": ("radiographs", radiographs)}  # the model's name, its pictures
CHOSEN_BY = {"image": ["energy inside", "pointing game", "named preference"], "text": ["word precision"]}
BETAS, SIGMA2S = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0), (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


def measure(clip, pairs, layers, beta, sigma2):
    """One row a modality for one setting: the mean of its scores."""
    images, captions = [pair.image for pair in pairs], [pair.caption for pair in pairs]
    options = dict(layer=layers, beta=beta, sigma2=sigma2, batch_size=32, progress=False)
    means = localisation(explain(clip, images, captions, **options), pairs).groupby("metric")["value"].mean()
    for (modality, names), layer in zip(CHOSEN_BY.items(), layers, strict=True):
        yield dict(modality=modality, layer=layer, beta=beta, sigma2=sigma2, score=means[names].mean(), **means[names])


def best(rows):
    """The best row of each modality, as a (image, text) pair of dicts."""
    table = pd.DataFrame(rows)
    return [table[table["modality"] == m].sort_values("score").iloc[-1] for m in ("image", "text")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("domain", nargs="?", choices=list(DOMAINS), default="scenes")
    name, draw = DOMAINS[parser.parse_args().domain]
    clip, pairs, rows = load_model(name), draw(N_PAIRS, seed=SEED), []
    last = [len(tower.blocks) - 2 for tower in clip.towers]
    for layer, beta in tqdm(list(product(range(max(last) + 1), BETAS)), desc="layer, beta"):
        rows += measure(clip, pairs, (min(layer, last[0]), min(layer, last[1])), beta, 1.0)
    layers = [int(row["layer"]) for row in best(rows)]
    for sigma2, beta in tqdm(list(product(SIGMA2S, BETAS)), desc="sigma2, beta"):
        rows += measure(clip, pairs, layers, beta, sigma2)
    chosen = {option: [row[option].item() for row in best(rows)] for option in ("layer", "beta", "sigma2")}
    folder = BUILT_IN[name]
    pd.DataFrame(rows).drop_duplicates().round(4).to_csv(folder / "tuning.csv", index=False)
    (folder / "m2ib.json").write_text(json.dumps(chosen) + "\n")
    print(chosen)


if __name__ == "__main__":
    main()
