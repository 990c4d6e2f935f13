"""The drawn pictures: the same everywhere, those that are shipped, and true to their captions, boxes and masks."""

import hashlib
import json
import re
from collections import defaultdict
from itertools import combinations

import draw
import numpy as np
import pandas as pd
import pytest
from backgrounds import PLACES
from chest import Chest
from draw import KINDS
from radiographs import COMBINATIONS, _generator, one_of_each, radiograph, radiographs
from scenes import _phrase, distinct_scenes, held_out, kinds, scene, scenes
from tune import TRIES, choose

from m2ib_lite.data import load_pairs
from m2ib_lite.models import BUILT_IN

LABELS = [row["singular"].split()[-1] for row in kinds()]
MIDDLE = 56
ENOUGH = 24  # grey levels that a finding's border may change
WRONG = r" a [aeiou]| an [^aeiou]| are an? | there is (two|three)| an? opacities|opacities is| are opacity | a consolidation|  "


@pytest.mark.parametrize(("generator", "digest"), [(scenes, "281e79d7620cf91a"), (radiographs, "f858a8dd74182715")])
def test_pictures_have_the_same_bytes_everywhere(generator, digest):
    state = hashlib.sha256()
    for pair in generator(100, seed=5) + generator(100, seed=5, split="train"):
        state.update(pair.image.tobytes() + pair.caption.encode() + repr(pair.boxes).encode())
        for box in pair.boxes:
            state.update(box.mask.tobytes())
    assert state.hexdigest()[:16] == digest


@pytest.mark.parametrize(("one", "several", "name"), [(scene, scenes, "scenes"), (radiograph, radiographs, "radiographs")])
def test_a_picture_depends_on_its_index_seed_and_split_alone(one, several, name):
    assert [pair.id for pair in several(3, seed=2)] == [f"{name}-test-2-{i}" for i in range(3)]
    assert several(3, seed=2)[2].image.tobytes() == one(2, seed=2).image.tobytes()
    others = [one(2, seed=2), one(2, seed=3), one(3, seed=2), one(2, seed=2, split="train")]
    assert len({pair.image.tobytes() for pair in others}) == len({pair.id for pair in others}) == 4
    with pytest.raises(ValueError, match="'train' or 'test'"):
        one(0, split="val")


def assert_same(pairs, others):
    for pair, other in zip(pairs, others, strict=True):
        assert (pair.id, pair.caption, pair.boxes) == (other.id, other.caption, other.boxes)
        assert pair.image.tobytes() == other.image.tobytes()
        for box, same in zip(pair.boxes, other.boxes, strict=True):
            assert (box.mask == same.mask).all()


@pytest.mark.parametrize("name", KINDS)
def test_the_shipped_pictures_are_those_that_are_drawn_with_seed_1(name):
    generator, count = KINDS[name]
    assert_same(load_pairs(name), generator(count, seed=1))


@pytest.mark.parametrize(("name", "generator"), [("scenes", scenes), ("radiographs", radiographs)])
def test_draw_makes_a_folder_that_load_pairs_reads(tmp_path, script, name, generator):
    script(draw, name, "--seed", "7", "--count", "3", "--out", str(tmp_path / "new" / "folder"))
    assert_same(load_pairs(tmp_path / "new" / "folder"), generator(3, seed=7))


def pairs_of_kinds(pair):
    shown = sorted({LABELS.index(box.label) for box in pair.boxes})
    return list(combinations(shown, 2))


def test_held_out_combinations_are_never_trained_and_always_tested():
    table = held_out(len(kinds()))
    assert 0.05 < table.mean() < 0.15
    assert not any(table[a, b] for pair in scenes(300, split="train") for a, b in pairs_of_kinds(pair))
    several = [found for pair in scenes(300, split="test") if (found := pairs_of_kinds(pair))]
    new = [any(table[a, b] for a, b in found) for found in several]
    assert np.mean(new) >= 0.98  # an object may be hidden behind another


def test_captions_of_scenes_name_what_is_named_and_nothing_else():
    grounds = {word for place in PLACES for word in place.split()}
    for pair in scenes(200, seed=1):
        words = set(pair.caption.replace(",", "").split())
        unnamed = {box.label for box in pair.boxes if not box.named} - grounds
        assert set() < pair.words() <= words
        assert not unnamed & words


