from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import import_module
from threading import Barrier, get_ident

import numpy as np
import pytest
import torch
from PIL import Image
from test_rivals import ask

from m2ib_lite import evaluate, load_model
from m2ib_lite.bottleneck import START, capacity, terms
from m2ib_lite.data import Box, Pair
from m2ib_lite.evaluate import METHODS, attribute, attribute_all, follow, localisation, method_options, occurrences, word_game
from m2ib_lite.evaluate.localise import unit_maps
from m2ib_lite.explain import noise_source
from m2ib_lite.side import sides

ATTRIBUTIONS = import_module("m2ib_lite.evaluate.attributions")


@pytest.fixture(scope="module")
def quick(clip, pairs):
    return ask("M2IB", clip, pairs, steps=1, samples=1)


def test_scores_refuse_an_attribution_of_other_pairs(clip, pairs, quick):
    remedy = ": give the pairs that the M2IB attribution was made of, in its order"
    swapped = f"pair 1 says '{pairs[2].caption}', its place in the attribution '{pairs[1].caption}'"
    for places, difference in ([0, 2, 1, 3, 4], swapped), ([0, 1, 2, 3], "4 pairs and an attribution of 5"):
        others = [pairs[i] for i in places]
        own = ask("M2IB", clip, others, steps=1, samples=1)
        calls = [(localisation, quick, others), (occurrences, quick, others), (evaluate.confidence, clip, quick, others)]
        calls += [(evaluate.agreement, one, quick, others) for one in (quick, own)] + [(evaluate.roar, clip, [own, quick])]
        for score, *arguments in [*calls, (evaluate.cascade, clip, others, [quick], "image")]:
            with pytest.raises(ValueError, match=difference + remedy):
                score(*arguments)


def test_the_game_of_words_by_hand():
    boxes = [Box("cat", 0, 0, 1, 1, word="cats"), Box("cat", 3, 0, 1, 1, word="cats"), Box("dog", 1, 0, 1, 1, word="dog")]
    pair = Pair(Image.new("RGB", (4, 1)), "two cats and a dog", [*boxes, Box("owl", 2, 0, 1, 1, named=False)], "a")
    heats = {"cats": np.array([[1.0, 2.0, 0.0, 3.0]]), "dog": np.array([[0.0, 2.0, 4.0, 1.0]])}  # the owl is highest
    table = word_game(heats, pair, "hand")
    assert table["metric"].tolist() == ["pointing game", "own object"] * 2
    assert table["value"].tolist() == [1, 1, 0, 1]
    assert table["chance"].tolist() == [0.5, 0.5, 0.25, 0.5]
    assert word_game({"dog": np.zeros((1, 4))}, pair, "flat")["value"].tolist() == [0, 0]
    left = word_game(heats, pair, "hand", view=(0, 0, 2, 1))  # a cat and the dog
    assert left["value"].tolist() == [0, 0, 1, 1]
    assert left["chance"].tolist() == [0.5] * 4
    assert word_game({"dog": heats["dog"]}, pair, "hand", view=(2, 0, 4, 1)).empty


def test_scores_are_one_tidy_row_each(pairs, quick):
    table, heat = localisation(quick, pairs, power=3), unit_maps(quick).heat(0)
    of_power = table.query("metric == 'energy inside at power'")["value"].iloc[0]
    assert of_power == pytest.approx((heat[pairs[0].region()] ** 3).sum() / (heat**3).sum())
    assert list(table.columns) == ["pair", "modality", "metric", "value", "chance", "method"]
    assert not table.duplicated(["pair", "metric"]).any()
    for pair in pairs:
        metrics = set(table[table["pair"] == pair.id]["metric"])
        assert ("named preference" in metrics) == any(not box.named for box in pair.boxes)
        assert {"energy inside", "pointing game", "word precision"} <= metrics
    assert table["value"].between(0, 1).all()
    masks, boxes = (localisation(quick, pairs, truth).query("metric == 'pointing game'")["chance"] for truth in ("masks", "boxes"))
    assert (masks < boxes).all()


