import errno
import io
import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal

from m2ib_lite.__main__ import main
from m2ib_lite.__main__ import parser as command_line
from m2ib_lite.data import load_pairs
from m2ib_lite.evaluate import METHODS, attribute, confidence, localisation, occurrences
from m2ib_lite.models import load_model
from m2ib_lite.runs import evaluate_data, evaluation, store
from m2ib_lite.runs.scoring import Scorer, scores
from m2ib_lite.runs.summary import summarise

QUICK = dict(data="scenes", device="cpu", methods=["chefer"], count=5, shard=2, batch_size=2)
NEAR = dict(rtol=1e-4, atol=1e-3)  # of the same pairs in other batches; drop and increase are percentages


class Killed(BaseException):
    """What no `except Exception` sees: as near as a process comes to kill -9 from inside."""


class Changed:
    """A data set with some pairs put in the place of its own, or an exception in the place of a pair."""

    def __init__(self, data, changes):
        self.data, self.changes, self.ids = data, changes, data.ids

    def __len__(self):
        return len(self.data)

    def __getitem__(self, i):
        changed = self.changes.get(i, self.data[i])
        if isinstance(changed, BaseException):
            raise changed
        return changed

    def digest(self):
        return self.data.digest()


@pytest.fixture
def changed(monkeypatch):
    """changed({place: pair or exception}): what runs read from now on."""

    def change(changes):
        monkeypatch.setattr(evaluation, "load_pairs", lambda *source: Changed(load_pairs(*source), changes))

    return change


@pytest.fixture
def run(folder):
    """run(out=..., options...) -> the rows of an `evaluate_data` of a small model, as they lie on the disk."""

    def evaluate(out="out", **options):
        evaluate_data(str(folder), out=folder / out, **{**QUICK, **options})
        return pd.read_parquet(folder / out / "scores")

    return evaluate


def quick_command(folder):
    """What `run` does, as arguments."""
    options = "--data scenes --device cpu --methods chefer --count 5 --shard 2 --batch-size 2"
    return ["evaluate", "--model", str(folder), "--out", str(folder / "out"), *options.split()]


def test_rows_are_those_of_the_evaluation(folder, run):
    table, clip, data = run(methods=["random", "Chefer"]), load_model(str(folder), "cpu"), load_pairs("scenes", 5)
    pairs = [data[i] for i in range(5)]
    assert list(table["pair"].unique()) == data.ids
    assert list(table["method"].unique()) == ["chefer", "random"]
    for method in ("chefer", "random"):
        a = attribute(method, clip, pairs, folder)
        direct = pd.concat([localisation(a, pairs), occurrences(a, pairs), confidence(clip, a, pairs)])
        masks = localisation(a, pairs, "masks").query("modality == 'image'")
        direct = pd.concat([direct, masks.assign(metric=masks["metric"] + " of masks")])
        keys, columns = ["pair", "modality", "metric"], ["value", "chance"]
        ours, theirs = (t.set_index(keys)[columns].astype(float).sort_index() for t in (table[table["method"] == method], direct))
        assert_frame_equal(ours, theirs, **NEAR)
    assert table["error"].isna().all()


def test_pairs_without_boxes_or_masks_have_the_scores_that_they_can_have(clip, pairs):
    plain = [replace(pair, boxes=[]) for pair in pairs[:2]]
    boxed = [replace(pair, boxes=[replace(box, mask=None) for box in pair.boxes]) for pair in pairs[:2]]
    assert set(scores(clip, "chefer", plain, {})["metric"]) == {"drop", "increase", "deletion AUC", "insertion AUC"}
    found = set(scores(clip, "chefer", boxed, {})["metric"])
    assert {"energy inside", "words hit", "drop"} <= found
    assert not any(name.endswith("of masks") for name in found)


def test_scores_do_not_depend_on_the_batch(run):
    options = dict(methods=["chefer", "m2ib"], steps=2, samples=2)
    one, three = (run(f"out{size}", batch_size=size, shard=5, **options) for size in (1, 3))
    keys = ["pair", "modality", "metric", "method"]
    assert_frame_equal(one.set_index(keys).sort_index(), three.set_index(keys).sort_index(), **NEAR)


