import hashlib
from collections import defaultdict

import numpy as np
import pytest
from chest import Chest
from radiographs import COMBINATIONS, _generator, one_of_each, radiograph, radiographs

MIDDLE = 56
ENOUGH = 24  # grey levels that a finding's border may change


def change(index, pair, seed, split="test"):
    """What the findings changed, in grey levels: the picture less the same chest without them.  -> (H, W)"""
    chest = Chest(_generator(index, seed, split))
    return np.asarray(pair.image).astype(int)[..., 0] - np.asarray(chest.film(chest.density)).astype(int)[..., 0]


def test_radiographs_have_the_same_bytes_everywhere():
    digest = hashlib.sha256()
    for pair in radiographs(40, seed=5) + radiographs(40, seed=5, split="train"):
        digest.update(pair.image.tobytes() + pair.caption.encode() + repr(pair.boxes).encode())
    assert digest.hexdigest()[:16] == "8fdda6c34e4a0795"


def test_a_radiograph_depends_on_its_index_seed_and_split_alone():
    assert [pair.id for pair in radiographs(3, seed=2)] == [f"radiographs-test-2-{i}" for i in range(3)]
    assert radiographs(3, seed=2)[2].image.tobytes() == radiograph(2, seed=2).image.tobytes()
    others = [radiograph(2, seed=2), radiograph(2, seed=3), radiograph(3, seed=2), radiograph(2, seed=2, split="train")]
    assert len({pair.image.tobytes() for pair in others}) == 4
    with pytest.raises(ValueError, match="'train' or 'test'"):
        radiograph(0, split="val")


def test_pictures_are_grey_and_of_the_models_size():
    for pair in radiographs(5, seed=1):
        pixels = np.asarray(pair.image)
        assert pixels.shape == (112, 112, 3)
        assert (pixels == pixels[..., :1]).all()


def test_one_of_each_shows_every_combination_and_nothing_else():
    pairs = one_of_each(seed=4)
    assert [pair.boxes[0].label for pair in pairs] == [finding for finding, _, _ in COMBINATIONS]
    assert all(box.named for pair in pairs for box in pair.boxes)
    assert len(set(COMBINATIONS)) == len(COMBINATIONS)
    assert {pair.id for pair in pairs} == {pair.id for pair in radiographs(len(COMBINATIONS), seed=4)}


def test_a_batch_of_training_pictures_never_repeats_a_combination():
    n = len(COMBINATIONS)
    for start in (0, n, 5 * n):
        pairs = [radiograph(start + i, split="train") for i in range(n)]
        assert sorted(pair.boxes[0].label for pair in pairs) == sorted(finding for finding, _, _ in COMBINATIONS)


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


def test_boxes_are_the_tight_hulls_of_the_masks():
    for pair in radiographs(64, seed=1):
        for box in pair.boxes:
            rows, columns = np.nonzero(box.mask)
            assert (rows.min(), rows.max(), columns.min(), columns.max()) == (box.y, box.y + box.h - 1, box.x, box.x + box.w - 1)


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


def test_captions_name_what_is_there_and_nothing_else():
    nouns = {finding.split()[-1] for finding, _, _ in COMBINATIONS}
    stems = {noun[:-1] for noun in nouns}  # "opacit" is in both "opacity" and "opacities"
    for pair in radiographs(300, seed=2):
        box = pair.boxes[0]
        assert pair.words() == {box.word}
        assert box.word in pair.caption.split()
        own = box.label.split()[-1][:-1]
        assert own in box.word
        assert not [stem for stem in stems - {own} if stem in pair.caption]


def test_captions_name_the_place():
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


def test_captions_are_english():
    text = "|".join(f" {pair.caption} " for pair in radiographs(900, seed=4))
    for wrong in (" a ill", " a opacit", " a airspace", " a extensive", " an left", " an opacities", " are opacity ", "  "):
        assert wrong not in text
    assert " there are " in text
    assert " there is a small " in text
    assert "opacities is" not in text
    assert " there is a consolidation" not in text