def test_what_the_model_did_not_see_is_no_map_no_truth_and_no_chance(clip):
    """Of 224 x 112 pixels it sees the middle half, from 56 on: 24 of the 32 columns of one box, none of the other's."""
    picture = Image.new("RGB", (224, 112))
    most, outside = pairs = [Pair(picture, "an owl", [Box("owl", x, 0, 32, 56, word="owl")], str(x)) for x in (48, 0)]
    flat = replace(ask("Random", clip, pairs), image_maps=torch.ones(2, 7, 7))
    table = localisation(flat, pairs).query("modality == 'image'").set_index(["pair", "metric"])
    seen, share = table.loc[most.id], 24 * 56 / 112**2
    assert (seen.pop("value").loc["truth seen"], table.loc[outside.id, "value"].to_dict()) == (0.75, {"truth seen": 0})
    assert (seen.drop("truth seen")["chance"] == share).all()
    assert table.loc[(most.id, "energy inside"), "value"] == pytest.approx(share)
    assert set(occurrences(flat, pairs).query("modality == 'image'")["pair"]) == {most.id}


@pytest.mark.parametrize(("method", "options"), [("M2IB", dict(steps=2, samples=2)), ("RISE", dict(image_masks=20, text_masks=20))])
def test_kept_maps_are_those_that_the_method_gives(clip, pairs, tmp_path, method, options, monkeypatch):
    direct, plain, asked = ask(method, clip, pairs, **options), METHODS[method], []

    def watched(clip, pairs, **options):
        asked.append(len(pairs))
        return plain(clip, pairs, **options)

    monkeypatch.setitem(METHODS, method, watched)
    attribute(method, clip, pairs[:3], tmp_path, **options)
    kept = attribute(method, clip, pairs[::-1], tmp_path, **options)
    assert asked == [3, len(pairs) - 3]
    torch.testing.assert_close(kept.image_maps, direct.image_maps.flip(0), rtol=1e-4, atol=1e-5)
    found = (kept.tokens[::-1], kept.captions[::-1], kept.views, kept.method, kept.unit)
    assert found == (direct.tokens, direct.captions, direct.views, direct.method, direct.unit)
    others = [replace(pairs[0], image=pairs[1].image), replace(pairs[0], caption=pairs[1].caption), *pairs]
    attribute(method, clip, others, tmp_path, **options)
    attribute(method, clip, pairs, tmp_path, **options, seed=1)
    assert asked[2:] == [2, len(pairs)]  # another image, caption or option gives other maps


