from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from families import fresh
from test_rivals import left_as_it_was

from m2ib_lite import Attribution
from m2ib_lite.evaluate import METHODS, agreement, cascade, randomised, stages


def weights(clip):
    return {name: weight.detach().clone() for name, weight in clip.model.named_parameters()}


def changed(clip, before):
    return {name for name, now in weights(clip).items() if not torch.equal(now.view(torch.int32), before[name].view(torch.int32))}


@pytest.fixture
def small(tiny):
    """2 image and 3 text blocks, no weight of which is as initialisation leaves it, biases and norms neither."""
    return tiny.like(fresh(deepcopy(tiny.model)))


IMAGE_TOP = ("visual_projection.", "vision_model.post_layernorm.")
TEXT_TOP = ("text_projection.", "text_model.final_layer_norm.")
CHANGES = {
    ("image", "projection"): IMAGE_TOP[:1],
    ("image", "block 1"): (*IMAGE_TOP, "vision_model.encoder.layers.1."),
    ("image", "blocks 1-0"): (*IMAGE_TOP, "vision_model.encoder.layers."),
    ("text", "projection"): TEXT_TOP[:1],
    ("text", "blocks 2-1"): (*TEXT_TOP, "text_model.encoder.layers.2.", "text_model.encoder.layers.1."),
    ("both", "random"): ("text_projection.", "text_model.", "visual_projection.", "vision_model."),  # all but logit_scale
}


def test_the_stages_go_down_a_tower_one_block_at_a_time(small):
    assert list(stages(small.image)) == ["projection", "block 1", "blocks 1-0", "random"]
    assert list(stages(small.text)) == ["projection", "block 2", "blocks 2-1", "blocks 2-0", "random"]
    with pytest.raises(ValueError, match=r"image tower of .* no stage 'block 2': give one of projection, block 1, blocks 1-0"):
        randomised(small, "block 2").__enter__()
    with pytest.raises(ValueError, match="modality is 'sound'"):
        randomised(small, "random", "sound").__enter__()


@pytest.mark.parametrize(("modality", "stage"), CHANGES)
@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_a_stage_changes_exactly_the_parameters_that_it_names_and_brings_them_back(small, modality, stage, error):
    small.model.train()
    small.image.project.requires_grad_(True)
    before = weights(small)
    fails = pytest.raises(error) if error else nullcontext()
    with left_as_it_was(small.model), fails, randomised(small, stage, modality, seed=5) as same:
        assert same is small
        assert changed(small, before) == {name for name in before if name.startswith(CHANGES[modality, stage])}
        if error:
            raise error
    assert not changed(small, before)


def test_fresh_weights_are_those_that_training_starts_from(clip):
    """CLIP's own: norms 1 and 0, biases 0, the projection's spread D^-1/2, a query's D^-1/2 (2 blocks)^-1/2."""
    with randomised(clip, "random", "image"):
        tower, query = clip.image, clip.image.blocks[0].self_attn.q_proj
        D = query.in_features
        assert (tower.final_norm.weight == 1).all()
        assert not query.bias.any()
        assert tower.project.weight.std().item() == pytest.approx(D**-0.5, rel=0.05)
        assert query.weight.std().item() == pytest.approx((D * 2 * len(tower.blocks)) ** -0.5, rel=0.05)


def test_a_seed_gives_the_same_weights_in_every_stage(small):
    def drawn(stage, seed):
        with randomised(small, stage, seed=seed):
            return weights(small)

    one, again, other = drawn("projection", 5), drawn("random", 5), drawn("projection", 6)
    assert torch.equal(one["visual_projection.weight"], again["visual_projection.weight"])
    assert not torch.equal(one["visual_projection.weight"], other["visual_projection.weight"])


def test_an_interrupt_halfway_through_the_weights_is_undone_too(small, monkeypatch):
    before, fresh, calls, copy = weights(small), small.untrained(), [], torch.Tensor.copy_

    def interrupted(weight, value):
        calls.append(weight)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return copy(weight, value)

    monkeypatch.setattr(small, "untrained", lambda seed: fresh)
    monkeypatch.setattr(torch.Tensor, "copy_", interrupted)
    with pytest.raises(KeyboardInterrupt), randomised(small, "random"):
        pytest.fail("the interrupt came before")
    assert not changed(small, before)


def by_hand(pairs, image_maps, text_maps, captions=None):
    tokens, captions = [["word"] * len(row) for row in text_maps], captions or [pair.caption for pair in pairs]
    images, views = [pair.image for pair in pairs], [(0, 0, *pair.image.size) for pair in pairs]
    return Attribution(torch.tensor(image_maps), list(map(torch.tensor, text_maps)), tokens, images, captions, views, "hand")


RISING, FALLING, FLAT = [[1.0, 2.0], [3.0, 4.0]], [[4.0, 3.0], [2.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]]


def test_agreement_is_spearman_and_ssim_pair_by_pair(pairs):
    """Pair 0 keeps its order, pair 1 turns it round, pair 2 loses it; the caption of pair 2 has one word, which has no order."""
    one = by_hand(pairs[:3], [RISING] * 3, [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0]])
    other = by_hand(pairs[:3], [RISING, FALLING, FLAT], [[1.0, 5.0, 9.0], [3.0, 1.0, 2.0], [1.0]])
    table = agreement(one, other, pairs[:3])
    values = {name: rows["value"].tolist() for name, rows in table.groupby(["modality", "metric"])}
    assert values["image", "Spearman"] == pytest.approx([1, -1, 0])
    assert values["text", "Spearman"] == pytest.approx([1, 1 - 6 * (4 + 1 + 1) / (3 * 8)])  # 1 - 6 sum d^2 / (n^3 - n)
    same, opposed, uniform = values["image", "SSIM"]
    assert same == pytest.approx(1)
    assert max(opposed, uniform) < 0.1
    assert uniform == pytest.approx(table.query("metric == 'SSIM'")["chance"].iloc[2])
    assert set(table["method"]) == {"hand"}


def test_image_maps_alone_may_be_of_other_captions_as_a_control(pairs):
    one, other = (by_hand(pairs[:2], [RISING] * 2, [[1.0, 2.0]] * 2, captions) for captions in (None, ["an owl", "mice"]))
    assert set(agreement(one, replace(other, text_maps=None), pairs[:2])["modality"]) == {"image"}
    with pytest.raises(ValueError, match="2 pairs and an attribution of 3"):
        agreement(one, replace(by_hand(pairs[:3], [RISING] * 3, []), text_maps=None), pairs[:2])


def test_the_cascade_tells_a_method_that_reads_the_weights_from_one_that_does_not(small, pairs):
    options = {"Random": dict(seed=3), "M2IB": dict(steps=2, samples=2)}
    names = ("M2IB", "Saliency", "Random")
    originals = [METHODS[name](small, pairs, progress=False, **options.get(name, {})) for name in names]
    before = weights(small)
    for modality, tower in (("image", small.image), ("text", small.text)):
        table = cascade(small, pairs, originals, modality, options=options)
        assert list(table["stage"].unique()) == list(stages(tower))
        assert set(table["modality"]) == {modality}
        assert len(table) == len(stages(tower)) * len(names) * len(pairs) * (2 if modality == "image" else 1)
        assert table.query("method == 'Random'")["value"].min() == pytest.approx(1)
        assert (table.query("method != 'Random' and stage == 'random'").groupby("method")["value"].mean() < 0.9).all()
        ends = cascade(small, pairs, originals, modality, options=options, only=("projection", "random"))
        assert ends.equals(table[table["stage"].isin(("projection", "random"))].reset_index(drop=True))
    assert not changed(small, before)
