"""Run the notebooks through papermill, side by side, and keep what they measured and drew.

python notebooks/run.py figures [MODEL=... DEVICE=... N_PAIRS=...]   every notebook, build/figures/index.html, a table
python notebooks/run.py record [...]                                 keep that run's numbers under data/, with its settings; and its
                                                                     figures, if these are the notebooks' own
"""

import ast
import json
import math
import os
import re
import sys
import time
from multiprocessing.managers import BaseManager
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import pandas as pd
import papermill
from joblib import Parallel, delayed, parallel_config
from PIL import Image
from results import all_claims, index_page, write_results
from tqdm import tqdm
from traitlets.config import Config

from m2ib_lite.repro import read

NOTEBOOKS = Path(__file__).parent
DATA, FIGURES, README = (NOTEBOOKS.parent / place for place in ("data", "build/figures", "README.md"))
NUMBERED = "[0-9][0-9]_*.ipynb"
RUNS = "runs.json"  # the seconds of each notebook in the last run
AT_ONCE = 2  # one notebook on two cores leaves a third of them idle
PICTURE = (1400, 2400)  # pixels at most of a figure that README shows
KEPT = ("low", "high", "tolerance", "pairs", "claim", "verdict")  # of a number, beside its value
RECORDED_ON = "cpu"  # noise drawn on another kind of device differs
BaseManager.register("tqdm", tqdm)  # a bar in a process of its own, which those of the notebooks move on


def defaults(path):
    """The notebook's parameters and their values, read from its cell tagged `parameters`.  ValueError where it has none."""
    for cell in nbformat.read(path, as_version=4).cells:
        if "parameters" in cell.metadata.get("tags", []):
            return {line.targets[0].id: ast.literal_eval(line.value) for line in ast.parse(cell.source).body}
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
            chosen[name] = type(known[name])(text)
        except ValueError:
            raise ValueError(f"{name}={text}: give a value like {known[name]!r}") from None
    return chosen


def run_notebook(path, parameters, out, bar=None):
    """Run one notebook in this process's folder, with those of the parameters that it has; its figures and numbers go to `out`,
    the executed notebook to out/notebooks.  bar: told of each code cell that ran.  Raises what the notebook raised."""
    known, executed = defaults(path), Path(out) / "notebooks" / path.name
    chosen = {name: value for name, value in parameters.items() if name in known} | {"OUT": str(Path(out).resolve())}
    executed.parent.mkdir(parents=True, exist_ok=True)
    options = dict(on_cell_executed=bar and (lambda **_: bar.update()), progress_bar=False, kernel_name="python3")
    with TemporaryDirectory(prefix="m2ib-") as own:  # kernels that start together would take the same files
        files = dict(transport="ipc", connection_file=f"{own}/kernel.json")  # over TCP ipykernel warns of plain text
        papermill.execute_notebook(path, executed, chosen, config=Config(KernelManager=files), **options)


def one_run(path, parameters, out, bar):
    """Run one notebook whatever happens in it.  -> its row of the last table: seconds, claims, whether numbers agree, error"""
    start, error = time.time(), ""
    try:
        run_notebook(path, parameters, out, bar)
    except Exception as failure:  # the others go on
        error = (str(failure).strip() or repr(failure)).splitlines()[-1]
    report = read(out / f"{path.stem}.json") or dict(rows=[], note="the notebook did not come to its Check")
    verdicts, agree = ([row[column] for row in report["rows"]] for column in ("verdict", "agrees"))
    row = dict(notebook=path.stem, seconds=round(time.time() - start))
    row |= {verdict: verdicts.count(verdict) for verdict in ("held", "lost", "open")}
    return {**row, "recorded": "none" if report["note"] else "agrees" if all(agree) else "differs", "error": error}


def longest_first(paths, kept):
    """The notebooks in an order that keeps all cores busy to the end: by the seconds recorded in kept/expected, new ones first."""
    records = {path: read(kept / "expected" / f"{path.stem}.json") for path in paths}
    seconds = {path: max((record["seconds"] for record in records[path]), default=math.inf) for path in paths}
    return sorted(paths, key=seconds.get, reverse=True)


