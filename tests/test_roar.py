from dataclasses import replace
from importlib import import_module

import joblib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scenes import scenes
from test_rivals import ask, left_as_it_was, read_at
from torch.utils.data import TensorDataset

from m2ib_lite import load_model
from m2ib_lite.evaluate import roar
from m2ib_lite.evaluate.roar import embed_pairs, info_nce, loss_after, parts

QUICK = dict(seeds=2, epochs=1, batch_size=4, progress=False)


@pytest.fixture(scope="module")
def many():
    return scenes(40, seed=11)


@pytest.fixture(scope="module")
def control(clip, many):
    return ask("random", clip, many)


@pytest.fixture(scope="module")
def few(control):
    return control[:10]


def test_the_loss_is_the_mean_of_both_directions_by_hand():
    images, texts = torch.eye(2), torch.tensor([[0.6, 0.8], [1.0, 0.0]])
    a, b, c, d = 2 * np.array([0.6, 1.0, 0.8, 0.0])  # logits: the first image's row a b, the second's c d
    rows = np.log(np.exp(a) + np.exp(b)) - a + np.log(np.exp(c) + np.exp(d)) - d
    columns = np.log(np.exp(a) + np.exp(c)) - a + np.log(np.exp(b) + np.exp(d)) - d
    assert info_nce(images, texts, 2.0).item() == pytest.approx((rows + columns) / 4)
    assert info_nce(images[:1], texts[:1], 2.0) == 0


def test_batches_cover_all_rows_and_none_is_left_with_one_pair():
    batches = parts(torch.arange(81), 40)
    assert [len(batch) for batch in batches] == [27, 27, 27]
    assert torch.equal(torch.cat(batches), torch.arange(81))


def test_one_tidy_row_a_seed_the_same_numbers_again_and_the_model_untouched(tiny, few):
    with left_as_it_was(tiny.model):
        table = roar(tiny, [few], **QUICK)
        again = roar(tiny, [replace(few, method="other", image_maps=few.image_maps.flip(0)), few], **QUICK)
    assert table["pair"].tolist() == ["seed 0", "seed 1"] * 2
    assert table["modality"].tolist() == ["image"] * 2 + ["text"] * 2
    assert set(table["metric"]) == {"ROAR+"}
    assert again["method"].tolist() == ["other"] * 4 + ["Random"] * 4
    assert again["value"].tolist()[4:] == table["value"].tolist()
    assert again["value"].tolist()[:2] != table["value"].tolist()[:2]


def test_the_value_is_the_log_of_the_losses_ratio_and_what_is_alike_is_trained_on_once_a_seed(clip, few, monkeypatch):
    asked, losses = [], iter([2.0, 4.0, 3.0, 3.0, 1.0, 8.0])

    def counted(clip, clean, degraded, seed, **options):
        asked.append((seed, *(ours is theirs for ours, theirs in zip(degraded.tensors, clean.tensors, strict=True))))
        return next(losses)

    monkeypatch.setattr(import_module("m2ib_lite.evaluate.roar"), "loss_after", counted)
    table = roar(clip, [few, replace(few, text_maps=None, method="LeGrad")], **QUICK)
    pixels_ids_whole = [(True, True, True), (False, True, True), (True, False, True)]  # LeGrad's data are the second again
    assert asked == [(seed, *same) for same in pixels_ids_whole for seed in (0, 1)]
    assert table["value"].tolist() == pytest.approx([100 * np.log(x) for x in (3 / 2, 3 / 4, 1 / 2, 2, 3 / 2, 3 / 4)])


def test_removing_nothing_changes_nothing(tiny, few, monkeypatch):
    monkeypatch.setattr(joblib, "hash", lambda data: object())  # else equal data are not trained on again
    alike = [torch.ones_like(scores) for scores in few.text_maps]
    table = roar(tiny, [replace(few, image_maps=torch.ones_like(few.image_maps), text_maps=alike)], **QUICK)
    assert (table["value"] == 0).all()


def test_seeds_have_splits_and_orders_of_their_own(tiny, few):
    ids = tiny.tokens(few.captions).ids
    clean = TensorDataset(tiny.pixels(few.images), ids, ids)
    losses = [loss_after(tiny, clean, clean, seed, epochs=1, lr=0.01, batch_size=4) for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def test_captions_with_blanks_are_read_at_their_end(clip, few):
    """As where the blank is EOS, in OpenAI's checkpoints."""
    text, pixels = clip.tokens(few.captions[:2]), clip.pixels(few.images[:2])
    end = int(text.content[0].sum()) + 1
    ids = text.ids.clone()
    ids[0, 1:3] = ids[0, end]
    with torch.no_grad():
        expected = read_at(clip, ids[:1], end)
        torch.testing.assert_close(embed_pairs(clip, pixels, ids, text.ids)[1][:1], expected, rtol=0, atol=1e-6)


def test_losing_what_the_caption_names_hurts_more_than_losing_anything(clip, many, control):
    inside = torch.stack([torch.as_tensor(pair.region()).float() for pair in many])
    patches = F.adaptive_avg_pool2d(inside, control.image_maps.shape[-2:])
    named = zip(many, control.tokens, strict=True)  # the testbed's tokens are words
    words = [torch.tensor([float(word in pair.words()) for word in tokens]) for pair, tokens in named]
    oracle = replace(control, image_maps=patches, text_maps=words, method="oracle")
    means = roar(clip, [oracle, control], seeds=3, progress=False).pivot_table("value", "modality", "method")
    assert (means["oracle"] > means["Random"]).all()


def test_half_precision_is_trained_in_float32(folder, few):
    half = load_model(str(folder), "cpu", torch.bfloat16)
    assert np.isfinite(roar(half, [few], **QUICK)["value"]).all()
    assert half.model.dtype == torch.bfloat16


def test_too_few_pairs_and_bad_options_are_refused(tiny, few):
    assert np.isfinite(roar(tiny, [few[:4]], **QUICK)["value"]).all()
    with pytest.raises(ValueError, match="3 pairs in batches of 4: give 4 pairs at least"):
        roar(tiny, [few[:3]], **QUICK)
    with pytest.raises(ValueError, match="two a batch"):
        roar(tiny, [few], **{**QUICK, "batch_size": 1})
    with pytest.raises(ValueError, match="lr is 0"):
        roar(tiny, [few], **QUICK, lr=0)
