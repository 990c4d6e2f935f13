"""Run the notebooks through papermill, side by side, and keep what they measured and drew.

python notebooks/run.py figures [MODEL=... DEVICE=... N_PAIRS=...]   every notebook, build/book/index.html, a table
python notebooks/run.py paper [...]                                  the same with as many pairs as the numbers in docs/ have
python notebooks/run.py book [figures|paper]                         bind the book of such a run again
python notebooks/run.py record figures                               keep the numbers of that run under data/
python notebooks/run.py record paper                                 ... of that one; and its figures, and both in docs/
"""

import ast
import json
import os
import re
import sys
import time
from multiprocessing.managers import BaseManager
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
import papermill
from book import RUN_PAGE, bind
from joblib import Parallel, delayed, parallel_config
from PIL import Image
from tqdm import tqdm
from traitlets.config import Config

NOTEBOOKS = Path(__file__).parent
DATA, BUILD, RESULTS = (NOTEBOOKS.parent / place for place in ("data", "build", "docs/results.md"))
SCALES = {  # what each asks of a notebook beside its own parameters
    "figures": {},
    "paper": {
        "01_attribution_maps": dict(N_PAIRS=100, RISE_MASKS=2000),
        "02_multiple_objects": dict(N_PAIRS=60, SLOW_PAIRS=24, RISE_MASKS=2000),
        "03_degradation": dict(N_PAIRS=40, RISE_MASKS=2000, ROAR_SEEDS=10),
        "04_sanity_checks": dict(N_PAIRS=24, QUALITY="published", RISE_MASKS=100, DRAWS=4),
        "05_hyperparameters": dict(N_PAIRS=40, SIGMA2S=[0.1, 1.0, 10.0]),
        "06_localization": dict(N_PAIRS=60, SLOW_PAIRS=40, RISE_MASKS=2000),
        "08_words": dict(N_PAIRS=60, SLOW_PAIRS=24, RISE_MASKS=2000),
        "09_audit": dict(N_PAIRS=256, QUALITY="published"),
    },
}
NUMBERED = "[0-9][0-9]_*.ipynb"
RUNS = "runs.json"  # the seconds of each notebook in the last run
FORKED = dict(kernel_manager_class="kernel.ForkedKernel") if sys.platform == "linux" else {}  # a fork can crash on a Mac
AT_ONCE = 2  # one notebook on two cores leaves a third of them idle
PICTURE = (1400, 2400)  # pixels at most of a figure that README and docs/ show
KEPT = ("low", "high", "tolerance", "pairs", "claim", "verdict")  # of a number, beside its value
RECORDED_ON = "cpu"  # noise drawn on another kind of device differs
BAR = "{percentage:3.0f}% |{bar}| {elapsed} gone, {remaining} left"
BaseManager.register("tqdm", tqdm)  # a bar in a process of its own, which those of the notebooks move on


def read(path):
    """What a JSON file holds, {} where there is none.  As in m2ib_lite.repro, which each process here would import for seconds."""
    return json.loads(path.read_text()) if path.exists() else {}


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


def run_notebook(path, parameters, out, ran=None, kernel=FORKED):
    """Run one notebook in this process's folder, with those of the parameters that it has; its figures and numbers go to `out`,
    the executed notebook to out/notebooks.  ran: called after each cell, with its number.  kernel: FORKED, or {} for a new Python.
    Raises what the notebook raised."""
    known, executed = defaults(path), Path(out) / "notebooks" / path.name
    chosen = {name: value for name, value in parameters.items() if name in known} | {"OUT": str(Path(out).resolve())}
    executed.parent.mkdir(parents=True, exist_ok=True)
    options = dict(on_cell_executed=ran and (lambda cell_index, **_: ran(cell_index)), progress_bar=False, kernel_name="python3")
    with TemporaryDirectory(prefix="m2ib-") as own:  # kernels that start together would take the same files
        files = dict(transport="ipc", connection_file=f"{own}/kernel.json")  # over TCP ipykernel warns of plain text
        papermill.execute_notebook(path, executed, chosen, config=Config(KernelManager=files), **kernel, **options)


def one_run(path, parameters, out, known, bar, kernel):
    """Run one notebook whatever happens in it, and move the bar on by the known seconds of each cell.
    -> its row of the last table: seconds, claims, whether numbers agree, error"""
    start, error = time.time(), ""
    try:
        run_notebook(path, parameters, out, lambda cell: bar.update(known[cell]), kernel)
    except Exception as failure:  # the others go on
        error = (str(failure).strip() or repr(failure)).splitlines()[-1]
    report = read(out / f"{path.stem}.json") or dict(rows=[], note="the notebook did not come to its Check")
    verdicts, agree = ([row[column] for row in report["rows"]] for column in ("verdict", "agrees"))
    row = dict(notebook=path.stem, seconds=round(time.time() - start))
    row |= {verdict: verdicts.count(verdict) for verdict in ("held", "lost", "open")}
    return {**row, "recorded": "none" if report["note"] else "agrees" if all(agree) else "differs", "error": error}


def known_seconds(path, scale, kept):
    """How long each cell of a notebook took in the recorded run of a scale, [1, 1, ...] where there is none."""
    records = read(kept / "expected" / f"{path.stem}.json") or []
    known = [record["cells"] for record in records if record["scale"] == scale]
    cells = len(nbformat.read(path, as_version=4).cells) + 1  # papermill adds one
    return next((seconds for seconds in known if len(seconds) == cells), [1] * cells)


