"""The drawn pictures: the same everywhere, those that are shipped, and true to their captions, boxes and masks."""

import hashlib
import re
import subprocess
import sys
from collections import defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from backgrounds import PLACES
from chest import Chest
from radiographs import COMBINATIONS, _generator, one_of_each, radiograph, radiographs
from scenes import _phrase, distinct_scenes, held_out, kinds, scene, scenes

from m2ib_lite.data import load_pairs

DRAW = Path(__file__).parents[1] / "data" / "testbed" / "draw.py"
LABELS = [row["singular"].split()[-1] for row in kinds()]
MIDDLE = 56
ENOUGH = 24  # grey levels that a finding's border may change


@pytest.mark.parametrize(
    ("generator", "count", "digest"), [(scenes, 12, "0a8683248a6a16a5"), (radiographs, 40, "8fdda6c34e4a0795")]
)
def test_pictures_have_the_same_bytes_everywhere(generator, count, digest):
    state = hashlib.sha256()
    for pair in generator(count, seed=5) + generator(count, seed=5, split="train"):
        state.update(pair.image.tobytes() + pair.caption.encode() + repr(pair.boxes).encode())
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


@pytest.mark.parametrize(("name", "generator"), [("scenes", scenes), ("radiographs", radiographs), ("retrieval", distinct_scenes)])
def test_the_shipped_pictures_are_those_that_are_drawn_with_seed_1(name, generator):
    assert_same(load_pairs(name, 6), generator(6, seed=1))
    assert_same(load_pairs(name)[-1:], generator(len(load_pairs(name)), seed=1)[-1:])


@pytest.mark.parametrize(("name", "generator"), [("scenes", scenes), ("radiographs", radiographs)])
def test_draw_makes_a_folder_that_load_pairs_reads(tmp_path, name, generator):
    subprocess.run([sys.executable, DRAW, name, "--seed", "7", "--count", "3", "--out", tmp_path / "new" / "folder"], check=True)
    assert_same(load_pairs(tmp_path / "new" / "folder"), generator(3, seed=7))


@pytest.mark.parametrize("generator", [scenes, radiographs])
def test_boxes_are_the_tight_hulls_of_the_visible_masks(generator):
    for pair in generator(64, seed=1):
        for box in pair.boxes:
            rows, columns = np.nonzero(box.mask)
            assert (rows.min(), rows.max(), columns.min(), columns.max()) == (box.y, box.y + box.h - 1, box.x, box.x + box.w - 1)


def test_a_pixel_of_a_scene_shows_one_object_at_most():
    for pair in scenes(40, seed=1):
        assert np.sum([box.mask for box in pair.boxes], axis=0).max() == 1


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
    for pair in scenes(200, seed=1):
        words = pair.caption.replace(",", "").split()
        assert pair.words() <= set(words)
        assert pair.words()
        grounds = {word for place in PLACES for word in place.split()}
        unnamed = {box.label for box in pair.boxes if not box.named} - grounds
        assert not unnamed & set(words)


def test_captions_of_scenes_are_english():
    phrases = [_phrase(LABELS.index(label), n) for label, n in (("mouse", 2), ("owl", 1), ("scissors", 1), ("cheese", 3))]
    assert phrases == [("two mice", "mice"), ("an owl", "owl"), ("scissors", "scissors"), ("three pieces of cheese", "cheese")]
    text = " | ".join(pair.caption for pair in scenes(400, seed=4))
    assert not re.search(r" a [aeiou]", text)
    assert not re.search(r" an [^aeiou]", text)
    assert "there are a " not in text
    assert "there is two" not in text
    assert "there is three" not in text
    assert "  " not in text


def test_distinct_scenes_name_everything_and_never_repeat_a_set():
    found = distinct_scenes(60, seed=2)
    assert all(box.named for pair in found for box in pair.boxes)
    assert len({frozenset(box.label for box in pair.boxes) for pair in found}) == 60


def change(index, pair, seed, split="test"):
    """What the findings changed, in grey levels: the picture less the same chest without them.  -> (H, W)"""
    chest = Chest(_generator(index, seed, split))
    return np.asarray(pair.image).astype(int)[..., 0] - np.asarray(chest.film(chest.density)).astype(int)[..., 0]


def test_radiographs_are_grey_and_of_the_models_size():
    for pair in radiographs(5, seed=1):
        pixels = np.asarray(pair.image)
        assert pixels.shape == (112, 112, 3)
        assert (pixels == pixels[..., :1]).all()


def test_each_combination_is_shown_once_in_one_of_each_and_in_a_batch_of_training_pictures():
    n = len(COMBINATIONS)
    findings = [finding for finding, _, _ in COMBINATIONS]
    pairs = one_of_each(seed=4)
    assert len(set(COMBINATIONS)) == n
    assert [pair.boxes[0].label for pair in pairs] == findings
    assert all(box.named for pair in pairs for box in pair.boxes)
    assert {pair.id for pair in pairs} == {pair.id for pair in radiographs(n, seed=4)}
    for start in (0, n, 5 * n):
        batch = [radiograph(start + i, split="train") for i in range(n)]
        assert sorted(pair.boxes[0].label for pair in batch) == sorted(findings)


