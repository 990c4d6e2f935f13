"""Peak memory of `m2ib evaluate` over many pairs: the same for 100 and for 10,000, where it streams.

python tests/benchmarks/memory.py      # about 5 minutes on one core; --pairs 100 10000, --methods random,chefer

A CLIP of random weights with 2 and 3 blocks, and tiny PNGs with captions made in a temporary folder, so that next to nothing is
computed for a pair: what grows with the number of pairs shows.  Each number of pairs runs in a process of its own.
"""

import sys
import tempfile
from pathlib import Path

import pandas as pd
from common import measured, options
from families import tiny_clip
from PIL import Image

from m2ib_lite import load_model

WORDS = ("two mice", "a piece of cheese", "an owl", "three keys", "a violin")


def tiny_pairs(folder, count):
    """A folder of pictures of 32 x 32 pixels, and their captions.csv."""
    folder.mkdir()
    rows = []
    for i in range(count):
        Image.effect_noise((32, 32), 64).convert("RGB").save(folder / f"{i:06d}.png")
        rows.append((f"{i:06d}.png", f"{WORDS[i % len(WORDS)]} and {WORDS[i // len(WORDS) % len(WORDS)]}"))
    pd.DataFrame(rows, columns=["image", "caption"]).to_csv(folder / "captions.csv", index=False)


def main():
    parser = options(__doc__)
    parser.add_argument("--pairs", type=int, nargs="+", default=[100, 10_000])
    parser.add_argument("--methods", default="random")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, pairs = Path(folder) / "model", Path(folder) / "pairs"
        tiny_clip(model, load_model("testbed", "cpu"))
        tiny_pairs(pairs, max(args.pairs))
        for count in args.pairs:
            given = f"--model {model} --data {pairs} --out {folder}/out{count} --count {count} --methods {args.methods}"
            command = f"-m m2ib_lite evaluate {given} --device {args.device} --batch-size 32".split()
            peak, seconds = measured([sys.executable, *command])
            print(f"{count} pairs: {peak:.0f} MB at most, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
