from dataclasses import replace
from importlib import import_module

import pytest
import torch

from m2ib_lite import explain, load_model
from m2ib_lite.bottleneck import START, capacity, pair_loss
from m2ib_lite.evaluate import METHODS, attribute, attribute_all, follow, localisation, occurrences
from m2ib_lite.evaluate.attributions import keep
from m2ib_lite.evaluate.follow import problem
from m2ib_lite.evaluate.localise import relevance, unit_maps
from m2ib_lite.explain import noise_source
from m2ib_lite.rivals import sides


def ask(clip, pairs, **options):
    return explain(clip, [pair.image for pair in pairs], [pair.caption for pair in pairs], progress=False, **options)


def test_words_in_pieces_have_the_scores_of_their_sums(clip, pairs):
    whole = ask(clip, pairs, steps=1, samples=1)
    tokens = [[piece for word in words for piece in (word[:1], word[1:]) if piece] for words in whole.tokens]
    halves = [
        torch.cat([score.expand(min(2, len(word))) / min(2, len(word)) for score, word in zip(scores, words, strict=True)])
        for scores, words in zip(whole.text_maps, whole.tokens, strict=True)
    ]
    pieces = replace(whole, tokens=tokens, text_maps=halves)
    assert localisation(pieces, pairs).equals(localisation(whole, pairs))
    assert occurrences(pieces, pairs).equals(occurrences(whole, pairs))


def test_scores_are_one_tidy_row_each(clip, pairs):
    a = explain(clip, [pair.image for pair in pairs], [pair.caption for pair in pairs], steps=1, samples=1)
    table = localisation(a, pairs)
    assert list(table.columns) == ["pair", "modality", "metric", "value", "chance", "method"]
    assert not table.duplicated(["pair", "metric"]).any()
    for pair in pairs:
        metrics = set(table[table["pair"] == pair.id]["metric"])
        assert ("named preference" in metrics) == any(not box.named for box in pair.boxes)
        assert {"energy inside", "pointing game", "word precision"} <= metrics
    assert table["value"].between(0, 1).all()


def test_masks_are_the_truth_where_they_are_asked_for(clip, pairs):
    a = ask(clip, pairs, steps=1, samples=1)
    boxes, masks = (localisation(a, pairs, truth).set_index(["pair", "metric"])["chance"] for truth in ("boxes", "masks"))
    assert (masks.xs("pointing game", level=1) < boxes.xs("pointing game", level=1)).all()


def test_maps_with_an_offset_or_with_signs_are_scaled_before_they_are_compared(clip, pairs):
    a = ask(clip, pairs[:2], steps=1, samples=1)
    a.image_maps = torch.stack([torch.linspace(5, 6, 49).reshape(7, 7), torch.linspace(-1, 1, 49).reshape(7, 7)])
    maps = unit_maps(a).image_maps
    assert maps.amin(dim=(1, 2)).tolist() == [0, 0]
    assert maps.amax(dim=(1, 2)).tolist() == [1, 1]
    assert (maps[1].flatten()[:25] == 0).all()


@pytest.mark.parametrize("method", ["M2IB", "rise"])
def test_kept_maps_are_those_that_the_method_gives(clip, pairs, tmp_path, method, monkeypatch):
    options = dict(steps=2, samples=2) if method == "M2IB" else dict(image_masks=20, text_masks=20)
    images, captions = [pair.image for pair in pairs], [pair.caption for pair in pairs]
    direct = METHODS[method](clip, images, captions, progress=False, **options)
    attribute(method, clip, pairs[:3], tmp_path, **options)
    asked = []

    def watched(clip, images, captions, **options):
        asked.append(len(images))
        return direct_method(clip, images, captions, **options)

    direct_method = METHODS[method]
    monkeypatch.setitem(METHODS, method, watched)
    kept = attribute(method, clip, pairs[::-1], tmp_path, **options)
    assert asked == [len(pairs) - 3]
    torch.testing.assert_close(kept.image_maps, direct.image_maps.flip(0), rtol=1e-4, atol=1e-5)
    assert (kept.tokens, kept.captions, kept.method, kept.unit) == (direct.tokens[::-1], captions[::-1], direct.method, direct.unit)
    attribute(method, clip, pairs, tmp_path, **options, seed=1)
    assert asked[1:] == [len(pairs)]  # other options are other maps