def test_a_bad_pair_is_a_row_that_says_why(run, changed):
    whole, blank = run("whole"), replace(load_pairs("scenes")[2], caption=" ")
    changed({1: OSError("picture.png is cut short"), 2: blank})
    table = run("broken")
    errors = table[table["error"].notna()].set_index("pair")["error"]
    assert errors["scenes-test-0-1"] == "OSError: picture.png is cut short"
    assert "give at least one word" in errors["scenes-test-0-2"]
    assert len(errors) == 2
    fine = table[table["error"].isna()]
    rest = whole[~whole["pair"].isin(["scenes-test-0-1", "scenes-test-0-2"])]
    assert_frame_equal(fine.reset_index(drop=True), rest.reset_index(drop=True), **NEAR)


def test_pairs_of_a_table_and_their_torn_picture(folder, capsys):
    images = folder / "images"
    images.mkdir()
    for i in range(3):
        load_pairs("scenes")[i].image.save(images / f"{i}.png")
    (images / "1.png").write_bytes((images / "1.png").read_bytes()[:500])
    (folder / "captions.csv").write_text("image,caption\n0.png,two mice\n1.png,an owl\n2.png,a violin\n")
    given = ["--data", str(folder / "captions.csv"), "--root", str(images), "--out", str(folder / "out")]
    main(["evaluate", "--model", str(folder), *given, "--methods", "chefer", "--device", "cpu"])
    table = pd.read_parquet(folder / "out" / "scores")
    assert table.groupby("pair").size().to_dict() == {"0.png": 8, "1.png": 1, "2.png": 8}
    assert "1.png" in table["error"].dropna().item()
    assert "bad pairs: not read 1" in capsys.readouterr().out


def test_a_line_with_half_a_character_is_a_row_like_any_other_bad_pair(folder, run):
    load_pairs("scenes")[0].image.save(folder / "a.png")
    whole = {"image": "a.png", "caption": "an owl"}
    lines = [whole, whole | {"id": "\ud800"}, whole | {"image": "\udfff.png"}, whole | {"id": "the last"}]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    table = run(data=folder / "captions.jsonl", count=None)
    errors = table[table["error"].notna()].set_index("pair")["error"]
    assert list(errors.index) == ["captions.jsonl, line 2", "captions.jsonl, line 3"]
    assert errors.str.contains("half a character").all()
    assert set(table.loc[table["error"].isna(), "pair"]) == {"a.png", "the last"}


def test_rows_in_memory_are_known_again_by_what_they_say(run):
    rows = [{"image": pair.image, "caption": pair.caption} for pair in load_pairs("scenes", 3)]
    first = run(data=rows, count=None)
    again = [{**row, "image": row["image"].copy()} for row in rows]  # elsewhere in memory, as in another process
    assert_frame_equal(run(data=again, count=None), first)
    with pytest.raises(ValueError, match="data digest was"):
        run(data=[{**row, "caption": "an owl"} for row in rows], count=None)


def test_a_map_that_is_not_finite_is_an_error_of_its_pair_alone(run, monkeypatch):
    find, dark = METHODS["chefer"], load_pairs("scenes")[3].caption

    def sometimes_nan(clip, images, captions, **options):
        attribution = find(clip, images, captions, **options)
        for maps, caption in zip(attribution.image_maps, captions, strict=True):
            maps.masked_fill_(torch.tensor(caption == dark), torch.nan)
        return attribution

    monkeypatch.setitem(METHODS, "chefer", sometimes_nan)
    table = run(batch_size=4, shard=5)
    assert table.loc[table["error"].notna(), "pair"].tolist() == ["scenes-test-0-3"]
    assert table.loc[table["error"].isna(), "pair"].nunique() == 4


