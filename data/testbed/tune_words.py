"""Which settings suit word maps best, on scenes of a seed that no notebook reports on; notebook 08 takes the best of each method.

python data/testbed/tune_words.py   # writes data/models/scenes/words.csv

By how often a word's own object is preferred, then by the pointing game, over 12 scenes each with two, three and four kinds.
"""

from itertools import product

import pandas as pd
from scenes import scenes
from tqdm import tqdm

from m2ib_lite import explain_words, load_model
from m2ib_lite.evaluate import word_game
from m2ib_lite.models import BUILT_IN

SEED, DRAWN, EACH = 0, 220, 12
GRIDS = {
    "M2IB": [dict(layer=layer, beta=beta) for layer, beta in product((0, 1, 2), (0.3, 1.0, 3.0, 10.0))],
    "chefer": [dict(blocks=blocks) for blocks in range(1, 7)],
    "nib": [dict(layer=layer) for layer in range(5)],
}
FIXED = {"M2IB": dict(sigma2=1.0, standardise=False, quality="fast")}


def play(clip, pair, method, options):
    """The table of word_game for one scene."""
    words = sorted(pair.words(), key=pair.caption.index)
    found = explain_words(clip, pair, phrases=words, method=method, **options)
    return word_game({word: found.heat(word) for word in words}, pair, method)


def main():
    clip, drawn, rows = load_model("testbed"), scenes(DRAWN, seed=SEED), []
    pairs = [pair for k in (2, 3, 4) for pair in [pair for pair in drawn if len(pair.words()) == k][:EACH]]
    for method, own in tqdm([(method, own) for method, grid in GRIDS.items() for own in grid]):
        options = own | FIXED.get(method, {})
        table = pd.concat([play(clip, pair, method, options) for pair in pairs])
        rows.append(dict(method=method, **own, **table.groupby("metric")["value"].mean()))
    table = pd.DataFrame(rows).sort_values(["method", "own object", "pointing game"], ascending=[True, False, False])
    table.round(3).to_csv(BUILT_IN["testbed"] / "words.csv", index=False)
    print(table.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
