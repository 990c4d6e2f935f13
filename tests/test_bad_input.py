"""Whatever comes in, out comes a result with finite maps, or an error that says what is wrong with it."""

import errno
import io
import json
import pickle
import warnings
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hostile import Hostile
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from scenes import scenes

from m2ib_lite import explain, load_model
from m2ib_lite.data import load_pairs, open_image

SLOW = settings(max_examples=25, deadline=None, derandomize=True, database=None)
QUICK = settings(SLOW, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
PAIR = scenes(1)[0]

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
def test_any_caption_is_explained_or_refused(clip, caption):
    found = attempt(lambda: explain(clip, PAIR.image, caption, steps=1, samples=1, progress=False), ValueError)
    if found:
        assert_whole(found)
    else:
        assert not caption.strip() or any("\ud800" <= letter <= "\udfff" for letter in caption)


sides = st.integers(1, 60) | st.sampled_from([1, 112, 2000])


@SLOW
@given(sides, sides, st.sampled_from(["RGB", "L", "1", "RGBA", "P", "CMYK", "I;16", "F"]), st.integers(0, 1))
@example(1, 1, "RGB", 0)
@example(20_000, 250, "RGB", 0)
@example(250, 20_000, "RGB", 0)
@example(20_000, 1, "RGB", 0)  # of which preprocessing would make gigabytes
def test_any_picture_is_explained_or_refused(clip, w, h, mode, value):
    image = Image.new(mode, (w, h), value)
    found = attempt(lambda: explain(clip, image, PAIR.caption, steps=1, samples=1, progress=False), ValueError)
    assert bool(found) == (max(w, h) <= 100 * min(w, h))
    if found:
        assert_whole(found)
        assert found.heat(0).shape == (h, w)
        assert np.isfinite(found.heat(0)).all()


RGB = Image.new("RGB", (6, 4), (204, 102, 51))  # a colour of the palette of "P"
CLEAR = Image.new("RGBA", (6, 4), (204, 102, 51, 0))
EXIF = Image.Exif()
EXIF[0x0112] = 6  # turned by 90 degrees


def packed(image, kind, **options):
    """An image as a file's bytes."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


NOTE = packed(RGB, "WEBP", exif=EXIF).replace(b"MM\x00*", b"M?\x00*").replace(b"II*\x00", b"I?*\x00")  # broken, in a whole picture
LAZY = Image.open(io.BytesIO(packed(PAIR.image, "PNG")[:200]))  # which Pillow opens and cannot decode


@pytest.mark.parametrize(
    ("image", "colour"),
    [(RGB.convert(mode), (204, 102, 51)) for mode in ("RGB", "P", "CMYK", "RGBA", "YCbCr")]
    + [(RGB.convert(mode), (127, 127, 127)) for mode in ("L", "LA")]
    + [(CLEAR, (255, 255, 255)), (Image.new("1", (6, 4), 1), (255, 255, 255))],
)
def test_every_mode_becomes_rgb_and_transparency_white(image, colour):
    found = open_image(image)
    assert (found.mode, found.size) == ("RGB", (6, 4))
    assert found.getpixel((0, 0)) == pytest.approx(colour, abs=3)


RAMP = np.array([[0, 257 * 10, 257 * 100, 65535]], dtype=np.uint16)
WIDE, SHARES = RAMP.astype(np.int32), RAMP.astype(np.float32) / 65535


@pytest.mark.parametrize("source", [RAMP, RAMP.astype(">u2"), SHARES, *map(Image.fromarray, (RAMP, WIDE, SHARES))])
def test_sixteen_bits_and_shares_of_white_are_scaled_and_not_clipped(source):
    assert np.asarray(open_image(source))[0, :, 0].tolist() == [0, 10, 100, 255]


def test_arrays_tensors_bytes_and_paths_give_the_same_image(tmp_path):
    RGB.save(tmp_path / "a.png")
    array, path = np.asarray(RGB), tmp_path / "a.png"
    shares = torch.tensor(array / 255.0).movedim(-1, 0)
    for source in (path, str(path), path.read_bytes(), array, array / 255.0, (array / 255.0).astype(np.float32)):
        assert open_image(source).tobytes() == RGB.tobytes()
    for tensor in (shares, shares.float(), shares.double().requires_grad_(), torch.tensor(array).movedim(-1, 0)):
        assert open_image(tensor).tobytes() == RGB.tobytes()
    gray = torch.linspace(0, 1, 24).reshape(1, 4, 6)
    assert open_image(gray).tobytes() == open_image(gray[0]).tobytes() == open_image(gray[0].numpy()).tobytes()


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (np.zeros((0, 5, 3), np.uint8), ValueError, "has pixels"),
        (Image.new("RGB", (0, 5)), ValueError, "0 x 5 pixels"),
        (np.zeros((2, 3, 5), np.uint8), ValueError, "C of 1, 3 or 4"),
        (np.zeros((3, 3)) + 2.0, ValueError, "from 0 to 1"),
        (np.full((3, 3), np.nan), ValueError, "from 0 to 1"),
        (torch.ones(3, 4, 6) * 255, ValueError, "from 0 to 1"),
        (Image.fromarray(SHARES * 255), ValueError, "from 0 to 1"),
        (Image.fromarray(WIDE + 1), ValueError, "16 bits, 0 to 65535"),
        (np.zeros((1, 20_000, 3), np.uint8), ValueError, "20000 x 1 pixels is a line or has none: crop it"),
        (np.zeros((3, 3), np.int64), ValueError, "convert it"),
        ("no/such.png", FileNotFoundError, "No such file"),
        (b"bytes", ValueError, r"the image is not an image that can be read \(of no known format\)"),
        pytest.param(NOTE, ValueError, r"the image is not an image that can be read .*TIFF", id="note"),
        (LAZY, ValueError, "the image is not an image that can be read"),
        (7, TypeError, "a path, a PIL image, an array"),
    ],
)
def test_what_is_no_image_is_refused_by_name(source, error, message):
    with pytest.raises(error, match=message):
        open_image(source)


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


PICTURES = [packed(PAIR.image.resize((20, 16)), kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000")]


@QUICK
@given(st.data())
def test_any_broken_file_is_an_image_or_refused(tmp_path, data):
    content = bytearray(data.draw(st.sampled_from(PICTURES)))
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, min(len(content) - 1, 300)))] = data.draw(st.integers(0, 255))
    (tmp_path / "broken.jpg").write_bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))])
    image = attempt(lambda: open_image(tmp_path / "broken.jpg"), ValueError)
    assert image is None or image.mode == "RGB"


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


@pytest.mark.parametrize("factor", [2, 100])  # Pillow warns of the one and refuses the other
def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch, factor):
    Image.new("1", (100, 100)).save(tmp_path / "bomb.png")
    open_image(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000 * 1.5 // factor)
    with pytest.raises(ValueError, match=r"bomb\.png has more than [\d,.]+ pixels: save it smaller"):
        open_image(tmp_path / "bomb.png")


def test_a_name_may_lie_about_the_format_but_not_about_being_a_picture_and_no_program_is_run(tmp_path, monkeypatch):
    PAIR.image.save(tmp_path / "a.jpg", "PNG")
    assert open_image(tmp_path / "a.jpg").tobytes() == PAIR.image.tobytes()
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was run"))
    PAIR.image.save(tmp_path / "script.jpg", "EPS")
    (tmp_path / "page.jpg").write_text("<!DOCTYPE html><html><body>404</body></html>")
    for name in ("script.jpg", "page.jpg"):
        with pytest.raises(ValueError, match=rf"{name} is not an image that can be read .*: convert it"):
            open_image(tmp_path / name)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_a_photo_stands_as_its_exif_says(tmp_path, kind):
    RGB.save(tmp_path / "phone", kind, exif=EXIF)
    assert open_image(tmp_path / "phone").size == (4, 6)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(
    "fault", [PermissionError(errno.EACCES, "denied"), OSError(errno.EIO, "input/output error"), MemoryError()]
)
def test_a_fault_of_the_machine_is_not_put_down_to_the_picture(tmp_path, monkeypatch, fault, lazy):
    PAIR.image.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        monkeypatch.setattr("PIL.ImageFile.ImageFile.load", Mock(side_effect=fault))
        with pytest.raises(type(fault)) as caught:
            open_image(image if lazy else tmp_path / "a.png")
    if isinstance(fault, OSError):
        assert caught.value.errno == fault.errno
        assert lazy or str(tmp_path / "a.png") in str(caught.value)


def test_a_message_does_not_repeat_ten_thousand_letters(clip):
    with pytest.warns(UserWarning, match="caption 0") as caught:
        clip.tokens(["x" * 10_000 + " owl" * 2500])
    assert len(caught) == 2
    assert all(len(str(warning.message)) < 400 for warning in caught)
    with pytest.raises(ValueError, match="half a character") as refused:
        clip.tokens(["an owl", "\ud800" * 10_000])
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("save", [torch.save, lambda content, file: file.write_bytes(pickle.dumps(content, 2))])
def test_the_code_that_a_checkpoint_holds_is_refused(folder, save):
    (folder / "model.safetensors").unlink()
    save({"logit_scale": Hostile(folder / "ran")}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="holds more than weights: get the weights as safetensors"):
        load_model(str(folder))
    assert not (folder / "ran").exists()
    pickle.loads(pickle.dumps(Hostile(folder / "ran")))
    assert (folder / "ran").exists()  # so it is hostile


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.99])
def test_a_checkpoint_cut_short_is_refused(folder, name, share):
    if name.endswith("bin"):
        (folder / "model.safetensors").unlink()
        torch.save({"logit_scale": torch.ones(1000)}, folder / name)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match=r"cannot be read|is torn or holds more"):
        load_model(str(folder))