def out_of_memory_above(most, monkeypatch):
    """Let chefer run out of memory for more than so many pairs.  -> the list of the batch sizes that it was asked for"""
    find, asked = METHODS["chefer"], []

    def greedy(clip, images, captions, **options):
        asked.append(len(images))
        if len(images) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return find(clip, images, captions, **options)

    monkeypatch.setitem(METHODS, "chefer", greedy)
    return asked


def test_a_batch_that_the_device_has_no_memory_for_is_halved_for_good(run, folder, monkeypatch):
    options = dict(count=12, shard=8, batch_size=8)
    whole, asked = run("whole", **options), out_of_memory_above(2, monkeypatch)
    table = run("halved", **options)
    assert asked == [1, 8, 4, 2, 2, 4, 2, 2, 2, 2]  # the first is on trial
    assert_frame_equal(table, whole, **NEAR)
    store.shards(folder / "halved", 12, 8).popitem()[0].unlink()
    del asked[:]
    assert_frame_equal(run("halved", **options), table)
    assert asked == [2, 2]  # also by a later process


def test_a_pair_that_is_too_large_alone_is_a_bad_one(run, monkeypatch):
    monkeypatch.setattr(Scorer, "try_out", lambda self: None)
    out_of_memory_above(0, monkeypatch)
    table = run(methods=["chefer", "random"], count=3)
    assert table.loc[table["method"] == "chefer", "error"].eq("OutOfMemoryError: CUDA out of memory").all()
    assert table.loc[table["method"] == "random", "error"].isna().all()


def test_what_fails_for_every_pair_is_refused_before_the_first(run, folder):
    with pytest.raises(ValueError, match="image layer 99 is out of range"):
        run(methods=["m2ib"], layer=99)
    assert not (folder / "out" / "scores").exists()
    run(methods=["random"])  # a command that failed at once binds no other


def test_a_fault_of_the_machine_is_none_of_a_pair(run, folder, changed):
    full = OSError(errno.ENOSPC, "No space left on device")
    named = OSError(f"pair 'a' (line 2): {full}")
    named.__cause__ = full  # as load_pairs names the pair
    for error in (full, named, OSError(errno.EMFILE, "Too many open files"), MemoryError()):
        changed({1: error})
        with pytest.raises(type(error), match=re.escape(str(error))):
            run()
    with pytest.raises(SystemExit) as stopped:
        main(quick_command(folder))
    assert "memory is full: make room, then give the same command" in stopped.value.code
    changed({})
    assert run()["error"].isna().all()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_a_disk_that_runs_full_loses_nothing(run, folder, monkeypatch):
    whole = run("whole")

    def open_until_full(path, mode):
        return open("/dev/full" if path.name.startswith(".000000002") else path, mode)

    monkeypatch.setattr(store, "open", open_until_full, raising=False)
    with pytest.raises(SystemExit) as stopped:
        main(quick_command(folder))
    assert "No space left on device: mend that, then give the same command" in stopped.value.code
    monkeypatch.delattr(store, "open")
    assert_frame_equal(run(), whole)


def test_an_interrupted_run_says_how_to_go_on(run, folder, monkeypatch, capsys):
    whole, find, asked = run("whole"), METHODS["chefer"], []

    def interrupted(*arguments, **options):
        asked.append(1)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return find(*arguments, **options)

    monkeypatch.setitem(METHODS, "chefer", interrupted)
    with pytest.raises(SystemExit) as stopped:
        main(quick_command(folder))
    assert stopped.value.code == 130
    assert "give the same command to go on" in capsys.readouterr().err
    main(quick_command(folder))
    said = capsys.readouterr().out
    assert said.startswith("2 of 5 pairs are there")
    assert "bad pairs: none" in said
    assert_frame_equal(pd.read_parquet(folder / "out" / "scores"), whole)


