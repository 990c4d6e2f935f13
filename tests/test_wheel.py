"""What a user has who installs the wheel and no clone: the package, its command, its models and its pictures."""

import os
import subprocess
import sys
from pathlib import Path

import m2ib_lite
from m2ib_lite.data import load

SHIPPED = {"models", "photographs", *load.SHIPPED}  # of data/; not what made it, nor what checks numbers
USE = """
import sys
from importlib.metadata import entry_points
from pathlib import Path

import m2ib_lite
from m2ib_lite import explain, load_model
from m2ib_lite.data import load_pairs

assert Path(m2ib_lite.__file__).is_relative_to(sys.argv[1]), m2ib_lite.__file__
pairs = [load_pairs(name)[0] for name in ("scenes", "radiographs", "photographs")]
clips = [load_model(name, device="cpu") for name in ("radiographs", "testbed")]
attribution = explain(clips[1], [pair.image for pair in pairs], [pair.caption for pair in pairs], steps=2, samples=2)
attribution.plot(0)
attribution.save("saved")
print(m2ib_lite.__version__)
entry_points(group="console_scripts")["m2ib"].load()(["--help"])
"""


def python(*arguments, **options):
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_wheel_works_outside_of_any_clone(tmp_path):
    site = tmp_path / "site"
    python("-m", "build", "--no-isolation", "--outdir", tmp_path, Path(__file__).parents[1])  # an sdist, and from it the wheel
    (wheel,) = tmp_path.glob("*.whl")
    python("-m", "pip", "install", "--no-deps", "--no-index", "--no-compile", "--target", site, wheel)
    environment = os.environ | {"PYTHONPATH": str(site), "MPLBACKEND": "agg"}
    version, *helped = python("-W", "ignore", "-c", USE, site, cwd=tmp_path, env=environment).splitlines()
    assert version == m2ib_lite.__version__
    assert any("evaluate" in line for line in helped)
    assert (site / "bin" / "m2ib").exists()
    assert (tmp_path / "saved" / "maps.npz").exists()
    assert (site / "m2ib_lite" / "models" / "others.txt").exists()  # for models that bring none
    assert {path.name for path in (site / "m2ib_lite" / "testbed").iterdir()} == SHIPPED
