import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from joblib import cpu_count
from joblib.externals.loky import get_reusable_executor
from nbformat.v4 import new_code_cell, new_notebook
from results import END, START, side_by_side
from run import figures, longest_first, parse, record

ROOT = Path(__file__).parents[1]


def test_the_best_of_each_column_is_bold():
    rows = [("drop, image, scenes: M2IB", 1.0), ("drop, image, scenes: NIB", 2.0), ("drop, image, scenes: M2IB against NIB", 3.0)]
    rows += [("increase, image, scenes: M2IB", 10.0), ("increase, image, scenes: NIB", 20.0), ("R@1", 0.9)]
    (table,) = side_by_side([dict(number=number, mean=mean) for number, mean in rows]).values()
    assert table.loc["M2IB"].to_dict() == {"drop, image ↓": "**1**", "increase, image ↑": "10"}
    assert table.loc["NIB"].to_dict() == {"drop, image ↓": "2", "increase, image ↑": "**20**"}


def test_parameters_are_parsed_like_their_defaults():
    known = dict(MODEL="testbed", N_PAIRS=8, LR=1.0)
    assert parse(["MODEL=some/model=x", "N_PAIRS=3", "LR=2"], known) == dict(MODEL="some/model=x", N_PAIRS=3, LR=2.0)
    unknown = "no notebook has a parameter 'N_PAIR': there are LR, MODEL, N_PAIRS"
    wrong = {"N_PAIR=3": unknown, "N_PAIRS=many": "N_PAIRS=many: give a value like 8", "MODEL=": "MODEL=: give NAME=value"}
    for setting, message in wrong.items():
        with pytest.raises(ValueError, match=message):
            parse([setting], known)


def write(folder, name, *cells):
    folder.mkdir(exist_ok=True)
    cells = [new_code_cell(source) for source in cells]
    cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(new_notebook(cells=cells, metadata={"language_info": {"name": "python"}}), folder / f"{name}.ipynb")


MEASURE = """from m2ib_lite.repro import Report, save_figure
import matplotlib.pyplot as plt
save_figure(plt.figure(), OUT, "00_x")
report = Report("00_x", OUT, MODEL=MODEL, DEVICE=DEVICE.replace("auto", "cpu"), N_PAIRS=N_PAIRS)
report.measure("n", [N_PAIRS, N_PAIRS + 1], "n is large", above=0)
report.check()"""


def test_a_notebook_that_fails_does_not_stop_the_others(tmp_path, capsys):
    folder, out = tmp_path / "notebooks", tmp_path / "build" / "figures"
    write(folder, "00_bad", 'N_PAIRS = 1\nOUT = ""', "raise ValueError('on purpose')")
    write(folder, "01_good", 'N_PAIRS = 1\nMODEL = "m"\nDEVICE = "cpu"\nOUT = ""', MEASURE.replace("00_x", "01_good"))
    out.mkdir(parents=True)
    (out / "01_good_old.png").write_text("from an earlier run")
    (out / "diary.txt").write_text("not ours")
    assert figures(["N_PAIRS=3"], folder, out) == 1
    made = {"01_good.json", "01_good.png", "01_good.pdf", "index.html", "runs.json"}
    assert {path.name for path in out.glob("*.*")} == made | {"diary.txt"}
    assert "ValueError: on purpose" in capsys.readouterr().out
    assert json.loads((out / "01_good.json").read_text())["rows"][0]["mean"] == 3.5
    assert all(text in (out / "index.html").read_text() for text in ("01_good.png", "on purpose", "n is large"))
    assert {path.name for path in (out / "notebooks").iterdir()} == {"00_bad.ipynb", "01_good.ipynb"}
    nbformat.write(new_notebook(cells=[new_code_cell("N = 1")]), folder / "02_x.ipynb")
    with pytest.raises(ValueError, match="no cell tagged 'parameters'"):
        figures([], folder, out)
    with pytest.raises(ValueError, match="run this in a clone"):
        figures([], tmp_path)