@pytest.mark.parametrize("generator", [scenes, radiographs])
def test_captions_are_english_and_the_testbeds_tokenizer_knows_every_word(clip, generator):
    captions = [pair.caption for pair in generator(900, seed=4)]
    text, ids = "|".join(f" {caption} " for caption in captions), clip.tokenizer(captions).input_ids
    assert " there are " in text
    assert not re.search(WRONG, text)
    assert clip.tokenizer.unk_token_id not in {token for caption in ids for token in caption}
    assert max(map(len, ids)) <= clip.model.config.text_config.max_position_embeddings


def test_the_number_and_the_article_of_a_phrase_fit_the_object():
    phrases = [_phrase(LABELS.index(label), n) for label, n in (("mouse", 2), ("owl", 1), ("scissors", 1), ("cheese", 3))]
    assert phrases == [("two mice", "mice"), ("an owl", "owl"), ("scissors", "scissors"), ("three pieces of cheese", "cheese")]


def test_distinct_scenes_name_everything_and_never_repeat_a_set():
    found = distinct_scenes(60, seed=2)
    assert all(box.named for pair in found for box in pair.boxes)
    assert len({frozenset(box.label for box in pair.boxes) for pair in found}) == 60


def test_each_combination_is_shown_once_in_one_of_each_and_in_a_batch_of_training_pictures():
    n, findings = len(COMBINATIONS), [finding for finding, _, _ in COMBINATIONS]
    pairs = one_of_each(seed=4)
    assert [pair.boxes[0].label for pair in pairs] == findings
    assert {pair.id for pair in pairs} == {pair.id for pair in radiographs(n, seed=4)}
    for start in (0, n, 5 * n):
        batch = [radiograph(start + i, split="train") for i in range(n)]
        assert sorted(pair.boxes[0].label for pair in batch) == sorted(findings)


def test_a_finding_lies_where_its_caption_says_and_the_patients_left_is_the_pictures_right():
    rows = defaultdict(list)
    for seed in range(6):
        for (finding, side, zone), pair in zip(COMBINATIONS, one_of_each(seed), strict=True):
            lie_right = [box.x + box.w / 2 > MIDDLE for box in pair.boxes]
            assert lie_right == {"left": [True], "right": [False], "bilateral": [False, True], "": [True]}[side]
            assert zone == "heart" or not np.any([box.mask[:, MIDDLE] for box in pair.boxes])
            rows[finding, zone] += [box.y + box.h / 2 for box in pair.boxes]
            words = set(pair.caption.split())
            assert not {"left", "right"} - {side} & words
            assert zone in ("heart", "hila") or side in words
            assert zone not in ("upper", "mid") or {zone, f"{zone}lung"} & words
    for finding in ("opacity", "consolidation", "nodule"):
        assert max(rows[finding, "upper"]) < min(rows[finding, "mid"])
        assert max(rows[finding, "mid"]) < min(rows[finding, "lower"])


def test_a_finding_changes_the_pixels_of_its_mask_and_no_others():
    for index, pair in enumerate(radiographs(200, seed=1)):
        chest = Chest(_generator(index, 1, "test"))
        without = np.asarray(chest.film(chest.density), int)
        changed = np.abs(np.asarray(pair.image, int) - without)
        masks = np.any([box.mask for box in pair.boxes], axis=0)
        assert changed[~masks].max() <= ENOUGH, pair.caption
        for box in pair.boxes:
            assert changed[box.mask].max() > ENOUGH, (pair.caption, box)


def test_captions_of_radiographs_name_what_is_there_and_nothing_else():
    stems = {finding.split()[-1][:-1] for finding, _, _ in COMBINATIONS}  # "opacit" is in both "opacity" and "opacities"
    for pair in radiographs(300, seed=2):
        named = pair.boxes[0].label
        assert all(box.named == (box.label == named) for box in pair.boxes)
        own = named.split()[-1][:-1]
        assert {stem for stem in stems if stem in pair.caption} == {own}
        (word,) = pair.words()
        assert own in word
        assert word in pair.caption.split()


@pytest.mark.parametrize("name", ["testbed", "radiographs"])  # the twins take those of what they were trained from
def test_the_settings_of_each_method_are_those_that_the_table_of_tries_chooses(name):
    tries, settings = pd.read_csv(BUILT_IN[name] / "tuning.csv"), json.loads((BUILT_IN[name] / "settings.json").read_text())
    assert tries.groupby(["method", "section"]).size().max() == TRIES
    assert choose(tries.to_dict("records")) == {section: of for section, of in settings.items() if section != "power"}
