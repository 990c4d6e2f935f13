import re
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from radiographs import radiographs

from m2ib_lite import Attribution, exports, load_model
from m2ib_lite.exports import save_segments, table
from m2ib_lite.plots import draw_heat, own_scale, seen_heat

PAGE = Path(__file__).parents[1] / "docs" / "masks.md"
SIZES = [(31, 20), (50, 24)]  # width, height


@pytest.fixture
def attribution():
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)) for width, height in SIZES]
    maps = torch.tensor(rng.gamma(1.0, size=(2, 4, 4)), dtype=torch.float32)
    texts, tokens = [torch.tensor([1.0, 3.0]), torch.tensor([0.5])], [["an", "owl"], ["猫"]]
    return Attribution(maps, texts, tokens, images, ["an owl", "猫"], [(0, 0, 31, 20), (13, 0, 37, 24)])


def files_in(folder):
    """{name: content}"""
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_all_numbers_come_back_without_pickle_and_the_others_where_one_modality_is_absent(attribution, tmp_path):
    attribution.save(tmp_path / "maps", ["case-1", "case_2.a"])
    kept = dict(np.load(tmp_path / "maps" / "maps.npz", allow_pickle=False))
    np.testing.assert_array_equal(kept["image_maps"], attribution.image_maps)
    np.testing.assert_array_equal(kept["text_maps"], [[1, 3], [0.5, np.nan]])
    assert (kept["n_tokens"].tolist(), kept["tokens"].tolist()) == ([2, 1], [["an", "owl"], ["猫", ""]])
    assert (kept["ids"].tolist(), kept["captions"].tolist()) == (["case-1", "case_2.a"], attribution.captions)
    assert [tuple(view) for view in kept["views"]] == attribution.views
    assert [tuple(size) for size in kept["sizes"]] == SIZES
    assert (str(kept["method"]), str(kept["unit"])) == ("M2IB", "nats")
    for absent, also, files in (("image_maps", {"heat_ranges"}, 1), ("text_maps", set(), 5)):
        replace(attribution, **{absent: None}).save(tmp_path / absent)
        assert kept.keys() - np.load(tmp_path / absent / "maps.npz").keys() == {absent} | also
        assert len(files_in(tmp_path / absent)) == files


@pytest.mark.parametrize(("scale", "offset"), [(1, 0), (1, -1), (1, -100), (0, 0)])
def test_a_heat_comes_back_from_its_gray_levels(attribution, tmp_path, scale, offset):
    attribution.image_maps = scale * attribution.image_maps + offset  # a rival's may be negative, in part or all; or flat
    attribution.save(tmp_path)
    ranges = np.load(tmp_path / "maps.npz")["heat_ranges"]
    for i, (low, high) in enumerate(ranges):
        with Image.open(tmp_path / "heats" / f"000{i}.png") as picture:
            assert (picture.mode, picture.size) == ("I;16", SIZES[i])
            assert picture.text.items() >= dict(low=str(low), high=str(high), unit="nats").items()
            heat = low + np.asarray(picture) / 65535 * (high - low)
        np.testing.assert_allclose(heat, attribution.heat(i), atol=0.51 / 65535 * (high - low))
        assert (low, high) == (min(0, attribution.heat(i).min()), max(0, attribution.heat(i).max()))


def test_an_overlay_is_what_the_plots_draw(attribution, tmp_path):
    attribution.image_maps -= 1  # what is negative is as dark as 0
    attribution.save(tmp_path)
    for i, (width, height) in enumerate(SIZES):
        heat = seen_heat(attribution, i)
        figure = plt.figure(figsize=(width / 10, height / 10), dpi=10)
        draw_heat(figure.add_axes((0, 0, 1, 1)), attribution.images[i], heat, own_scale(heat, "nats"))
        figure.canvas.draw()
        drawn = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)
        plt.close(figure)
        with Image.open(tmp_path / "overlays" / f"000{i}.png") as picture:
            assert np.abs(np.asarray(picture) - drawn)[1:-1, 1:-1].max() <= 2  # the frame of the axes is drawn over the border


