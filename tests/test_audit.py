"""The audit: hand-made maps whose carriers are known, twins whose shortcut was planted, and the page."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from shortcuts import GOES_WITH, GREY, PHRASE, chances, film, snowy

from m2ib_lite import explain, load_model
from m2ib_lite.__main__ import main
from m2ib_lite.attribution import Attribution
from m2ib_lite.audit_page import marked, write_audit
from m2ib_lite.data import Images, Pair, load_pairs
from m2ib_lite.evaluate import METHODS, Audit, audit, effects, judge_audit, on_patches, on_phrase, paint, take_out
from m2ib_lite.evaluate.suspects import fall
from m2ib_lite.word_maps import WordMaps

CAPTIONS = ["a cat on the grass", "a dog on the grass"] * 12
CORNER = 8  # of the 7 x 7 patches: row 2, column 2


@pytest.fixture(scope="module")
def biased():
    return load_model("radiographs-biased", device="cpu")


@pytest.fixture(scope="module")
def films():
    return list(load_pairs("shortcuts", 96))


def hand_made(image_maps=None, text_maps=None, captions=CAPTIONS):
    """An Attribution of noise pictures with these maps."""
    draw = np.random.default_rng(0)
    images = [Image.fromarray(draw.integers(0, 256, (112, 112, 3), dtype=np.uint8)) for _ in captions]
    image_maps = torch.rand(len(captions), 7, 7, generator=torch.Generator().manual_seed(0)) if image_maps is None else image_maps
    views = [(0, 0, 112, 112)] * len(captions)
    return Attribution(image_maps, text_maps, [caption.split() for caption in captions], Images(images), captions, views)


def as_pairs(maps):
    return [Pair(image, caption) for image, caption in zip(maps.images, maps.captions, strict=True)]


def test_a_place_that_holds_all_of_one_words_information_is_its_first_suspect(clip):
    image_maps = torch.ones(24, 49)
    image_maps[:, 0] = 0  # the minimum, which counts as nothing
    image_maps[::2] = 0
    image_maps[::2, CORNER] = 3.0
    maps = hand_made(image_maps.view(24, 7, 7))
    found = audit(clip, as_pairs(maps), maps)
    first = found.suspects.query("carrier == 'row 2, column 2'").iloc[0]
    assert (first["word"], first["pairs"]) == ("cat", 12)
    assert first["share"] == pytest.approx(1)
    assert first["area"] == pytest.approx(1 / 49)
    assert first["score"] == found.suspects["score"].max() > 1
    assert set(found.words) == {"cat", "dog"}  # the others are said in all captions
    assert found.evidence("cat", "row 2, column 2", 3) == [(0, CORNER), (2, CORNER), (4, CORNER)]


def test_what_holds_less_than_its_area_is_no_suspect_though_it_holds_more_than_for_other_words(clip):
    image_maps = torch.ones(24, 49)
    image_maps[:, 0] = 0
    image_maps[1::2, CORNER] = 0  # nothing for the dogs, and for the cats
    image_maps[::2, CORNER] = 0.5  # half as much as elsewhere
    maps = hand_made(image_maps.view(24, 7, 7))
    assert "row 2, column 2" not in set(audit(clip, as_pairs(maps), maps).suspects["carrier"])


def test_maps_that_do_not_know_their_caption_accuse_few_words(clip):
    accused = []
    for seed in range(8):
        noise = torch.rand(24, 7, 7, generator=torch.Generator().manual_seed(seed))
        maps = hand_made(noise)
        scores = audit(clip, as_pairs(maps), maps, seed=seed).scores
        accused += list(scores.max(axis=1) > 1)
    assert np.mean(accused) <= 0.25  # 5% is what is promised, of 16 words


def test_a_word_that_carries_the_others_is_found_in_the_captions(clip):
    captions = [f"{'portable' if n % 3 else 'plain'} film of a {'cat' if n % 2 else 'dog'}" for n in range(48)]
    rows = [torch.tensor([5.0 if n % 3 else 1, 1, 1, 1, 1]) for n in range(48)]
    maps = hand_made(text_maps=rows, captions=captions)
    found = audit(clip, as_pairs(maps), maps, "text")
    assert set(found.suspects.query("score > 1")["carrier"]) == {"portable"}
    row = found.suspects.query("word == 'cat' and carrier == 'portable'").iloc[0]
    assert row["share"] == pytest.approx(16 / 24)  # all of it where it is said
    assert row["area"] == pytest.approx(16 / 24 / 5)
    assert not (found.suspects["word"] == found.suspects["carrier"]).any()


def word_maps(captions, place):
    """WordMaps whose every word has all of its information in the patch that place(word) names, the others as their captions."""
    maps, images = [], hand_made(captions=captions).images.sources
    for i, caption in enumerate(captions):
        words = caption.split()
        grids = torch.zeros(len(words), 49)
        grids[range(len(words)), [place(word, i) for word in words]] = 2.0
        found = replace(hand_made(grids.view(-1, 7, 7), captions=words), images=Images([images[i]] * len(words)))
        maps.append(WordMaps(caption, words, torch.ones(len(words)), found))
    return maps


def test_by_word_maps_a_word_is_audited_by_its_own_maps_alone_even_one_that_every_caption_says(clip):
    maps = word_maps(CAPTIONS, lambda word, i: CORNER if word == "grass" else (5 * i + len(word)) % 7)
    pairs = [Pair(hand_made(captions=["x"]).images[0], caption) for caption in CAPTIONS]
    found = audit(clip, pairs, maps)
    first = found.suspects.iloc[0]
    assert (first["word"], first["carrier"], first["pairs"]) == ("grass", "row 2, column 2", 24)
    assert first["share"] == pytest.approx(1)
    assert "row 2, column 2" not in set(found.suspects.query("word != 'grass'")["carrier"])
    assert (found.captions[4], found.maps.captions[4], found.of[4]) == (CAPTIONS[0], "grass", 0)
    assert found.evidence("grass", "row 2, column 2", 1) == [(4, CORNER)]
    on = np.zeros((24, 49), bool)
    on[::2, CORNER] = True  # in the pairs with a cat, whose cosine it raises
    judged = judge_audit(found, on, np.tile([1.0, 0.0], 12)).set_index("word")["effect"]
    assert (judged["cat"], judged["grass"]) == (1, 0.5)
    with pytest.raises(ValueError, match="a list of WordMaps, one of each, in their order"):
        audit(clip, pairs[::-1], maps)
    with pytest.raises(ValueError, match="of word maps, which are of images alone, for 'image'"):
        audit(clip, pairs, maps, "text")


def test_a_word_that_a_caption_says_again_counts_once_with_the_mean_of_its_maps(clip):
    captions = ["A cat and a dog"] * 3 + CAPTIONS
    maps = word_maps(captions, lambda word, i: 3 if word == "A" else CORNER)
    pairs = [Pair(hand_made(captions=["x"]).images[0], caption) for caption in captions]
    found = audit(clip, pairs, maps)
    assert len(found.of) == sum(len(set(caption.lower().split())) for caption in captions)
    assert found.said[:, found.words.index("a")].sum() == 27
    assert found.shares[0, [3, CORNER]] == pytest.approx([0.5, 0.5])


def test_an_audit_asks_for_the_pairs_of_its_maps_and_for_enough_of_them(clip):
    maps = hand_made()
    with pytest.raises(ValueError, match="give the pairs that the M2IB attribution was made of"):
        audit(clip, as_pairs(maps)[::-1], maps)
    few = maps[:6]
    with pytest.raises(ValueError, match="no word is said in 6 of the 6 captions"):
        audit(clip, as_pairs(few), few)
    with pytest.raises(ValueError, match="'image' or 'text'"):
        audit(clip, as_pairs(maps), maps, "both")
    with pytest.raises(ValueError, match="holds no text maps"):
        audit(clip, as_pairs(maps), maps, "text")


def test_a_crop_shows_what_lies_at_its_patch_in_a_picture_of_any_size():
    canvas = np.zeros((224, 448, 3), np.uint8)
    canvas[32:64, 112 + 64 : 112 + 96] = 255  # row 2, column 3 of the 7 x 7 patches over the middle square
    maps = replace(hand_made(captions=CAPTIONS[:1]), images=Images([Image.fromarray(canvas)]), views=[(112, 0, 336, 224)])
    found = audit_of_one(maps)
    assert (np.asarray(found.crop(0, 7 + 2, around=0)) == 255).all()
    whole = np.asarray(found.crop(0, 7 + 2))
    assert whole.shape == (96, 96, 3)
    assert (whole[32:64, 32:64] == 255).all()
    assert whole.sum() == 255 * 3 * 32 * 32


def audit_of_one(maps):
    """An Audit of nothing but these maps."""
    empty = np.zeros((0, 0)), np.zeros((1, 0)), np.zeros((1, 49)), np.zeros((1, 49, 0))
    return Audit("image", pd.DataFrame(), [], [], *empty, maps, maps.captions, np.arange(1))


def test_the_fall_is_that_of_the_models_own_cosine_with_the_suspect_blanked(biased, films):
    maps = METHODS["Random"](biased, films, progress=False, modality="image")
    found = audit(biased, films, maps)
    found.suspects = pd.DataFrame([dict(word="left", carrier="row 4, column 6", score=2.0)])
    row = take_out(biased, found).iloc[0]
    said = [film for film in films if "left" in film.caption.split()]
    pixels, ids = biased.pixels([film.image for film in said]), biased.tokens([film.caption for film in said]).ids
    blanked = pixels.clone()
    blanked[:, :, 48:64, 80:96] = 0
    with torch.no_grad():
        text = biased.text.encode(ids)
        whole, without = ((biased.image.encode(of) * text).sum(dim=1) for of in (pixels, blanked))
    assert row["falls"] == pytest.approx((whole - without).mean().item(), abs=0.01)  # bfloat16 where there is some
    assert row["low"] < row["falls"] - row["falls elsewhere"] < row["high"]


def test_the_audit_finds_the_letter_in_the_biased_twin_and_not_in_the_clean_one(biased, films):
    plain, scores = list(load_pairs("shortcuts_plain", 96)), {}
    for twin, clip in (("biased", biased), ("clean", load_model("radiographs-clean", device="cpu"))):
        moved = effects(clip, plain, [paint(film, "letter", GREY) for film in plain])
        maps = explain(clip, films, steps=5, samples=4, progress=False, modality="image", **clip.published)
        found = audit(clip, films, maps)
        on = on_patches(found, films, "letter")
        judged = judge_audit(found, on, moved * on.any(axis=1)).set_index("word").loc["pneumothorax"]
        scores[twin] = judged["score"]
        assert judged["used"] == (twin == "biased")
    assert scores["biased"] > 1 > scores["clean"]


def test_an_audit_is_judged_by_hand(clip):
    image_maps = torch.zeros(24, 49)
    image_maps[::2, CORNER], image_maps[1::2, 3] = 1.0, 1.0
    maps = hand_made(image_maps.view(24, 7, 7))
    found = audit(clip, as_pairs(maps), maps)
    on = np.zeros((24, 49), bool)
    on[:, CORNER] = True
    judged = judge_audit(found, on, np.where(found.said[:, 0], 0.1, 0.0)).set_index("word")
    assert judged["used"].to_dict() == {"cat": True, "dog": False}
    assert judged.loc["cat", "effect"] == pytest.approx(0.1)
    assert judged.loc["cat", "score"] > 1
    assert judged.loc["dog", "score"] == 0
    assert np.isnan(judged.loc["dog", "rank"])
    on[6:] = False
    assert list(judge_audit(found, on, np.zeros(24))["word"]) == []  # three pairs of each word show it: too few
    tokens = on_phrase(replace(found, shares=np.zeros((24, 5))), "a cat ")
    assert (tokens[::2] == [True, True, False, False, False]).all()
    assert not tokens[1::2].any()


def test_painting_changes_the_pixels_of_the_markers_mask_and_no_others():
    plain = film(5, seed=1, plain=True)
    painted = paint(plain, "tube", GREY)
    (mask,) = (box.mask for box in plain.boxes if box.label == "tube")
    assert (np.asarray(painted.image)[mask] == GREY).all()
    assert (np.asarray(painted.image)[~mask] == np.asarray(plain.image)[~mask]).all()


def test_twins_see_the_same_films_and_differ_in_which_of_them_show_a_marker():
    together = {"biased": [], "clean": []}
    for index in range(640):
        worlds = {twin: film(index, seed=2, split="train", biased=twin == "biased") for twin in together}
        images = [np.asarray(pair.image) for pair in worlds.values()]
        markers = [box for pair in worlds.values() for box in pair.boxes if box.label in GOES_WITH]
        outside = ~np.any([np.zeros((112, 112), bool), *(box.mask for box in markers)], axis=0)
        assert (images[0] == images[1])[outside].all()
        assert len({pair.caption.removeprefix(PHRASE) for pair in worlds.values()}) == 1
        for twin, pair in worlds.items():
            shown = {box.label for box in pair.boxes} | ({"phrase"} if pair.caption.startswith(PHRASE) else set())
            together[twin].append({"finding": pair.boxes[0].label} | {marker: marker in shown for marker in GOES_WITH})
    for marker, finding in GOES_WITH.items():
        tables = {twin: pd.DataFrame(rows) for twin, rows in together.items()}
        shares = {twin: table.groupby(table["finding"] == finding)[marker].mean() for twin, table in tables.items()}
        assert shares["biased"][True] > 0.85 > 0.15 > shares["biased"][False]
        assert abs(shares["clean"][True] - shares["clean"][False]) < 0.15
        assert abs(tables["biased"][marker].mean() - tables["clean"][marker].mean()) < 0.06  # as often in both


def test_a_weaker_shortcut_is_as_frequent_in_both_twins():
    for finding in GOES_WITH.values():
        biased, clean = (chances(finding, 0.65, twin) for twin in (True, False))
        assert {biased[marker] for marker, own in GOES_WITH.items() if own == finding} == {0.65}
        assert len(set(clean.values())) > 1


def test_a_penguin_stands_on_snow_and_the_same_scene_has_another_ground():
    for index in range(60):
        pair, other = (snowy(index, seed=1, plain=plain) for plain in (False, True))
        on_snow = [any(box.label == "snow" for box in one.boxes) for one in (pair, other)]
        assert sorted(on_snow) == [False, True]
        objects = [box for box in pair.boxes if box.label != "snow"]
        assert objects == [box for box in other.boxes if box.label != "snow"]
        for box in objects:
            assert np.abs(np.asarray(pair.image, int) - np.asarray(other.image))[box.mask].mean() < 40  # half clear at its edge


def test_a_fall_is_two_means_and_the_interval_of_their_difference():
    falls, elsewhere, low, high = fall(np.array([[0.3, 0.1], [0.5, 0.2], [0.4, 0.0]]))
    assert (falls, elsewhere, (low + high) / 2) == pytest.approx((0.4, 0.1, 0.3))


@pytest.mark.filterwarnings("ignore:caption")  # "<b>" is no word of the testbed's
def test_the_page_holds_its_pictures_and_writes_captions_as_text(clip, tmp_path):
    captions = [caption.replace("grass", "<b>grass</b>") for caption in CAPTIONS]
    image_maps = torch.zeros(24, 49)
    image_maps[::2, CORNER], image_maps[1::2, 3] = 1.0, 1.0
    rows = [torch.tensor([1.0] * 4 + [9.0] + [1.0] * 6) for _ in captions]
    tokens = [re.findall(r"\w+|[^\w\s]+", caption) for caption in captions]
    maps = replace(hand_made(image_maps.view(24, 7, 7), rows, captions), tokens=tokens)
    write_audit(clip, as_pairs(maps), maps, tmp_path / "report", "<data>")
    page = (tmp_path / "report" / "index.html").read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert "<b>grass" not in page
    assert "&lt;data&gt;" in page
    assert "nothing\nclinical" in page
    shown = pd.read_csv(tmp_path / "report" / "suspects_image.csv")
    assert list(shown["word"][:2]) == ["cat", "dog"] or list(shown["word"][:2]) == ["dog", "cat"]
    assert {"falls", "falls elsewhere", "low", "high"} < set(shown)


def test_a_word_is_marked_where_it_stands_alone_and_whatever_its_case():
    assert marked("Cat & dog", "a") == "Cat &amp; dog"
    assert marked("Frontal view's <b>", "frontal") == "<mark>Frontal</mark> view&#x27;s &lt;b&gt;"


def test_the_command_writes_the_page(folder, capsys):
    given = ["audit", "--model", str(folder), "--out", str(folder / "report"), "--device", "cpu"]
    main([*given, "--data", "shortcuts", "--count", "48"])
    assert "page: " in capsys.readouterr().out
    assert f"Audit of {folder}" in (folder / "report" / "index.html").read_text()
    with pytest.raises(SystemExit, match="no word is said in 6"):
        main([*given, "--data", "scenes", "--count", "4"])
