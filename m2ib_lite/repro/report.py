"""What a notebook's Check is made of: numbers with intervals, claims held or not held."""

import json
from pathlib import Path

import pandas as pd

from .. import metrics
from ..models import TESTBED

EXPECTED = TESTBED / "expected"
FEWEST = 10  # pairs, below which no claim is judged


def save_figure(figure, out, name):
    """Write a figure as out/name.png and out/name.pdf.  -> the figure, to be shown"""
    Path(out).mkdir(parents=True, exist_ok=True)
    for kind in ("png", "pdf"):
        figure.savefig(Path(out) / f"{name}.{kind}", dpi=150, bbox_inches="tight")
    return figure


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

        claim: what the paper says of it, held where the whole interval lies above `above`; fewer than 10 pairs settle nothing.
        tolerance: how far a rerun on another machine may leave the recorded mean.
        """
        mean, low, high = metrics.bootstrap_interval(values)
        row = dict(number=name, mean=mean, low=low, high=high, pairs=len(values), claim=claim)
        verdict = "too few pairs" if len(values) < FEWEST else "held" if above is not None and low > above else "not held"
        row["held"] = "" if above is None else verdict
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
