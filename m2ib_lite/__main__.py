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

import torch

from .audit_page import write_audit
from .data import load_pairs, readable
from .explain import QUALITIES, explain
from .models import load_model
from .rivals import RIVALS
from .runs import evaluate_data

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
    """The options of every command; one of `explain` that is not given is left out, so that its default stands in one place."""
    whole = argparse.ArgumentParser("m2ib", description="M2IB attribution of CLIP")
    commands = whole.add_subparsers(title="commands", required=True, metavar="COMMAND")
    page = dict(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    one = commands.add_parser("evaluate", help="score methods on every pair of a data set", allow_abbrev=False, **page)
    one.set_defaults(do=evaluate_command)
    add, names = one.add_argument, ", ".join(("m2ib", *RIVALS))
    add("--model", required=True, help="testbed, radiographs, a folder, a name on the hub, or a file with OpenAI's state dict")
    add("--tokenizer", metavar="PATH", help="for a model that brings none: a folder, a name on the hub, or OpenAI's BPE file")
    add("--data", required=True, help="scenes, radiographs, photographs, or a path (see m2ib_lite.data.load_pairs)")
    add("--root", metavar="FOLDER", help="where the images of a table lie (default: the table's folder)")
    add("--out", required=True, help="the folder of the results, made where it is missing")
    add("--methods", type=lambda text: text.split(","), default=["m2ib"], metavar="A,B", help=f"of {names} (default: m2ib)")
    add("--count", type=int, metavar="N", help="only so many: the first of scenes and radiographs, others drawn (default: all)")
    add("--seed", type=int, default=0, metavar="N", help="of the noise, and of --count (default: %(default)s)")
    add("--device", default="auto", help='"cpu", "cuda", ... (default: CUDA where there is one)')
    add("--dtype", default="float32", choices=["float32", "bfloat16", "float16"], help="of the weights (default: %(default)s)")
    add("--batch-size", type=int, default=8, metavar="N", help="pairs at once on the device (default: %(default)s)")
    add("--shard", type=int, default=100, metavar="N", help="pairs a file, all that a kill can lose (default: %(default)s)")
    add("--ray", metavar="ADDRESS", help="a Ray cluster, or local: the shards are made by workers on all of its GPUs")
    add("--workers", type=int, metavar="N", help="on how many processes of the cluster (default: one for each GPU)")
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
    audit_options(commands)
    return whole


def audit_options(commands):
    """The options of `audit`."""
    look = dict(description=AUDIT, formatter_class=argparse.RawDescriptionHelpFormatter)
    one = commands.add_parser("audit", help="what carries each word's information, without labels", allow_abbrev=False, **look)
    one.set_defaults(do=audit_command)
    add = one.add_argument
    add("--model", required=True, help="as for evaluate")
    add("--data", required=True, help="as for evaluate")
    add("--out", required=True, help="the folder of the page, made where it is missing")
    add("--count", type=int, metavar="N", help="only so many pairs (default: all)")
    add("--seed", type=int, default=0, metavar="N", help="of the noise (default: %(default)s)")
    add("--device", default="auto", help='"cpu", "cuda", ... (default: CUDA where there is one)')
    add("--batch-size", type=int, default=8, metavar="N", help="pairs at once on the device (default: %(default)s)")


def evaluate_command(out, **options):
    """Score methods, print the means."""
    summary, bad = evaluate_data(out=out, **options)
    own = summary[~summary["method"].str.contains(" - ")]  # the paired differences are in the file
    print(own.pivot(index=["modality", "metric"], columns="method", values="mean").round(3).to_string())
    print(f"bad pairs: {', '.join(f'{name} {n}' for name, n in bad.items()) or 'none'}")
    print(f"intervals: {out}/summary.csv, scores of every pair: {out}/scores")


def audit_command(model, data, out, count, seed, device, batch_size):
    """Audit a model, print the first suspects."""
    clip, pairs = load_model(model, device), readable(load_pairs(data, count))
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
