import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import stats

from m2ib_lite.repro import Report, claims, save_figure

MODEL = dict(MODEL="testbed", SEED=1)


@pytest.fixture
def report(tmp_path):
    return Report("01_x", tmp_path, tmp_path, **MODEL)


def test_a_claim_is_held_where_its_whole_interval_lies_above(report):
    values = np.random.default_rng(0).normal(0.1, 1.0, 100)
    report.measure("far", values + 1, "far above", above=0)
    report.measure("near", values, "hardly above", above=0)
    report.measure("plain", values)
    report.measure("few", [1.0] * 9, "above 0", above=0)
    report.measure("enough", [1.0] * 10, "above 0", above=0)
    report.measure("under", values - 1, "far above", above=0)
    for name, shift in (("below", -1), ("around", 0), ("over", 1)):
        report.measure(name, values + shift, "below 0", below=0)
    table = report.check()
    assert table["verdict"].tolist() == ["held", "open", "", "too few", "held", "lost", "held", "open", "lost"]
    assert table["mean"].iloc[2] == pytest.approx(values.mean(), abs=1e-3)
    assert (table["low"] < table["mean"]).all()


def test_a_figure_is_written_and_shown_once_and_closed(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("m2ib_lite.repro.display", shown.append)
    figure, ax = plt.subplots(figsize=(2, 1))
    ax.set_title("x")
    save_figure(figure, tmp_path / "out", "a")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.png", "a.pdf"}
    assert not plt.fignum_exists(figure.number)
    (picture,) = shown
    assert picture.width == pytest.approx(Image.open(tmp_path / "out" / "a.png").width * 72 / 150, abs=1)


def recorded(folder, value=0.5, verdict="held"):
    other = {"parameters": {**MODEL, "N_PAIRS": 9}, "numbers": {}}
    numbers = {"a": {"value": value, "tolerance": 0.02, "verdict": verdict}}
    (folder / "01_x.json").write_text(json.dumps([other, {"parameters": MODEL, "numbers": numbers}]))


def measured(expected, out, name="a", **parameters):
    report = Report("01_x", out, expected, **{**MODEL, **parameters})
    report.measure(name, [0.4, 0.6] * 5, "a is above 0.1", above=0.1)
    return report


def test_a_number_that_leaves_its_tolerance_or_is_not_measured_fails_the_check(tmp_path):
    out = tmp_path / "out"
    recorded(tmp_path, value=0.51)
    assert measured(tmp_path, out).check()["agrees"].tolist() == [True]
    recorded(tmp_path, value=0.53)
    with pytest.raises(AssertionError, match=r"left their tolerance.*\['a 0.5000 held for 0.5300 held'\]"):
        measured(tmp_path, out).check()
    assert json.loads((out / "01_x.json").read_text())["rows"][0]["agrees"] is False  # and the numbers are not lost
    with pytest.raises(AssertionError, match=r"recorded but not measured: \['a'\]"):
        measured(tmp_path, out, name="b").check()
    recorded(tmp_path, verdict="open")
    with pytest.raises(AssertionError, match=r"verdicts that changed: \['a 0.5000 held for 0.5000 open'\]"):
        measured(tmp_path, out).check()
    with pytest.raises(ValueError, match="SEED is 0, of the pictures that the settings were chosen on"):
        measured(tmp_path, out, SEED=0)
    assert measured(tmp_path, out, SEED=0, MODEL="openai/clip").check()["verdict"].tolist() == ["held"]


@pytest.mark.parametrize("change", [dict(SEED=2), dict(MODEL="other")])
def test_a_model_or_setting_without_recorded_numbers_says_so(tmp_path, capsys, change):
    recorded(tmp_path)
    assert measured(tmp_path, tmp_path / "out", **change).check()["recorded"].tolist() == [None]
    assert "no recorded numbers for" in capsys.readouterr().out


def test_a_claim_stands_beside_what_the_full_scale_found(tmp_path):
    recorded(tmp_path, verdict="open")
    records = json.loads((tmp_path / "01_x.json").read_text())
    found = dict(value=0.5, low=0.4, high=0.6, tolerance=0.1, pairs=60, verdict="held", claim="a is above 0.1")
    records[0]["numbers"] = {"a": found}
    (tmp_path / "01_x.json").write_text(json.dumps(records))
    claims = measured(tmp_path, tmp_path / "out").claims()
    assert claims[["result", "recorded at full scale"]].to_numpy().tolist() == [["held", "held at 60"]]
    other_model = measured(tmp_path, tmp_path / "out", MODEL="other").claims()
    assert "recorded at full scale" not in other_model
    records[0]["parameters"] = MODEL
    (tmp_path / "01_x.json").write_text(json.dumps(records))
    assert "recorded at full scale" not in measured(tmp_path, tmp_path / "out").claims()  # this is the full scale


def scores(**methods):
    """Tidy rows of one metric: a value a pair for each method."""
    rows = [(f"pair {i}", method, value) for method, values in methods.items() for i, value in enumerate(values)]
    return pd.DataFrame(rows, columns=["pair", "method", "value"])


def test_m2ib_is_compared_with_each_rival_pair_by_pair(report):
    wave = np.linspace(0, 1, 20)  # M2IB varies much between pairs, but little beside its rivals
    table = scores(M2IB=wave, NIB=wave - 0.1 + 0.01 * wave, RISE=wave + 0.1 - 0.01 * wave, Random=wave[::-1])
    report.compare(table, "gain, image, scenes", "gains more")
    assert [row["number"] for row in report.rows[:4]] == [f"gain, image, scenes: {m}" for m in ("M2IB", "NIB", "RISE", "Random")]
    assert report.claims().to_numpy().tolist() == [["gains more", "held against 1 of 3", "", "RISE", "Random", 20, 3]]
    report.compare(table, "loss, image, scenes", "loses less", lower=True)
    assert report.claims()["loses to"].tolist() == ["RISE", "NIB"]


@pytest.mark.parametrize(("rivals", "shared", "verdict"), [(1, 0, "held"), (3, 0, "open"), (1, 0.25, "open")])
def test_a_difference_of_p_003_is_open_among_three_rivals_and_where_the_seeds_share_their_data(report, rivals, shared, verdict):
    wave = np.linspace(-1, 1, 20)
    lead = wave + stats.t.isf(0.015, 19) * wave.std(ddof=1) / 20**0.5  # p is 0.03
    table = scores(M2IB=lead, **{f"rival {i}": 0 * wave for i in range(rivals)})
    report.compare(table, "gain, image, scenes", "gains more", pairs=200, shared=shared)
    compared = report.rows[-rivals:]
    assert [(row["verdict"], row["pairs"]) for row in compared] == [(verdict, 200)] * rivals
    assert all((row["low"] > 0) == (shared == 0) for row in compared)  # one interval alone is not corrected


@pytest.mark.parametrize(("pairs", "of_rival", "held"), [(12, 11, "held"), (1, 1, "too few")])
def test_a_rival_is_compared_on_the_pairs_that_it_has_and_one_pair_settles_nothing(report, pairs, of_rival, held):
    report.compare(scores(M2IB=[1.0] * pairs, NIB=[0.0] * of_rival, RISE=[0.0] * pairs), "gain, text, scenes", "gains more")
    assert [row["pairs"] for row in report.rows] == [pairs, of_rival, pairs, of_rival, pairs]
    assert [row["verdict"] for row in report.rows] == ["", "", "", held, held]


def test_no_claim_is_judged_against_rise_with_fewer_masks_than_its_own(tmp_path, capsys):
    for masks, verdict in ((500, "too few"), (2000, "held")):
        report = Report("01_x", tmp_path / "out", tmp_path, **MODEL, RISE_MASKS=masks)
        report.compare(scores(M2IB=[1.0] * 12, NIB=[0.0] * 12, RISE=[0.0] * 12), "gain, text, scenes", "gains more")
        assert [row["verdict"] for row in report.rows[-2:]] == ["held", verdict]
        report.check()
        assert ("RISE has 500 masks" in capsys.readouterr().out) == (masks == 500)


def test_a_single_claim_shows_its_interval():
    row = dict(claim="c", number="n", mean=0.5, low=0.25, high=0.75, pairs=30, verdict="held")
    (shown,) = claims([row, dict(row, claim="", verdict="")]).to_numpy().tolist()
    assert shown == ["c", "held", "0.500 (0.250 to 0.750)", "", "", 30, 1]
