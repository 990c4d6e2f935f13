"""What shows a run to its readers: the table of all claims, the methods side by side, the index page, README's results."""

import html
import json
import re

import pandas as pd

from ..evaluate import METHODS
from .report import claims

LOWER = ("drop", "deletion AUC")  # metrics of which less is better
START, END = "<!-- results: written by `make record` -->", "<!-- end of the results -->"


def all_claims(reports):
    """One row a claim over all notebooks.  reports: {notebook: rows of its Report} -> DataFrame"""
    tables = [claims(rows).assign(notebook=notebook) for notebook, rows in reports.items()]
    table = pd.concat(tables, ignore_index=True) if tables else claims([]).assign(notebook="")
    return table[["notebook", *table.columns.drop("notebook")]]


def side_by_side(rows):
    """The numbers called "metric, modality, domain: method" of one notebook.  -> {domain: DataFrame of methods and metrics}"""
    found = []
    for row in rows:
        parts = re.fullmatch(r"(.+), (.+), (.+): (.+)", row["number"])
        if parts and parts[4] in METHODS:
            found.append((parts[3], parts[4], f"{parts[1]}, {parts[2]}", row["mean"]))
    table = pd.DataFrame(found, columns=["domain", "method", "column", "mean"])
    return {
        domain: group.pivot(index="method", columns="column", values="mean").loc[group["method"].unique(), group["column"].unique()]
        for domain, group in table.groupby("domain", sort=False)
    }


def with_best(table):
    """The table as text of three digits, the best of each column in bold, its heading with the direction that is better."""
    columns = {}
    for name, values in table.items():
        lower = name.startswith(LOWER)
        best = values.min() if lower else values.max()
        text = [f"**{value:.3g}**" if value == best else f"{value:.3g}" for value in values]
        columns[f"{name} {'↓' if lower else '↑'}"] = text
    return pd.DataFrame(columns, index=table.index)


def markdown(table):
    """A DataFrame of text as a table of GitHub's Markdown."""
    lines = [list(table.columns), ["---"] * table.shape[1], *table.astype(str).to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def results(expected):
    """README's section of results, from the recorded numbers of the testbed.  expected: the folder -> Markdown"""
    reports = {}
    for path in sorted(expected.glob("*.json")):
        record = json.loads(path.read_text()).get("testbed")
        if record:
            reports[path.stem] = [{"number": name, "mean": number["value"], **number} for name, number in record["numbers"].items()]
    parts = ["### Every claim, held or not held", markdown(all_claims(reports))]
    for notebook, rows in reports.items():
        for domain, table in side_by_side(rows).items():
            parts.append(f"### {notebook}: all methods on the {domain}")
            parts.append(markdown(with_best(table).reset_index()))
    return "\n\n".join(parts)


def write_results(readme, expected):
    """Put `results` between the two marks in README."""
    before, rest = readme.read_text().split(START)
    _, after = rest.split(END)
    readme.write_text(f"{before}{START}\n\n{results(expected)}\n\n{END}{after}")


def index_page(runs, reports, out):
    """The page to look through a run: all claims, then each notebook's figures and numbers, with links to PDF and notebook.

    runs: a dict a notebook, of the last table.  reports: as in all_claims.
    """
    parts = ["<!doctype html><meta charset=utf-8><title>M2IB figures</title>"]
    parts.append("<style>body{font:16px sans-serif;max-width:70em;margin:2em auto;padding:0 1em}img{max-width:100%}")
    parts.append("td,th{padding:.2em .5em;text-align:left}table{border-collapse:collapse}</style>")
    parts.append(f"<h1>M2IB figures</h1>{pd.DataFrame(runs).to_html(index=False)}")
    parts.append(f"<h2>Every claim, held or not held</h2>{all_claims(reports).to_html(index=False)}")
    for run in runs:
        name = run["notebook"]
        parts.append(f"<h2><a href='notebooks/{name}.ipynb'>{name}</a></h2>")
        for figure in sorted(out.glob(f"{name}*.png")):
            alt = html.escape(figure.stem)
            parts.append(f"<p><img src='{figure.name}' alt='{alt}'><br><a href='{figure.stem}.pdf'>{alt}.pdf</a>")
        if reports.get(name):
            numbers = pd.DataFrame(reports[name]).drop(columns="tolerance")
            table = numbers.to_html(index=False, float_format="%.3f", na_rep="")
            parts.append(f"<details><summary>{len(numbers)} numbers</summary>{table}</details>")
    return "\n".join(parts)
