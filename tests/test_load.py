import csv
import errno
import json
import re
import shutil
import socket
import tarfile
import time
from dataclasses import replace
from unittest.mock import Mock

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from test_bad_input import packed

from m2ib_lite import explain
from m2ib_lite.data import Box, load_pairs, open_image, readable
from m2ib_lite.evaluate.localise import localisation

CAT = {"label": "cat", "x": 3, "y": 4, "w": 10, "h": 12, "word": "cat"}


@pytest.fixture
def images(tmp_path):
    """A folder with a.png, b.jpg and c.png, 40 x 30 pixels each."""
    for value, name in enumerate(("a.png", "b.jpg", "c.png")):
        Image.new("RGB", (40, 30), (value * 50, 100, 200)).save(tmp_path / name)
    return tmp_path


def write_csv(folder, rows, name="captions.csv", **options):
    with open(folder / name, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, **options).writerows(rows)
    return folder / name


@pytest.mark.parametrize(("name", "shipped"), [("scenes", 300), ("radiographs", 100), ("retrieval", 256)])
def test_a_count_of_what_is_shipped_takes_the_first_and_another_seed_is_refused(name, shipped):
    assert load_pairs(name, 4).ids == load_pairs(name, 4, seed=1).ids == load_pairs(name).ids[:4]
    with pytest.warns(UserWarning, match=f"has {shipped} pairs, not 999: all of them are taken"):
        assert len(load_pairs(name, 999)) == shipped
    with pytest.raises(ValueError, match=rf"with seed 1: .*`python data/testbed/draw\.py {name} --seed 2 --count 5 --out FOLDER`"):
        load_pairs(name, 5, seed=2)


def test_nothing_is_opened_before_it_is_asked_for_and_then_that_alone(images, monkeypatch):
    write_csv(images, [("image", "caption"), ("a.png", "a cat"), ("b.jpg", "a dog"), ("c.png", "an owl")])
    opened = []
    monkeypatch.setattr("m2ib_lite.data.records.open_image", lambda path: opened.append(path.name) or open_image(path))
    data = load_pairs(images)
    assert (len(data), data.ids, data[1:].ids) == (3, ["a.png", "b.jpg", "c.png"], ["b.jpg", "c.png"])
    assert len(data[1:].digest()) == 32
    assert opened == []
    assert (data[-1].caption, data[1:][0].caption) == ("an owl", "a dog")
    assert opened == ["c.png", "b.jpg"]
    assert next(iter(data)).image.getpixel((0, 0)) == (0, 100, 200)
    assert opened == ["c.png", "b.jpg", "a.png"]
    with pytest.raises(IndexError):
        data[3]


def test_csv_and_jsonl_say_the_same_and_a_box_is_kept_inside_its_picture(images):
    boxes = [CAT, dict(CAT, x=-5, named=False), dict(CAT, x=35.4, w=99)]
    inside = [(3, 10, True), (0, 5, False), (35, 5, True)]  # x, width, named
    kept = [Box("cat", x, 4, w, 12, named, "cat") for x, w, named in inside]
    rows = [("image", "caption", "boxes", "note"), ("a.png", 'one "cat", one\nbed', json.dumps(boxes), "x")]
    path = write_csv(images, [*rows, ("b.jpg", "une forêt 🌲", "", "")])
    from_csv = list(load_pairs(images))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\r\n", b"\n"))  # as Excel and as Unix write it
    from_unix = list(load_pairs(path))
    path.unlink()
    lines = [dict(image="a.png", caption='one "cat", one\nbed', boxes=boxes), dict(image="b.jpg", caption="une forêt 🌲")]
    (images / "captions.jsonl").write_text("\n\n".join(map(json.dumps, lines)))
    for pairs in (from_csv, from_unix, list(load_pairs(images))):
        assert [(pair.id, pair.caption) for pair in pairs] == [("a.png", 'one "cat", one\nbed'), ("b.jpg", "une forêt 🌲")]
        assert [pair.boxes for pair in pairs] == [kept, []]
        assert pairs[0].words() == {"cat"}