def test_the_patients_left_is_the_pictures_right():
    for seed in range(6):
        for (_, side, zone), pair in zip(COMBINATIONS, one_of_each(seed), strict=True):
            centres = [box.x + box.w / 2 for box in pair.boxes]
            assert [x > MIDDLE for x in centres] == {"left": [True], "right": [False], "bilateral": [False, True], "": [True]}[side]
            assert zone == "heart" or not np.any([box.mask[:, MIDDLE] for box in pair.boxes])


def test_upper_is_above_mid_is_above_lower():
    rows = defaultdict(list)
    for seed in range(6):
        for (finding, _, zone), pair in zip(COMBINATIONS, one_of_each(seed), strict=True):
            rows[finding, zone] += [box.y + box.h / 2 for box in pair.boxes]
    for finding in ("opacity", "consolidation", "nodule"):
        assert max(rows[finding, "upper"]) < min(rows[finding, "mid"])
        assert max(rows[finding, "mid"]) < min(rows[finding, "lower"])


def test_a_finding_changes_its_mask_and_no_pixel_outside_the_boxes():
    for index, pair in enumerate(radiographs(200, seed=1)):
        changed = np.abs(change(index, pair, seed=1))
        assert changed[~(pair.region() | pair.region(named=False))].max() <= ENOUGH, pair.caption
        masks = np.any([box.mask for box in pair.boxes], axis=0)
        assert changed[~masks].max() <= ENOUGH, pair.caption
        for box in pair.boxes:
            assert changed[box.mask].max() > ENOUGH, (pair.caption, box)


def test_findings_look_as_they_are_called():
    area, change_of, peak = defaultdict(list), defaultdict(list), defaultdict(list)
    for index, pair in enumerate(radiographs(128, seed=3, distractors=False)):
        changed, label = change(index, pair, seed=3), pair.boxes[0].label
        for box in pair.boxes:
            area[label].append(box.mask.sum())
            change_of[label].append(changed[box.mask].mean())
            peak[label].append(np.percentile(changed[box.mask], 90))
    assert all((np.mean(change_of[label]) < 0) == (label == "pneumothorax") for label in change_of)
    assert max(area["nodule"]) < min(area["consolidation"])
    assert max(area["atelectasis"]) < min(area["edema"])
    assert np.mean(peak["opacity"]) < 0.7 * np.mean(peak["consolidation"])
    assert len(area) == 8


def test_one_in_three_shows_an_unnamed_finding_elsewhere():
    pairs = radiographs(300, seed=6)
    others = [[box for box in pair.boxes if not box.named] for pair in pairs]
    assert 0.25 < np.mean([bool(boxes) for boxes in others]) < 0.42
    for pair, boxes in zip(pairs, others, strict=True):
        assert not {box.label for box in boxes} & {box.label for box in pair.boxes if box.named}
        assert all(box.word == "" for box in boxes)
    assert all(box.named for pair in radiographs(60, seed=6, distractors=False) for box in pair.boxes)


def test_captions_of_radiographs_name_what_is_there_and_nothing_else():
    nouns = {finding.split()[-1] for finding, _, _ in COMBINATIONS}
    stems = {noun[:-1] for noun in nouns}  # "opacit" is in both "opacity" and "opacities"
    for pair in radiographs(300, seed=2):
        box = pair.boxes[0]
        assert pair.words() == {box.word}
        assert box.word in pair.caption.split()
        own = box.label.split()[-1][:-1]
        assert own in box.word
        assert not [stem for stem in stems - {own} if stem in pair.caption]


def test_captions_of_radiographs_name_the_place():
    for seed in range(6):
        for (_, side, zone), pair in zip(COMBINATIONS, one_of_each(seed), strict=True):
            words = pair.caption.split()
            assert not {"left", "right"} - {side} & set(words)
            assert zone in ("heart", "hila") or side in words
            if zone in ("upper", "mid"):
                assert {zone, f"{zone}lung"} & set(words)


def test_the_testbeds_tokenizer_knows_every_word(clip):
    pairs = radiographs(600, seed=7) + radiographs(600, seed=8, split="train")
    ids = clip.tokenizer([pair.caption for pair in pairs]).input_ids
    assert clip.tokenizer.unk_token_id not in {token for caption in ids for token in caption}
    assert max(map(len, ids)) <= clip.model.config.text_config.max_position_embeddings


def test_captions_of_radiographs_are_english():
    text = "|".join(f" {pair.caption} " for pair in radiographs(900, seed=4))
    for wrong in (" a ill", " a opacit", " a airspace", " a extensive", " an left", " an opacities", " are opacity ", "  "):
        assert wrong not in text
    assert " there are " in text
    assert " there is a small " in text
    assert "opacities is" not in text
    assert " there is a consolidation" not in text
