"""The explorer without a browser: its widgets are set from here, as a browser sets them."""

import io
import re
from datetime import UTC, datetime
from threading import Event

import numpy as np
import pytest
import torch
from PIL import Image

import m2ib_lite
from m2ib_lite import explain, explain_words
from m2ib_lite.data import load_pairs
from m2ib_lite.widgets import Explorer
from m2ib_lite.widgets import explorer as explorer_module
from m2ib_lite.widgets.latest import Latest
from m2ib_lite.widgets.pictures import MARK, SIDE, draw_map, png
from m2ib_lite.widgets.wish import FILE

QUICK = dict(steps=3, samples=2)
CAPTION = "an eagle and a guitar"


@pytest.fixture
def explorer(clip):
    made = Explorer(clip)
    for name, value in QUICK.items():
        made.settings.effort[name].value = value
    return settle(made)


def settle(explorer):
    explorer.settled.result(timeout=120)
    return explorer


def write(explorer, caption, n=0):
    explorer.captions[n].value = caption
    return settle(explorer)


def upload(explorer, content, name="mine.png"):
    kind = dict(type="image/png", size=len(content), last_modified=datetime.now(UTC))
    explorer.upload.value = (dict(name=name, content=memoryview(content), **kind),)
    return settle(explorer)


def shown(explorer, place=0):
    """The picture of a panel, as an array."""
    return np.asarray(Image.open(io.BytesIO(explorer.panels[place].picture.value)).convert("RGB"))


def test_only_the_newest_wish_is_worked_at():
    latest, begun, go_on, done = Latest(), Event(), Event(), []

    def slow(check):
        begun.set()
        go_on.wait(timeout=60)
        check()
        done.append("oldest")

    latest.ask(slow)
    begun.wait(timeout=60)
    latest.ask(lambda check: done.append("older"))
    newest = latest.ask(lambda check: done.append("newest"))
    go_on.set()
    newest.result(timeout=60)
    assert done == ["newest"]


def test_a_slow_method_is_left_for_a_newer_wish_and_the_model_is_as_it_was(explorer, clip):
    explorer.methods["rise"].value = True
    while len(clip.image.norms[-1]._forward_hooks) == 0 and not explorer.settled.done():
        pass
    explorer.methods["rise"].value = False
    write(explorer, CAPTION)
    assert list(explorer.found) == [(0, None)]
    assert not any("rise" in key[1] for key in explorer.kept)
    assert not clip.image.norms[-1]._forward_hooks
    torch.testing.assert_close(explorer.at_step((0, None)).image_maps, explained(explorer, clip).image_maps)


def explained(explorer, clip):
    pair = load_pairs("scenes")[explorer.number.value]
    return explain(clip, pair.image, explorer.captions[0].value, antithetic=True, progress=False, **QUICK)


def test_a_picture_brings_its_caption_unless_another_was_typed(explorer):
    pairs = load_pairs("scenes")
    explorer.number.value = 7
    assert settle(explorer).captions[0].value == pairs[7].caption
    write(explorer, CAPTION)
    explorer.number.value = 8
    assert settle(explorer).captions[0].value == CAPTION
    assert [button.description for button in explorer.panels[0].words.children] == CAPTION.split()


def test_a_map_is_shown_on_its_way_that_of_a_chosen_word_first(explorer, clip, monkeypatch):
    write(explorer, CAPTION).panels[0].buttons[4].click()
    assert "guitar alone" in explorer.panels[0].title.value  # at once
    settle(explorer)
    drawn = []
    monkeypatch.setattr(explorer_module, "PAUSE", 0)
    monkeypatch.setattr(explorer_module, "EARLY", 0)
    monkeypatch.setattr(explorer_module, "draw_map", lambda *given: drawn.append(given[1].image_maps) or draw_map(*given))
    explorer.settings.effort["seed"].value = 5
    settle(explorer)
    assert len(drawn) > 2
    torch.testing.assert_close(drawn[-1], explorer.at_step((0, 4)).image_maps)
    assert not torch.equal(drawn[0], drawn[-1])  # after fewer steps
    assert list(explorer.kept)[-2][3] == "4"  # the word's, and then the caption's


def test_noise_in_pairs_is_a_choice(explorer, clip):
    explorer.settings.antithetic.value = False
    own = explain(clip, load_pairs("scenes")[0].image, settle(explorer).captions[0].value, progress=False, **QUICK)
    torch.testing.assert_close(explorer.at_step((0, None)).image_maps, own.image_maps)
    assert "antithetic=False" in explorer.code()


