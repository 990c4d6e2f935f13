"""What a map costs against how good it is: agreement between seeds, and with the converged map, over steps, samples and the rest.

python tests/benchmarks/frontier.py            # about an hour on 2 cores; --device cuda
python tests/benchmarks/frontier.py --models testbed,radiographs

At the published layer, beta and sigma2, for each tower of both testbed models and of a ViT-B/32 with random weights.  Passes: of a
whole tower, forward and backward.  Agreement: Spearman between the maps of two seeds, and with the map of 400 steps of 40 samples,
of the same pair and standardise.  Writes data/expected/frontier.csv, a row for each setting, which notebook 07 draws; what other
models' rows it holds stays.
"""

from itertools import product

import pandas as pd
from common import options, random_clip
from tqdm import tqdm

from m2ib_lite import load_model
from m2ib_lite.data import load_pairs
from m2ib_lite.evaluate import follow
from m2ib_lite.metrics import rank_correlation
from m2ib_lite.models import default_layer, pick_device
from m2ib_lite.repro import EXPECTED

MODELS = {  # the pairs of each, and how many
    "testbed": ("scenes", 24),
    "radiographs": ("radiographs", 24),
    "ViT-B/32": ("scenes", 2),
}
STEPS, CONVERGED, SEEDS = (5, 10, 20, 50, 100), dict(steps=(400,), samples=40, seed=9), (0, 1)
NOISES = ((1, False), (2, True), (4, False), (4, True), (10, False), (10, True), (20, True))  # samples, antithetic
WHOLE = [*product(NOISES, (0.3, 1.0, 3.0), (False, True))]  # noise, lr, standardise
SHORT = [*product(((1, False), (4, True), (10, False), (20, True)), (1.0,), (False,))]  # for the model that takes its time


def load(name, device):
    if name != "ViT-B/32":
        return load_model(name, device)
    ids = dict(pad_token_id=0, bos_token_id=2, eos_token_id=3)
    return random_clip(name, load_model("testbed", "cpu").tokenizer, pick_device(device), **ids)


def flat(attribution):
    """-> one numpy vector a pair"""
    maps = attribution.text_maps if attribution.image_maps is None else attribution.image_maps.flatten(1)
    return [scores.cpu().numpy() for scores in maps]


def agreement(one, other):
    """Spearman's correlation of two Attributions' maps, in the mean over the pairs."""
    correlations = [rank_correlation(*maps) for maps in zip(flat(one), flat(other), strict=True)]
    return sum(correlations) / len(correlations)


def study(clip, pairs, modality, settings):
    """One row for each setting and number of steps of one tower."""
    tower = clip.image if modality == "image" else clip.text
    place = dict(modality=modality, layer=default_layer(tower), beta=0.1, sigma2=1.0)
    share = (len(tower.blocks) - 1 - place["layer"]) / len(tower.blocks)
    converged = {}
    for (samples, antithetic), lr, standardise in tqdm(settings, desc=modality):
        if standardise not in converged:
            converged[standardise] = follow(clip, pairs, **place, **CONVERGED, standardise=standardise)[0][400]
        kind = dict(samples=samples, antithetic=antithetic, lr=lr, standardise=standardise)
        one, other = (follow(clip, pairs, **place, **kind, steps=STEPS, seed=seed)[0] for seed in SEEDS)
        for n in STEPS:
            seeds, last = agreement(one[n], other[n]), agreement(one[n], converged[standardise])
            cost = {"passes": 1 + 2 * n * samples * share, "between seeds": seeds, "with converged": last}
            yield dict(modality=modality, steps=n, **kind, **cost)


def main():
    parser = options(__doc__)
    parser.add_argument("--models", default=",".join(MODELS))
    args = parser.parse_args()
    path = EXPECTED / "frontier.csv"
    for name in args.models.split(","):
        clip, (data, count) = load(name, args.device), MODELS[name]
        pairs, settings = list(load_pairs(data, count)), SHORT if name == "ViT-B/32" else WHOLE
        rows = [dict(model=name, pairs=count, **row) for of in ("image", "text") for row in study(clip, pairs, of, settings)]
        known = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=list(rows[0]))
        table = pd.concat([known[known["model"] != name], pd.DataFrame(rows)] if len(known) else [pd.DataFrame(rows)])
        table.round(4).to_csv(path, index=False)


if __name__ == "__main__":
    main()
