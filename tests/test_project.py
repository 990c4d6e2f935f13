"""The files around the package agree with each other."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#")


def plain(name):
    return re.split(r"[<>=!\[ ]", name)[0].replace("_", "-").lower()


def test_every_dependency_is_pinned_within_its_range():
    pins = {plain(name) for name in PINS}
    wanted = {plain(name) for name in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]}
    assert wanted <= pins
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


def test_readme_names_the_commands_that_exist():
    makefile, readme = (ROOT / "Makefile").read_text(), (ROOT / "README.md").read_text()
    for target in set(re.findall(r"make ([a-z]+)", readme)):
        assert re.search(rf"^{target}:", makefile, flags=re.M), target
    for picture in re.findall(r"\]\(([^)#:]+)\)", readme):
        assert (ROOT / picture).exists(), picture
    assert "make test" in (ROOT / ".ci" / "run").read_text()