def side_by_side(paths, scale, parameters, out, kept):
    """one_run of each notebook, the longest first, AT_ONCE at a time, under one bar of minutes.  An interrupt ends all."""
    known = {path: known_seconds(path, scale, kept) for path in paths}
    kernel = FORKED if len(paths) > AT_ONCE else {}  # which pays from the second notebook of a process on
    threads = os.environ.get("OMP_NUM_THREADS")  # joblib shares the cores, unless the user has said otherwise
    with BaseManager() as shared, parallel_config("loky", inner_max_num_threads=threads and int(threads)):
        bar = shared.tqdm(total=sum(map(sum, known.values())), bar_format=BAR, smoothing=0)
        runs = Parallel(AT_ONCE)(
            delayed(one_run)(path, SCALES[scale].get(path.stem, {}) | parameters, out, known[path], bar, kernel)
            for path in sorted(paths, key=lambda path: sum(known[path]), reverse=True)
        )
        bar.close()
    return sorted(runs, key=lambda run: run["notebook"])


def figures(settings, scale="figures", folder=NOTEBOOKS, out=None, kept=DATA):
    """Run every notebook, go on where one fails, write the run's page, print the tables.  -> its folder, number of failures"""
    paths = sorted(folder.glob(NUMBERED))
    if not paths:
        raise ValueError(f"there are no notebooks in {folder}: run this in a clone of the project")
    parameters = parse(settings, {name: value for path in paths for name, value in defaults(path).items()})
    out = Path(parameters.get("OUT", out or BUILD / scale)).resolve()
    for path in paths:  # what an earlier run of these left, and nothing else that may lie there
        for old in (*out.glob(f"{path.stem}*.png"), *out.glob(f"{path.stem}*.pdf"), *out.glob(f"{path.stem}.json")):
            old.unlink()
    runs = side_by_side(paths, scale, parameters, out, kept)
    (out / RUNS).write_text(json.dumps({run["notebook"]: run["seconds"] for run in runs}))
    show(runs, out, kept / "expected")
    return out, sum(run["error"] != "" for run in runs)


def show(runs, out, expected):
    """Write the book's page on a run, and print its last screen."""
    from results import full_scale, last_screen, run_page  # not above: it imports the package

    reports = {run["notebook"]: read(out / f"{run['notebook']}.json").get("rows", []) for run in runs}
    (out / RUN_PAGE).write_text(run_page(runs, reports, out), encoding="utf-8")
    print(last_screen(runs, reports, full_scale(expected)))
    print(f"figures, numbers and the notebooks as they ran: {os.path.relpath(out)}")


def write_book(executed):
    """Bind the book of the run in the folder `executed`, and say where it is."""
    bind(executed, BUILD / "book")
    print(f"the book of them: open {os.path.relpath(BUILD / 'book' / 'index.html')}")


def record(scale="figures", folder=NOTEBOOKS, out=None, kept=DATA, page=RESULTS):
    """Keep the numbers of the last run of a scale in kept/expected; of "paper" its figures in kept/figures, too, and the numbers
    in `page`."""
    paths, reports, out = sorted(folder.glob(NUMBERED)), {}, out or BUILD / scale
    seconds = read(out / RUNS)
    for path in paths:
        own = defaults(path) | SCALES[scale].get(path.stem, {}) | {"DEVICE": RECORDED_ON}
        del own["OUT"]
        reports[path.stem] = read(out / f"{path.stem}.json")
        if path.stem not in seconds or reports[path.stem].get("parameters") != own:
            remedy = f"run `make {scale} DEVICE={RECORDED_ON}` first"
            raise ValueError(f"{path.stem} has no finished run with these parameters in {out}: {remedy}")
    for name, report in reports.items():
        target, parameters = kept / "expected" / f"{name}.json", report["parameters"]
        numbers = {row["number"]: {"value": row["mean"]} | {name: row[name] for name in KEPT} for row in report["rows"]}
        executed = nbformat.read(out / "notebooks" / f"{name}.ipynb", as_version=4)
        cells = [round(cell.metadata.get("papermill", {}).get("duration") or 0, 1) for cell in executed.cells]
        own = dict(scale=scale, parameters=parameters, seconds=seconds[name], cells=cells, numbers=numbers)
        others = [record for record in read(target) if record["scale"] != scale]
        records = [own, *others] if scale == "paper" else [*others, own]  # docs/results.md shows the first
        text = json.dumps(records, indent=1)
        text = re.sub(r"\{[^{}]*\}|\[[^][{}]*\]", lambda inner: " ".join(inner[0].split()), text)  # a number a line
        target.write_text(text + "\n")
        for figure in out.glob(f"{name}*.png") if scale == "paper" else []:
            picture = Image.open(figure)
            picture.thumbnail(PICTURE)
            picture.save(kept / "figures" / figure.name, optimize=True)
    if scale == "paper":
        from results import write_results  # as in `show`

        write_results(page, kept / "expected")


if __name__ == "__main__":
    command, *settings = sys.argv[1:] or [""]
    try:
        if command in SCALES:
            executed, failures = figures(settings, command)
            write_book(executed)
            sys.exit(failures > 0)  # 1 where a notebook failed
        elif command == "book" and {*settings} <= {*SCALES}:
            write_book(BUILD / (settings or ["figures"])[0])
        elif command == "record" and settings[:1] and settings[0] in SCALES:
            record(settings[0])
        else:
            sys.exit(__doc__)
    except ValueError as error:
        sys.exit(f"error: {error}")
