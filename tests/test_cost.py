import pytest
import torch

from m2ib_lite import explain
from m2ib_lite.evaluate import METHODS, cost
from m2ib_lite.evaluate.cost import cost_of_one, counted_blocks


@pytest.mark.parametrize(
    ("name", "options", "image", "text"),
    [
        # an encode, and steps * samples * blocks after the layer / blocks
        ("M2IB", dict(layer=(3, 0), steps=4, samples=5), (1 + 20 * 2 / 6, 20 * 2 / 6), (1 + 20 * 3 / 4, 20 * 3 / 4)),
        ("Random", {}, (1, 0), (1, 0)),
        ("Saliency", {}, (2, 1), (2, 1)),
        ("Grad-CAM", dict(block=-1), (1 + 1 + 1 / 6, 1 / 6), (1 + 1 + 1 / 4, 1 / 4)),
        ("RISE", dict(image_masks=70, text_masks=30), (71, 0), (31, 0)),
        ("NIB", dict(layer=(2, 1), steps=4), (1 + 1 + 4 * 4 / 6, 4 * 4 / 6), (1 + 1 + 4 * 3 / 4, 4 * 3 / 4)),
    ],
)
def test_passes_of_methods(clip, pairs, name, options, image, text):
    found = cost_of_one(METHODS[name], clip, pairs[0], **options)
    assert (found["image forward"], found["image backward"]) == pytest.approx(image)
    assert (found["text forward"], found["text backward"]) == pytest.approx(text)
    assert found["seconds"] > 0


def test_counting_changes_nothing_and_leaves_nothing(clip, pairs):
    plain = explain(clip, pairs[0].image, pairs[0].caption, steps=2)
    with counted_blocks(clip):
        watched = explain(clip, pairs[0].image, pairs[0].caption, steps=2)
    assert torch.equal(plain.image_maps, watched.image_maps)
    assert not any(module._forward_hooks for module in clip.model.modules())


def test_cost_has_one_row_a_pair_and_method(clip, pairs):
    table = cost({"Random": (METHODS["Random"], {}), "M2IB": (explain, dict(steps=2))}, clip, pairs[:2])
    assert table[["pair", "method"]].values.tolist() == [[pair.id, name] for pair in pairs[:2] for name in ("Random", "M2IB")]
