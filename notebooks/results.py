"""What shows a run to its readers: the table of all claims, the methods side by side, the book's page on it, docs/results.md."""

import re
from textwrap import shorten

import pandas as pd

from m2ib_lite.evaluate import METHODS
from m2ib_lite.repro import TOO_FEW, claims, read, recorded_rows

LOWER = ("drop", "deletion AUC", "clean words accused")  # metrics of which less is better
NUMBER = r"^(?P<column>[^,]+, [^,(]+?)(, | \()(?P<domain>[^)]+)\)?: (?P<method>.+)$"  # "metric, modality, domain, settings: method"
START, END = "<!-- results: written by `make record` -->", "<!-- end of the results -->"
PAGE = "../notebooks/{notebook}.ipynb"  # of the book, from its folder docs


def all_claims(reports):
    """One row a claim over all notebooks.  reports: {notebook: rows of its Report} -> DataFrame"""
    return pd.concat({name: claims(rows) for name, rows in reports.items()}, names=["notebook"]).reset_index("notebook")


def summary(reports, full):
    """One row for all that a notebook claims in the same words, of whichever tower, data and settings: how often it is held, lost
    and open, how often there were too few pairs; and held/lost/open at full scale.  reports, full: as in all_claims"""
    counts = []
    for found in (reports, full):
        rows = [(name[:2], short(row["claim"]), row["verdict"]) for name, of in found.items() for row in of if row["verdict"]]
        table = pd.DataFrame(rows, columns=["", "claim", "verdict"]).groupby(["", "claim"], sort=False)["verdict"].value_counts()
        counts.append(table.unstack(fill_value=0).reindex(columns=["held", "lost", "open", TOO_FEW], fill_value=0))
    own, whole = counts
    text = {claim: "/".join(map(str, row)).removesuffix("/0") for claim, row in zip(whole.index, whole.to_numpy(), strict=True)}
    return own.rename(columns={TOO_FEW: "few"}).assign(**{"full scale": [text.get(claim, "") for claim in own.index]}).reset_index()


def short(claim):
    """A claim without its tower, data and settings, in 60 characters."""
    return shorten(re.sub(r" \([^)]*\)|,? (image|text), \w+.*", "", claim), 60, placeholder=" ...").ljust(60)


def last_screen(runs, reports, full):
    """What a run prints at its end, in 100 columns: a line a claim, a line a notebook, and what failed."""
    table = pd.DataFrame(runs)
    failed = [f"{run['notebook']} failed: {run['error'][:400]}\n" for run in runs if run["error"]]
    parts = [summary(reports, full).to_string(index=False), table.drop(columns="error").to_string(index=False), *failed]
    return "\n\n".join(parts) + "\n"


def side_by_side(rows):
    """The numbers of one notebook that several methods have, as text of three digits, the best of each column in bold, its heading
    with the direction that is better; a method that was asked of fewer pairs than others says of how many.
    -> {domain: DataFrame of methods and metrics}"""
    means, tables = pd.DataFrame(rows, columns=["number", "mean", "pairs"]), {}
    found = means.join(means["number"].str.extract(NUMBER))
    for domain, group in found[found["method"].isin(METHODS)].groupby("domain", sort=False):
        wide = group.pivot(index="method", columns="column", values="mean").loc[group["method"].unique(), group["column"].unique()]
        wide = wide.loc[:, wide.notna().sum() > 1]
        if wide.empty:  # of one method alone
            continue
        lower, text = wide.columns.str.startswith(LOWER), wide.map("{:.3g}".format, na_action="ignore").fillna("–")
        text = text.mask(wide == wide.min().where(lower, wide.max()), "**" + text + "**")
        pairs = group.groupby("method")["pairs"].max()
        text = text.rename({method: f"{method} ({of} pairs)" for method, of in pairs[pairs < pairs.max()].items()})
        tables[domain] = text.set_axis([f"{name} {'↓' if less else '↑'}" for name, less in zip(text, lower)], axis=1)
    return tables


def markdown(table):
    """A DataFrame of text as a table of GitHub's Markdown."""
    lines = [table.columns, ["---"] * table.shape[1], *table.astype(str).to_numpy()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def full_scale(expected):
    """What `make paper` has recorded on the testbed, the first record of each notebook.  -> {notebook: rows of its Report}"""
    records = {path.stem: read(path) for path in sorted(expected.glob("*.json"))}
    first = {name: next((one for one in of if one["parameters"]["MODEL"] == "testbed"), None) for name, of in records.items()}
    return {name: recorded_rows(record) for name, record in first.items() if record}


def results(expected):
    """The tables of docs/results.md, from the recorded numbers of the testbed.  expected: the folder -> Markdown"""
    reports = full_scale(expected)
    parts = ["## Every claim: held, lost or open", markdown(all_claims(reports))]
    for name, rows in reports.items():
        for domain, table in side_by_side(rows).items():
            parts += [f"## {name}: {domain} settings", markdown(table.reset_index())]
    return "\n\n".join(parts)


def write_results(page, expected):
    """Put `results` between the two marks in the page."""
    before, rest = page.read_text().split(START)
    page.write_text(f"{before}{START}\n\n{results(expected)}\n\n{END}{rest.split(END)[1]}")


def run_page(runs, reports, out):
    """The book's page on a run: what failed, how long each notebook took, every claim; each figure as PDF, all numbers as JSON.
    runs: a dict a notebook.  reports: as in all_claims.  out: the folder of the figures  -> Markdown"""
    failed = [f"```text\n{run['notebook']} failed: {run['error']}\n```" for run in runs if run["error"]]
    table = pd.DataFrame(runs).drop(columns="error").assign(notebook=[f"[{run['notebook']}]({PAGE.format(**run)})" for run in runs])
    files = sorted([*out.glob("[0-9][0-9]_*.pdf"), *out.glob("[0-9][0-9]_*.json")])
    files = "\n".join(f"- [{file.name}]({file.name})" for file in files)
    parts = ["# The last run", *failed, markdown(table), "## Every claim of this run", markdown(all_claims(reports))]
    return "\n\n".join([*parts, "## Its figures as PDF, its numbers as JSON", files]) + "\n"
