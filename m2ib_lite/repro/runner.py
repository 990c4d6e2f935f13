"""Run the notebooks through papermill, make a page of their figures, keep their numbers."""

import ast
import json
import logging
import math
import re
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import pandas as pd
import papermill
from papermill.engines import NBClientEngine, papermill_engines
from PIL import Image
from tqdm import tqdm
from traitlets.config import Config

from ..models import TESTBED
from .page import all_claims, index_page, write_results
from .pool import side_by_side

NOTEBOOKS = TESTBED.parent / "notebooks"
FIGURES = TESTBED.parent / "build" / "figures"
RUNS = "runs.json"  # what each notebook of the last run took
PICTURE = (1400, 2400)  # pixels at most of a figure that README shows
PLACES = {"MODEL", "MEDICAL_MODEL", "DATA", "MEDICAL_DATA"}  # parameters that may be a path
RECORDED_ON = "cpu"  # noise drawn on another kind of device differs


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
        if not text:
            raise ValueError(f"{setting}: give NAME=value")
        if name not in known:
            raise ValueError(f"no notebook has a parameter {name!r}: there are {', '.join(sorted(known))}")
        try:
            chosen[name] = text if isinstance(known[name], str) else type(known[name])(text)
        except ValueError:
            raise ValueError(f"{name}={text}: give a value like {known[name]!r}") from None
    return chosen


class OneBarEngine(NBClientEngine):
    """papermill's engine, telling one bar that all notebooks share of each cell that is done.

    Kernels talk over files: ipykernel warns of plain text on TCP.
    """

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, bar, **options):
        complete = nb_man.cell_complete

        def cell_complete(cell, **details):
            complete(cell, **details)
            bar.update()

        nb_man.cell_complete = cell_complete
        with TemporaryDirectory(prefix="m2ib-") as own:  # kernels that start together would take the same files
            config = Config(KernelManager=dict(transport="ipc", connection_file=f"{own}/kernel.json"))
            return super().execute_managed_notebook(nb_man, kernel_name, config=config, **options)


def run_notebook(path, parameters, out, bar=None):
    """Run one notebook with the parameters of these that it has, its figures and numbers into `out`.

    The executed notebook goes to out/notebooks.  Raises what the notebook raised.
    """
    known = defaults(path)
    chosen = {name: value for name, value in parameters.items() if name in known}
    executed = Path(out) / "notebooks" / path.name
    executed.parent.mkdir(parents=True, exist_ok=True)
    papermill_engines.register("one_bar", OneBarEngine)
    options = dict(engine_name="one_bar", bar=bar if bar is not None else tqdm(disable=True))
    chosen["OUT"] = str(Path(out).resolve())
    for name in PLACES & set(chosen):
        if Path(chosen[name]).exists():  # the kernel runs in another folder
            chosen[name] = str(Path(chosen[name]).resolve())
    papermill.execute_notebook(path, executed, chosen, cwd=path.parent, progress_bar=False, kernel_name="python3", **options)


def numbered(folder):
    """The notebooks of a folder in order."""
    return sorted(Path(folder).glob("[0-9][0-9]_*.ipynb"))


def longest_first(paths, kept):
    """The notebooks in an order that keeps all cores busy to the end: by the seconds recorded in kept/expected, new ones first."""

    def seconds(path):
        numbers = kept / "expected" / f"{path.stem}.json"
        models = json.loads(numbers.read_text()).values() if numbers.exists() else ()
        return max((model.get("seconds", math.inf) for model in models), default=math.inf)

    return sorted(paths, key=seconds, reverse=True)


def one_run(path, parameters, out, bar):
    """Run one notebook whatever happens in it.  -> its row of the last table"""
    logging.getLogger("papermill").setLevel(logging.ERROR)
    start, error = time.time(), ""
    try:
        run_notebook(path, parameters, out, bar)
    except Exception as failure:  # the others go on
        error = str(failure).strip().splitlines()[-1]
    return summarise(path.stem, time.time() - start, error, read_report(path.stem, out))


