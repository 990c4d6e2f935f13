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
from nbclient.exceptions import DeadKernelError
from nbformat.v4 import new_code_cell, new_notebook
from results import END, START, last_screen, side_by_side
from run import FORKED, SCALES, figures, known_seconds, parse, record, run_notebook

ROOT = Path(__file__).parents[1]


def test_the_best_of_each_column_is_bold():
    rows = [("drop, image, scenes: M2IB", 1.0), ("drop, image, scenes: NIB", 2.0), ("drop, image, scenes: M2IB against NIB", 3.0)]
    rows += [("increase, image, scenes: M2IB", 10.0), ("increase, image, scenes: NIB", 20.0), ("R@1", 0.9)]
    (table,) = side_by_side([dict(number=number, mean=mean, pairs=8 if "NIB" in number else 9) for number, mean in rows]).values()
    assert table.loc["M2IB"].to_dict() == {"drop, image ↓": "**1**", "increase, image ↑": "10"}
    assert table.loc["NIB (8 pairs)"].to_dict() == {"drop, image ↓": "2", "increase, image ↑": "**20**"}


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


MEASURE = """import json
from pathlib import Path
from PIL import Image
Image.new("RGB", (8, 8)).save(Path(OUT) / "00_x.png")
parameters = dict(MODEL=MODEL, DEVICE=DEVICE.replace("auto", "cpu"), N_PAIRS=N_PAIRS)
row = dict(number="n", mean=N_PAIRS, low=0, high=9, tolerance=1, pairs=9, claim="n is large", verdict="held", agrees=True)
(Path(OUT) / "00_x.json").write_text(json.dumps(dict(parameters=parameters, note="", rows=[row])))"""  # what a Report writes


def test_a_notebook_that_fails_does_not_stop_the_others(tmp_path, capsys):
    folder, out = tmp_path / "notebooks", tmp_path / "build" / "figures"
    write(folder, "00_bad", 'N_PAIRS = 1\nOUT = ""', "raise ValueError('on purpose')")
    write(folder, "01_good", 'N_PAIRS = 1\nMODEL = "m"\nDEVICE = "cpu"\nOUT = ""', MEASURE.replace("00_x", "01_good"))
    out.mkdir(parents=True)
    (out / "01_good_old.png").write_text("from an earlier run")
    (out / "diary.txt").write_text("not ours")
    assert figures(["N_PAIRS=3"], folder=folder, out=out) == (out, 1)
    made = {"01_good.json", "01_good.png", "run.md", "runs.json"}
    assert {path.name for path in out.glob("*.*")} == made | {"diary.txt"}
    assert "ValueError: on purpose" in capsys.readouterr().out
    assert json.loads((out / "01_good.json").read_text())["rows"][0]["mean"] == 3
    assert all(text in (out / "run.md").read_text() for text in ("01_good.json", "on purpose", "n is large"))
    assert {path.name for path in (out / "notebooks").iterdir()} == {"00_bad.ipynb", "01_good.ipynb"}
    nbformat.write(new_notebook(cells=[new_code_cell("N = 1")]), folder / "02_x.ipynb")
    with pytest.raises(ValueError, match="no cell tagged 'parameters'"):
        figures([], folder=folder, out=out)
    with pytest.raises(ValueError, match="run this in a clone"):
        figures([], folder=tmp_path)


LOOK = """import os, sys
imported = "m2ib_lite.repro" in sys.modules
import torch
import matplotlib.pyplot as plt
print(os.getpid(), imported, hasattr(torch, "mark"), get_ipython().history_manager.hist_file)
plt.plot([1])
torch.mark = True"""


