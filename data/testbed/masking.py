"""What an audit by RISE and KernelSHAP says, each with all of its own masks: too slow for notebook 09, which shows what is kept.

    python data/testbed/masking.py     # 75 minutes on 2 cores; maps that are in build/masking are not made again

Writes data/expected/masking.csv: a row for each twin, settings, method, word and marker that is judged in N_FILMS films.
"""

from itertools import product

import pandas as pd
from draw import SEED
from strengths import N_FILMS, ROOT, effects_of_all, judged

from m2ib_lite import load_model
from m2ib_lite.data import load_pairs
from m2ib_lite.evaluate import SETTINGS, attribute, method_options

METHODS = ("KernelSHAP", "RISE")


def study(twin, films, plain):
    """The judged words and markers of one twin."""
    clip = load_model(f"radiographs-{twin}")
    moved = effects_of_all(clip, plain)
    for settings, method in product(SETTINGS, METHODS):
        options = method_options(clip, settings, SEED, medical=True)[method]
        maps = attribute(method, clip, films, ROOT / "build" / "masking", **options)
        yield judged(clip, films, maps, moved).assign(twin=twin, settings=settings, method=method)


if __name__ == "__main__":
    films, plain = (list(load_pairs(name, N_FILMS)) for name in ("shortcuts", "shortcuts_plain"))
    tables = [table for twin in ("biased", "clean") for table in study(twin, films, plain)]
    pd.concat(tables).round(4).to_csv(ROOT / "data" / "expected" / "masking.csv", index=False)