@pytest.mark.parametrize(
    ("folder", "ids", "error", "message"),
    [
        ("maps", ["a"], ValueError, "1 ids for 2 pairs"),
        ("maps", ["a", "b/c"], ValueError, "id 'b/c' is no safe file name"),
        ("maps", ["a", "..\\b"], ValueError, "is no safe file name"),
        ("maps", ["a", ".."], ValueError, "id '..' is no safe file name"),
        ("maps", ["a", ""], ValueError, "id '' is no safe file name"),
        ("maps", ["a", "b\n"], ValueError, "is no safe file name"),
        ("maps", ["Scan", "scan"], ValueError, "id 'Scan' is that of two pairs"),
        ("absent/maps", None, FileNotFoundError, "absent to make maps in"),
        ("file", None, NotADirectoryError, "is a file: give the name of a folder"),
    ],
)
def test_ids_and_folders_that_cannot_be_are_refused_before_anything_is_made(attribution, tmp_path, folder, ids, error, message):
    (tmp_path / "file").write_text("")
    with pytest.raises(error, match=re.escape(message)):
        attribution.save(tmp_path / folder, ids)
    with pytest.raises(error, match=re.escape(message)):
        save_segments(attribution.segments(), tmp_path / folder, ids)
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_all_files_are_written_or_none_and_what_else_is_there_stays(attribution, tmp_path, monkeypatch, error):
    (tmp_path / "notes.txt").write_text("mine")
    attribution.save(tmp_path)
    before = files_in(tmp_path)
    monkeypatch.setattr(exports.np, "savez_compressed", Mock(side_effect=error("the disk is full")))
    with pytest.raises(error):
        replace(attribution, image_maps=attribution.image_maps.flip(0)).save(tmp_path)
    assert files_in(tmp_path) == before
    monkeypatch.undo()
    replace(attribution, unit="cosine").save(tmp_path)
    assert str(np.load(tmp_path / "maps.npz")["unit"]) == "cosine"
    assert files_in(tmp_path).keys() == before.keys()
    attribution.image_maps[1, 0, 0] = np.nan
    with pytest.raises(ValueError, match="image map of pair 1 is not finite"):
        attribution.save(tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["overlays/0001.png", "heats/0001.png"])
def test_an_index_never_stands_beside_files_that_are_not_its_own(attribution, tmp_path, name):
    attribution.save(tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()  # where no file can move to
    with pytest.raises(OSError, match=r"0001\.png"):
        attribution.save(tmp_path)
    assert "maps.npz" not in files_in(tmp_path)


def test_a_table_of_segments_by_hand(attribution):
    patches = torch.zeros(2, 4, 4)
    patches[0, 0, 0] = 1
    first, flat = replace(attribution, image_maps=patches).segments("share", 0.5)
    truth = np.zeros(first.mask.shape, np.uint8)
    truth[: first.box[3], : first.box[2] + 1] = 255  # one column more than the box
    rows = table([first, flat], ["one", "flat"], [truth, None])
    x, y, w, h = first.box
    found, both = first.mask.sum(), (first.mask & (truth > 0)).sum()
    assert rows.loc[0, ["id", "threshold", "x", "y", "w", "h"]].tolist() == ["one", "share 0.5", x, y, w, h]
    assert rows.loc[0, ["point_x", "point_y"]].tolist() == list(first.point)
    assert rows.area.tolist() == [found / (31 * 20), 0]
    assert rows.dice[0] == pytest.approx(2 * both / (found + h * (w + 1)))
    assert rows.iou[0] == pytest.approx(both / (found + h * (w + 1) - both))
    assert rows.loc[1, ["x", "y", "w", "h", "point_x", "point_y", "dice", "iou"]].isna().all()
    assert "dice" not in table([first, flat])
    with pytest.raises(ValueError, match=r"truth of 0001 is \(3, 3\), its image \(24, 50\)"):
        table([first, flat], truths=[None, np.ones((3, 3))])
    with pytest.raises(ValueError, match="1 truths for 2 segments"):
        table([first, flat], truths=[truth])


def test_segments_are_saved_as_masks_and_a_table(attribution, tmp_path):
    segments = attribution.segments("otsu")
    masks = [segment.mask for segment in segments]
    save_segments(segments, tmp_path / "cut", truths=masks)
    assert files_in(tmp_path / "cut").keys() == {"0000.png", "0001.png", "segments.csv"}
    for i, mask in enumerate(masks):
        with Image.open(tmp_path / "cut" / f"000{i}.png") as picture:
            assert picture.mode == "L"
            np.testing.assert_array_equal(np.asarray(picture), 255 * mask)
    rows = pd.read_csv(tmp_path / "cut" / "segments.csv", dtype={"id": str})
    pd.testing.assert_frame_equal(rows, table(segments, truths=masks), check_dtype=False)


def test_the_snippet_of_the_page_on_masks_runs(tmp_path, monkeypatch):
    pairs = radiographs(2)
    names = dict(clip=load_model("radiographs", "cpu"), images=[p.image for p in pairs], captions=[p.caption for p in pairs])
    names |= dict(ids=[p.id for p in pairs], truths=[p.region(masks=True) for p in pairs])
    monkeypatch.chdir(tmp_path)
    exec(re.search(r"```python\n(.*?)```", PAGE.read_text(), flags=re.S)[1], names)
    assert len(files_in("maps")) == 5
    assert len(files_in("masks")) == 3
    assert pd.read_csv("masks/segments.csv").dice.between(0, 1).all()
