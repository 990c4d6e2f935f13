"""The files around the package agree with each other."""

import hashlib
import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from results import END, START, results

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#")


def test_every_dependency_is_pinned_within_its_range():
    pins = {canonicalize_name(name): version for name, version in PINS.items()}
    for wanted in map(Requirement, PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]):
        assert pins[canonicalize_name(wanted.name)] in wanted.specifier, wanted
    assert PINS["torch"] == "2.13.0"


def test_conda_and_pip_install_the_same():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, _, pip = environment["dependencies"]
    assert pip == {"pip": ["-c constraints.txt", "-e .[dev]"]}
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert tuple(map(int, python.removeprefix("python=").split("."))) >= tuple(map(int, lowest.split(".")))
    assert environment["name"] == PROJECT["name"]
    makefile = (ROOT / "Makefile").read_text()
    assert "--constraint constraints.txt --editable '.[dev]'" in makefile
    alone = r"pip install .*--no-deps (clip-anytorch==[\d.]+)"  # which would bring torchvision
    assert re.findall(alone, makefile) == re.findall(alone, (ROOT / "environment.yml").read_text()) != []


def test_readme_names_the_commands_that_exist():
    makefile, readme = (ROOT / "Makefile").read_text(), (ROOT / "README.md").read_text()
    for target in set(re.findall(r"make ([a-z]+)", readme)):
        assert re.search(rf"^[a-z ]*\b{target}\b[a-z ]*:", makefile, flags=re.M), target
    for file in re.findall(r'\]\(([^)#:]+)\)|src="([^"]+)"', readme):
        assert (ROOT / "".join(file)).exists(), file
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_readme_shows_the_recorded_numbers():
    assert f"{START}\n\n{results(ROOT / 'data' / 'expected')}\n\n{END}" in (ROOT / "README.md").read_text()


def test_the_data_are_those_that_are_listed():
    listed = dict(line.split("  ")[::-1] for line in (ROOT / "data" / "SHA256SUMS").read_text().splitlines())
    models = {str(path.relative_to(ROOT / "data")) for path in ROOT.glob("data/models/*/*.safetensors")}
    assert {"testbed/sprites/sprites.png", "testbed/sprites/sprites.csv"} | models <= set(listed)
    for name, digest in listed.items():
        assert hashlib.sha256((ROOT / "data" / name).read_bytes()).hexdigest() == digest, name
