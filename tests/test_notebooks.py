"""Every notebook is in the house's shape, and runs under papermill: two of them at a recorded scale, the others at the smallest,
with a tiny model whose numbers mean nothing."""

import ast
import json
import re
from pathlib import Path

import nbformat
import pytest
from families import tiny_clip
from run import SCALES, defaults, run_notebook

from m2ib_lite.repro import MASKS, TUNING_SEED

PATHS = sorted((Path(__file__).parents[1] / "notebooks").glob("[0-9][0-9]_*.ipynb"))
HEADINGS = ["Question", "Claim", "Parameters", "Setup", "Compute", "Figure", "Check", "Takeaways"]
FORBIDDEN = ["sys.path", "%pip", "filterwarnings", "except:", "/home/", "/root/", "/work/", "/tmp/"]
SMOKE = dict(N_PAIRS=4, SLOW_PAIRS=1, STEPS=2, RISE_MASKS=20, SHAP_SAMPLES=1, ROAR_SEEDS=1)
SMOKE |= dict(BETAS=[0.1, 10.0], SIGMA2S=[1.0], LRS=[1.0], SAMPLES=[1, 3])
MODELS = ("MODEL", "MEDICAL_MODEL", "BIASED", "CLEAN", "SNOW_BIASED", "SNOW_CLEAN")
ENOUGH = {"09_audit": dict(N_PAIRS=32)}  # for words that several captions say
RECORDED = ("00_testbed", "01_attribution_maps")  # whose own numbers and verdicts data/expected holds

each = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def cells(path, kind):
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def test_there_are_notebooks():
    assert [path.stem[:2] for path in PATHS] == [f"{i:02d}" for i in range(len(PATHS))]
    assert PATHS


@each
def test_the_headings_stand_in_order(path):
    assert re.findall(r"^## (.*)$", "\n".join(cells(path, "markdown")), flags=re.M) == HEADINGS


@each
def test_parameters_are_upper_case_literals_that_all_share(path):
    known = defaults(path)
    assert {"MODEL", "DEVICE", "SEED", "N_PAIRS", "STEPS", "OUT"} <= set(known)
    assert all(name.isupper() for name in known)
    assert known["SEED"] != TUNING_SEED


@pytest.mark.parametrize("path", [path for path in PATHS if "RISE_MASKS" in defaults(path)], ids=lambda path: path.stem)
def test_at_full_scale_rise_has_its_own_number_of_masks(path):
    assert (SCALES["paper"][path.stem]["RISE_MASKS"] == MASKS) == (path.stem != "04_sanity_checks")  # which judges no rival


@pytest.mark.parametrize("path", [path for path in PATHS if "QUALITY" in defaults(path)], ids=lambda path: path.stem)
def test_at_full_scale_m2ib_has_the_papers_effort(path):
    assert SCALES["paper"][path.stem]["QUALITY"] == "published"


@each
def test_code_is_short_and_imports_stand_in_setup(path):
    sources = cells(path, "code")
    for source in sources:
        assert len(source.splitlines()) <= 20
        assert not any(word in source for word in FORBIDDEN)
        assert not re.search(r"^\s*[!%]", source, flags=re.M)
        for node in ast.walk(ast.parse(source)):
            assert not isinstance(node, ast.ClassDef)
            assert not isinstance(node, ast.FunctionDef) or node.end_lineno - node.lineno < 8
    importing = [i for i, source in enumerate(sources) if re.search(r"^\s*(import|from) ", source, flags=re.M)]
    assert importing == [1]  # after the parameters


@pytest.fixture(scope="module")
def out(tmp_path_factory, testrun_uid):
    """One folder for all of them, in whichever process, so that maps which one has asked for are there for the next."""
    return tmp_path_factory.getbasetemp().parent / testrun_uid


@each
def test_it_runs_and_writes_its_figure_and_numbers_which_are_the_recorded_ones(path, out, clip, tmp_path):
    model = str(tiny_clip(tmp_path / "tiny", clip, image_blocks=4, text_blocks=4))
    small = {} if path.stem in RECORDED else SMOKE | ENOUGH.get(path.stem, {}) | dict.fromkeys(MODELS, model)
    run_notebook(path, dict(DEVICE="cpu") | small, out)
    assert {f"{path.stem}.png", f"{path.stem}.pdf", f"{path.stem}.json"} <= {file.name for file in out.iterdir()}
    report = json.loads((out / f"{path.stem}.json").read_text())
    assert any(row["verdict"] for row in report["rows"])
    assert (report["note"] == "") == (path.stem in RECORDED)
    outputs = [
        output for cell in nbformat.read(out / "notebooks" / path.name, as_version=4).cells for output in cell.get("outputs", [])
    ]
    shown = [output for output in outputs if "width" in output.get("metadata", {}).get("image/png", {})]  # by save_figure
    assert len(shown) == len(list(out.glob(f"{path.stem}*.png")))