def test_a_notebook_leaves_nothing_to_the_next_and_one_whose_kernel_dies_does_not_hang(tmp_path):
    write(tmp_path, "00_x", 'OUT = ""', LOOK)
    kernels = set()
    for _ in range(2):
        run_notebook(tmp_path / "00_x.ipynb", {}, tmp_path / "out")
        printed, picture = nbformat.read(tmp_path / "out/notebooks/00_x.ipynb", as_version=4).cells[-1].outputs
        kernel, *rest = printed.text.split()
        assert rest == [str(bool(FORKED)), "False", ":memory:"]  # on Linux the imports are there before the first cell
        assert "image/png" in picture.data  # drawn at the end of the cell, as in Jupyter
        assert not Path("/proc", kernel).exists()
        kernels.add(kernel)
    assert len(kernels) == 2
    write(tmp_path, "01_dies", 'OUT = ""', "import os", "os._exit(1)")
    with pytest.raises(DeadKernelError):
        run_notebook(tmp_path / "01_dies.ipynb", {}, tmp_path / "out")


def test_a_run_is_recorded_only_with_the_parameters_of_its_scale(tmp_path, monkeypatch):
    folder, out, kept = (tmp_path / name for name in ("notebooks", "out", "kept"))
    (kept / "expected").mkdir(parents=True)
    (kept / "figures").mkdir()
    write(folder, "00_x", 'MODEL = "testbed"\nDEVICE = "auto"\nN_PAIRS = 1\nOUT = ""', MEASURE)
    monkeypatch.setitem(SCALES, "paper", {"00_x": dict(N_PAIRS=20)})
    page = tmp_path / "results.md"
    page.write_text(f"before\n{START}\nold\n{END}\nafter\n")
    where = dict(folder=folder, out=out, kept=kept)
    with pytest.raises(ValueError, match="00_x has no finished run"):
        record(**where, page=page)
    assert figures(["DEVICE=cuda"], **where) == (out, 0)
    with pytest.raises(ValueError, match=r"with these parameters in .*: run `make figures DEVICE=cpu"):
        record(**where, page=page)
    for scale in ("paper", "figures", "figures"):  # which are kept side by side, the last in the place of the one before
        assert figures([], scale, **where) == (out, 0)
        record(scale, **where, page=page)
        if scale == "paper":
            picture = (kept / "figures" / "00_x.png").stat().st_mtime_ns
    kept_text = (kept / "expected" / "00_x.json").read_text()
    paper, small = json.loads(kept_text)
    own = {"MODEL": "testbed", "DEVICE": "cpu", "N_PAIRS": 1}
    assert (paper["scale"], paper["parameters"]) == ("paper", own | {"N_PAIRS": 20})
    assert (small["scale"], small["parameters"]) == ("figures", own)
    kept_number = dict(value=1, low=0, high=9, tolerance=1, pairs=9, claim="n is large", verdict="held")
    assert small["numbers"] == {"n": kept_number}
    assert len(small["cells"]) == 3  # papermill's own among them
    assert 0 <= sum(small["cells"]) <= small["seconds"] + 1
    assert sum('"value"' in line for line in kept_text.splitlines()) == 2  # a number a line
    before, shown, after = re.split(f"{START}|{END}", page.read_text())
    assert (before, after) == ("before\n", "\nafter\n")
    assert "| 00_x | n is large | held |" in shown
    assert (kept / "figures" / "00_x.png").stat().st_mtime_ns == picture


def test_the_last_screen_sums_up_claims_beside_the_full_scale_in_a_hundred_columns():
    claim = "finds more of what the caption names than the rivals do, in all of the pictures that there are"
    places = [f"({place})" for place in ("image, scenes, best", "text, scenes, best", "text, radiographs, published")]
    rows = [dict(claim=f"{claim} {place}", verdict=of) for place, of in zip(places, ("held", "open", "too few"), strict=True)]
    full = [dict(row, verdict="lost") for row in rows] + [dict(claim="", verdict="")]
    runs = [dict(notebook="02_x", seconds=7, held=1, lost=0, open=1, recorded="agrees", error="on purpose")]
    lines = last_screen(runs, {"02_x": rows}, {"02_x": full, "03_y": full}).splitlines()
    assert max(map(len, lines)) <= 100
    assert re.fullmatch(r"02 +finds more of what .* \.\.\. +1 +0 +1 +1 +0/3/0", lines[1])
    assert any("02_x failed: on purpose" in line for line in lines)


