"""What a notebook's Check is made of: scores against the truth, numbers with intervals, claims held or not held."""

import json
import re
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


def whole_words(caption, tokens):
    """The word of the caption that each token is a piece of: ["viol", "ins"] -> ["violins", "violins"]."""
    words, start = [], 0
    for token in tokens:
        found = caption.find(token, start)
        start = found if found >= 0 else start  # one letter in several tokens stands in the caption once
        around = [word for word in re.finditer(r"\w+", caption) if word.start() <= start < word.end()]
        words.append(around[0].group() if around else token)
        start += len(token) if found >= 0 else 0
    return words


def score(attribution, pairs, method=None):
    """How well the maps find what the captions name: a tidy table of pair, modality, metric, value, chance, method.

    A pair that cannot have a score (no unnamed object, no word in the picture) has no row for it.  Where a map has signs, what
    is negative counts as 0.  method: the name in the table, the attribution's own by default.
    """
    rows = []
    for i, pair in enumerate(pairs):
        heat, named, unnamed = attribution.heat(i).clip(min=0), pair.region(), pair.region(named=False) & ~pair.region()
        rows.append((pair.id, "image", "energy inside", metrics.energy_inside(heat, named), named.mean()))
        rows.append((pair.id, "image", "pointing game", metrics.pointing_game(heat, named), named.mean()))
        if unnamed.any():
            rows.append((pair.id, "image", "named preference", metrics.named_preference(heat, named, unnamed), 0.5))
        relevant = [word in pair.words() for word in whole_words(pair.caption, attribution.tokens[i])]
        if any(relevant):
            precision = metrics.average_precision(attribution.text_maps[i].cpu(), relevant)
            rows.append((pair.id, "text", "word precision", precision, metrics.chance_precision(relevant)))
    table = pd.DataFrame(rows, columns=["pair", "modality", "metric", "value", "chance"])
    return table.assign(method=method or attribution.method)


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
