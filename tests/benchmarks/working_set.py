"""Peak memory of `explain` over few and many pairs, for two batch sizes: batch_size bounds it, not the number of pairs.

python tests/benchmarks/working_set.py      # about 3 minutes on 2 cores; the maps of 1,000 pairs, read from files

The testbed's model at the published layer, beta and sigma2.  Each number of pairs runs in a process of its own.
"""

import sys
import tempfile
from pathlib import Path

from memory import measured
from scenes import scenes

from m2ib_lite import explain, load_model
from m2ib_lite.models import default_layer

PAIRS, BATCHES = (8, 100, 1000), (8, 64)
DIFFERENT = 50  # scenes that are drawn; their files are explained again and again


def ask(folder, count, batch_size):
    """The maps of so many pairs; what the process of its own does."""
    clip, captions = load_model("testbed"), (Path(folder) / "captions.txt").read_text().splitlines()
    files, captions = ([of[i % DIFFERENT] for i in range(count)] for of in (sorted(Path(folder).glob("*.png")), captions))
    settings = dict(layer=tuple(map(default_layer, clip.towers)), beta=0.1, sigma2=1.0)
    a = explain(clip, files, captions, batch_size=batch_size, progress=False, **settings)
    assert len(a.image_maps) == len(a.text_maps) == count


def main():
    with tempfile.TemporaryDirectory() as folder:
        pairs = scenes(DIFFERENT, seed=0)
        for i, pair in enumerate(pairs):
            pair.image.save(Path(folder) / f"{i:03d}.png")
        (Path(folder) / "captions.txt").write_text("\n".join(pair.caption for pair in pairs))
        for batch_size in BATCHES:
            for count in PAIRS:
                peak, seconds = measured([sys.executable, __file__, folder, str(count), str(batch_size)])
                print(f"batch_size {batch_size}, {count} pairs: {peak:.0f} MB at most, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    ask(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])) if len(sys.argv) > 1 else main()
