"""What makes a figure repeatable: numbers with intervals, claims held or not held, recorded values, the notebooks run in order.

python -m m2ib_lite.repro figures [MODEL=... DEVICE=... N_PAIRS=...]     every notebook, build/figures/index.html, a table
python -m m2ib_lite.repro record                                        keep that run's numbers and figures under data/
"""

import ast
import html
import json
import logging
import os
import shutil
import sys
import time
import warnings
from pathlib import Path

import nbformat
import pandas as pd
import papermill
from papermill.engines import NBClientEngine, papermill_engines
from tqdm import tqdm
from traitlets.config import Config

from . import metrics
from .models import TESTBED

ROOT = TESTBED.parent
EXPECTED = TESTBED / "expected"
BUILD = ROOT / "build"


def save_figure(figure, out, name):
    """Write a figure as out/name.png and out/name.pdf.  -> the figure, to be shown"""
    Path(out).mkdir(parents=True, exist_ok=True)
    for kind in ("png", "pdf"):
        figure.savefig(Path(out) / f"{name}.{kind}", dpi=150, bbox_inches="tight")
    return figure


def score(attribution, pairs, method="M2IB"):
    """How well the maps find what the captions name: a tidy table of pair, method, modality, metric, value, chance.

    A pair that cannot have a score (no unnamed object, no word in the picture) has no row for it.
    """
    rows = []
    for i, pair in enumerate(pairs):
        heat, named, unnamed = attribution.heat(i), pair.region(), pair.region(named=False) & ~pair.region()
        rows.append((pair.id, "image", "energy inside", metrics.energy_inside(heat, named), named.mean()))
        rows.append((pair.id, "image", "pointing game", metrics.pointing_game(heat, named), named.mean()))
        if unnamed.any():
            rows.append((pair.id, "image", "named preference", metrics.named_preference(heat, named, unnamed), 0.5))
        relevant = [word in pair.words() for word in attribution.tokens[i]]
        if any(relevant):
            precision = metrics.average_precision(attribution.text_maps[i].cpu(), relevant)
            rows.append((pair.id, "text", "word precision", precision, metrics.chance_precision(relevant)))
    table = pd.DataFrame(rows, columns=["pair", "modality", "metric", "value", "chance"])
    return table.assign(method=method)


class Report:
    """The Check of a notebook: its measured numbers, its claims, and the numbers recorded for the same parameters."""

    def __init__(self, notebook, out, expected=EXPECTED, **parameters):
        self.notebook, self.out, self.parameters, self.rows = notebook, Path(out), parameters, []
        path = Path(expected) / f"{notebook}.json"
        record = json.loads(path.read_text()).get(parameters["MODEL"]) if path.exists() else None
        same = record and record["parameters"] == parameters
        self.recorded = record["numbers"] if same else {}
        self.note = "" if same else f"no recorded numbers for {parameters}: nothing to compare with"

    def measure(self, name, values, claim="", above=None, tolerance=0.02):
        """Add a number: the mean of one value a pair, with its 95% bootstrap interval.

        claim: what the paper says of it, held where the whole interval lies above `above`.
        tolerance: how far a rerun on another machine may leave the recorded mean.
        """
        mean, low, high = metrics.bootstrap_interval(values)
        row = dict(number=name, mean=mean, low=low, high=high, pairs=len(values), claim=claim)
        row["held"] = "" if above is None else "held" if low > above else "not held"
        known = self.recorded.get(name)
        row["recorded"] = known["value"] if known else None
        row["agrees"] = bool(abs(mean - known["value"]) <= known["tolerance"]) if known else None
        self.rows.append({**row, "tolerance": tolerance})

    def check(self):
        """Write the numbers beside the figures.  -> DataFrame.  AssertionError where a number left its tolerance."""
        self.out.mkdir(parents=True, exist_ok=True)
        content = dict(parameters=self.parameters, note=self.note, rows=self.rows)
        (self.out / f"{self.notebook}.json").write_text(json.dumps(content, indent=1))
        missing = sorted(set(self.recorded) - {row["number"] for row in self.rows})
        moved = [f"{row['number']} {row['mean']:.4f} for {row['recorded']:.4f}" for row in self.rows if row["agrees"] is False]
        if moved or missing:
            raise AssertionError(f"numbers that left their tolerance: {moved}; recorded but not measured: {missing}")
        if self.note:
            print(self.note)
        return pd.DataFrame(self.rows).drop(columns="tolerance").round(3)


def record(out=BUILD / "figures"):
    """Keep the numbers and figures of the last run of the notebooks as the recorded ones."""
    for path in sorted(Path(out).glob("*.json")):
        run = json.loads(path.read_text())
        kept = EXPECTED / path.name
        models = json.loads(kept.read_text()) if kept.exists() else {}
        numbers = {row["number"]: {"value": round(row["mean"], 5), "tolerance": row["tolerance"]} for row in run["rows"]}
        models[run["parameters"]["MODEL"]] = dict(parameters=run["parameters"], numbers=numbers)
        kept.write_text(json.dumps(models, indent=1) + "\n")
        for figure in Path(out).glob(f"{path.stem}*.png"):
            shutil.copy(figure, TESTBED / "figures")


def defaults(path):
    """The notebook's parameters and their values, read from its cell tagged `parameters`.  ValueError where it has none."""
    for cell in nbformat.read(path, as_version=4).cells:
        if "parameters" in cell.metadata.get("tags", []):
            assigned = ast.parse(cell.source).body
            return {line.targets[0].id: ast.literal_eval(line.value) for line in assigned}
    raise ValueError(f"{path} has no cell tagged 'parameters': add one, of literals")