def figures(settings, folder=NOTEBOOKS, out=FIGURES, kept=TESTBED):
    """Run every notebook, go on where one fails, write the index page, print the tables.  -> number of failures"""
    paths = numbered(folder)
    parameters = parse(settings, {name: value for path in paths for name, value in defaults(path).items()})
    out = Path(parameters.get("OUT", out))
    clear(out, paths)
    cells = sum(len(nbformat.read(path, as_version=4).cells) + 1 for path in paths)  # papermill adds one
    runs = side_by_side([partial(one_run, path, parameters, out) for path in longest_first(paths, kept)], cells)
    runs.sort(key=lambda run: run["notebook"])
    (out / RUNS).write_text(json.dumps(runs))
    reports = {path.stem: read_report(path.stem, out)["rows"] for path in paths}
    (out / "index.html").write_text(index_page(runs, reports, out), encoding="utf-8")
    print(all_claims(reports).to_string(index=False, max_colwidth=100))
    print(pd.DataFrame(runs).to_string(index=False, max_colwidth=100))
    print(f"figures: {out / 'index.html'}")
    return sum(run["error"] != "" for run in runs)


def clear(out, paths):
    """Take away what an earlier run of these notebooks left, and nothing else that may lie there."""
    out.mkdir(parents=True, exist_ok=True)
    for path in paths:
        for old in (*out.glob(f"{path.stem}*.png"), *out.glob(f"{path.stem}*.pdf"), out / f"{path.stem}.json"):
            old.unlink(missing_ok=True)


def read_report(name, out):
    """What the Check of a notebook wrote, empty where it did not come so far."""
    path = out / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else dict(rows=[], note="no numbers")


def summarise(name, seconds, error, report):
    """One row of the last table: notebook, seconds, claims held and not held, whether recorded numbers agree, error."""
    held = [row["held"] for row in report["rows"]]
    row = dict(notebook=name, seconds=round(seconds), held=held.count("held"), not_held=held.count("not held"))
    agrees = all(row["agrees"] for row in report["rows"])
    return {**row, "recorded": "none" if report["note"] else "agrees" if agrees else "differs", "error": error}


def kept_number(row):
    """What data/expected keeps of one row of a report."""
    rounded = {name: round(row[name], 5) for name in ("low", "high")}
    return dict(value=round(row["mean"], 5), **rounded, **{name: row[name] for name in ("tolerance", "pairs", "claim", "held")})


def one_line_each(text):
    """JSON with each innermost object on a line of its own."""
    return re.sub(r"\{[^{}]*\}", lambda found: " ".join(found[0].split()), text)


def record(out=FIGURES, folder=NOTEBOOKS, kept=TESTBED, readme=TESTBED.parent / "README.md"):
    """Keep the numbers and figures of the last run, one with the notebooks' own parameters, in kept/expected and kept/figures,
    and show them in README."""
    reports = {path: out / f"{path.stem}.json" for path in numbered(folder)}
    for path, numbers in reports.items():
        own = {name: value for name, value in defaults(path).items() if name != "OUT"}
        if "DEVICE" in own:
            own["DEVICE"] = RECORDED_ON
        if not numbers.exists() or json.loads(numbers.read_text())["parameters"] != own:
            remedy = f"run `make figures DEVICE={RECORDED_ON}` without other settings"
            raise ValueError(f"{path.stem} has no finished run with its own parameters in {out}: {remedy}")
    if not (out / RUNS).exists():
        raise ValueError(f"{out} has no {RUNS}: run `make figures DEVICE={RECORDED_ON}`")
    seconds = {run["notebook"]: run["seconds"] for run in json.loads((out / RUNS).read_text())}
    for path, numbers in reports.items():
        report, target = json.loads(numbers.read_text()), kept / "expected" / numbers.name
        models = json.loads(target.read_text()) if target.exists() else {}
        values = {row["number"]: kept_number(row) for row in report["rows"]}
        models[report["parameters"]["MODEL"]] = dict(parameters=report["parameters"], seconds=seconds[path.stem], numbers=values)
        target.write_text(one_line_each(json.dumps(models, indent=1)) + "\n")
        for figure in out.glob(f"{path.stem}*.png"):
            picture = Image.open(figure)
            picture.thumbnail(PICTURE)
            picture.save(kept / "figures" / figure.name, optimize=True)
    write_results(readme, kept / "expected")
