import pytest
from families import tiny_clip
from scenes import scenes

from m2ib_lite import load_model


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=2, help="how often test_runs kills a run; for 20 also --timeout 3600")


@pytest.fixture(scope="session")
def clip():
    return load_model("testbed", device="cpu")


@pytest.fixture(scope="session")
def pairs():
    return scenes(5, seed=3)


@pytest.fixture
def folder(clip, tmp_path):
    """A checkpoint folder of random weights with the testbed's tokenizer and processor, 2 image and 3 text blocks."""
    return tiny_clip(tmp_path, clip)
