"""The package is thin and its imports only point down."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "m2ib_lite"
LOWER = [
    "files",
    "hooks",
    "bottleneck",
    "metrics",
    "words",
    "models",
    "data",
    "attribution",
    "side",
    "explain",
    "segments",
    "rivals",
    "evaluate",
]
ORDER = ["files", *LOWER, "runs", "plots", "exports", "repro", "__init__", "__main__"]
FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(path):
    """The modules of the package that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            above = path.parents[node.level - 1]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            yield from (module_of(above / name.split(".")[0]) for name in names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("m2ib_lite"):
            yield ([*node.module.split("."), "__init__"])[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[-1] for alias in node.names if alias.name.startswith("m2ib_lite"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_point_down(path):
    own = module_of(path)
    for other in imported_modules(path):
        assert ORDER.index(other) < ORDER.index(own) or (other == own and path.parent.name == own), f"{own} imports {other}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_and_functions_stay_small(path):
    text = path.read_text()
    assert text.count("\n") < 250
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 40, node.name
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_") and node.col_offset == 0:
            assert ast.get_docstring(node) or node.end_lineno - node.lineno < 8, f"{node.name} has no docstring"


def test_only_models_knows_transformers_and_the_bottleneck_knows_no_model():
    users = {module_of(path) for path in FILES if "transformers" in {n.split(".")[0] for n in third_parties(path)}}
    assert users == {"models"}
    assert set(third_parties(PACKAGE / "bottleneck.py")) == {"torch"}
    assert "torch" not in third_parties(PACKAGE / "metrics.py")


def third_parties(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]
