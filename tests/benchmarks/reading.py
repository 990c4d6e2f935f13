"""For how much of the time `m2ib evaluate` waits for pictures: JPEGs of 640 x 480 pixels, read while the batch before is scored.

python tests/benchmarks/reading.py     # about a minute on one core; --pairs 64, --methods chefer
"""

import tempfile
import time
from concurrent.futures import Future
from pathlib import Path

import pandas as pd
from common import options
from PIL import Image

from m2ib_lite import load_model
from m2ib_lite.data import load_pairs
from m2ib_lite.evaluate import method_options
from m2ib_lite.rivals import RIVALS
from m2ib_lite.runs.scoring import Scorer


def photographs(folder, count):
    """A folder of JPEGs of a photograph's size, and their captions.csv."""
    for i in range(count):
        Image.effect_noise((640, 480), 64).convert("RGB").save(folder / f"{i}.jpg")
    pd.DataFrame(dict(image=[f"{i}.jpg" for i in range(count)], caption="an owl and a key")).to_csv(folder / "captions.csv")
    return load_pairs(str(folder))


def waited(scorer, pairs):
    """Seconds in all, and those of them that were spent on waiting for the reader."""
    waits, result = [], Future.result

    def timed(future, timeout=None):
        start = time.perf_counter()
        found = result(future, timeout)
        waits.append(time.perf_counter() - start)
        return found

    Future.result, start = timed, time.perf_counter()
    try:
        scorer.table(pairs, range(len(pairs)), lambda n: None)
    finally:
        Future.result = result
    return time.perf_counter() - start, sum(waits)


def main():
    parser = options(__doc__)
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--methods", default="chefer")
    args = parser.parse_args()
    clip = load_model("testbed", args.device)
    every = method_options(clip, "best", 0)
    names = [RIVALS[name].title if name in RIVALS else "M2IB" for name in args.methods.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        pairs = photographs(Path(folder), args.pairs)
        start = time.perf_counter()
        for i in range(len(pairs)):
            pairs[i].image.load()
        reading = time.perf_counter() - start
        total, waiting = waited(Scorer(clip, {name: every[name] for name in names}, 8), pairs)
    print(f"{args.pairs} pairs: reading alone {reading:.2f} s; scored in {total:.2f} s, of which {waiting / total:.1%} waiting")


if __name__ == "__main__":
    main()
