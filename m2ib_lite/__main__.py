"""The command line: python -m m2ib_lite evaluate --help"""

import argparse
import sys
from functools import partial
from inspect import cleandoc

import torch

from .evaluate import METHODS
from .runs import evaluate_data

EVALUATE = """
    Score attribution methods on every pair of a data set: drop and increase in confidence, deletion and insertion, and where
    boxes or masks are known localisation and the occurrences found.

    Results are written as they come.  Stop it at any moment, with Ctrl-C or kill -9, and give the same command again: it goes on
    where it was.  A bad pair is a row that says why; where a GPU has not enough memory the batch is halved.
"""
EXAMPLES = """
    what it writes:
      OUT/scores         Parquet, a file for every --shard pairs; pandas.read_parquet("OUT/scores") gives one row for each
                         pair, modality, metric and method: value, chance, error (empty where all is well);
                         delete a file and give the command again to have its pairs done again
      OUT/summary.csv    mean, 95% interval and number of pairs by method and metric; "M2IB - nib": the paired differences
      OUT/manifest.json  what the scores depend on; a command that would mix others into them is refused

    examples:
      python -m m2ib_lite evaluate --model testbed --data scenes --count 200 --methods m2ib,nib,random --out build/results
      python -m m2ib_lite evaluate --model openai/clip-vit-base-patch32 --data photos/ --out results --device cuda --batch-size 32

    exit status: 0 done (also with bad pairs), 1 an error, 2 an option that does not exist, 130 interrupted; what is done is
    always kept.
"""


def one_or_two(kind):
    """A parser of "9" or "9,7": one value, or (image, text)."""

    def parse(text):
        values = tuple(kind(part) for part in text.split(","))
        return values if len(values) > 1 else values[0]

    parse.__name__ = f"number or pair ({kind.__name__})"
    return parse


def parser():
    """The options of every command."""
    page = dict(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    whole = argparse.ArgumentParser("python -m m2ib_lite", description="M2IB attribution of CLIP", **page)
    commands = whole.add_subparsers(title="commands", required=True, metavar="COMMAND")
    summary = "score attribution methods on every pair of a data set"
    one = commands.add_parser("evaluate", help=summary, description=cleandoc(EVALUATE), epilog=cleandoc(EXAMPLES), **page)
    add = one.add_argument
    models = "a checkpoint folder, a name on the hub, or a file with a state dict of OpenAI's"
    add("--model", required=True, help=f'"testbed", "radiographs", {models}')
    add("--tokenizer", metavar="PATH", help="for a model that brings none: a folder, a name on the hub, or OpenAI's BPE file")
    add("--data", required=True, help='"scenes", "radiographs", "photographs", or a path (see m2ib_lite.data.load_pairs)')
    add("--root", metavar="FOLDER", help="where the images of a table lie (default: the table's folder)")
    add("--out", required=True, help="the folder of the results, made where it is missing")
    names = ", ".join(name.lower() for name in METHODS)
    add("--methods", type=lambda text: text.split(","), default=["m2ib"], metavar="A,B", help=f"of {names} (default: m2ib)")
    add("--count", type=int, metavar="N", help="only so many pairs, drawn with the seed (default: all, 100 of generated ones)")
    add("--seed", type=int, default=0, metavar="N", help="of noise and generated pairs (default: %(default)s)")
    add("--device", default="auto", help='"cpu", "cuda", ... (default: CUDA where there is one)')
    add("--dtype", default="float32", choices=["float32", "bfloat16", "float16"], help="of the weights (default: %(default)s)")
    add("--batch-size", type=int, default=8, metavar="N", help="pairs at once on the device (default: %(default)s)")
    add("--shard", type=int, default=100, metavar="N", help="pairs a file, all that a kill can lose (default: %(default)s)")
    add_m2ib(one.add_argument_group("options of M2IB", "layer, beta, sigma2: one value, or IMAGE,TEXT (default: the model's own)"))
    return whole


def add_m2ib(group):
    """The options of `explain`; one that is not given is left out, so that its default stands in one place."""
    add = partial(group.add_argument, metavar="N", default=argparse.SUPPRESS)
    add("--layer", type=one_or_two(int), help="the block that the bottleneck follows, from 0")
    add("--beta", type=one_or_two(float), help="weight of the compression term")
    add("--sigma2", type=one_or_two(float), help="variance of the noise")
    add("--steps", type=int, help="of the optimiser (default: 10)")
    add("--samples", type=int, help="of noise, a step (default: 10)")
    group.add_argument("--antithetic", action="store_true", default=argparse.SUPPRESS, help="each sample with its negative")


def main(arguments):
    """Exit status as the help page says."""
    options = vars(parser().parse_args(arguments))
    try:
        summary, bad = evaluate_data(**options)
    except (ValueError, OSError, torch.OutOfMemoryError) as error:
        sys.exit(f"error: {error}")
    except MemoryError:
        sys.exit("error: the machine's memory is full: make room, then give the same command to go on")
    except KeyboardInterrupt:
        print("stopped; what is done is kept: give the same command to go on", file=sys.stderr)
        sys.exit(130)
    own = summary[~summary["method"].str.contains(" - ")]  # the paired differences are in the file
    wide = own.pivot(index=["modality", "metric"], columns="method", values="mean")
    print(wide.round(3).to_string())
    print(f"bad pairs: {', '.join(f'{name} {n}' for name, n in bad.items()) or 'none'}")
    print(f"intervals: {options['out']}/summary.csv, scores of every pair: {options['out']}/scores")


if __name__ == "__main__":
    main(sys.argv[1:])