def test_ids_are_given_or_made_of_the_image_name_and_always_unique(images):
    rows = [*[("a.png", text, "") for text in "xyz"], ("b.jpg", "u", "a.png-2"), ("b.jpg", "v", "")]
    write_csv(images, [("image", "caption", "id"), *rows])
    assert load_pairs(images).ids == ["a.png", "a.png-3", "a.png-4", "a.png-2", "b.jpg"]
    numbered = [json.dumps(dict(image="a.png", caption="x", id=i)) for i in range(2)]
    (images / "numbered.jsonl").write_text("\n".join(numbered))
    assert load_pairs(images / "numbered.jsonl").ids == ["0", "1"]
    write_csv(images, [("image", "caption", "id"), ("a.png", "x", "one"), ("b.jpg", "y", "one")])
    with pytest.raises(ValueError, match=r"two pairs have the id 'one', captions\.csv, line 2 and captions\.csv, line 3"):
        load_pairs(images)


def line(**columns):
    return json.dumps(dict(image="a.png", caption="a big cat") | columns)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('{"image": "a.png"', "not JSON"),
        ("[" * 100_000, "not JSON"),
        (line(caption="half \ud800"), "half a character"),
        ('["a.png", "a cat"]', "not a JSON object"),
        ("{}", "not a JSON object"),
        ('{"image": "a.png"}', "no column 'caption' but image: say load_pairs"),
        (line(image=3), "not int"),
        (line(caption=" \u00a0"), "give at least one word"),
        (line(caption="https://host/a.png"), "give the caption first"),
        (line(image="https://host/a.png"), r"is an address: fetch them \(see docs/data.md\) with `img2dataset"),
        (line(image="no.png"), "No such file"),
        (line(image="a\0.png"), "not an image"),
        (line(image="captions.jsonl"), "not an image"),
        (line(image="."), "Is a directory, give an image file"),
        (line(boxes={"label": "cat"}), "JSON list"),
        (line(boxes="[{"), "box .* cannot be read"),
        (line(boxes=[dict(CAT, wide=3)]), "'wide'.*: give a JSON list of objects"),
        (line(boxes=[{"label": "cat"}]), "missing 4 required"),
        (line(boxes=[dict(CAT, w=0.4)]), "above zero"),
        (line(boxes=[dict(CAT, x=float("nan"))]), "NaN"),
        (line(boxes=[dict(CAT, x="3")]), "type str"),
        (line(boxes=[dict(CAT, named="no")]), "another kind.*named, a bool"),
        (line(boxes=[dict(CAT, word="big cat")]), "word 'big cat' is none of the caption's"),
        (line(boxes=[dict(CAT, word="ca")]), "word 'ca' is none"),
        (line(boxes=[dict(CAT, x=40)]), "outside the picture of 40 x 30 pixels"),
        (line(mask_file_name="no.png"), "No such file"),
        (line(mask_file_name="a.png"), "give a gray one of the image's size"),
    ],
)
def test_a_bad_pair_is_named_when_it_is_asked_for_and_harms_no_other(images, entry, message):
    (images / "captions.jsonl").write_text("\n".join([line(), entry, line(image="c.png", caption="an owl")]))
    data = load_pairs(images)
    assert (len(data), len(set(data.ids)), data[0].caption, data[2].caption) == (3, 3, "a big cat", "an owl")
    assert data.digest() == load_pairs(images).digest()
    with pytest.raises((ValueError, OSError), match=message) as caught:
        data[1]
    assert f"pair {data.ids[1]!r} (captions.jsonl, line 2)" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no pairs"),
        (b"image,caption\r\n", "has no pairs"),
        (b"picture,caption\na.png,x\n", r"no column 'image' but picture, caption: say load_pairs\(\.\.\., image='its name'\)"),
        (b"image;caption\na.png;x\n", "no column 'image' but image;caption"),
        (b"jpg,text\nhttp://h/a,x\nhttps://h/b,y\n", r"addresses: .*--url_list captions\.csv --url_col jpg --caption_col text"),
        ("image,caption\na.png,forêt\n".encode("latin-1"), "is not UTF-8"),
        ("image,caption\na.png,x\n".encode("utf-16"), "is not UTF-8"),
        (b'image,caption\na.png,"an open quote\nb.jpg,y\n', "line 3 is not CSV"),
        (b'image,caption\na.png,"a "quoted" word"\n', "line 2 is not CSV"),
        (b"image,caption\na.png," + b"x" * 200_000, "line 2 is not CSV"),
    ],
)
def test_a_bad_csv_is_refused_by_name(images, content, message):
    (images / "captions.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_pairs(images)
    assert str(images if message == "has no pairs" else "captions.csv") in str(caught.value)


@pytest.mark.parametrize(
    ("source", "options", "error", "message"),
    [
        ("no/such/data", {}, FileNotFoundError, "no data 'no/such/data': give scenes, radiographs, .*, photographs"),
        (".", {}, FileNotFoundError, r"has 0 tables: give it one of metadata\.jsonl"),
        ("scenes", {"count": 0}, ValueError, "count is 0"),
        ("scenes", {"count": "8"}, ValueError, "count is '8'"),
        ("scenes", {"seed": -1}, ValueError, "seed is -1"),
        (7, {}, TypeError, "not from int"),
        (pd.DataFrame({"image": ["a.png"]}), {}, TypeError, r"not from DataFrame: .*pandas df\.to_dict\('records'\)"),
        ([], {}, ValueError, "list has no pairs"),
        ({"train": [], "test": []}, {}, TypeError, "not from dict: of a dict of splits give one"),
        (__file__, {}, ValueError, r"is no \.csv, \.jsonl, \.tsv, \.parquet, \.tar"),
    ],
)
def test_what_is_no_data_is_refused_by_name(source, options, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        load_pairs(source, **options)


def test_a_count_takes_a_drawn_part_in_order(tmp_path):
    many = tmp_path / "many.tsv"
    many.write_text("".join(f"caption {i}\t{i:02}.png\n" for i in range(50)))
    part = load_pairs(many, 5, seed=1)
    assert part.ids == sorted(part.ids) != load_pairs(many).ids[:5]
    assert set(part.ids) < set(load_pairs(many, 20, seed=1).ids)
    assert load_pairs(many, 5).ids == load_pairs(many, 5, seed=0).ids != part.ids


def test_a_tsv_has_caption_then_image_and_no_header(images):
    lines = ['an "odd caption', "a cat\tc.png", "", "https://host/x.jpg\ta dog", "a\tb\tc", "a bed \ta.png"]
    (images / "cc.tsv").write_bytes("\r\n".join(lines).encode())
    data = load_pairs(images / "cc.tsv")
    assert data.ids == ["cc.tsv, line 1", "c.png", "a dog", "cc.tsv, line 5", "a.png"]
    assert (data[1].caption, data[1].image.size) == ("a cat", (40, 30))
    for i, message in ((0, "the columns caption, image"), (2, "give the caption first"), (3, "the columns caption, image")):
        with pytest.raises(ValueError, match=message):
            data[i]


def test_a_digest_follows_what_the_records_say_and_not_where_they_lie(images, tmp_path_factory):
    header, first, second = rows = [("image", "caption", "boxes"), ("a.png", "a cat", ""), ("b.jpg", "a dog", "")]
    write_csv(images, rows)
    copy = shutil.copytree(images, tmp_path_factory.mktemp("elsewhere") / "images")
    data = load_pairs(images)
    assert load_pairs(copy).digest() == data.digest()
    digests = {data.digest(), data[::-1].digest(), data[:1].digest()}
    for changed in (("a.png", "a cats", ""), (*first[:2], json.dumps([CAT]))):
        write_csv(copy, [header, changed, second])
        digests.add(load_pairs(copy).digest())
    Image.new("RGB", (41, 30)).save(images / "a.png")
    assert len(digests | {data.digest()}) == 6


COLUMNS = ["category_name", "label_text", "path", "x", "y", "w", "h", "image_width", "image_height", "dicom_id"]
OPACITY = ("Opacity", "left basal opacity", "files/p10/a.jpg", 800, 100, 200, 300, 1000, 500, "dicom-a")


@pytest.fixture
def chest(tmp_path):
    """A made-up MS-CXR beside its pictures, one of 1000 x 500 pixels as it was, one shrunk to a fifth."""
    (tmp_path / "files" / "p10").mkdir(parents=True)
    Image.new("L", (1000, 500), 90).save(tmp_path / "files" / "p10" / "a.jpg")
    Image.new("L", (200, 100), 90).save(tmp_path / "files" / "p10" / "b.jpg")
    rows = [
        COLUMNS,
        OPACITY,
        ("Pneumonia", "pneumonia", *OPACITY[2:]),
        ("Opacity", "left basal opacity", "files/p10/a.jpg", 0, 0, 100, 50, 1000, 500, "dicom-a"),
        ("Edema", "left basal opacity", "files/p10/b.jpg", 103, 53, 13, 5, 1000, 500, "dicom-b"),
    ]
    return write_csv(tmp_path, rows, "MS_CXR_Local_Alignment_v1.0.0.csv")


def test_mscxr_boxes_of_one_phrase_make_one_pair_and_follow_a_picture_that_was_made_smaller(chest):
    data = load_pairs(chest)
    assert data.ids == ["dicom-a-1", "dicom-a-2", "dicom-b-1"]
    assert [pair.caption for pair in data] == ["left basal opacity", "pneumonia", "left basal opacity"]
    assert data[0].boxes == [Box("Opacity", 800, 100, 200, 300), Box("Opacity", 0, 0, 100, 50)]
    assert data[1].boxes == [Box("Pneumonia", 800, 100, 200, 300)]
    (box,) = data[2].boxes  # 103..116, 53..58 of 1000 x 500 pixels, a fifth of that in the file
    assert (box.x, box.y, box.x + box.w, box.y + box.h) == (20, 10, 24, 12)


def test_mscxr_pictures_are_found_from_any_of_their_folders(chest, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("labels") / chest.name
    elsewhere.write_text(chest.read_text())
    with pytest.raises(FileNotFoundError, match=r"pair 'dicom-a-1' .*line 2\): .*No such file"):
        load_pairs(elsewhere)[0]
    for start in ("files/p10", "p10"):
        elsewhere.write_text(chest.read_text().replace("files/p10", start))
        for root in (chest.parent, str(chest.parent / "files")):
            assert load_pairs(elsewhere, root=root)[0].image.size == (1000, 500)


def test_mscxr_boxes_outside_the_centre_crop_stay_in_image_pixels(chest, clip):
    pair = replace(load_pairs(chest)[0], caption="left owl")  # words of the testbed's
    found = explain(clip, pair, steps=1, samples=1, progress=False)
    assert (found.views, found.heat(0).shape) == ([(250, 0, 750, 500)], (500, 1000))
    scores = localisation(found, [pair]).set_index("metric").value
    assert scores.drop("word precision", errors="ignore").to_dict() == {"truth seen": 0}  # of what the model never saw


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({3: "wide"}, "could not convert"),
        ({5: 0}, "above zero"),
        ({7: 0}, "true size"),
        ({7: "inf"}, "are pixels"),
        ({3: "nan"}, "NaN"),
        ({1: "edema", 7: 500}, r"the sizes .*\(500, 500\), \(1000, 500\).*: give its true size"),  # another line says 1000
    ],
)
def test_mscxr_rows_that_are_wrong_are_named(chest, change, message):
    bad = [change.get(i, value) for i, value in enumerate(OPACITY)]
    write_csv(chest.parent, [COLUMNS, bad, ("Edema", "edema", *OPACITY[2:]), ("Edema", "owl", *OPACITY[2:])], chest.name)
    with pytest.raises(ValueError, match=rf"pair 'dicom-a-1' \(.*line 2\).*{message}"):
        load_pairs(chest)[0]
    assert load_pairs(chest)[-1].caption == "owl"
    write_csv(chest.parent, [COLUMNS[3:], bad[3:]], chest.name)
    with pytest.raises(ValueError, match="no column 'image' but x, y"):
        load_pairs(chest)


def test_rows_of_a_dataset_are_pairs():
    pictures = [Image.new("RGB", (8, 6), (value, 0, 0)) for value in (0, 128, 255)]
    columns = {"picture": pictures, "text": ["a cat", " ", "an owl"]}
    features = datasets.Features(picture=datasets.Image(), text=datasets.Value("string"))
    rows = datasets.Dataset.from_dict(columns, features=features)
    data = load_pairs(rows, image="picture", caption="text")
    assert (data.ids, data[2].caption) == (["row-0", "row-1", "row-2"], "an owl")
    assert [data[i].image.getpixel((0, 0)) for i in (0, 2)] == [(0, 0, 0), (255, 0, 0)]
    with pytest.raises(ValueError, match=r"pair 'row-1' \(a row of Dataset\): the caption is ' ': give at least"):
        data[1]
    other = datasets.Dataset.from_dict(dict(columns, text=["a cat", "a dog", "an owl"]), features=features)
    assert data.digest() != load_pairs(other, image="picture", caption="text").digest()
    with pytest.raises(ValueError, match=r"no column 'image' but picture, text: say load_pairs\(..., image="):
        load_pairs(rows)


def test_rows_of_anything_with_a_length_are_pairs():
    grey = np.full((5, 4), 9, np.uint8)
    data = load_pairs([{"image": grey, "caption": "a cat"}, {"image": None, "caption": "a cat"}, {"image": grey}, (grey, "a cat")])
    assert data[0].image.size == (4, 5)
    for i, message in ((1, "row-1.*has no image"), (2, "row-2.*no column 'caption' but image"), (3, "row-3.*tuple: give a dict")):
        with pytest.raises(ValueError, match=message):
            data[i]
    with pytest.warns(UserWarning, match=r"3 of 4 pairs are left out; the first: pair 'row-1' \(a row of list\)"):
        assert [pair.id for pair in readable(data)] == ["row-0"]
    with pytest.raises(ValueError, match="none of 3 pairs can be read; the first: pair 'row-1'"):
        readable(data[1:])


def jpeg(value):
    return packed(Image.new("RGB", (8, 6), (value, 0, 0)), "JPEG")


def write_shard(folder, kind, name):
    """What img2dataset writes of three addresses, the second of which does not answer."""
    rows = [dict(key=f"{name}{i}", caption=f"cat {i}", status="success", error_message=None) for i in range(3)]
    rows[1].update(status="failed_to_download", error_message="HTTP Error 404")
    (folder / name).mkdir(parents=True)
    for i in (0, 2):
        (folder / name / f"{name}{i}.jpg").write_bytes(jpeg(100 * i))
        (folder / name / f"{name}{i}.txt").write_text(f"cat {i}")
    if kind == "webdataset":
        with tarfile.open(folder / f"{name}.tar", "w") as tar:
            for file in sorted((folder / name).iterdir()):
                tar.add(file, file.name)
    if kind == "parquet":
        rows = [dict(row, jpg=jpeg(100 * i) if i != 1 else None) for i, row in enumerate(rows)]
    if kind != "files":
        shutil.rmtree(folder / name)
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")


@pytest.fixture
def shards(tmp_path, request):
    """A folder with two such shards, of the kind that the test is given."""
    for name in ("00000", "00001"):
        write_shard(tmp_path / "pictures", request.param, name)
    return tmp_path / "pictures"


@pytest.mark.parametrize("shards", ["files", "parquet", "webdataset"], indirect=True)
def test_what_img2dataset_writes_is_read_and_what_it_could_not_fetch_is_bad_alone(shards):
    data = load_pairs(shards)
    assert sorted(data.ids) == [f"{name}-{name}{i}" for name in ("00000", "00001") for i in range(3)]
    assert data.digest() == load_pairs(shards).digest()
    with pytest.warns(UserWarning, match="2 of 6 pairs are left out"):
        good = readable(data)
    for pair in good:
        number = int(pair.id[-1])
        assert (pair.caption, pair.image.size) == (f"cat {number}", (8, 6))
        assert abs(pair.image.getpixel((0, 0))[0] - 100 * number) < 5
    with pytest.raises(ValueError, match=r"00001\.parquet.*it has no image \(status: failed_to_download\): fetch it again"):
        data[data.ids.index("00001-000011")]


@pytest.mark.parametrize(("shards", "file"), [("parquet", "00001.parquet"), ("webdataset", "00001.tar")], indirect=["shards"])
def test_a_torn_shard_is_a_bad_pair_that_harms_no_other_and_a_full_disk_is_not_put_down_to_it(shards, file, monkeypatch):
    (shards / file).write_bytes((shards / file).read_bytes()[:700])
    data = load_pairs(shards)
    with pytest.raises(ValueError, match=rf"{file}.*it cannot be read .*: write it again"):
        data[data.ids.index(f"{file}, all of it")]
    assert data[data.ids.index("00000-000000")].caption == "cat 0"
    full = OSError(errno.ENOSPC, "no space left on device")
    monkeypatch.setattr(datasets.Dataset, "from_parquet", Mock(side_effect=full))
    monkeypatch.setattr(datasets, "load_dataset", Mock(side_effect=full))
    with pytest.raises(OSError, match="no space left"):
        load_pairs(shards)


def test_pictures_of_a_parquet_file_are_checked_by_us(tmp_path, monkeypatch):
    pictures = [{"bytes": content, "path": None} for content in (jpeg(9), b"no picture", jpeg(9)[:300])]
    pictures.append({"bytes": None, "path": "b.jpg"})
    rows = [dict(image=picture, text=f"cat {i}", key="same") for i, picture in enumerate(pictures)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "table.parquet")
    (tmp_path / "b.jpg").write_bytes(jpeg(200))
    data = load_pairs(tmp_path / "table.parquet")
    assert data.ids == ["table-same", "table-same-2", "table-same-3", "table-same-4"]
    assert (data[0].caption, data[3].image.getpixel((0, 0))[0]) == ("cat 0", 200)
    for i in (1, 2):
        with pytest.raises(ValueError, match="the image is not an image that can be read"):
            data[i]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ValueError, match="more than 10 pixels"):
        data[0]


