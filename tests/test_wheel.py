"""What a user has who installs the wheel and no clone: the package, its models and its pictures."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import m2ib_lite

ROOT = Path(__file__).parents[1]
SHIPPED = {"models", "photographs", "radiographs", "scenes"}  # of data/; not what made it, nor what the numbers are checked with
USE = """
import sys
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
"""


def python(*arguments, **options):
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the package alone, from a wheel that is built from an sdist."""
    folder = tmp_path_factory.mktemp("wheel")
    python("-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    (wheel,) = folder.glob("*.whl")
    python("-m", "pip", "install", "--no-deps", "--no-index", "--target", folder / "site", wheel)
    return folder / "site"


def test_a_wheel_works_outside_of_any_clone(installed, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(installed), "MPLBACKEND": "agg"}
    printed = python("-W", "ignore", "-c", USE, installed, cwd=tmp_path, env=environment)
    assert printed.split()[-1] == m2ib_lite.__version__
    assert (tmp_path / "saved" / "maps.npz").exists()
    assert {path.name for path in (installed / "m2ib_lite" / "testbed").iterdir()} == SHIPPED


def test_a_wheel_brings_a_command(installed, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(installed)}
    assert "evaluate" in python(installed / "bin" / "m2ib", "--help", cwd=tmp_path, env=environment)
