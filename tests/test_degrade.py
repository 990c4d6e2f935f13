from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from test_rivals import Toy, left_as_it_was, read_at, toy_side

from m2ib_lite.evaluate import attribute, confidence
from m2ib_lite.evaluate.degrade import blur, cosine, curve, keep_pixels, keep_words, remove_pixels, remove_words, spread
from m2ib_lite.metrics import area_under
from m2ib_lite.side import sides

BOS, EOS, BLANK = 1, 2, 0
METRICS = ["drop", "increase", "deletion AUC", "insertion AUC"]


@pytest.fixture(scope="module")
def attribution(clip, pairs, tmp_path_factory):
    return attribute("saliency", clip, pairs, tmp_path_factory.mktemp("maps"), progress=False)


def wide(table):
    return table.pivot(index="pair", columns=["modality", "metric"], values="value")


def part(attribution, rows):
    """The attribution of some of its pairs."""
    names = ("image_maps", "text_maps", "tokens", "images", "captions", "views")
    return replace(attribution, **{name: getattr(attribution, name)[rows] for name in names})


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
    draw = torch.Generator().manual_seed(1)
    tower, pixels = Toy(torch.randn(17, 12, generator=draw)), torch.randn(1, 3, 8, 8, generator=draw)
    added = (tower.embed(pixels)[0] * tower.weights).sum(dim=1)[1:]
    found = curve(toy_side(tower, pixels, 0), added[None], pixels, 0 * pixels)[0]
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
    assert list(table.columns) == ["pair", "modality", "metric", "value", "chance", "method"]
    assert not table.duplicated(["pair", "modality", "metric"]).any()
    together = wide(table)
    assert list(together.columns) == [(modality, metric) for modality in ("image", "text") for metric in METRICS]
    assert set(together.index) == {pair.id for pair in pairs}
    assert set(table["method"]) == {"saliency"}
    assert set(table[table["metric"] == "increase"]["value"]) <= {0.0, 100.0}
    in_twos = wide(confidence(clip, attribution, pairs, batch_size=2))
    assert (together - in_twos).abs().max().max() < 1e-3
    alone = wide(confidence(clip, part(attribution, slice(3, 4)), pairs[3:4]))
    assert (alone - together.loc[alone.index]).abs().max().max() < 1e-3
    with pytest.raises(ValueError, match="batch_size is 0"):
        confidence(clip, attribution, pairs, batch_size=0)


def test_drop_and_increase_are_those_of_the_whole_model_on_the_degraded_input(clip, pairs, attribution):
    found = wide(confidence(clip, attribution, pairs))
    unit = attribution.image_maps[0] - attribution.image_maps[0].min()
    heat = F.interpolate((unit / unit.max())[None, None], (112, 112), mode="bilinear")
    pixels, text = clip.pixels([pairs[0].image]), clip.tokens([pairs[0].caption])
    scores, ids = attribution.text_maps[0], text.ids.clone()
    ids[0, 1 : len(scores) + 1][scores < scores.quantile(0.5)] = clip.blank
    with torch.no_grad():
        whole, masked = clip.image.encode(pixels), clip.image.encode(pixels * heat)
        caption, blanked = clip.text.encode(text.ids), clip.text.encode(ids)
    before = (whole * caption).sum().item()
    for modality, after in (("image", (masked * caption).sum().item()), ("text", (whole * blanked).sum().item())):
        assert found.loc[pairs[0].id, (modality, "drop")] == pytest.approx(100 * max(0, before - after), abs=1e-3)
        assert found.loc[pairs[0].id, (modality, "increase")] == 100 * (after > before)


def test_the_embedding_is_read_where_the_whole_captions_was(clip, pairs, attribution, monkeypatch):
    """OpenAI's checkpoints pad with EOS: the first EOS of a caption with blanks is not its end."""
    monkeypatch.setattr(clip, "blank", clip.tokenizer.eos_token_id)
    attribution = part(attribution, slice(1))
    found = wide(confidence(clip, attribution, pairs[:1]))
    _, text, _ = sides(clip, attribution.images, attribution.captions)
    ids = keep_words(text.inputs, spread(attribution.text_maps, text.content), clip.blank)
    assert (ids == clip.blank).sum() > 1
    with torch.no_grad():
        embedding = read_at(clip, ids, text.pooled[0])
        drop = 100 * (cosine(text, text.inputs) - (embedding * text.target).sum(dim=1))
    assert found.iloc[0]["text", "drop"] == pytest.approx(max(0, drop.item()), abs=1e-3)


def test_a_flat_map_keeps_no_pixel_and_every_word(clip, pairs, attribution):
    alike = [torch.ones_like(scores) for scores in attribution.text_maps]
    flat = replace(attribution, image_maps=torch.ones_like(attribution.image_maps), text_maps=alike)
    found = wide(confidence(clip, flat, pairs))
    image, _, _ = sides(clip, attribution.images, attribution.captions)
    with torch.no_grad():
        lost = cosine(image, image.inputs) - cosine(image, 0 * image.inputs)
    by_id = found.loc[[pair.id for pair in pairs]]
    assert by_id["image", "drop"].to_numpy() == pytest.approx(100 * lost.clamp(min=0).numpy(), abs=1e-3)
    assert (by_id["text", "drop"] == 0).all()
    assert (by_id["text", "increase"] == 0).all()


def test_the_model_comes_back_as_it_was(clip, pairs, attribution, monkeypatch):
    with left_as_it_was(clip.model):
        confidence(clip, attribution, pairs)
        monkeypatch.setattr(clip.text, "rest", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            confidence(clip, attribution, pairs)