def test_other_weights_are_other_maps(clip, folder, pairs, tmp_path):
    small = load_model(str(folder), device="cpu")
    attribute("gradcam", clip, pairs[:1], tmp_path)
    attribute("gradcam", small, pairs[:1], tmp_path)
    assert len(list(tmp_path.rglob("*.pt"))) == 2


def test_maps_that_are_the_truth_find_every_occurrence(clip, pairs):
    a = ask(clip, pairs, steps=1, samples=1)
    words = [torch.tensor(relevance(pair, tokens)).float() for pair, tokens in zip(pairs, a.tokens, strict=True)]
    heats = [pair.region().astype(float) for pair in pairs]
    truth = replace(a, text_maps=words)
    truth.heat = lambda i: heats[i]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("m2ib_lite.evaluate.localise.unit_maps", lambda attribution: attribution)
        table = occurrences(truth, pairs)
    assert set(table["metric"]) == {"instances hit", "all instances hit", "words hit", "all words hit"}
    assert (table["value"] == 1).all()


def test_what_is_followed_is_what_explain_finds_after_so_many_steps(clip, pairs):
    options = dict(beta=0.3, sigma2=0.5, samples=3, seed=4)
    image, table = follow(clip, pairs, "image", (0, 2, 5), layer=2, batch_size=3, **options)
    text, _ = follow(clip, pairs, "text", (2, 5), layer=1, **options)
    assert list(table.columns) == ["pair", "modality", "steps", "compression", "fitting"]
    assert len(table) == 3 * len(pairs)
    for n in (2, 5):
        whole = ask(clip, pairs, layer=(2, 1), steps=n, **options)
        torch.testing.assert_close(image[n].image_maps, whole.image_maps, rtol=1e-4, atol=1e-4)
        for ours, theirs in zip(text[n].text_maps, whole.text_maps, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        assert (text[n].tokens, text[n].image_maps, image[n].text_maps) == (whole.tokens, None, None)


@pytest.mark.parametrize("modality", ["image", "text"])
def test_the_terms_make_the_loss_on_noise_of_another_seed(clip, pairs, modality):
    _, table = follow(clip, pairs, modality, (0,), layer=1, beta=0.3, sigma2=0.5, samples=3, seed=4)
    side = sides(clip, [pair.image for pair in pairs], [pair.caption for pair in pairs])[modality == "text"]
    hidden, similarity, valid = problem(side, 1)
    noise = noise_source(5, side.inputs, 3, valid.sum(dim=1).tolist(), hidden.shape[-1])()
    loss = pair_loss(hidden, torch.full_like(hidden, START), similarity, valid, noise, 0.3, 0.5)
    torch.testing.assert_close(torch.tensor(table["compression"] - table["fitting"]), loss.double(), rtol=1e-5, atol=1e-5)
    kept = capacity(hidden, torch.full_like(hidden, START), 0.5)[0, valid[0]]
    assert table["compression"][0] == pytest.approx(0.3 * kept.mean().item(), rel=1e-5)


def test_maps_of_one_modality_have_the_scores_of_that_modality(clip, pairs):
    whole, options = ask(clip, pairs, steps=2, samples=2), dict(steps=2, samples=2)
    for modality in ("image", "text"):
        table = localisation(ask(clip, pairs, modality=modality, **options), pairs)
        assert table.equals(localisation(whole, pairs).query("modality == @modality").reset_index(drop=True))


def test_all_methods_get_the_steps_and_the_seed_that_they_know(clip, pairs, tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr(
        import_module("m2ib_lite.evaluate.attributions"), "attribute", lambda name, *_, **o: asked.update({name: o})
    )
    assert list(attribute_all(clip, pairs, tmp_path, steps=3, seed=7)) == list(METHODS)
    assert asked["M2IB"] == dict(steps=3, seed=7)
    assert asked["rise"] == asked["kernelshap"] == asked["random"] == dict(seed=7)
    assert {name for name, options in asked.items() if not options} == {"saliency", "gradcam", "chefer", "nib", "gradeclip"}


def test_what_two_processes_keep_is_added_up(tmp_path):
    store = tmp_path / "new folder" / "maps.pt"
    keep({"a": 1}, store)
    keep({"b": 2}, store)
    assert torch.load(store, weights_only=True) == {"a": 1, "b": 2}
