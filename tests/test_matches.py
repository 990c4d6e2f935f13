"""What the cosine of a pair says, and one caption against another."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from matplotlib import pyplot as plt
from test_rivals import linear_image
from test_word_maps import TwoWays

from m2ib_lite import explain, load_model
from m2ib_lite.data import load_pairs
from m2ib_lite.evaluate import word_game
from m2ib_lite.rivals import RIVALS
from m2ib_lite.side import difference

pytestmark = pytest.mark.filterwarnings("ignore:caption .* the tokenizer")  # nonsense is not in the testbed's vocabulary
QUICK = dict(steps=1, samples=1, progress=False)


@pytest.mark.parametrize("method", [explain, RIVALS["saliency"]])
def test_every_method_gives_the_models_own_cosines(clip, pairs, method):
    images, captions = [pair.image for pair in pairs[:3]], [pair.caption for pair in pairs[:3]]
    a = method(clip, images, captions, batch_size=2, **(QUICK if method is explain else {}))
    with torch.no_grad():
        of_images = F.normalize(clip.model.get_image_features(clip.pixels(images)).pooler_output, dim=-1)
        of_texts = F.normalize(clip.model.get_text_features(clip.tokens(captions).ids).pooler_output, dim=-1)
    torch.testing.assert_close(a.similarity, (of_images * of_texts).sum(dim=1), rtol=0, atol=1e-5)
    torch.testing.assert_close(clip.similarity(images, captions), of_images @ of_texts.T, rtol=0, atol=1e-5)
    torch.testing.assert_close(a.others, clip.similarity(images, clip.others), rtol=0, atol=1e-5)
    torch.testing.assert_close(a[1:].others, a.others[1:])


def test_the_other_captions_are_embedded_once_and_anew_when_they_or_a_weight_change(clip):
    other = clip.untrained(seed=3)
    first = other.embed_others()
    assert other.embed_others() is first
    with torch.no_grad():
        other.text.final_norm.weight.mul_(-1)
    assert not torch.equal(other.embed_others(), first)
    other.others = ["an owl"]
    assert len(other.embed_others()) == 1


@pytest.mark.parametrize(("model", "data"), [("testbed", "scenes"), ("radiographs", "radiographs")])
def test_true_captions_match_swapped_and_nonsense_ones_do_not(model, data):
    clip, pairs = load_model(model), list(load_pairs(data, 40))
    images, captions = [pair.image for pair in pairs], [pair.caption for pair in pairs]
    shares = []
    for asked in (captions, captions[1:] + captions[:1], "colorless blarg fnord"):
        a = RIVALS["random"](clip, images, [asked] * len(images) if isinstance(asked, str) else asked)
        shares.append(sum("no match" not in a.verdict(i) for i in range(len(a))) / len(a))
    assert shares[0] > 0.9
    assert max(shares[1:]) < 0.15


def test_a_cosine_stands_above_the_captions_that_it_is_not_below(attributed):
    attributed.similarity, attributed.others = torch.tensor([0.5]), torch.tensor([[0.1, 0.5, 0.6, 0.2]])
    assert attributed.rank(0) == 0.75
    assert attributed.verdict(0) == "no match: cosine 0.50, above 75% of other captions"
    attributed.others = torch.tensor([[0.1, 0.5]])
    assert attributed.verdict(0) == "cosine 0.50, above 100% of other captions"
    assert attributed.verdict(0).split(",")[0] in {text.get_text().split(",")[0] for text in attributed.plot().findobj(plt.Text)}
    attributed.similarity = None
    assert attributed.verdict(0) == ""
    plt.close("all")


@pytest.fixture
def attributed(clip, pairs):
    return explain(clip, pairs[0], **QUICK)


def toy_clip(*embeddings):
    """A caption and one against it have these embeddings."""
    text = SimpleNamespace(encode=lambda ids: torch.tensor(embeddings))
    return SimpleNamespace(name="toy", text=text, tokens=lambda captions: SimpleNamespace(ids=captions))


def test_one_caption_against_another_asks_a_toy_for_what_tells_them_apart():
    side, _ = linear_image(TwoWays)
    apart = difference(toy_clip([1.0, 0.0], [0.0, 1.0]), side, ["a cat"], ["a dog"])
    (row,) = RIVALS["saliency"].scores(apart)
    torch.testing.assert_close(row, ((side.tower.weights - side.tower.weights.flip(0)) / 2**0.5).abs().sum(dim=1)[1:] / 4)
    with pytest.raises(ValueError, match="toy reads 'a cat' and 'cats' alike: give another caption against it"):
        difference(toy_clip([1.0, 0.0], [1.0, 0.0]), side, ["a cat"], ["cats"])


def test_a_caption_against_itself_is_refused_also_where_rounding_is_coarse(pairs):
    coarse, long = load_model("testbed", "cpu", torch.bfloat16), "here are two backpacks and an anchor on the grass"
    with pytest.raises(ValueError, match="reads 'an owl' and 'an owl' alike"):
        explain(coarse, pairs[0].image, ["an owl", long], against=["an owl", "a dog"], **QUICK)


@pytest.mark.parametrize("method", ["M2IB", "chefer"])
def test_one_word_against_another_points_at_its_own_object(clip, method):
    ask, options = (explain, dict(quality="fast", progress=False)) if method == "M2IB" else (RIVALS[method], dict(blocks=3))
    hits = []
    for pair in [pair for pair in load_pairs("scenes", 40) if len(pair.words()) == 2][:6]:
        words = sorted(pair.words())
        maps = ask(clip, pair.image, words, modality="image", against=words[::-1], **options)
        games = [word_game({word: maps.heat(i)}, pair, method) for i, word in enumerate(words)]
        hits += [game.set_index("metric").loc["own object", "value"] for game in games]
    assert sum(hits) >= 10
    with pytest.raises(ValueError, match="2 captions against 1 pairs: give one, or one for each"):
        ask(clip, [pair.image], ["an owl"], against=["a", "b"], **options)