def test_a_click_on_a_word_shows_its_own_map_and_a_second_one_the_captions_again(explorer, clip):
    whole = shown(write(explorer, CAPTION))
    column = explorer.panels[0]
    column.buttons[4].click()
    settle(explorer)
    own = explain_words(clip, load_pairs("scenes")[0].image, CAPTION, [4], antithetic=True, **QUICK).maps
    assert torch.equal(explorer.at_step((0, 4)).image_maps, own.image_maps)
    assert "guitar" in column.title.value
    assert (shown(explorer) != whole).any()
    column.buttons[4].click()
    assert (shown(settle(explorer)) == whole).all()


@pytest.mark.filterwarnings("ignore:caption 0 has words")  # "twice" is no word of the testbed's
def test_the_code_finds_what_is_seen(explorer, clip, monkeypatch):
    explorer.settings.options["layer"][0].value = 2
    explorer.settings.options["beta"][1].value = 0.5
    explorer.step.value, explorer.threshold.value = 2, 0.4
    explorer.methods["chefer"].value = True
    write(write(explorer, CAPTION), "a 'snail' twice", 1)
    explorer.panels[1].buttons[1].click()
    settle(explorer)
    monkeypatch.setattr(m2ib_lite, "load_model", lambda name: {"testbed": clip}[name])  # on the device of this one
    found = {}
    exec(explorer.code(), found)
    names = {(0, None): "first", (1, None): "second", (1, 1): "second_word", ("chefer", None): "chefer"}
    assert names.keys() == explorer.found.keys()
    for panel, name in names.items():
        assert torch.equal(explorer.at_step(panel).image_maps, found[name].image_maps)
    assert torch.equal(explorer.at_step((0, None)).text_maps[0], found["first"].text_maps[0])
    assert found["first"].text_maps[0].sum() != explained(explorer, clip).text_maps[0].sum()


def test_the_threshold_shows_the_segment(explorer, clip):
    explorer.threshold.value = 0.5
    (segment,) = explained(explorer, clip).segments("share", level=0.5)
    x, y, width, height = segment.box
    assert f"mask {segment.mask.mean():.1%} of the picture, box {width} × {height} at {x}, {y}" in explorer.panels[0].note.value
    zoom = SIDE / segment.mask.shape[1]
    assert tuple(shown(explorer)[round(zoom * (y + height / 2)), round(zoom * x)]) == MARK
    explorer.threshold.value = 0
    assert "mask" not in explorer.panels[0].note.value


def test_a_bad_file_is_said_in_place_and_the_next_one_is_taken(explorer):
    for content, message in (
        (b"\x89PNG\r\n\x1a\n torn", "mine.png: the image is not an image that can be read"),
        (png(Image.new("L", (9500, 9500))), "mine.png: the image has more than 89,478,485 pixels: save it smaller"),
        (png(Image.new("L", (400, 1))), "mine.png: an image of 400 x 1 pixels is a line"),
    ):
        upload(explorer, content)
        assert message in explorer.message.value
        assert not explorer.maps.children
        upload(explorer, png(Image.new("RGB", (1400, 700), "red")))
        assert not re.search(">[^<]", explorer.message.value)
        assert explorer.found[0, None][0].images[0].size == (1400, 700)
        assert shown(explorer).shape == (SIDE // 2, SIDE, 3)


def test_what_is_wrong_with_a_caption_is_said_in_place(explorer):
    write(explorer, " ")
    assert "the caption is &#x27; &#x27;: give at least one word" in explorer.message.value
    write(explorer, "an owl " * 30)
    assert "the caption is longer than the model&#x27;s 40 positions; cut off:" in explorer.message.value
    assert explorer.maps.children
    explorer.source.value = FILE
    assert "there is no picture: upload one" in settle(explorer).message.value
    explorer.source.value = "scenes"
    write(explorer, CAPTION)
    assert explorer.maps.children


def test_what_is_seen_is_saved(explorer, clip, tmp_path):
    explorer.folder.value, explorer.threshold.value = str(tmp_path / "new"), 0.3
    explorer.save_button.click()
    folder = tmp_path / "new" / "scenes-0"
    assert str(folder) in explorer.saved.value
    with np.load(folder / "first" / "maps.npz") as arrays:
        np.testing.assert_array_equal(arrays["image_maps"], explained(explorer, clip).image_maps)
    assert (folder / "first.png").read_bytes() == explorer.panels[0].picture.value
    mask = np.asarray(Image.open(folder / "first" / "masks" / "scenes-0.png")) > 0
    assert (mask == explained(explorer, clip).segments("share", level=0.3)[0].mask).all()
    assert (folder / "code.py").read_text() == explorer.code() + "\n"
    (tmp_path / "file").write_text("")
    explorer.folder.value = str(tmp_path / "file")
    explorer.save_button.click()
    assert "Not a directory" in explorer.saved.value
