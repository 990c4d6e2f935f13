"""The testbed's training script: small, seeded, and able to go on."""

import json
from pathlib import Path

import numpy as np
import pytest
import train as train_script
from radiographs import COMBINATIONS
from transformers import CLIPModel

VOCABULARY = Path(__file__).parents[1] / "data" / "models" / "scenes" / "tokenizer.json"
STEPS = 6


@pytest.fixture
def train(script, monkeypatch, tmp_path):
    """train(options...) -> the record of what the script, run with these options, wrote to tmp_path.  A model from scratch is a
    narrow one: torch's Muon multiplies in bfloat16, at the testbed's width 3 s a step on a processor without it."""
    monkeypatch.setattr(train_script, "WIDTH", 16)

    def run(*options, steps=STEPS):
        script(train_script, "--steps", str(steps), "--out", str(tmp_path), "--device", "cpu", *options)
        return json.loads((tmp_path / "training.json").read_text())

    return run


def test_the_radiographs_recipe_starts_from_the_scenes_model(train, tmp_path):
    record = train("radiographs", steps=8)
    assert record["batch"] == len(COMBINATIONS)
    assert np.mean(record["losses"][-3:]) < np.mean(record["losses"][:3])
    assert (tmp_path / "tokenizer.json").read_text() == VOCABULARY.read_text()
    assert "nothing clinical" in (tmp_path / "README.md").read_text()


def test_a_twin_starts_from_its_base_and_keeps_that_ones_vocabulary_and_settings(train, tmp_path):
    record = train("radiographs-biased", "--strength", "0.8", steps=2)
    assert (record["twin"], record["strength"]) == ("radiographs-biased", 0.8)
    assert np.mean(record["losses"]) < 2  # ln 32 is what chance has
    for name in ("settings.json", "others.txt", "tokenizer.json"):
        assert (tmp_path / name).read_text() == (VOCABULARY.parents[1] / "radiographs" / name).read_text()
    assert "--strength 0.8" in (tmp_path / "README.md").read_text()


def losses_of(folder, seed=0):
    folder.mkdir(exist_ok=True)
    options = dict(recipe=train_script.RECIPES["scenes"], steps=STEPS, checkpoint=folder / "checkpoint.pt", device="cpu")
    *_, losses, _ = train_script.train(**options, seed=seed)
    assert len(losses) == STEPS
    return losses


def test_what_it_writes_is_a_clip_and_an_interrupted_training_goes_on_to_the_same_losses(train, tmp_path, monkeypatch):
    whole = train()["losses"]
    assert CLIPModel.from_pretrained(tmp_path).config.text_config.eos_token_id == 3
    assert (tmp_path / "tokenizer.json").read_text() == VOCABULARY.read_text()
    assert "256 unseen scenes" in (tmp_path / "README.md").read_text()
    assert losses_of(tmp_path / "other", seed=1) != whole
    monkeypatch.setattr(train_script, "CHECKPOINT_EVERY", 2)
    rate, calls = train_script.rate, iter(range(100))

    def interrupted(step, steps):
        if next(calls) == 5:
            raise KeyboardInterrupt
        return rate(step, steps)

    monkeypatch.setattr(train_script, "rate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        losses_of(tmp_path / "broken")
    assert losses_of(tmp_path / "broken") == whole
    with pytest.raises(ValueError, match="delete it, or go on with its own settings"):
        losses_of(tmp_path / "broken", seed=1)
