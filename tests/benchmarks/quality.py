"""How far the maps of two seeds agree, and what a map costs, with ten plain noise samples a step and with fewer antithetic ones.

python tests/benchmarks/quality.py      # about 5 minutes on 2 cores; --device cuda

Spearman between two seeds' maps of 100 scenes of the testbed, both towers, at the published layer, beta and sigma2 and at the
testbed's own; `more than plain` is the paired difference from ten plain samples with its 95% interval.
"""

import time

import numpy as np
import pandas as pd
from common import options

from m2ib_lite import explain, load_model
from m2ib_lite.data import load_pairs
from m2ib_lite.metrics import paired_interval, rank_correlation
from m2ib_lite.models import default_layer

PAIRS = 100
NOISES = {"10 plain": dict(samples=10), "4 plain": dict(samples=4)}
NOISES |= {f"{samples} antithetic": dict(samples=samples, antithetic=True) for samples in (10, 6, 4, 2)}


def agreement(clip, pairs, **settings):
    """Spearman between the maps of seeds 0 and 1, and the seconds a map took.  -> {modality: (B,)}, seconds"""
    images, captions = [pair.image for pair in pairs], [pair.caption for pair in pairs]
    start = time.perf_counter()
    one, other = (explain(clip, images, captions, seed=seed, progress=False, **settings) for seed in (0, 1))
    seconds = (time.perf_counter() - start) / (2 * len(pairs))
    maps = {"image": zip(one.image_maps, other.image_maps, strict=True), "text": zip(one.text_maps, other.text_maps, strict=True)}
    return {name: [rank_correlation(*(x.flatten().cpu() for x in two)) for two in of] for name, of in maps.items()}, seconds


def main():
    clip, pairs = load_model("testbed", options(__doc__).parse_args().device), list(load_pairs("scenes", PAIRS))
    published = dict(layer=tuple(map(default_layer, clip.towers)), beta=0.1, sigma2=1.0)
    agreement(clip, pairs[:8], **published)  # the first call is slower
    rows = []
    for place, settings in {"published": published, "own": {}}.items():
        plain = None
        for noise, samples in NOISES.items():
            found, seconds = agreement(clip, pairs, **settings, **samples)
            plain = plain or found
            for modality, values in found.items():
                more = paired_interval(np.subtract(values, plain[modality]))
                rows.append((place, modality, noise, np.mean(values), *more, seconds))
    columns = ["settings", "modality", "noise", "Spearman", "more than plain", "low", "high", "seconds a pair"]
    print(pd.DataFrame(rows, columns=columns).sort_values(["settings", "modality"], kind="stable").round(3).to_string(index=False))


if __name__ == "__main__":
    main()
