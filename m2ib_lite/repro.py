"""What a notebook's Check is made of: numbers with intervals, claims held or not held."""

import json
from pathlib import Path

import pandas as pd

from . import metrics
from .models import TESTBED

EXPECTED = TESTBED / "expected"
FEWEST = 10  # pairs, below which no claim is judged
OURS, AGAINST = "M2IB", ": M2IB against "


def read(path):
    """What a JSON file holds, {} where there is none."""
    return json.loads(path.read_text()) if path.exists() else {}


def save_figure(figure, out, name):
    """Write a figure as out/name.png and out/name.pdf.  -> the figure, to be shown"""
    Path(out).mkdir(parents=True, exist_ok=True)
    for kind in ("png", "pdf"):
        figure.savefig(Path(out) / f"{name}.{kind}", dpi=150, bbox_inches="tight")
    return figure


def claims(rows):
    """One row a claim of a Report: held, not held, or how often; the rivals M2IB loses to (the whole interval lies below 0)
    and those where nothing is settled (it lies across)."""
    table = pd.DataFrame(rows, columns=["claim", "number", "mean", "low", "high", "pairs", "held"])
    summary = []
    for claim, group in table[table["held"] != ""].groupby("claim", sort=False):
        first, rivals = group.iloc[0], group["number"].str.split(AGAINST).str[-1]
        held, lost = group["held"] == "held", (group["held"] == "not held") & (group["high"] < 0)
        how = "against" if AGAINST in first["number"] else "in"
        row = dict(claim=claim, result=f"held {how} {held.sum()} of {len(group)}", interval="", pairs=group["pairs"].min())
        row |= {"loses to": ", ".join(rivals[lost]), "not settled": ", ".join(rivals[~held & ~lost])}
        if len(group) == 1:
            interval = f"{first['mean']:.3f} ({first['low']:.3f} to {first['high']:.3f})"
            row |= {"result": first["held"], "interval": interval, "loses to": "", "not settled": ""}
        summary.append(row)
    return pd.DataFrame(summary, columns=["claim", "result", "interval", "loses to", "not settled", "pairs"])


class Report:
    """The Check of a notebook: its measured numbers, its claims, and the numbers recorded for the same parameters."""

    def __init__(self, notebook, out, expected=EXPECTED, **parameters):
        self.notebook, self.out, self.parameters, self.rows = notebook, Path(out), parameters, []
        record = read(Path(expected) / f"{notebook}.json").get(parameters["MODEL"], {})
        same = record.get("parameters") == parameters
        self.recorded = record["numbers"] if same else {}
        self.note = "" if same else f"no recorded numbers for {parameters}: nothing to compare with"

    def measure(self, name, values, claim="", above=None, tolerance=0.02, interval=metrics.bootstrap_interval, fewest=FEWEST):
        """Add a number: the mean of one value a pair, with its 95% interval, a bootstrap one unless told, to five digits.
        claim: what the paper says of it, held where the whole interval lies above `above`; fewer pairs than `fewest` settle
        nothing.  tolerance: how far a rerun on another machine may leave the recorded mean."""
        mean, low, high = interval(values)
        held = ""
        if above is not None:
            held = "too few pairs" if len(values) < fewest else "held" if low > above else "not held"
        known = self.recorded.get(name)
        agrees = abs(mean - known["value"]) <= known["tolerance"] if known else None
        mean, low, high = (round(number, 5) for number in (mean, low, high))
        row = dict(number=name, mean=mean, low=low, high=high, pairs=len(values), claim=claim, held=held)
        self.rows.append({**row, "recorded": known and known["value"], "agrees": agrees, "tolerance": tolerance})

    def compare(self, table, name, claim, lower=False, tolerance=0.02, fewest=FEWEST):
        """Add each method's mean of one score, and by how much M2IB does better than each rival, pair by pair.
        table: tidy rows of one metric, modality and domain, M2IB's among them.  lower: whether less of it is better.
        claim: held against a rival where the whole 95% t interval of the paired differences lies above 0."""
        wide = table.pivot(index="pair", columns="method", values="value").dropna()[table["method"].unique()]
        interval = metrics.paired_interval if len(wide) > 1 else metrics.bootstrap_interval  # one pair settles nothing
        for method in wide:
            self.measure(f"{name}: {method}", wide[method], tolerance=tolerance)
        for rival in wide.columns.drop(OURS):
            better = (wide[rival] - wide[OURS]) if lower else (wide[OURS] - wide[rival])
            self.measure(f"{name}{AGAINST}{rival}", better, claim, 0, tolerance, interval, fewest)

    def check(self):
        """Write the numbers beside the figures.  -> DataFrame.  AssertionError where a number left its tolerance."""
        self.out.mkdir(parents=True, exist_ok=True)
        content = json.dumps(dict(parameters=self.parameters, note=self.note, rows=self.rows), indent=1)
        (self.out / f"{self.notebook}.json").write_text(content)
        missing = sorted(self.recorded.keys() - {row["number"] for row in self.rows})
        moved = [f"{row['number']} {row['mean']:.4f} for {row['recorded']:.4f}" for row in self.rows if row["agrees"] is False]
        if moved or missing:
            raise AssertionError(f"numbers that left their tolerance: {moved}; recorded but not measured: {missing}")
        if self.note:
            print(self.note)
        return pd.DataFrame(self.rows).drop(columns="tolerance").round(3)

    def claims(self):
        """The claims of this notebook, one row each."""
        return claims(self.rows)
