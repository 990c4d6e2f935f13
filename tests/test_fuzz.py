"""Whatever comes in, out comes a result with finite maps, or an error that says what is wrong with it."""

import io
import json
import warnings
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from m2ib_lite import explain, load_model
from m2ib_lite.data import load_pairs, open_image, scenes

SLOW = settings(max_examples=25, deadline=None, derandomize=True, database=None)
QUICK = settings(SLOW, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
CLIP, PAIR = load_model("testbed", device="cpu"), scenes(1)[0]

letters = st.characters() | st.sampled_from("🦉\u200d\u202e\x00\x1b\ud800\udfff\u0301ねقा ")
words = st.sampled_from(["an owl", "two mice", "<eos>", "[UNK]", "owl " * 2500, "x" * 10_000])
captions = st.lists(st.text(letters, max_size=12) | words, max_size=4).map(" ".join)


def attempt(act, *errors):
    """What `act` returns, or None where it raised one of the errors that a user may see, with words in it."""
    caught = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of words that are not known, which here are most
        try:
            return act()
        except errors as error:
            caught = error
    assert len(str(caught)) > 20
    return None


def assert_whole(found):
    assert torch.isfinite(found.image_maps).all()
    assert all(torch.isfinite(text_map).all() for text_map in found.text_maps)
    assert [len(text_map) for text_map in found.text_maps] == list(map(len, found.tokens))


@SLOW
@given(captions)
def test_any_caption_is_explained_or_refused(caption):
    found = attempt(lambda: explain(CLIP, PAIR.image, caption, steps=1, samples=1, progress=False), ValueError)
    if found:
        assert_whole(found)
    else:
        assert not caption.strip() or any("\ud800" <= letter <= "\udfff" for letter in caption)


@SLOW
@given(st.data())
def test_any_picture_is_explained_or_refused(data):
    w, h = (data.draw(st.integers(1, 60) | st.sampled_from([1, 112, 2000])) for _ in "wh")
    mode = data.draw(st.sampled_from(["RGB", "L", "1", "RGBA", "P", "CMYK", "I;16", "F"]))
    image = Image.new(mode, (w, h), data.draw(st.integers(0, 1)))
    found = attempt(lambda: explain(CLIP, image, PAIR.caption, steps=1, samples=1, progress=False), ValueError)
    assert bool(found) == (max(w, h) <= 100 * min(w, h))
    if found:
        assert_whole(found)
        assert found.heat(0).shape == (h, w)
        assert np.isfinite(found.heat(0)).all()


shapes = st.lists(st.integers(0, 5), max_size=4)
kinds = st.sampled_from(["u1", "u2", ">u2", "i8", "f2", "f4", "f8", "?", "c8", "O", "U3"])


@QUICK
@given(shapes, kinds, st.sampled_from([0, 1, -1, 0.5, 255, np.nan, np.inf]))
def test_any_array_is_an_image_or_refused(shape, kind, value):
    assume(not (kind[-2] in "iu?" and not np.isfinite(value)) if len(kind) > 1 else True)
    with np.errstate(all="ignore"):
        array = np.full(shape, value).astype(kind)
    image = attempt(lambda: open_image(array), ValueError)
    assert image is None or (image.mode, image.size) == ("RGB", (shape[1], shape[0]))


def picture(kind):
    file = io.BytesIO()
    PAIR.image.resize((20, 16)).save(file, kind)
    return file.getvalue()


PICTURES = [picture(kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "TGA", "PCX")]


@QUICK
@given(st.data())
def test_any_broken_file_is_an_image_or_refused(tmp_path, data):
    content = bytearray(data.draw(st.sampled_from(PICTURES)))
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, min(len(content) - 1, 300)))] = data.draw(st.integers(0, 255))
    (tmp_path / "broken.jpg").write_bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))])
    image = attempt(lambda: open_image(tmp_path / "broken.jpg"), ValueError)
    assert image is None or image.mode == "RGB"
    with suppress(Exception), Image.open(tmp_path / "broken.jpg") as opened:  # as Pillow does it: not yet decoded
        same = attempt(lambda: open_image(opened), ValueError)
        assert (same is None) == (image is None)


cells = st.sampled_from(
    ["image", "caption", "id", "boxes", "a.png", "a cat", '"', ",", "\t", "\r\n", "\n", "[{}]", "\ufeff", "http://[::1"]
)
written = st.lists(cells | st.text(max_size=4), max_size=30).map("".join).map(lambda text: text.encode(errors="replace"))
numbers = st.integers(-50, 50) | st.floats() | st.none() | st.text(max_size=2)
boxes = st.lists(st.dictionaries(st.sampled_from(["label", "x", "y", "w", "h", "word", "named"]), numbers), max_size=2)
entries = st.dictionaries(st.sampled_from(["image", "caption", "id", "boxes"]), boxes | captions | numbers | st.just("a.png"))
lines = st.lists(entries, max_size=3).map(lambda found: "\n".join(map(json.dumps, found)).encode())


@QUICK
@given(st.sampled_from(["captions.csv", "captions.jsonl", "cc.tsv"]), st.binary(max_size=40) | written | lines, st.booleans())
def test_any_table_is_read_or_refused(tmp_path, name, content, headed):
    PAIR.image.save(tmp_path / "a.png")
    (tmp_path / name).write_bytes((b"image,caption,boxes\n" if headed else b"") + content)
    data = attempt(lambda: load_pairs(tmp_path / name), ValueError)
    if data is not None:
        assert len(set(data.ids)) == len(data) > 0
        assert data.digest()
        for i in range(len(data)):
            attempt(lambda: data[i], ValueError, OSError)  # noqa: B023, called at once


@pytest.mark.parametrize("size", [(1, 1), (20_000, 250), (250, 20_000)])
def test_the_smallest_and_a_long_picture_are_explained(size):
    found = explain(CLIP, Image.new("RGB", size), PAIR.caption, steps=1, samples=1, progress=False)
    assert_whole(found)
    assert found.heat(0).shape == size[::-1]
