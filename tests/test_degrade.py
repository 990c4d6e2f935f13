from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from test_rivals import Toy, left_as_it_was, linear_image, read_at, toy_side

from m2ib_lite import load_model
from m2ib_lite.evaluate import attribute, confidence
from m2ib_lite.evaluate.degrade import blur, curve, keep_pixels, keep_words, remove_pixels, remove_words, spread
from m2ib_lite.metrics import area_under

BOS, EOS, BLANK = 1, 2, 0
METRICS = ["drop", "increase", "deletion AUC", "insertion AUC"]


@pytest.fixture(scope="module")
def attribution(clip, pairs, tmp_path_factory):
    return attribute("Saliency", clip, pairs, tmp_path_factory.mktemp("maps"), progress=False)


def wide(table):
    return table.pivot(index="pair", columns=["modality", "metric"], values="value")


def test_each_pixel_is_weighed_by_its_own_place_not_by_the_first_rows():
    maps = torch.tensor([[[0.0, 0.0], [1.0, 1.0]]])
    kept = keep_pixels(torch.full((1, 3, 4, 4), 2.0), maps)
    torch.testing.assert_close(kept, torch.tensor([0.0, 0.5, 1.5, 2.0])[:, None].expand(1, 3, 4, 4))
    torch.testing.assert_close(keep_pixels(torch.full((1, 3, 4, 4), 2.0), maps.mT), kept.mT)


def test_the_highest_quarter_of_the_pixels_becomes_the_channel_mean():
    pixels = torch.full((1, 3, 4, 4), 2.0)
    removed = remove_pixels(pixels, torch.tensor([[[0.0, 0.0], [1.0, 1.0]]]))
    torch.testing.assert_close(removed, torch.tensor([2.0, 2.0, 2.0, 0.0])[:, None].expand(1, 3, 4, 4))
    assert torch.equal(remove_pixels(pixels, torch.ones(1, 2, 2)), pixels)  # nothing lies above the rest
    signed = remove_pixels(torch.ones(1, 3, 2, 2), torch.tensor([[[-4.0, -3.0], [-2.0, -1.0]]]))
    assert torch.equal(signed[0, 0], torch.tensor([[1.0, 1.0], [1.0, 0.0]]))


def test_words_on_the_other_side_of_the_median_become_blanks_and_bos_eos_and_padding_stay():
    ids = torch.tensor([[BOS, 5, 6, 7, 8, EOS], [BOS, 5, 6, 7, EOS, BLANK]])
    content = (ids > EOS).clone()
    scores = spread([torch.tensor([1.0, 4.0, 3.0, 2.0]), torch.tensor([0.3, 0.1, 0.2])], content)
    assert keep_words(ids, scores, BLANK).tolist() == [[BOS, 0, 6, 7, 0, EOS], [BOS, 5, 0, 7, EOS, BLANK]]
    assert remove_words(ids, scores, BLANK).tolist() == [[BOS, 5, 0, 0, 8, EOS], [BOS, 0, 6, 7, EOS, BLANK]]
    alike = spread([torch.ones(4), torch.ones(3)], content)
    assert torch.equal(keep_words(ids, alike, BLANK), ids)
    assert torch.equal(remove_words(ids, alike, BLANK), ids)


def test_the_curve_of_a_linear_tower_goes_down_by_what_each_patch_adds():
    side, added = linear_image()
    found = curve(side, added[None], side.inputs, 0 * side.inputs)[0]
    falling = added.sort(descending=True).values
    gone = [0, 2, 4, 5, 7, 8, 10, 12, 13, 15, 16]  # of 16 patches, after so many tenths
    torch.testing.assert_close(found, torch.stack([falling[n:].sum() for n in gone]), rtol=1e-4, atol=1e-4)


def test_the_curve_of_words_leaves_bos_and_eos_and_equal_scores_go_in_reading_order():
    table = torch.tensor([[0.0], [100.0], [1000.0], [1.0], [10.0]])
    ids = torch.tensor([[BOS, 3, 4, EOS]])
    side = toy_side(Toy(torch.ones(4, 1), table), ids, 3)
    scores = torch.tensor([[torch.nan, 7.0, 7.0, torch.nan]])
    blanks = torch.tensor([[BOS, BLANK, BLANK, EOS]])
    found = curve(side, scores, ids, blanks)[0]
    assert found.tolist() == [1111.0] + [1110.0] * 5 + [1100.0] * 5
    back = 1100 / 2 + 5 * 1101 + 4 * 1111 + 1111 / 2  # the trapezoids of 1100, 5 times 1101, 5 times 1111
    assert area_under(curve(side, scores, blanks, ids))[0] == pytest.approx(back / 10)


