"""Seconds, passes and floating-point work a pair: the naive published procedure, ours, and some rivals, on one machine.

python tests/benchmarks/speed.py --json speed.json      # about 25 minutes on 2 cores; --device cuda, --dtype bfloat16

A CLIP of the size of ViT-B/32 with random weights, one picture and caption, layer 9, 10 steps, 10 samples, both modalities.  The
rows from `naive` to `ours` leave out more and more of what is not needed, for the same maps; quality="fast" does less, for maps
about as good (frontier.py); explain_words gives a map for each word of the caption.  The rows take turns, `--repeats` times, a
short one as often as fits in SPAN seconds.  Printed are medians, and those of the ratios against the `naive` of the same turn,
with the least and the greatest.
"""

import json
import time
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import torch
from common import options, random_clip
from einops import reduce, repeat
from torch.utils.flop_counter import FlopCounterMode

from m2ib_lite import explain, explain_words, load_model
from m2ib_lite.bottleneck import START, capacity, inject
from m2ib_lite.data import load_pairs
from m2ib_lite.explain import noise_source
from m2ib_lite.hooks import capture, replace
from m2ib_lite.metrics import rank_correlation
from m2ib_lite.models import Tower, pick_device
from m2ib_lite.rivals import RIVALS

LAYER, BETA, SIGMA2, STEPS, SAMPLES, SEED = 9, 0.1, 1.0, 10, 10, 0
SETTINGS = dict(layer=LAYER, beta=BETA, sigma2=SIGMA2, seed=SEED)
SPAN = 10  # seconds
RISE_SHARE = 20  # RISE is timed with 2,000 / 20 masks and its time multiplied: it is linear in them
CAPTION = "we can see two mice and a piece of cheese on the grass"


def naive(clip, images, captions, learning=True, both=True):
    """The released procedure for one pair: at each step both whole towers (not both: the other one once) on ten copies, gradients
    to all weights (not learning: to alpha alone).  -> maps"""
    pixels, text = clip.pixels(images), clip.tokens(captions)
    maps = [naive_map(clip, tower, pixels, text, learning, both) for tower in clip.towers]
    clip.model.requires_grad_(False).zero_grad()
    return maps[0][1:], maps[1][text.content[0]]


def naive_map(clip, tower, pixels, text, learning, both):
    """One tower's map of one pair.  -> (T,)"""
    clip.model.requires_grad_(learning)
    inputs = {clip.image: pixels, clip.text: text.ids}
    own, other = inputs[tower], clip.image if tower is clip.text else clip.text
    target = None if both else other.encode(inputs[other])
    with capture(tower.blocks[LAYER]) as states:
        tower.encode(own)
    R = states[0].detach()
    alpha = torch.full_like(R, START, dtype=torch.float32, requires_grad=True)
    adam = torch.optim.Adam([alpha], lr=1.0)
    draw = noise_source(SEED, own, torch.ones(R.shape[:2], dtype=torch.bool), R.shape[2], SAMPLES)
    copies = {of: repeat(x, "1 ... -> s ...", s=SAMPLES) for of, x in inputs.items()}
    for _ in range(STEPS):
        noise = draw()[:, 0]
        with replace(tower.blocks[LAYER], lambda hidden, noise=noise: inject(hidden, alpha, noise, SIGMA2)):
            ours, theirs = tower.encode(copies[tower]), other.encode(copies[other]) if both else target
        kl = capacity(R, alpha, SIGMA2).mean()
        loss = BETA * kl - (ours.float() * theirs.float()).sum(dim=-1).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    return reduce(capacity(R, alpha.detach(), SIGMA2), "1 t d -> t", "sum")


def ours(clip, images, captions, quality="published"):
    """The work of `naive`, unless told otherwise."""
    return explain(clip, images, captions, batch_size=len(images), progress=False, quality=quality, **SETTINGS)


def by_word(clip, images, captions):
    """A map for each word of the one caption."""
    return explain_words(clip, images[0], captions[0], quality="fast", **SETTINGS)


def whole_last_block(clip, images, captions):
    """`ours` where the last block runs for every position, not for the one alone that is read."""

    def whole(tower, hidden, at):
        return tower.run(hidden, tower.blocks[-1:])[torch.arange(len(at), device=at.device), at]

    with patch.object(Tower, "last_block", whole):
        return ours(clip, images, captions)


