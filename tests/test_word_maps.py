import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F
from families import sentencepieces, siglip_folder
from test_rivals import Toy, linear_image

from m2ib_lite import explain, explain_words, load_model
from m2ib_lite.data import load_pairs
from m2ib_lite.rivals import RIVALS
from m2ib_lite.word_maps import what_words_add

CAPTION = "a star and two violins"
QUICK = dict(M2IB=dict(steps=3, samples=2), kernelshap=dict(samples=2), rise=dict(image_masks=40))


def peak_inside(heat, boxes):
    y, x = divmod(int(heat.argmax()), heat.shape[1])
    return any(box.x <= x < box.x + box.w and box.y <= y < box.y + box.h for box in boxes)


def test_what_a_word_adds_is_the_models_own_embedding_less_that_without_it(clip):
    ids = clip.tokens([CAPTION]).ids  # BOS, five words, EOS
    blanked = ids.repeat(2, 1)
    blanked[0, 2], blanked[1, 4:6] = clip.blank, clip.blank
    with torch.no_grad():
        e = F.normalize(clip.model.get_text_features(torch.cat([ids, blanked])).pooler_output, dim=-1)
    groups = [torch.tensor([place in group for place in range(5)]) for group in ({1}, {3, 4})]
    torch.testing.assert_close(what_words_add(clip, CAPTION, groups), e[0] - e[1:], rtol=0, atol=1e-5)
    found = explain_words(clip, load_pairs("scenes", 1)[0], CAPTION, ["star", "two violins"], "saliency")
    torch.testing.assert_close(found.weights, (e[0] - e[1:]).norm(dim=1), rtol=0, atol=1e-5)


class TwoWays(Toy):
    """A linear tower with an embedding of two numbers, each with weights of its own."""

    def rest(self, hidden, layer, inputs):
        return torch.stack([(hidden * weights).sum(dim=(1, 2)) for weights in (self.weights, self.weights.flip(0))], dim=1)


def test_each_word_of_a_toy_gets_the_weights_of_its_own_direction():
    side, _ = linear_image(TwoWays)
    found = RIVALS["saliency"].scores(side.towards(torch.eye(2)))
    for row, weights in zip(found, (side.tower.weights, side.tower.weights.flip(0)), strict=True):
        torch.testing.assert_close(row, weights.abs().sum(dim=1)[1:] / 4)


@pytest.mark.parametrize("method", ["rise", "kernelshap"])
def test_all_words_share_the_masked_passes(clip, pairs, monkeypatch, method):
    passes, rest = [], type(clip.image).rest
    monkeypatch.setattr(type(clip.image), "rest", lambda *given: passes.append(len(given[1])) or rest(*given))
    counts = []
    for phrases in (["star"], ["star", "violins"]):
        explain_words(clip, pairs[0], CAPTION, phrases, method, **QUICK[method])
        counts.append(sum(passes))
        passes.clear()
    assert counts[0] == counts[1] >= 40


@pytest.mark.parametrize("method", ["M2IB", *RIVALS])
def test_a_word_has_the_same_map_alone_and_beside_others(clip, pairs, method):
    options = QUICK.get(method, {})
    found = explain_words(clip, pairs[0], CAPTION, method=method, **options)
    alone = explain_words(clip, pairs[0].image, CAPTION, ["star"], method, **options)
    assert found.words == CAPTION.split()
    assert found.maps.image_maps.shape == (5, 7, 7)
    torch.testing.assert_close(alone.maps.image_maps[0], found.maps.image_maps[1], rtol=1e-3, atol=1e-4)
    assert found.heat("star").shape == (112, 112)
    assert (found.heat("star") == found.heat(1)).all()
    assert [len(found.maps.segments()), len(found.maps)] == [5, 5]


def test_the_words_own_maps_point_where_the_captions_map_cannot(clip):
    pairs = [pair for pair in load_pairs("scenes", 40) if len(pair.words()) > 1][:8]
    own, whole = [], []
    for pair in pairs:
        words, heat = sorted(pair.words()), explain(clip, pair, modality="image", quality="fast").heat(0)
        found = explain_words(clip, pair, phrases=words, layer=0, beta=1.0, quality="fast")
        for word in words:
            boxes = [box for box in pair.boxes if box.word == word]
            own.append(peak_inside(found.heat(word), boxes))
            whole.append(peak_inside(heat, boxes))
    assert sum(own) > 0.75 * len(own)
    assert sum(own) > 1.5 * sum(whole)


def test_a_word_that_changes_nothing_has_no_weight_and_no_map(clip, pairs, monkeypatch):
    monkeypatch.setattr("m2ib_lite.word_maps.LEAST", 0.1)
    found = explain_words(clip, pairs[0], CAPTION, method="saliency")
    assert found.weights[0] == 0  # "a"
    assert not found.maps.image_maps[0].any()
    assert found.maps.image_maps[1].any()
    assert repr(found).startswith(f"<WordMaps of {CAPTION!r} by Saliency, in cosine; weights: a 0.00, star 0.")


def test_the_plot_has_a_panel_for_each_word_and_is_fainter_where_it_weighs_less(clip, pairs):
    figure = explain_words(clip, pairs[0], CAPTION, method="saliency").plot(columns=4)
    drawn = [ax for ax in figure.axes if ax.images]
    assert [ax.get_title().split()[0] for ax in drawn[1:]] == CAPTION.split()
    faintness = [ax.images[-1].get_alpha() for ax in drawn[1:]]
    assert faintness[0] < faintness[1] <= faintness[4] == 0.6  # "a", "star", "violins"
    assert len(figure.axes) == 8
    plt.close(figure)


def test_siglips_words_are_joined_from_their_pieces(tmp_path, pairs):
    siglip = load_model(str(siglip_folder(tmp_path, sentencepieces)), "cpu")
    found = explain_words(siglip, pairs[0].image, "two owls and a violin", steps=2, samples=2)
    assert found.words == ["two", "owls", "and", "a", "violin"]
    assert found.maps.image_maps.isfinite().all()


@pytest.mark.filterwarnings("ignore:caption .* the tokenizer")  # "bowl" is no word of the testbed's
def test_a_phrase_is_found_as_whole_words_and_one_may_be_plain_text(clip, pairs):
    caption, options = "a bowl and an owl", dict(method="saliency")
    every = explain_words(clip, pairs[0].image, caption, **options)
    found = explain_words(clip, pairs[0].image, caption, "owl", **options)
    assert found.words == ["owl"]
    assert found.weights[0] == pytest.approx(every.weights[4].item(), abs=1e-5)


def test_bad_words_options_and_methods_are_refused_by_name(clip, pairs):
    for options, message in (
        (dict(samples=3, antithetic=True), "antithetic noise comes in twos"),
        (dict(phrases=[]), "there are no phrases: give words"),
        (dict(phrases=["tar"]), "'tar' does not stand in the caption 'a star and two violins'"),
        (dict(phrases=[5]), "there is no word 5: give 0 to 4"),
        (dict(method="m2ib"), "method is 'm2ib': give one of M2IB, saliency"),
    ):
        with pytest.raises(ValueError, match=message):
            explain_words(clip, pairs[0], CAPTION, **options)
    with pytest.raises(ValueError, match="2 pairs: give one image and one caption"):
        explain_words(clip, pairs[:2])
    found = explain_words(clip, pairs[0], "a star and a violin", method="saliency")
    with pytest.raises(ValueError, match="'a' stands 2 times among"):
        found.heat("a")
    with pytest.raises(IndexError, match="no pair 5"):
        found.heat(5)
