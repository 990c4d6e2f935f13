"""What shows a run to its readers: the table of all claims, the methods side by side, the index page, README's results."""

import pandas as pd

from m2ib_lite.evaluate import METHODS
from m2ib_lite.repro import claims, read

LOWER = ("drop", "deletion AUC", "clean words accused")  # metrics of which less is better
NUMBER = r"^(?P<column>[^,]+, [^,]+), (?P<domain>.+): (?P<method>.+)$"  # "metric, modality, domain and settings: method"
START, END = "<!-- results: written by `make record` -->", "<!-- end of the results -->"
STYLE = "body{font:16px sans-serif;max-width:70em;margin:2em auto}img{max-width:100%}td,th{padding:.2em .5em;text-align:left}"


def all_claims(reports):
    """One row a claim over all notebooks.  reports: {notebook: rows of its Report} -> DataFrame"""
    return pd.concat({name: claims(rows) for name, rows in reports.items()}, names=["notebook"]).reset_index("notebook")


def side_by_side(rows):
    """The numbers of one notebook that are of a method, as text of three digits, the best of each column in bold, its heading
    with the direction that is better.  -> {domain: DataFrame of methods and metrics}"""
    means, tables = pd.DataFrame(rows, columns=["number", "mean"]), {}
    found = means.join(means["number"].str.extract(NUMBER))
    for domain, group in found[found["method"].isin(METHODS)].groupby("domain", sort=False):
        wide = group.pivot(index="method", columns="column", values="mean").loc[group["method"].unique(), group["column"].unique()]
        lower, text = wide.columns.str.startswith(LOWER), wide.map("{:.3g}".format)
        text = text.mask(wide == wide.min().where(lower, wide.max()), "**" + text + "**")
        tables[domain] = text.set_axis([f"{name} {'↓' if less else '↑'}" for name, less in zip(text, lower)], axis=1)
    return tables


def markdown(table):
    """A DataFrame of text as a table of GitHub's Markdown."""
    lines = [table.columns, ["---"] * table.shape[1], *table.astype(str).to_numpy()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown_numbers(path):
    """The numbers of a notebook that README shows: its first record on the testbed, that of the notebook's own parameters."""
    return next((record["numbers"] for record in read(path) if record["parameters"]["MODEL"] == "testbed"), {})


def results(expected):
    """README's section of results, from the recorded numbers of the testbed.  expected: the folder -> Markdown"""
    reports = {}
    for path in sorted(expected.glob("*.json")):
        numbers = shown_numbers(path)
        reports[path.stem] = [dict(number=number, mean=kept["value"], **kept) for number, kept in numbers.items()]
    parts = ["### Every claim: held, lost or open", markdown(all_claims(reports))]
    for name, rows in reports.items():
        for domain, table in side_by_side(rows).items():
            parts += [f"### {name}: all methods on the {domain}", markdown(table.reset_index())]
    return "\n\n".join(parts)


def write_results(readme, expected):
    """Put `results` between the two marks in README."""
    before, rest = readme.read_text().split(START)
    readme.write_text(f"{before}{START}\n\n{results(expected)}\n\n{END}{rest.split(END)[1]}")


def index_page(runs, reports, out):
    """The page to look through a run: both tables, then each notebook's figures and numbers, with links to PDF and notebook.
    runs: a dict a notebook.  reports: as in all_claims."""
    parts = [f"<!doctype html><meta charset=utf-8><title>M2IB figures</title><style>{STYLE}</style><h1>M2IB figures</h1>"]
    parts += [pd.DataFrame(runs).to_html(index=False), all_claims(reports).to_html(index=False)]
    for name, rows in reports.items():
        parts.append(f"<h2><a href='notebooks/{name}.ipynb'>{name}</a></h2>")
        for figure in sorted(out.glob(f"{name}*.png")):
            parts.append(f"<p><img src='{figure.name}' alt='{figure.stem}'><br><a href='{figure.stem}.pdf'>{figure.stem}.pdf</a>")
        numbers = pd.DataFrame(rows).to_html(index=False, float_format="%.3f", na_rep="")
        parts.append(f"<details><summary>{len(rows)} numbers</summary>{numbers}</details>")
    return "\n".join(parts)
