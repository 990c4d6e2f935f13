"""Every finding that README states has recorded verdicts behind it."""

from pathlib import Path

import pytest
from results import testbed_record

from m2ib_lite.repro import claims

ROOT = Path(__file__).parents[1]
FINDINGS = []


@pytest.mark.parametrize(("sentence", "notebook", "claim", "result"), FINDINGS)
def test_a_finding_of_readme_is_what_the_record_says(sentence, notebook, claim, result):
    assert sentence in " ".join((ROOT / "README.md").read_text().split())
    numbers = testbed_record(ROOT / "data" / "expected" / f"{notebook}.json")["numbers"]
    table = claims([dict(number=number, mean=kept["value"], **kept) for number, kept in numbers.items()])
    (row,) = table[table["claim"] == claim].to_dict("records")
    assert {column: row[column] for column in result} == result