def test_a_run_is_recorded_only_with_the_parameters_that_are_asked_for(tmp_path):
    folder, out, kept = (tmp_path / name for name in ("notebooks", "out", "kept"))
    (kept / "expected").mkdir(parents=True)
    (kept / "figures").mkdir()
    write(folder, "00_x", 'MODEL = "testbed"\nDEVICE = "auto"\nN_PAIRS = 1\nOUT = ""', MEASURE)
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{START}\nold\n{END}\nafter\n")
    where = dict(folder=folder, out=out, kept=kept, readme=readme)
    with pytest.raises(ValueError, match="00_x has no finished run"):
        record(**where)
    assert figures(["DEVICE=cuda"], folder, out) == 0
    with pytest.raises(ValueError, match=r"with these parameters in .*: run `make figures DEVICE=cpu"):
        record(**where)

    def kept_numbers():
        return json.loads((kept / "expected" / "00_x.json").read_text())

    for settings in ([], ["N_PAIRS=2"], ["N_PAIRS=2"]):  # which are kept side by side, the last in the place of the one before
        assert figures(settings, folder, out) == 0
        record(settings, **where)
        if not settings:
            picture = (kept / "figures" / "00_x.png").stat().st_mtime_ns
    own = {"MODEL": "testbed", "DEVICE": "cpu", "N_PAIRS": 1}
    assert [record["parameters"] for record in kept_numbers()] == [own, own | {"N_PAIRS": 2}]
    kept_number = dict(value=1.5, low=1.0, high=2.0, tolerance=0.02, pairs=2, claim="n is large", verdict="too few pairs")
    assert kept_numbers()[0]["numbers"] == {"n": kept_number}
    assert kept_numbers()[0]["seconds"] >= 1  # starting a kernel takes longer
    before, shown, after = re.split(f"{START}|{END}", readme.read_text())
    assert (before, after) == ("before\n", "\nafter\n")
    assert "| 00_x | n is large | too few pairs |" in shown
    assert (kept / "figures" / "00_x.png").stat().st_mtime_ns == picture
    assert sum('"value"' in line for line in (kept / "expected" / "00_x.json").read_text().splitlines()) == 2  # a number a line


def test_notebooks_that_took_longest_start_first_and_new_ones_before_them(tmp_path):
    (tmp_path / "expected").mkdir()
    for name, seconds in (("00_short", 3), ("01_long", 40)):
        (tmp_path / "expected" / f"{name}.json").write_text(json.dumps([{"seconds": 1}, {"seconds": seconds}]))
    paths = [tmp_path / f"{name}.ipynb" for name in ("00_short", "01_long", "02_new")]
    assert [path.stem for path in longest_first(paths, tmp_path)] == ["02_new", "01_long", "00_short"]


@pytest.mark.parametrize("threads", ["", "3"])
def test_notebooks_side_by_side_stay_in_the_users_folder_and_share_the_cores(tmp_path, monkeypatch, threads):
    get_reusable_executor().shutdown()  # another test's workers would not know of this one's folder
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", threads) if threads else monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    code = "import os\nfrom pathlib import Path\nassert Path(DATA).is_dir()\n"
    code += "(Path(OUT) / f'{NAME}.txt').write_text(os.environ['OMP_NUM_THREADS'] + os.environ['MKL_NUM_THREADS'])"
    for name in ("00_x", "01_x", "02_x"):
        write(tmp_path / "notebooks", name, f'NAME = "{name}"\nDATA = "scenes"\nOUT = ""', code)
    assert figures(["DATA=photos", "OUT=out"], tmp_path / "notebooks") == 0
    share = threads or str(max(1, cpu_count() // 2))  # a user's own number stands
    found = {path.stem: path.read_text() for path in (tmp_path / "out").glob("*.txt")}
    assert found == dict.fromkeys(["00_x", "01_x", "02_x"], 2 * share)


RUN = """import signal
from pathlib import Path
from run import figures
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell takes from what it runs in the background
figures(["OUT=out"], Path("notebooks"))"""


def test_an_interrupt_ends_the_kernels(tmp_path):
    alive = tmp_path / "out" / "alive"
    kernel = "import time\nfor _ in range(600):\n    open(OUT + '/alive', 'w').close()\n    time.sleep(0.1)"
    write(tmp_path / "notebooks", "00_x", 'OUT = ""', kernel)
    places = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT / "notebooks", ROOT)))}
    run = subprocess.Popen([sys.executable, "-c", RUN], cwd=tmp_path, env=places, stderr=subprocess.DEVNULL)
    while run.poll() is None and not alive.exists():
        time.sleep(0.5)
    run.send_signal(signal.SIGINT)
    assert run.wait(120) != 0
    time.sleep(2)  # a kernel looks each second whether its parent is there
    alive.unlink()
    time.sleep(1)
    assert not alive.exists()