def side_by_side(paths, parameters, out):
    """one_run of each notebook, started in this order, AT_ONCE at a time, under one bar of code cells.  An interrupt ends all."""
    code = [cell for path in paths for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    threads = os.environ.get("OMP_NUM_THREADS")  # joblib shares the cores, unless the user has said otherwise
    with BaseManager() as shared, parallel_config("loky", inner_max_num_threads=threads and int(threads)):
        bar = shared.tqdm(total=len(code) + len(paths), unit="cell")  # papermill adds a cell to each
        runs = Parallel(AT_ONCE)(delayed(one_run)(path, parameters, out, bar) for path in paths)
        bar.close()
    return sorted(runs, key=lambda run: run["notebook"])


def figures(settings, folder=NOTEBOOKS, out=FIGURES, kept=DATA):
    """Run every notebook, go on where one fails, write the index page, print the tables.  -> number of failures"""
    paths = sorted(folder.glob(NUMBERED))
    if not paths:
        raise ValueError(f"there are no notebooks in {folder}: run this in a clone of the project")
    parameters = parse(settings, {name: value for path in paths for name, value in defaults(path).items()})
    out = Path(parameters.get("OUT", out)).resolve()
    for path in paths:  # what an earlier run of these left, and nothing else that may lie there
        for old in (*out.glob(f"{path.stem}*.png"), *out.glob(f"{path.stem}*.pdf"), *out.glob(f"{path.stem}.json")):
            old.unlink()
    runs = side_by_side(longest_first(paths, kept), parameters, out)
    (out / RUNS).write_text(json.dumps({run["notebook"]: run["seconds"] for run in runs}))
    reports = {path.stem: read(out / f"{path.stem}.json").get("rows", []) for path in paths}
    (out / "index.html").write_text(index_page(runs, reports, out), encoding="utf-8")
    for table in (all_claims(reports), pd.DataFrame(runs)):
        print(table.to_string(index=False, max_colwidth=100))
    print(f"figures: {out / 'index.html'}")
    return sum(run["error"] != "" for run in runs)


def record(settings=(), folder=NOTEBOOKS, out=FIGURES, kept=DATA, readme=README):
    """Keep the numbers of the last run, one with these settings, in kept/expected.  Without settings, of a run with the notebooks'
    own parameters, its figures in kept/figures, too, and both in README."""
    paths, reports = sorted(folder.glob(NUMBERED)), {}
    chosen = parse(settings, {name: value for path in paths for name, value in defaults(path).items()})
    out = Path(chosen.pop("OUT", out)).resolve()
    seconds = read(out / RUNS)
    for path in paths:
        known = defaults(path) | {"DEVICE": RECORDED_ON}
        own = known | {name: value for name, value in chosen.items() if name in known}
        del own["OUT"]
        reports[path.stem] = read(out / f"{path.stem}.json")
        if path.stem not in seconds or reports[path.stem].get("parameters") != own:
            remedy = f"run `make figures DEVICE={RECORDED_ON} {' '.join(settings)}` first"
            raise ValueError(f"{path.stem} has no finished run with these parameters in {out}: {remedy}")
    for name, report in reports.items():
        target, parameters = kept / "expected" / f"{name}.json", report["parameters"]
        numbers = {row["number"]: {"value": row["mean"]} | {name: row[name] for name in KEPT} for row in report["rows"]}
        others = [record for record in read(target) if record["parameters"] != parameters]
        own = dict(parameters=parameters, seconds=seconds[name], numbers=numbers)
        records = [*others, own] if chosen else [own, *others]  # README shows the first
        text = json.dumps(records, indent=1)
        target.write_text(re.sub(r"\{[^{}]*\}", lambda inner: " ".join(inner[0].split()), text) + "\n")  # a number a line
        for figure in [] if chosen else out.glob(f"{name}*.png"):
            picture = Image.open(figure)
            picture.thumbnail(PICTURE)
            picture.save(kept / "figures" / figure.name, optimize=True)
    if not chosen:
        write_results(readme, kept / "expected")


if __name__ == "__main__":
    try:
        if sys.argv[1:2] == ["record"]:
            record(sys.argv[2:])
        elif sys.argv[1:2] == ["figures"]:
            sys.exit(figures(sys.argv[2:]) > 0)  # 1 where a notebook failed
        else:
            sys.exit(__doc__)
    except ValueError as error:
        sys.exit(f"error: {error}")