def test_an_image_folder_of_hugging_face_is_read_with_its_masks(images):
    bits = np.zeros((30, 40), np.uint8)
    bits[4:16, 3:13], bits[10:20, 8:20] = 1, bits[10:20, 8:20] + 2
    Image.fromarray(bits).save(images / "mask.png")
    boxes = [CAT, dict(label="dog", x=8, y=10, w=12, h=10, named=False)]
    line = dict(file_name="a.png", text="a cat", boxes=boxes, mask_file_name="mask.png")
    (images / "metadata.jsonl").write_text(json.dumps(line))
    (pair,) = load_pairs(images)
    assert (pair.id, pair.caption) == ("a.png", "a cat")
    for k, box in enumerate(pair.boxes):
        assert (box.mask == (bits >> k & 1 > 0)).all()
    (images / "metadata.jsonl").unlink()
    write_csv(images, [("file_name", "title"), ("c.png", "an owl")], "metadata.csv")
    assert load_pairs(images, caption="title")[0].caption == "an owl"


def test_a_name_of_the_hub_that_cannot_be_had_is_a_quick_clear_error(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", Mock(side_effect=socket.gaierror(-2, "Name or service not known")))
    started = time.monotonic()
    with pytest.raises(OSError, match=r"no data 'owner/name:test' here, and none from the hub .*: give the path") as caught:
        load_pairs("owner/name:test")
    assert caught.value.__cause__ is None
    assert time.monotonic() - started < 5


def test_a_data_set_of_the_hub_gives_its_only_split_or_the_one_that_is_named(monkeypatch):
    made = {key: datasets.Dataset.from_dict({"image": [jpeg(9)], "caption": [key]}) for key in ("train", "test")}
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: made[split] if split else datasets.DatasetDict(made))
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *_, **__: None)
    assert load_pairs("owner/name:test")[0].caption == "test"
    with pytest.raises(ValueError, match="has the splits train, test: give one, as in 'owner/name:train'"):
        load_pairs("owner/name")
    del made["test"]
    assert load_pairs("owner/name")[0].caption == "train"


def test_a_hundred_thousand_lines_are_listed_in_seconds(tmp_path):
    (tmp_path / "captions.csv").write_text("image,caption\n" + "".join(f"{i}.png,cat {i}\n" for i in range(100_000)))
    started = time.process_time()
    assert load_pairs(tmp_path).ids[-1] == "99999.png"
    assert time.process_time() - started < 5  # one on an idle core


def test_photographs_are_real_pictures_whose_boxes_and_words_fit():
    data = load_pairs("photographs")
    for pair in data:
        assert min(pair.image.size) >= 300
        assert pair.boxes
        assert not {box.label for box in pair.boxes if not box.named} & set(re.findall(r"\w+", pair.caption))
    rocket = data[data.ids.index("rocket")]
    (box,) = (box for box in rocket.boxes if box.named)
    gray = np.asarray(rocket.image.convert("L"), float)
    assert gray[box.rectangle(gray.shape)].mean() > 1.5 * gray[: box.y + box.h].mean()  # a white rocket, a dark sky
