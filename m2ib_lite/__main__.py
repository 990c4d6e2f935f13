"""Score attribution methods on every pair of a data set: drop and increase in confidence, deletion and insertion, and where
boxes or masks are known localisation and the occurrences found.  Results are written as they come: stop it at any moment, with
Ctrl-C or kill -9, and give the same command again: it goes on where it was.  A bad pair is a row that says why; where a GPU has
not enough memory the batch is halved.

what it writes:
  OUT/scores         Parquet, for pandas.read_parquet: a row for each pair, modality, metric and method with value, chance,
                     error (empty where all is well); a file for every --shard pairs, and one that is deleted is made again
  OUT/summary.csv    mean, 95% interval and number of pairs by method and metric; "M2IB - nib": the paired differences
  OUT/manifest.json  what the scores depend on; a command that would mix others into them is refused

examples:
  m2ib evaluate --model testbed --data scenes --count 200 --methods m2ib,nib,random --out build/results
  m2ib evaluate --model openai/clip-vit-base-patch32 --data photos/ --out results --device cuda --batch-size 32

exit status: 0 done (also with bad pairs), 1 an error, 2 an option that does not exist, 130 interrupted; what is done is kept
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import torch

from .audit_page import write_audit
from .data import load_pairs, readable
from .explain import QUALITIES, explain
from .exports import save, save_segments
from .models import load_model
from .plots import plot_pair
from .rivals import RIVALS
from .runs import evaluate_data
from .segments import find_segments

EXPLAIN = """What of a picture, and which words of its caption, carry their match, by M2IB.  Prints what the cosine says, and the
nats of each word.  Writes OUT/explained.png, the picture, its map and its words; OUT/maps.npz, the numbers; OUT/heats and
OUT/overlays, the map at the picture's own size; OUT/masks, what Otsu's threshold cuts out of the map, and segments.csv, its box.

example:
  m2ib explain cat.jpg "a cat on a sofa" --model openai/clip-vit-base-patch32 --out build/cat
"""
AUDIT = """Which places, looks and other words carry each word's information, over all pairs of a data set that has captions and
needs no boxes; M2IB at its published settings.  Writes OUT/index.html, one file with its pictures inside, and its tables as CSV.

example:
  m2ib audit --model radiographs-biased --data shortcuts --out build/report
