"""What a notebook's Check is made of: numbers with intervals, claims held, lost or open."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Image, display

from . import metrics
from .models import BUILT_IN, TESTBED
from .rivals import RIVALS

EXPECTED = TESTBED / "expected"
MARGIN, FINE, SHOWN = 0.1, 150, 72  # inches around a figure; its dots an inch in the file, and in a notebook
FEWEST = 10  # pairs, below which no claim is judged
TUNING_SEED = 0  # of the pictures that the testbed's settings were chosen on, so of none that a notebook reports on
OURS, AGAINST, TOO_FEW, SIGNIFICANT = "M2IB", ": M2IB against ", "too few", 0.05
MASKS = RIVALS["rise"].published["image_masks"]  # below which RISE does worse than it can, and no claim against it is judged


def read(path):
    """What a JSON file holds, {} where there is none."""
    return json.loads(path.read_text()) if path.exists() else {}


def save_figure(figure, out, name):
    """Write a figure as out/name.png and out/name.pdf, close it, and show the PNG: Jupyter need not draw it once more."""
    Path(out).mkdir(parents=True, exist_ok=True)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # once is enough, and for the box, too: "tight" would draw all of it for each kind of file
    box = figure.get_tightbbox().padded(MARGIN)
    for kind in ("png", "pdf"):
        figure.savefig(Path(out) / f"{name}.{kind}", dpi=FINE, bbox_inches=box)
    plt.close(figure)
    display(Image(Path(out) / f"{name}.png", width=round(box.width * SHOWN)))


def recorded_rows(record):
    """The rows of a Report as a record of data/expected keeps them."""
    return [dict(number=number, mean=kept["value"], **kept) for number, kept in record["numbers"].items()]


def claims(rows):
    """One row a claim of a Report: held, lost or open, or against which rivals; tests: how many Holm's correction is for."""
    table = pd.DataFrame(rows, columns=["claim", "number", "mean", "low", "high", "pairs", "verdict"])
    summary = []
    for claim, group in table[table["verdict"] != ""].groupby("claim", sort=False):
        first, rivals = group.iloc[0], group["number"].str.split(AGAINST).str[-1]
        row = dict(claim=claim, result=first["verdict"], interval="", pairs=group["pairs"].min(), tests=len(group))
        names = {verdict: ", ".join(rivals[group["verdict"] == verdict]) for verdict in ("lost", "open")}
        if len(group) == 1:
            row["interval"], names = f"{first['mean']:.3f} ({first['low']:.3f} to {first['high']:.3f})", {}
        elif first["verdict"] != TOO_FEW:
            how = "against" if AGAINST in first["number"] else "in"
            row["result"] = f"held {how} {(group['verdict'] == 'held').sum()} of {len(group)}"
        summary.append(row | {"loses to": names.get("lost", ""), "open": names.get("open", "")})
    return pd.DataFrame(summary, columns=["claim", "result", "interval", "loses to", "open", "pairs", "tests"])


def judge(low, high, bound):
    """held where the whole interval lies above the bound, lost where it lies below, or else open."""
    return "held" if low > bound else "lost" if high < bound else "open"


def compared(difference, shared):
    """paired_test of some differences; one pair has no spread, and settles nothing."""
    return metrics.paired_test(difference, shared) if len(difference) > 1 else (difference.mean(),) * 3 + (1.0,)


