"""The package is thin and its imports only point down."""

import ast
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "m2ib_lite"
LOWER = ["files", "options", "hooks", "bottleneck", "metrics", "words", "models", "data", "attribution", "side", "explain"]
UPPER = ["segments", "rivals", "word_maps", "evaluate", "audit_page", "runs", "plots", "exports", "widgets", "repro"]
ORDER = [*LOWER, *UPPER, "__init__", "__main__"]
CORE = ["hooks", "bottleneck", "metrics", "words", "attribution", "options", "side", "explain", "models/clip", "models/towers"]
FILES = sorted(PACKAGE.rglob("*.py"))
GENERATORS = {"testbed"} | {path.stem for path in TESTS.parent.glob("data/testbed/**/*.py")}
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))


def module_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    """What a file imports, wherever in it, as whole names: "m2ib_lite.models.clip.Clip"."""
    folders = ["m2ib_lite", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = folders[: len(folders) + 1 - node.level] if node.level else []
            for alias in node.names:
                yield ".".join([*above, *filter(None, [node.module]), alias.name])


def lines(paths):
    return sum(path.read_text().count("\n") for path in paths)


@each_file
def test_imports_only_point_down(path):
    own = module_of(path)
    for name in imports(path):
        first, *rest = name.split(".")
        assert not GENERATORS & {first, *name.split(".")[:-1]}, f"{own} imports what made its data"
        if first == "m2ib_lite":
            other = rest[0] if rest and rest[0] in ORDER else "__init__"
            assert ORDER.index(other) < ORDER.index(own) or (other == own and path.parent.name == own), f"{own} imports {name}"


@each_file
def test_modules_and_functions_stay_small(path):
    assert lines([path]) < 250
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 40, node.name
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_") and node.col_offset == 0:
            assert ast.get_docstring(node) or node.end_lineno - node.lineno < 8, f"{node.name} has no docstring"


def test_the_house_stays_light():
    assert lines(FILES) <= 5105
    assert lines(PACKAGE / f"{name}.py" for name in CORE) <= 1105
    assert lines(TESTS.glob("*.py")) <= 6260


def test_only_models_knows_transformers_and_the_bottleneck_knows_no_model():
    used = {path: {name.split(".")[0] for name in imports(path)} for path in FILES}
    assert {module_of(path) for path in FILES if "transformers" in used[path]} == {"models"}
    assert used[PACKAGE / "bottleneck.py"] - sys.stdlib_module_names == {"torch"}
    assert "torch" not in used[PACKAGE / "metrics.py"]