"""


def one_or_two(kind, text):
    """Of "9" or "9,7": one value, or (image, text)."""
    try:
        values = tuple(map(kind, text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no {kind.__name__} and no two of them: give 9, or 9,7") from None
    return values if len(values) > 1 else values[0]


def parser():
    """The options of every command."""
    whole = argparse.ArgumentParser("m2ib", description="M2IB attribution of CLIP")
    commands = whole.add_subparsers(title="commands", required=True, metavar="COMMAND")
    one = command(commands, explain_command, "explain one picture and its caption", EXPLAIN, model="testbed")
    one.add_argument("picture", help="an image file")
    one.add_argument("caption", help="what is said of it, in quotes")
    add_ours(one)
    one = command(commands, evaluate_command, "score methods on every pair of a data set", __doc__)
    add, names = one.add_argument, ", ".join(("m2ib", *RIVALS))
    add("--root", metavar="FOLDER", help="where the images of a table lie (default: the table's folder)")
    add("--methods", type=lambda text: text.split(","), default=["m2ib"], metavar="A,B", help=f"of {names} (default: m2ib)")
    add("--shard", type=int, default=100, metavar="N", help="pairs a file, all that a kill can lose (default: %(default)s)")
    add("--ray", metavar="ADDRESS", help="a Ray cluster, or local: the shards are made by workers on all of its GPUs")
    add("--workers", type=int, metavar="N", help="on how many processes of the cluster (default: one for each GPU)")
    add_data(one)
    add_ours(one)
    add_data(command(commands, audit_command, "what carries each word's information, without labels", AUDIT))
    return whole


def command(commands, do, short, page, model=None):
    """A command, named like its function, with the options of all; model: the default, or it has to be given."""
    look = dict(help=short, description=page, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    one = commands.add_parser(do.__name__.removesuffix("_command"), **look)
    one.set_defaults(do=do)
    add, models = one.add_argument, "testbed, radiographs, a folder, a name on the hub, or a file with OpenAI's state dict"
    add("--model", default=model, required=not model, help=models + (f" (default: {model})" if model else ""))
    add("--tokenizer", metavar="PATH", help="for a model that brings none: a folder, a name on the hub, or OpenAI's BPE file")
    add("--device", default="auto", help='"cpu", "cuda", ... (default: CUDA where there is one)')
    add("--dtype", default="float32", choices=["float32", "bfloat16", "float16"], help="of the weights (default: %(default)s)")
    add("--out", required=True, help="the folder of the results, made where it is missing")
    add("--seed", type=int, default=0, metavar="N", help="of the noise, and of what is drawn (default: %(default)s)")
    return one


def add_data(one):
    """The options of the commands that read many pairs."""
    add = one.add_argument
    add("--data", required=True, help="scenes, radiographs, photographs, or a path (see m2ib_lite.data.load_pairs)")
    add("--count", type=int, metavar="N", help="only so many: the first of what is shipped, others drawn (default: all)")
    add("--batch-size", type=int, default=8, metavar="N", help="pairs at once on the device (default: %(default)s)")


def add_ours(one):
    """The options of M2IB; one that is not given is left out, so that its default stands in one place."""
    group = one.add_argument_group("options of M2IB", "layer, beta, sigma2: one value, or IMAGE,TEXT (default: the model's own)")
    add = partial(group.add_argument, default=argparse.SUPPRESS)
    add("--layer", type=partial(one_or_two, int), metavar="N", help="the block before the bottleneck, from 0; --layer=-1: none")
    add("--beta", type=partial(one_or_two, float), metavar="N", help="weight of the compression term")
    add("--sigma2", type=partial(one_or_two, float), metavar="N", help="variance of the noise")
    either = argparse.BooleanOptionalAction
    add("--standardise", action=either, help="put the bottleneck on standardised states (default: the model's own)")
    add("--quality", choices=list(QUALITIES), help="what the next three are unless given (default: published, 10 of 10)")
    add("--steps", type=int, metavar="N", help="of the optimiser")
    add("--samples", type=int, metavar="N", help="of noise, a step")
    add("--antithetic", action=either, help="each sample with its negative (default: the quality's)")


def explain_command(picture, caption, out, model, device, dtype, tokenizer, seed, **ours):
    """Explain one pair, write what was found, print its cosine and its words."""
    clip = load_model(model, device, getattr(torch, dtype), tokenizer)
    found = explain(clip, picture, caption, seed=seed, progress=False, **ours)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    save(found, out, "picture")
    save_segments(find_segments(found), Path(out) / "masks", "picture")
    plot_pair(found).savefig(Path(out) / "explained.png", dpi=150)
    print(found.verdict(0))
    for word, score in zip(*found.words(0), strict=True):
        print(f"{score:8.3f} nats  {word}")
    print(f"picture, map and words: {out}/explained.png")


def evaluate_command(out, **options):
    """Score methods, print the means."""
    summary, bad = evaluate_data(out=out, **options)
    own = summary[~summary["method"].str.contains(" - ")]  # the paired differences are in the file
    print(own.pivot(index=["modality", "metric"], columns="method", values="mean").round(3).to_string())
    print(f"bad pairs: {', '.join(f'{name} {n}' for name, n in bad.items()) or 'none'}")
    print(f"intervals: {out}/summary.csv, scores of every pair: {out}/scores")


def audit_command(model, data, out, count, seed, device, dtype, tokenizer, batch_size):
    """Audit a model, print the first suspects."""
    clip, pairs = load_model(model, device, getattr(torch, dtype), tokenizer), readable(load_pairs(data, count))
    maps = explain(clip, pairs, batch_size=batch_size, seed=seed, **clip.published)
    for found in write_audit(clip, pairs, maps, out, data, seed=seed):
        first = found.suspects[found.suspects["score"] > 1][:10].round(3)
        print(f"{found.modality}: what carries each word's information\n{first.to_string(index=False)}")
    print(f"page: {out}/index.html")


def main(arguments=None):
    """What the command line asks for, sys.argv's unless given; exit status as the help page says."""
    options = vars(parser().parse_args(arguments))
    try:
        options.pop("do")(**options)
    except (ValueError, OSError, torch.OutOfMemoryError) as error:
        sys.exit(f"error: {error}")
    except MemoryError:
        sys.exit("error: the machine's memory is full: make room, then give the same command to go on")
    except KeyboardInterrupt:
        print("stopped; what evaluate has done is kept: give the same command to go on", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
