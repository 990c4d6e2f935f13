"""The files around the package agree with each other."""

import hashlib
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from results import END, START, results

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "data" / "README.md"]
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_commands_and_files_that_exist(page):
    text = page.read_text()
    for target in set(re.findall(r"(?:`|^)make ([a-z]+)", text, flags=re.M)):
        assert re.search(rf"^[a-z ]*\b{target}\b[a-z ]*:", (ROOT / "Makefile").read_text(), flags=re.M), target
    for file, anchor in re.findall(r'(?:\]\(|src=")([^)#:"\s]*)(#[^)"\s]+)?[)"]', text):
        target = page.parent / file if file else page
        assert target.exists(), file
        headings = re.findall(r"^#+ (.+)$", target.read_text(), flags=re.M) if anchor else []
        assert not anchor or anchor[1:] in map(anchor_of, headings), anchor


def anchor_of(heading):
    """GitHub's name for a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_readme_and_changelog_are_a_page_each_and_ci_runs_readmes_command():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
    assert len((ROOT / "CHANGELOG.md").read_text().splitlines()) <= 40
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_the_results_are_the_recorded_numbers():
    assert f"{START}\n\n{results(ROOT / 'data' / 'expected')}\n\n{END}" in (ROOT / "docs" / "results.md").read_text()


def test_the_data_are_those_that_are_listed():
    listed = dict(line.split("  ")[::-1] for line in (ROOT / "data" / "SHA256SUMS").read_text().splitlines())
    models = {str(path.relative_to(ROOT / "data")) for path in ROOT.glob("data/models/*/*.safetensors")}
    assert {"testbed/sprites/sprites.png", "testbed/sprites/sprites.csv"} | models <= set(listed)
    for name, digest in listed.items():
        assert hashlib.sha256((ROOT / "data" / name).read_bytes()).hexdigest() == digest, name