def test_maps_are_kept_once_however_their_options_are_given(clip, pairs, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setitem(METHODS, "RISE", lambda clip, *given, **options: asked.append(options) or ask("rise", clip, pairs[:1]))
    monkeypatch.setitem(clip.settings, "best", {"rise": {"p": [0.5, 0.5], "cells": [8, 6]}})
    few = dict(image_masks=2, text_masks=2)
    for same in (few, few | dict(p=0.5), few | dict(p=(0.5, 0.5), cells=(8, 6))):
        attribute("RISE", clip, pairs[:1], tmp_path, **same)
    assert asked == [few]
    for other in (few | dict(cells=8), few | dict(p=(0.5, 0.4)), dict(image_masks=2), few | dict(seed=1)):
        attribute("RISE", clip, pairs[:1], tmp_path, **other)
    assert len(asked) == 5


def test_other_weights_and_other_libraries_are_other_maps(clip, folder, pairs, tmp_path, monkeypatch):
    attribute("Random", clip, pairs[:1], tmp_path)
    attribute("Random", load_model(str(folder), device="cpu"), pairs[:1], tmp_path)
    libraries = ("captum", "numpy", "pillow", "tokenizers", "torch", "transformers")
    for changed in (None, *libraries):
        monkeypatch.setattr(ATTRIBUTIONS, "version", lambda library, changed=changed: "1" if library == changed else "0")
        attribute("Random", clip, pairs[:1], tmp_path)
    assert len(list(tmp_path.rglob("*.pt"))) == 2 + 1 + len(libraries)


def test_two_that_ask_at_once_share_the_work(clip, pairs, tmp_path, monkeypatch):
    made, asked, both_at_work = METHODS["Random"](clip, pairs[:2]), [], Barrier(2)

    def slowly(name):
        def method(clip, pairs, **options):
            asked.append((name, get_ident()))
            both_at_work.wait(60)
            return made

        return method

    for name in ("A", "B"):
        monkeypatch.setitem(METHODS, name, slowly(name))
    with ThreadPoolExecutor(2) as pool:
        both = pool.map(lambda _: attribute_all(clip, pairs[:2], tmp_path, dict(A={}, B={})), range(2))
        assert [list(found) for found in both] == [["A", "B"]] * 2
    assert sorted(name for name, _ in asked) == ["A", "B"]
    assert len({thread for _, thread in asked}) == 2


def test_slow_methods_are_asked_of_the_first_pairs(clip, pairs, tmp_path):
    found = attribute_all(clip, pairs, tmp_path, {"RISE": dict(image_masks=2, text_masks=2), "Random": {}}, slow=2)
    assert {name: len(of) for name, of in found.items()} == {"RISE": 2, "Random": len(pairs)}


def test_all_methods_get_the_settings_the_steps_and_the_seed_that_they_know(clip, pairs, tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr(ATTRIBUTIONS, "attribute", lambda name, *_, **options: asked.update({name: options}))
    best = method_options(clip, "best", seed=7, steps=3)
    assert list(attribute_all(clip, pairs, tmp_path, best)) == list(METHODS)
    assert asked.pop("M2IB") == dict(steps=3, seed=7)
    assert asked == {name: dict(seed=7) if name in ("KernelSHAP", "RISE", "Random") else {} for name in asked}
    published, medical = (method_options(clip, "published", 7, medical) for medical in (False, True))
    assert published["M2IB"] == {**clip.published, "seed": 7}
    assert medical == {**published, "M2IB": {**clip.published_medical, "seed": 7}}
    assert (published["LeGrad"], published["KernelSHAP"]) == (dict(blocks=2), dict(samples=10, seed=7))
    for kind, own in (("published", published), ("best", method_options(clip, "best", 7))):
        assert method_options(clip, kind, 7, masks=9) == own | {"RISE": own["RISE"] | dict(image_masks=9)}


def test_maps_that_are_the_truth_find_every_occurrence(pairs, quick, monkeypatch):
    words = [torch.tensor([float(word in pair.words()) for word in a]) for pair, a in zip(pairs, quick.tokens, strict=True)]
    truth = replace(quick, text_maps=words)
    truth.heat = lambda i: pairs[i].region().astype(float)
    monkeypatch.setattr("m2ib_lite.evaluate.localise.unit_maps", lambda attribution: attribution)
    table = occurrences(truth, pairs)
    shares = {"instances hit", "instances seen", "words hit"}
    assert set(table["metric"]) == shares | {f"all {share}" for share in shares}
    assert (table["value"] == 1).all()


def test_maps_of_one_modality_have_the_scores_of_that_modality(clip, pairs, quick):
    for modality in ("image", "text"):
        one = ask("M2IB", clip, pairs, modality=modality, steps=1, samples=1)
        for score in (localisation, occurrences):
            assert score(one, pairs).equals(score(quick, pairs).query("modality == @modality").reset_index(drop=True))


def test_what_is_followed_is_what_explain_finds_after_so_many_steps(clip, pairs):
    options = dict(beta=0.3, sigma2=0.5, samples=4, seed=4, standardise=True, antithetic=True)
    image, table = follow(clip, pairs, "image", (0, 2, 5), layer=2, batch_size=3, **options)
    text, _ = follow(clip, pairs, "text", (2, 5), layer=1, **options)
    assert list(table.columns) == ["pair", "modality", "steps", "compression", "fitting"]
    assert len(table) == 3 * len(pairs)
    for n in (2, 5):
        whole = ask("M2IB", clip, pairs, layer=(2, 1), steps=n, **options)
        ours, theirs = [image[n].image_maps, *text[n].text_maps], [whole.image_maps, *whole.text_maps]
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        assert (text[n].tokens, text[n].image_maps, image[n].text_maps) == (whole.tokens, None, None)


@pytest.mark.parametrize("modality", ["image", "text"])
def test_the_terms_make_the_loss_on_noise_of_another_seed(clip, pairs, modality):
    _, table = follow(clip, pairs, modality, (0,), layer=1, beta=0.3, sigma2=0.5, samples=3, seed=4)
    side = sides(clip, [pair.image for pair in pairs], [pair.caption for pair in pairs], (1, 1))[modality == "text"]
    hidden, similarity, valid = side.hidden, side.similarity, side.valid
    noise = noise_source(5, side.inputs, valid, hidden.shape[-1], 3)()
    loss = torch.sub(*terms(hidden, torch.full_like(hidden, START), similarity, valid, noise, 0.3, 0.5))
    torch.testing.assert_close(torch.tensor(table["compression"] - table["fitting"]), loss.double(), rtol=1e-5, atol=1e-5)
    kept = capacity(hidden, torch.full_like(hidden, START), 0.5)[0, valid[0]]
    assert table["compression"][0] == pytest.approx(0.3 * kept.mean().item(), rel=1e-5)