class Report:
    """The Check of a notebook: its measured numbers, its claims, and the numbers recorded for the same parameters."""

    def __init__(self, notebook, out, expected=EXPECTED, **parameters):
        if parameters.get("SEED") == TUNING_SEED and parameters["MODEL"] in BUILT_IN:
            raise ValueError(f"SEED is {TUNING_SEED}, of the pictures that the settings were chosen on: give another one")
        self.notebook, self.out, self.parameters, self.rows = notebook, Path(out), parameters, []
        self.masks = parameters.get("RISE_MASKS", MASKS)
        records = read(Path(expected) / f"{notebook}.json")
        record = next((record for record in records if record["parameters"] == parameters), None)
        self.recorded = record["numbers"] if record else {}
        full = next(iter(records), record)  # `make paper` is recorded first
        self.full = [] if full is record or full["parameters"]["MODEL"] != parameters["MODEL"] else recorded_rows(full)
        self.note = "" if record else f"no recorded numbers for {parameters}: nothing to compare with"

    def measure(self, name, values, claim="", above=None, *, below=None, tolerance=0.02, fewest=FEWEST, most=1.0):
        """Add a number: the mean of one value a pair, with its 95% bootstrap interval, to five digits.
        claim: what is said of it, held where the whole interval lies above `above`, or below `below`, lost where it lies on the
        other side, or else open; fewer pairs than `fewest` settle nothing.  tolerance: how far a rerun may leave the recorded mean;
        its verdict must be the recorded one.  most: as in metrics.bootstrap_interval."""
        interval, verdict = metrics.bootstrap_interval(values, most), ""
        if above is not None:
            verdict = judge(*interval[1:], above)
        elif below is not None:
            verdict = judge(-interval[2], -interval[1], -below)
        verdict = TOO_FEW if verdict and len(values) < fewest else verdict
        self.add(name, interval, len(values), claim, verdict, tolerance)

    def add(self, name, interval, pairs, claim, verdict, tolerance):
        """A row of the table, with what is recorded of it."""
        known = self.recorded.get(name)
        agrees = abs(interval[0] - known["value"]) <= known["tolerance"] and verdict == known["verdict"] if known else None
        mean, low, high = (round(number, 5) for number in interval)
        row = dict(number=name, mean=mean, low=low, high=high, pairs=pairs, claim=claim, verdict=verdict)
        recorded = {"recorded": known and known["value"], "recorded verdict": known and known["verdict"], "agrees": agrees}
        self.rows.append({**row, **recorded, "tolerance": tolerance})

    def compare(self, table, name, claim, lower=False, tolerance=0.02, pairs=None, shared=0.0, fewest=FEWEST, most=1.0):
        """Add each method's mean of one score, and by how much M2IB does better than each rival, with its 95% t interval.
        table: tidy rows of one metric, modality and domain, M2IB's among them.  A mean is of all pairs that the method has, a
        difference of those that M2IB has, too.  lower: whether less of it is better.
        claim: held against a rival, or lost, where the paired t test finds a difference at 5% after Holm's correction for all the
        rivals; or else open.  pairs: how many there are, where the rows are of seeds; shared: as in metrics.paired_test."""
        wide = table.pivot(index="pair", columns="method", values="value")[table["method"].unique()]
        for method in wide:
            self.measure(f"{name}: {method}", wide[method].dropna(), tolerance=tolerance, most=most)
        better = {rival: (wide[rival] - wide[OURS]).dropna() * (1 if lower else -1) for rival in wide.columns.drop(OURS)}
        tests = {rival: compared(difference, shared) for rival, difference in better.items()}
        corrected = metrics.holm([p for *_, p in tests.values()])
        for (rival, (*interval, _)), p in zip(tests.items(), corrected, strict=True):
            count = pairs or len(better[rival])
            verdict = "open" if p > SIGNIFICANT else "held" if interval[0] > 0 else "lost"
            few = count < fewest or (rival == RIVALS["rise"].title and self.masks < MASKS)
            self.add(f"{name}{AGAINST}{rival}", interval, count, claim, TOO_FEW if few else verdict, tolerance)

    def check(self):
        """Write the numbers beside the figures.  -> DataFrame.  AssertionError where a number left its tolerance, or a verdict is
        another than the recorded one."""
        self.out.mkdir(parents=True, exist_ok=True)
        content = json.dumps(dict(parameters=self.parameters, note=self.note, rows=self.rows), indent=1)
        (self.out / f"{self.notebook}.json").write_text(content)
        missing = sorted(self.recorded.keys() - {row["number"] for row in self.rows})
        change = "{number} {mean:.4f} {verdict} for {recorded:.4f} {recorded verdict}"
        moved = [change.format(**row) for row in self.rows if row["agrees"] is False]
        if moved or missing:
            message = f"numbers that left their tolerance, or verdicts that changed: {moved}; recorded but not measured: {missing}"
            raise AssertionError(message)
        if self.note:
            print(self.note)
        if self.masks < MASKS:
            print(f"RISE has {self.masks} masks per picture, where its own number is {MASKS}: no claim against it is judged here")
        tests = sum(row["verdict"] != "" for row in self.rows)
        print(f"{tests} tests on this page; those of one claim against several rivals are corrected for their number (Holm)")
        return pd.DataFrame(self.rows).drop(columns=["tolerance", "recorded verdict"]).round(3)

    def claims(self):
        """The claims of this notebook, one row each, beside what `make paper` has recorded of them, where that is another scale."""
        table = claims(self.rows)
        if self.full:
            full = claims(self.full).set_index("claim")
            result = full["result"] + " at " + full["pairs"].astype(str)
            table["recorded at full scale"] = table["claim"].map(result).fillna("")
        return table