def parse(settings, known):
    """["N_PAIRS=8", ...] -> {"N_PAIRS": 8, ...}.  ValueError for an unknown name or a value of another type than the default."""
    chosen = {}
    for setting in settings:
        name, _, text = setting.partition("=")
        if name not in known:
            raise ValueError(f"no notebook has a parameter {name!r}: there are {', '.join(sorted(known))}")
        try:
            chosen[name] = text if isinstance(known[name], str) else type(known[name])(text)
        except ValueError:
            raise ValueError(f"{name}={text}: give a value like {known[name]!r}") from None
    return chosen


class OneBarEngine(NBClientEngine):
    """papermill's engine, telling one bar that all notebooks share of each cell that is done.

    Kernels talk over files where they can: ipykernel warns of plain text on TCP.
    """

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, bar, **options):
        complete = nb_man.cell_complete

        def cell_complete(cell, **details):
            complete(cell, **details)
            bar.update()

        nb_man.cell_complete = cell_complete
        config = Config(KernelManager={"transport": "tcp" if os.name == "nt" else "ipc"})
        return super().execute_managed_notebook(nb_man, kernel_name, config=config, **options)


def run_notebook(path, parameters, out, bar=None):
    """Run one notebook with the parameters of these that it has, its figures and numbers into `out`.

    The executed notebook goes to out/../notebooks.  Raises what the notebook raised.
    """
    known = defaults(path)
    chosen = {name: value for name, value in parameters.items() if name in known}
    executed = Path(out).parent / "notebooks" / path.name
    executed.parent.mkdir(parents=True, exist_ok=True)
    papermill_engines.register("one_bar", OneBarEngine)
    options = dict(engine_name="one_bar", bar=bar if bar is not None else tqdm(disable=True))
    chosen["OUT"] = str(Path(out).resolve())
    papermill.execute_notebook(path, executed, chosen, cwd=path.parent, progress_bar=False, kernel_name="python3", **options)


def figures(settings, folder=ROOT / "notebooks", out=BUILD / "figures"):
    """Run every notebook in order, go on where one fails, write the index page, print the table.  -> number of failures"""
    paths = sorted(Path(folder).glob("[0-9][0-9]_*.ipynb"))
    parameters = parse(settings, {name: value for path in paths for name, value in defaults(path).items()})
    logging.getLogger("papermill").setLevel(logging.ERROR)
    out = Path(parameters.get("OUT", out))
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    results, cells = [], sum(len(nbformat.read(path, as_version=4).cells) + 1 for path in paths)  # papermill adds one
    with tqdm(total=cells, unit="cell") as bar:
        for path in paths:
            bar.set_description(path.stem)
            start, error = time.time(), ""
            try:
                run_notebook(path, parameters, out, bar)
            except (papermill.PapermillExecutionError, RuntimeError) as failure:  # also a kernel that died
                error = str(failure).strip().splitlines()[-1]
            results.append(summarise(path.stem, time.time() - start, error, out))
    (out / "index.html").write_text(index_page(results, out), encoding="utf-8")
    print(pd.DataFrame(results).to_string(index=False, max_colwidth=100))
    print(f"figures: {out / 'index.html'}")
    return sum(result["error"] != "" for result in results)


def summarise(name, seconds, error, out):
    """One row of the last table: notebook, seconds, claims held and not held, whether recorded numbers agree, error."""
    path = out / f"{name}.json"
    report = json.loads(path.read_text()) if path.exists() else dict(rows=[], note="no numbers")
    held = [row["held"] for row in report["rows"]]
    row = dict(notebook=name, seconds=round(seconds), held=held.count("held"), not_held=held.count("not held"))
    agrees = all(row["agrees"] for row in report["rows"])
    return {**row, "recorded": "none" if report["note"] else "agrees" if agrees else "differs", "error": error}


def index_page(results, out):
    """The page to look through a run: each notebook's figures, with links to the PDF and to the executed notebook."""
    parts = ["<!doctype html><meta charset=utf-8><title>M2IB figures</title>"]
    parts.append("<style>body{font:16px sans-serif;max-width:60em;margin:2em auto;padding:0 1em}img{max-width:100%}</style>")
    parts.append(f"<h1>M2IB figures</h1>{pd.DataFrame(results).to_html(index=False)}")
    for result in results:
        name = result["notebook"]
        parts.append(f"<h2><a href='../notebooks/{name}.ipynb'>{name}</a></h2>")
        numbers = out / f"{name}.json"
        if numbers.exists():
            rows = pd.DataFrame(json.loads(numbers.read_text())["rows"])
            parts.append(rows.drop(columns="tolerance").to_html(index=False, float_format="%.3f", na_rep=""))
        for figure in sorted(out.glob(f"{name}*.png")):
            alt = html.escape(figure.stem)
            parts.append(f"<p><img src='{figure.name}' alt='{alt}'><br><a href='{figure.stem}.pdf'>{alt}.pdf</a>")
    return "\n".join(parts)


def main(arguments):
    """The command line: `figures NAME=VALUE ...` or `record`."""
    if arguments[:1] == ["record"]:
        return record()
    if arguments[:1] != ["figures"]:
        sys.exit(__doc__)
    try:
        failures = figures(arguments[1:])
    except ValueError as error:
        sys.exit(f"make figures: {error}")
    return sys.exit(1 if failures else 0)


if __name__ == "__main__":
    warnings.simplefilter("default")
    main(sys.argv[1:])