def stop_at(point, monkeypatch):
    """Let the process 'die' at the n-th step of its writing to the disk.  -> the list of the steps that were reached"""
    reached, fsync, rename = [], store.os.fsync, store.os.replace

    def step(name):
        reached.append(name)
        if len(reached) == point:
            raise Killed

    class Written(io.FileIO):
        def write(self, content):
            step("nothing written")
            super().write(content[: len(content) // 2])
            step("half written")
            super().write(content[len(content) // 2 :])

    def replace_between(*paths):
        step("not renamed")
        rename(*paths)
        step("renamed")

    def fsync_after(descriptor):
        step("not synced")
        fsync(descriptor)

    monkeypatch.setattr(store, "open", Written, raising=False)
    monkeypatch.setattr(store.os, "replace", replace_between)
    monkeypatch.setattr(store.os, "fsync", fsync_after)
    return reached


def test_a_file_is_the_old_or_the_new_one_wherever_the_writing_stops(tmp_path):
    path, old, new = tmp_path / "a", b"old" * 9, b"newer" * 9
    for point in range(1, 7):
        path.write_bytes(old)
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            reached = stop_at(point, patch)
            store.write_whole(path, new)
        assert path.read_bytes() == (new if "renamed" in reached else old)
    store.write_whole(path, new)
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_a_run_killed_at_every_step_of_its_writing_ends_as_an_unbroken_one(run):
    whole, point, steps = run("whole"), 0, set()
    while True:
        point += 1
        with pytest.MonkeyPatch.context() as patch:
            reached = stop_at(point, patch)
            try:
                run()
            except Killed:
                steps.add(reached[-1])
            else:
                break
    assert len(steps) == 5
    assert_frame_equal(run(), whole)


@pytest.mark.parametrize("harm", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:200] + b"\0" * 50 + b[250:]])
def test_a_broken_shard_is_made_again(run, folder, harm, capsys):
    whole = run()
    path = list(store.shards(folder / "out", 5, 2))[1]
    path.write_bytes(harm(path.read_bytes()))
    capsys.readouterr()
    assert_frame_equal(run(), whole)
    assert capsys.readouterr().out.startswith("3 of 5 pairs are there")


def test_a_shard_that_lost_a_bit_of_its_values_is_broken(tmp_path):
    values = np.random.default_rng(0).random(500)
    table = pd.DataFrame(dict(pair="a", metric=[f"m{i}" for i in range(500)], value=values, chance=0.5, method="nib"))
    path = tmp_path / "scores" / "0.parquet"
    store.write_shard(path, table, 8)
    whole, known = path.read_bytes(), store.read_shard(path)[0]
    assert known["value"].tolist() == values.tolist()
    for place in range(100, len(whole) // 2, 50):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        found = store.read_shard(path)[0]
        assert found is None or found.equals(known)


def test_other_options_in_the_same_folder_are_refused_by_name(run, folder, clip):
    run()
    for name, value in dict(seed=1, count=4, batch_size=1, methods=["random"], dtype="bfloat16").items():
        with pytest.raises(ValueError, match=f"holds another run .*{'pairs' if name == 'count' else name} was"):
            run(**{name: value})
    manifest = json.loads((folder / "out" / "manifest.json").read_text())
    assert {"model digest", "data digest", "code", "torch", "transformers", "seed", "methods"} <= set(manifest)
    clip.model.save_pretrained(folder)  # other weights under the same name
    with pytest.raises(ValueError, match="model digest was"):
        run()


def test_a_folder_with_foreign_scores_is_left_alone(run, folder):
    run()
    (folder / "out" / "manifest.json").unlink()
    with pytest.raises(ValueError, match="without their manifest"):
        run()


def test_two_runs_do_not_share_a_folder(run, folder):
    with store.only_run(folder / "out"), pytest.raises(ValueError, match="another run writes to"):
        run()
    run()


def test_what_no_run_can_mean_is_refused(run):
    with pytest.raises(ValueError, match="no method 'm3ib': there are m2ib, saliency"):
        run(methods=["nib", "m3ib"])
    with pytest.raises(ValueError, match="steps: only M2IB takes that"):
        run(methods=["nib"], steps=3)
    for name in ("batch_size", "shard"):
        with pytest.raises(ValueError, match=f"{name} is 0"):
            run(**{name: 0})


def test_the_summary_by_hand():
    columns = ["pair", "modality", "metric", "value", "method", "error"]
    drops = dict(M2IB=(1, 2, 3, 6), nib=(0, 2, 1, 3))
    rows = [(p, "image", "drop", v, m, None) for m, values in drops.items() for p, v in enumerate(values)]
    bad = [(9, None, None, np.nan, None, "OSError: no such file"), (8, None, None, np.nan, "nib", "ValueError: not finite")]
    table = pd.DataFrame(rows + bad, columns=columns)
    summary, failed = summarise(table[table["pair"] % 2 == rest] for rest in (0, 1))
    means = summary.set_index("method")
    assert means["mean"].to_dict() == {"M2IB": 3, "nib": 1.5, "M2IB - nib": 1.5}
    t = 3.182446 / 2  # the 97.5% quantile of t with 3 degrees of freedom, by the root of 4 pairs
    spread = pd.Series({"M2IB": np.sqrt(14 / 3), "nib": np.sqrt(5 / 3), "M2IB - nib": np.sqrt(5 / 3)})
    assert (means["high"] - means["mean"]).to_dict() == pytest.approx((t * spread).to_dict())
    assert (means["mean"] - means["low"]).to_dict() == pytest.approx((t * spread).to_dict())
    assert failed.to_dict() == {"nib": 1, "not read": 1}
    assert (means["pairs"] == 4).all()


def test_a_summary_without_any_score_still_counts_the_bad_pairs(run, changed):
    changed({i: OSError("gone") for i in range(5)})
    assert len(run()) == 5


def test_the_help_page_names_what_can_be_asked_for(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", "--help"])
    page = capsys.readouterr().out
    assert stopped.value.code == 0
    assert all(name.lower() in page for name in METHODS)
    needed = ["evaluate", "--model", "a", "--data", "b", "--out", "c"]
    given = [*needed, "--methods", "m2ib,nib", "--layer", "9,7", "--beta", "0.1", "--count", "3"]
    options = vars(command_line().parse_args(given))
    assert (options["layer"], options["beta"], options["methods"], options["count"]) == ((9, 7), 0.1, ["m2ib", "nib"], 3)
    assert "sigma2" not in options  # the model's own
    with pytest.raises(SystemExit) as stopped:
        main([*needed, "--beta", "much"])
    assert stopped.value.code == 2


def done(out):
    """How many shards lie in a run's folder."""
    return len(list((out / "scores").glob("*.parquet")))


def kill_in_its_work(command, out, rng):
    """Start a run and kill -9 it at a random moment after it began to work.  -> its exit status"""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert "pairs are there" in process.stdout.readline()
        enough = done(out) + int(rng.integers(2))
        while done(out) < enough and process.poll() is None:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.5))  # about the time of a pair
        process.kill()
    return process.returncode


def test_a_process_killed_at_random_moments_ends_with_the_table_of_an_unbroken_one(tmp_path, request):
    kills, rng = request.config.getoption("--kills"), np.random.default_rng(0)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    options = f"--data scenes --count {2 * kills} --methods chefer,random,m2ib --steps 2 --samples 2 --shard 1 --device cpu"
    command = ["evaluate", "--model", "testbed", *options.split(), "--out"]
    main([*command, str(whole)])
    python = [sys.executable, "-m", "m2ib_lite", *command, str(broken)]
    ends = [(kill_in_its_work(python, broken, rng), done(broken)) for _ in range(kills)]
    print(f"\nkilled with so many of {2 * kills} shards done: {[count for status, count in ends if status == -signal.SIGKILL]}")
    assert sum(status == -signal.SIGKILL for status, _ in ends) > kills / 2
    main([*command, str(broken)])
    assert_frame_equal(*(pd.read_parquet(out / "scores") for out in (whole, broken)), check_exact=True)
    assert (whole / "summary.csv").read_bytes() == (broken / "summary.csv").read_bytes()
