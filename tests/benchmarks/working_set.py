"""Peak memory of `explain` over few and many pairs, for two batch sizes: batch_size bounds it, not the number of pairs.

python tests/benchmarks/working_set.py      # about 3 minutes on 2 cores; the maps of 1,000 pairs, read from files

The testbed's model at the published layer, beta and sigma2.  Each number of pairs runs in a process of its own.
"""

import sys
from itertools import cycle, islice
from pathlib import Path

from common import measured

from m2ib_lite import explain, load_model
from m2ib_lite.data import load_pairs
from m2ib_lite.models import default_layer

PAIRS, BATCHES = (8, 100, 1000), (8, 64)
IMAGES = Path(__file__).parents[2] / "data" / "scenes" / "images"


def ask(count, batch_size):
    """The maps of so many pairs, the shipped scenes again and again; what the process of its own does."""
    clip, files = load_model("testbed"), sorted(IMAGES.glob("*.png"))[:50]
    captions = [pair.caption for pair in load_pairs("scenes", len(files))]
    files, captions = (list(islice(cycle(of), count)) for of in (files, captions))
    settings = dict(layer=tuple(map(default_layer, clip.towers)), beta=0.1, sigma2=1.0)
    a = explain(clip, files, captions, batch_size=batch_size, progress=False, **settings)
    assert len(a.image_maps) == len(a.text_maps) == count


def main():
    for batch_size in BATCHES:
        for count in PAIRS:
            peak, seconds = measured([sys.executable, __file__, str(count), str(batch_size)])
            print(f"batch_size {batch_size}, {count} pairs: {peak:.0f} MB at most, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    ask(*map(int, sys.argv[1:])) if len(sys.argv) > 1 else main()