def test_a_blur_keeps_the_mean_and_spreads_a_point_as_a_bell():
    assert torch.allclose(blur(torch.full((2, 3, 9, 9), 0.7), 2.0), torch.tensor(0.7))
    point = torch.zeros(1, 3, 41, 41)
    point[0, 1, 20, 20] = 1
    spread_out = blur(point, 3.0)
    assert not spread_out[0, [0, 2]].any()
    torch.testing.assert_close(spread_out.sum(), torch.tensor(1.0))
    torch.testing.assert_close(spread_out[0, 1, 20, 23] / spread_out[0, 1, 20, 20], torch.tensor(-0.5).exp())
    torch.testing.assert_close(spread_out, spread_out.mT)


def test_scores_are_one_tidy_row_each_alone_and_in_any_batch(clip, pairs, attribution):
    table = confidence(clip, attribution, pairs)
    together = wide(table)  # which refuses two rows of one score
    assert list(together.columns) == [(modality, metric) for modality in ("image", "text") for metric in METRICS]
    assert set(together.index) == {pair.id for pair in pairs}
    assert set(table["method"]) == {"Saliency"}
    assert set(table[table["metric"] == "increase"]["value"]) <= {0.0, 100.0}
    in_twos = wide(confidence(clip, attribution, pairs, batch_size=2))
    assert (together - in_twos).abs().max().max() < 1e-3
    alone = wide(confidence(clip, attribution[3], pairs[3:4]))
    assert (alone - together.loc[alone.index]).abs().max().max() < 1e-3
    with pytest.raises(ValueError, match="batch_size is 0"):
        confidence(clip, attribution, pairs, batch_size=0)


@pytest.mark.parametrize("blank", ["padding", "EOS"])  # which OpenAI's checkpoints pad with: the first is not the end
@pytest.mark.parametrize("flat", [False, True])  # a flat map keeps no pixel and every word
def test_drop_and_increase_are_those_of_the_whole_model_on_the_degraded_input(clip, pairs, attribution, flat, blank, monkeypatch):
    image_map, scores = attribution.image_maps[0], attribution.text_maps[0]
    pixels, ids = clip.pixels([pairs[0].image]), clip.tokens([pairs[0].caption]).ids
    unit = (image_map - image_map.min()) / (image_map.max() - image_map.min())
    lost = scores < scores.quantile(0.5)
    if flat:
        unit, lost = 0 * unit, torch.zeros_like(lost)
        alike = [torch.ones_like(text_map) for text_map in attribution.text_maps]
        attribution = replace(attribution, image_maps=torch.ones_like(attribution.image_maps), text_maps=alike)
    if blank == "EOS":
        monkeypatch.setattr(clip, "blank", clip.tokenizer.eos_token_id)
    found = wide(confidence(clip, attribution, pairs)).loc[pairs[0].id]
    blanked = ids.clone()
    blanked[0, 1 : len(scores) + 1][lost] = clip.blank
    with torch.no_grad():
        whole, caption = clip.image.encode(pixels), clip.text.encode(ids)
        masked = clip.image.encode(pixels * F.interpolate(unit[None, None], (112, 112), mode="bilinear"))
        rest = read_at(clip, blanked, len(scores) + 1)
    before = (whole * caption).sum().item()
    for modality, after in (("image", (masked * caption).sum().item()), ("text", (whole * rest).sum().item())):
        assert found[modality, "drop"] == pytest.approx(100 * max(0, before - after), abs=1e-3)
        assert found[modality, "increase"] == 100 * (after > before + 1e-6)


def test_the_model_comes_back_as_it_was(pairs, attribution, monkeypatch):
    clip = load_model("testbed", device="cpu")
    clip.model.train()
    with left_as_it_was(clip.model):
        confidence(clip, attribution, pairs)
        monkeypatch.setattr(clip.text, "rest", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            confidence(clip, attribution, pairs)
