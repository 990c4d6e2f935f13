import hashlib
import re
from itertools import combinations

import numpy as np
import pytest
from backgrounds import PLACES
from PIL import Image
from scenes import _phrase, distinct_scenes, held_out, kinds, scene, scenes

from m2ib_lite.data import open_image

LABELS = [row["singular"].split()[-1] for row in kinds()]


def test_scenes_have_the_same_bytes_everywhere():
    digest = hashlib.sha256()
    for pair in scenes(12, seed=5) + scenes(12, seed=5, split="train"):
        digest.update(pair.image.tobytes() + pair.caption.encode() + repr(pair.boxes).encode())
    assert digest.hexdigest()[:16] == "0a8683248a6a16a5"


def test_a_scene_depends_on_its_index_seed_and_split_alone():
    assert [pair.id for pair in scenes(3, seed=2)] == [pair.id for pair in scenes(9, seed=2)[:3]]
    assert scenes(3, seed=2)[2].image.tobytes() == scene(2, seed=2).image.tobytes()
    others = [scene(2, seed=2), scene(2, seed=3), scene(3, seed=2), scene(2, seed=2, split="train")]
    assert len({pair.image.tobytes() for pair in others}) == len({pair.id for pair in others}) == 4
    with pytest.raises(ValueError, match="'train' or 'test'"):
        scene(0, split="val")


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


def test_boxes_are_the_tight_hulls_of_the_visible_masks():
    for pair in scenes(40, seed=1):
        total = np.zeros((112, 112), int)
        for box in pair.boxes:
            rows, columns = np.nonzero(box.mask)
            assert (rows.min(), rows.max(), columns.min(), columns.max()) == (box.y, box.y + box.h - 1, box.x, box.x + box.w - 1)
            total += box.mask
        assert total.max() == 1  # a pixel shows one object
        assert not total[~(pair.region() | pair.region(named=False))].any()


def test_captions_name_what_is_named_and_nothing_else():
    for pair in scenes(200, seed=1):
        words = pair.caption.replace(",", "").split()
        assert pair.words() <= set(words)
        assert pair.words()
        grounds = {word for place in PLACES for word in place.split()}
        unnamed = {box.label for box in pair.boxes if not box.named} - grounds
        assert not unnamed & set(words)


def test_captions_are_english():
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


RGB = Image.new("RGB", (6, 4), (200, 100, 50))


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "RGBA", "LA", "YCbCr", "I;16", "I", "F"])
def test_every_mode_becomes_rgb(mode):
    image = Image.new(mode, (6, 4)) if mode in ("I;16", "I", "F") else RGB.convert(mode)
    assert (open_image(image).mode, open_image(image).size) == ("RGB", (6, 4))


def test_colours_survive_and_transparency_shows_white():
    assert open_image(RGB.convert("CMYK")).getpixel((0, 0)) == pytest.approx((200, 100, 50), abs=3)
    palette = RGB.quantize(2)
    assert open_image(palette).getpixel((0, 0)) == pytest.approx((200, 100, 50), abs=3)
    clear = RGB.convert("RGBA")
    clear.putalpha(0)
    assert open_image(clear).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bits_are_scaled_and_not_clipped():
    ramp = np.array([[0, 257 * 10, 257 * 100, 65535]], dtype=np.uint16)
    for source in (ramp, ramp.astype(">u2"), Image.fromarray(ramp), Image.fromarray(ramp.astype(np.int32))):
        assert np.asarray(open_image(source))[0, :, 0].tolist() == [0, 10, 100, 255]
    with pytest.raises(ValueError, match="16 bits, 0 to 65535"):
        open_image(Image.fromarray(ramp.astype(np.int32) + 1))


def test_float_images_hold_shares_of_white():
    ramp = np.array([[0, 0.2, 1]], dtype=np.float32)
    assert np.asarray(open_image(Image.fromarray(ramp)))[0, :, 0].tolist() == [0, 51, 255]
    with pytest.raises(ValueError, match="from 0 to 1"):
        open_image(Image.fromarray(ramp * 255))


def test_a_photo_stands_as_its_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    RGB.save(tmp_path / "phone.jpg", exif=exif)
    assert open_image(tmp_path / "phone.jpg").size == (4, 6)


def test_arrays_and_paths_give_the_same_image(tmp_path):
    RGB.save(tmp_path / "a.png")
    array = np.asarray(RGB)
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), array, array / 255.0, (array / 255.0).astype(np.float32)):
        assert open_image(source).tobytes() == RGB.tobytes()


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (np.zeros((0, 5, 3), np.uint8), ValueError, "no pixels"),
        (Image.new("RGB", (0, 5)), ValueError, "0 x 5 pixels"),
        (np.zeros((2, 3, 5), np.uint8), ValueError, "C of 1, 3 or 4"),
        (np.zeros((3, 3)) + 2.0, ValueError, "from 0 to 1"),
        (np.full((3, 3), np.nan), ValueError, "from 0 to 1"),
        (np.zeros((3, 3), np.int64), ValueError, "convert it"),
        ("no/such.png", FileNotFoundError, "no image file"),
        (b"bytes", TypeError, "a path, a PIL image or an array"),
    ],
)
def test_what_is_no_image_is_refused_by_name(source, error, message):
    with pytest.raises(error, match=message):
        open_image(source)


def test_a_file_that_is_no_image_is_refused_by_name(tmp_path):
    RGB.save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:50])
    (tmp_path / "lie.jpg").write_text("not a picture")
    for name in ("cut.png", "lie.jpg"):
        with pytest.raises(ValueError, match=f"{name} is not an image"):
            open_image(tmp_path / name)
