"""Draw pictures of the testbed into a folder in Hugging Face's ImageFolder layout.

    python data/testbed/draw.py scenes --seed 7 --count 50 --out FOLDER
    python data/testbed/draw.py scenes                                    # data/scenes, as shipped: seed 1

FOLDER/metadata.jsonl has a line for each picture: file_name, mask_file_name, id, caption and boxes.  A mask is one map of all
boxes: a pixel is the sum of 2**k over the boxes k, counted from 0, that it belongs to, since two findings may lie over each other.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from radiographs import radiographs
from scenes import distinct_scenes, scenes
from shortcuts import film, snowy

DATA = Path(__file__).parents[1]
SEED = 1  # of the pictures that are shipped


def many(make, n, seed, **options):
    """The first n pictures of a world with shortcuts."""
    return [make(index, seed, **options) for index in range(n)]


KINDS = {  # with the number that is shipped
    "scenes": (scenes, 300),
    "radiographs": (radiographs, 100),
    "retrieval": (distinct_scenes, 256),
    "shortcuts": (partial(many, film), 256),
    "shortcuts_plain": (partial(many, film, plain=True), 256),
    "snow": (partial(many, snowy), 128),
    "snow_plain": (partial(many, snowy, plain=True), 128),
}


def label_map(pair):
    """The boxes that each pixel belongs to, box k as 2**k.  -> (H, W) uint8"""
    labels = np.zeros((pair.image.height, pair.image.width), np.uint8)
    for k, box in enumerate(pair.boxes):
        labels |= np.uint8(2**k) * box.mask
    return labels


def entry(pair, name):
    """The line of metadata.jsonl for a pair whose files are called `name`."""
    boxes = [dict(label=b.label, x=b.x, y=b.y, w=b.w, h=b.h, named=b.named, word=b.word) for b in pair.boxes]
    return dict(file_name=f"images/{name}", mask_file_name=f"masks/{name}", id=pair.id, caption=pair.caption, boxes=boxes)


def draw(pairs, folder):
    """Write the pictures, masks and lines of some pairs; the lines come last."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    lines = []
    for number, pair in enumerate(pairs):
        name = f"{number:04d}.png"
        pair.image.save(folder / "images" / name, optimize=True)
        Image.fromarray(label_map(pair)).save(folder / "masks" / name, optimize=True)
        lines.append(json.dumps(entry(pair, name)) + "\n")
    (folder / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=list(KINDS), help="retrieval: scenes whose captions name every object, no two alike")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--count", type=int, help="as many as are shipped unless told")
    parser.add_argument("--out", type=Path, help="data/KIND unless told")
    args = parser.parse_args()
    make, shipped = KINDS[args.kind]
    draw(make(args.count or shipped, seed=args.seed), args.out or DATA / args.kind)


if __name__ == "__main__":
    main()
