"""Peak memory of `python -m m2ib_lite evaluate` over many pairs: the same for 100 and for 10,000, where it streams.

python tests/benchmarks/memory.py      # about 5 minutes on one core; --pairs 100 10000, --methods random,chefer

A CLIP of random weights with 2 and 3 blocks, and tiny PNGs with captions made in a temporary folder, so that next to nothing is
computed for a pair: what grows with the number of pairs shows.  Each number of pairs runs in a process of its own.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from families import tiny_clip

from m2ib_lite import load_model

WORDS = ("two mice", "a piece of cheese", "an owl", "three keys", "a violin")


def tiny_pairs(folder, count):
    """A folder of pictures of 32 x 32 pixels, and their captions.csv."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    with open(folder / "captions.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "caption"])
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{i:06d}.png")
            table.writerow([f"{i:06d}.png", f"{WORDS[i % len(WORDS)]} and {WORDS[i // len(WORDS) % len(WORDS)]}"])


def measured(command):
    """Run a command.  -> its peak resident memory in MB, seconds"""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    unit = 1e6 if sys.platform == "darwin" else 1e3  # bytes there, kilobytes on Linux
    return used.ru_maxrss / unit, time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[100, 10_000])
    parser.add_argument("--methods", default="random")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        tiny_clip(folder / "model", load_model("testbed", "cpu"))
        tiny_pairs(folder / "pairs", max(args.pairs))
        for count in args.pairs:
            of = ["--model", str(folder / "model"), "--data", str(folder / "pairs"), "--out", str(folder / f"out{count}")]
            options = ["--count", str(count), "--methods", args.methods, "--device", "cpu", "--batch-size", "32"]
            peak, seconds = measured([sys.executable, "-m", "m2ib_lite", "evaluate", *of, *options])
            print(f"{count} pairs: {peak:.0f} MB at most, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
