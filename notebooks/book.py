"""Bind README, docs/ and the executed notebooks as a book of static HTML."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "LICENSE", "docs", "data/README.md", "data/figures")
RUN_PAGE = "run.md"  # the tables of a run, which `notebooks/run.py` writes beside its notebooks
SPHINX = ("-m", "sphinx", "--builder", "html", "--quiet", "--fail-on-warning", "--jobs", "auto")


def lay_out(executed, source):
    """What the book is made of, in `source`, where everything lies as it does in the repository, so that links lead where they do
    there: README is its first page, the notebooks are those of the run in `executed`."""
    shutil.rmtree(source, ignore_errors=True)
    for name in PAGES:
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, target)
    contents = source / "docs" / "contents.md"
    (source / "index.md").write_text((source / "README.md").read_text() + "\n" + contents.read_text())
    contents.unlink()
    (source / "README.md").unlink()
    shutil.copytree(executed / "notebooks", source / "notebooks")
    shutil.copy(executed / RUN_PAGE, source / "docs" / RUN_PAGE)
    for file in (*executed.glob("*.pdf"), *executed.glob("*.json")):
        shutil.copy(file, source / "docs")


def bind(executed, out):
    """The book of the run whose notebooks lie in `executed`, as HTML in `out`; everything it had to warn of fails it.
    ValueError where no run is there."""
    if not (executed / RUN_PAGE).exists():
        raise ValueError(f"there is no finished run in {executed}: `make figures` first, the book shows its notebooks")
    source = out.with_name(f"{out.name}_source")
    lay_out(executed, source)
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, *SPHINX, "--conf-dir", source / "docs", source, out]
    if subprocess.run(command, check=False).returncode:
        raise ValueError(f"the book in {out} has the faults above")