def rows(clip):
    """name -> (function without arguments, pairs that it explains, factor on its time)"""
    image = load_pairs("scenes", 1)[0].image

    def asked(method, pairs=1, factor=1, **settings):
        return lambda: method(clip, [image] * pairs, [CAPTION] * pairs, **settings), pairs, factor

    quiet, words = dict(progress=False), len(CAPTION.split())
    return {
        "naive": asked(naive),
        "no gradient to weights": asked(naive, learning=False),
        "other tower once": asked(naive, learning=False, both=False),
        "blocks after the layer alone": asked(whole_last_block),
        "ours, one pair": asked(ours),
        "ours, batch of 8": asked(ours, 8),
        "ours, batch of 32": asked(ours, 32),
        "fast, one pair": asked(ours, quality="fast"),
        "fast, batch of 8": asked(ours, 8, quality="fast"),
        "fast, batch of 32": asked(ours, 32, quality="fast"),
        "explain_words, fast, a word": (lambda: by_word(clip, [image], [CAPTION]), words, 1),
        "nib": asked(RIVALS["nib"], layer=LAYER, **quiet),
        "chefer": asked(RIVALS["chefer"], **quiet),
        "rise": asked(RIVALS["rise"], 1, RISE_SHARE, image_masks=2000 // RISE_SHARE, text_masks=200 // RISE_SHARE, **quiet),
    }


def timed(function, device):
    """-> the mean seconds of the runs that begin within SPAN seconds, what the last gave"""
    start, seconds, runs = time.perf_counter(), 0, 0
    while seconds < SPAN:
        result, runs = function(), runs + 1
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - start
    return seconds / runs, result


def work(function):
    """Floating-point operations of the matrix products, as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def least_work(clip):
    """What the method itself asks for: the blocks after `layer` forward and backward to alpha, steps times samples; in the last
    block only the token that is read, whose query reads the others through the weights of the keys and the values."""
    lengths, total = [clip.grid[0] * clip.grid[1] + 1, int(clip.tokens([CAPTION]).valid.sum())], 0
    for tower, T in zip(clip.towers, lengths, strict=True):
        D, after = tower.project.in_features, len(tower.blocks) - 1 - LAYER
        whole = 2 * T * 12 * D * D + 4 * T * T * D  # four projections, the MLP's two of four times the width, attention
        last = 2 * 12 * D * D + 4 * tower.blocks[-1].self_attn.num_heads * T * D
        total += 2 * STEPS * SAMPLES * ((after - 1) * whole + last)
    return total


def main():
    parser = options(__doc__)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json")
    args = parser.parse_args()
    device = pick_device(args.device)
    tokenizer = load_model("testbed", "cpu").tokenizer
    clip = random_clip("ViT-B/32", tokenizer, device, getattr(torch, args.dtype), pad_token_id=0, bos_token_id=2, eos_token_id=3)
    asked = rows(clip)
    times, results = {name: [] for name in asked}, {}
    for _ in range(args.repeats):
        for name, (function, pairs, factor) in asked.items():
            seconds, results[name] = timed(function, device)
            times[name].append(seconds * factor / pairs)
    times, least = pd.DataFrame(times), least_work(clip)
    faster = times.rdiv(times["naive"], axis=0)
    table = pd.DataFrame({"seconds a pair": times.median(), "times faster than naive": faster.median()})
    table["least"], table["greatest"] = faster.min(), faster.max()
    counted = {name: work(asked[name][0]) for name in ("naive", "ours, one pair")}  # torch cannot count within Captum
    table["times the least work"] = pd.Series(counted) / least
    (image_map, text_map), fast = results["naive"], results["ours, one pair"]
    pairs_of_maps = dict(image=(image_map, fast.image_maps[0]), text=(text_map, fast.text_maps[0]))
    agreement = {name: rank_correlation(*(x.float().cpu() for x in maps)) for name, maps in pairs_of_maps.items()}
    print(table.round(3).to_string())
    print(f"Spearman with the naive maps: {agreement}; {device}, {args.dtype}, {torch.get_num_threads()} threads")
    if args.json:
        facts = dict(device=str(device), dtype=args.dtype, threads=torch.get_num_threads(), repeats=args.repeats)
        Path(args.json).write_text(json.dumps(dict(facts, spearman=agreement, rows=table.to_dict("index")), indent=1))


if __name__ == "__main__":
    main()
