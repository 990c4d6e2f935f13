"""Fixtures of all tests.  What takes seconds to import is imported where it is used: who hands out the tests needs none of it."""

import os
import sys

import pytest
from joblib import cpu_count

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch reads it: pytest-xdist keeps each core busy


def pytest_xdist_auto_num_workers():
    """One more than cores: the longest tests wait for processes that they start."""
    return int(os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS", cpu_count() + 1))


LONG = ("it_runs_and_writes", "test_cluster", "test_train", "test_wheel", "test_book", "test_explorer")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: not any(name in item.nodeid for name in LONG))  # first: none is left for the end alone


def pytest_addoption(parser):
    parser.addoption(
        "--kills", type=int, default=2, help="how often test_runs and test_cluster kill a run; for 10 also --timeout 3600"
    )


@pytest.fixture(scope="session")
def clip():
    from m2ib_lite import load_model

    return load_model("testbed", device="cpu")


@pytest.fixture(scope="session")
def pairs():
    from scenes import scenes

    return scenes(5, seed=3)


@pytest.fixture
def script(monkeypatch):
    """script(module, options...) runs a script in this process, as a shell would with these options."""

    def run(module, *options):
        monkeypatch.setattr(sys, "argv", [module.__file__, *options])
        module.main()

    return run


@pytest.fixture
def folder(clip, tmp_path):
    """A checkpoint folder of random weights with the testbed's tokenizer and processor, 2 image and 3 text blocks."""
    from families import tiny_clip

    return tiny_clip(tmp_path, clip)


@pytest.fixture(scope="session")
def tiny(clip, tmp_path_factory):
    """That model; a test may leave it in training mode, or with parameters that take gradients."""
    from families import tiny_clip

    from m2ib_lite import load_model

    return load_model(tiny_clip(tmp_path_factory.mktemp("tiny"), clip), device="cpu")