def test_a_recorded_run_tells_how_long_each_cell_takes(tmp_path):
    (tmp_path / "expected").mkdir()
    write(tmp_path, "00_x", "N_PAIRS = 1", "pass")
    path = tmp_path / "00_x.ipynb"
    assert known_seconds(path, "figures", tmp_path) == [1, 1, 1]
    records = [dict(scale="paper", cells=[9, 9, 9]), dict(scale="figures", cells=[1, 2, 3])]
    (tmp_path / "expected" / "00_x.json").write_text(json.dumps(records))
    assert known_seconds(path, "figures", tmp_path) == [1, 2, 3]
    write(tmp_path, "00_x", "N_PAIRS = 1", "pass", "pass")  # since edited
    assert known_seconds(path, "figures", tmp_path) == [1, 1, 1, 1]


@pytest.fixture
def quick_forks(tmp_path, monkeypatch):
    """For kernels that compute nothing: the imports that would take a fork server 10 s fail at once, which it passes over."""
    (tmp_path / "first").mkdir()
    for name in ("m2ib_lite", "seaborn"):
        (tmp_path / "first" / f"{name}.py").write_text("raise ImportError('not needed')")
    monkeypatch.syspath_prepend(tmp_path / "first")  # for joblib's workers, and in newer Pythons for what they fork from
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (tmp_path / "first", ROOT / "notebooks", ROOT))))
    yield
    get_reusable_executor().shutdown()  # its workers would keep this path for the next test


@pytest.mark.parametrize(("threads", "count"), [("", 3), ("3", 2)])  # kernels forked, and not
@pytest.mark.usefixtures("quick_forks")
def test_notebooks_side_by_side_stay_in_the_users_folder_and_share_the_cores(tmp_path, monkeypatch, threads, count):
    get_reusable_executor().shutdown()  # another test's workers would not know of this one's folder
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", threads) if threads else monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    code = "import os\nfrom pathlib import Path\nassert Path(DATA).is_dir()\n"
    code += "(Path(OUT) / f'{NAME}.txt').write_text(os.environ['OMP_NUM_THREADS'] + os.environ['MKL_NUM_THREADS'])"
    names = [f"0{n}_x" for n in range(count)]
    for name in names:
        write(tmp_path / "notebooks", name, f'NAME = "{name}"\nDATA = "scenes"\nOUT = ""', code)
    assert figures(["DATA=photos", "OUT=out"], folder=tmp_path / "notebooks") == (tmp_path / "out", 0)
    share = threads or str(max(1, cpu_count() // 2))  # a user's own number stands
    found = {path.stem: path.read_text() for path in (tmp_path / "out").glob("*.txt")}
    assert found == dict.fromkeys(names, 2 * share)


RUN = """import signal
from pathlib import Path
from run import figures
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell takes from what it runs in the background
figures(["OUT=out"], folder=Path("notebooks"))"""
ONE = """from pathlib import Path
from run import run_notebook
run_notebook(Path("notebooks/00_x.ipynb"), {}, Path("out"))"""
KEPT_ALIVE = "import time\nfor _ in range(600):\n    open(OUT + '/alive', 'w').close()\n    time.sleep(0.1)"


@pytest.mark.parametrize(
    ("script", "send", "number"), [(RUN, os.killpg, signal.SIGINT), (ONE, os.kill, signal.SIGKILL)], ids=["ctrl-C", "kill"]
)
@pytest.mark.usefixtures("quick_forks")
def test_no_kernel_outlives_an_interrupt_or_its_owner(tmp_path, script, send, number):
    alive = tmp_path / "out" / "alive"
    for name in ("00_x", "01_x", "02_x"):  # enough for kernels to be forked
        write(tmp_path / "notebooks", name, 'OUT = ""', KEPT_ALIVE)
    quiet = dict(stderr=subprocess.DEVNULL, start_new_session=True)  # a group of its own, as in a terminal
    run = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, **quiet)
    while run.poll() is None and not alive.exists():
        time.sleep(0.5)
    send(run.pid, number)
    assert run.wait(120) != 0
    time.sleep(2)  # a kernel that is not forked looks each second whether its parent is there
    alive.unlink()
    time.sleep(1)
    assert not alive.exists()
