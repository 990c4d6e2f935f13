import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from m2ib_lite import load_model
from m2ib_lite.data import scenes


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
    shape = dict(hidden_size=16, intermediate_size=32, num_attention_heads=2, projection_dim=8)
    ids = dict(vocab_size=len(clip.tokenizer), max_position_embeddings=20, pad_token_id=0, bos_token_id=2, eos_token_id=3)
    text, vision = dict(shape, num_hidden_layers=3, **ids), dict(shape, num_hidden_layers=2, image_size=112, patch_size=28)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(tmp_path)
    clip.tokenizer.save_pretrained(tmp_path)
    clip.processor.save_pretrained(tmp_path)
    return tmp_path
