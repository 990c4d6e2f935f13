import errno
import json
import os
import re
import signal
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path
from threading import RLock

import numpy as np
import pandas as pd
import pytest
import torch
from kernel import FORKS
from pandas.testing import assert_frame_equal
from PIL import Image
from run import FORKED
from tqdm import tqdm

from m2ib_lite import explain
from m2ib_lite.__main__ import main
from m2ib_lite.__main__ import parser as command_line
from m2ib_lite.data import Pairs, load_pairs
from m2ib_lite.evaluate import METHODS, confidence, localisation, occurrences
from m2ib_lite.files import written_whole
from m2ib_lite.models import load_model
from m2ib_lite.rivals import RIVALS
from m2ib_lite.runs import evaluate_data, store, summarise
from m2ib_lite.runs.scoring import scores

QUICK = dict(data="scenes", device="cpu", methods=["chefer"], count=5, shard=2, batch_size=2)
QUICK_COMMAND = "evaluate --data scenes --device cpu --methods chefer --count 5 --shard 2 --batch-size 2"
PROCESSES = FORKS if FORKED else get_context("spawn")  # a fork has the imports that take a new Python seconds
NEAR = dict(rtol=1e-4, atol=1e-3)  # of the same pairs in other batches; drop and increase are percentages


class Killed(BaseException):
    """What no `except Exception` sees: as near as a process comes to kill -9 from inside."""


@pytest.fixture
def changed(monkeypatch):
    """changed({place: pair or exception}): what data sets read from now on."""
    read = Pairs.__getitem__

    def change(changes):
        def read_changed(data, i):
            found = changes.get(i) or read(data, i)
            if isinstance(found, BaseException):
                raise found
            return found

        monkeypatch.setattr(Pairs, "__getitem__", read_changed)

    return change


@pytest.fixture
def run(folder):
    """run(out=..., options...) -> the rows of an `evaluate_data` of a small model, as they lie on the disk."""

    def evaluate(out="out", **options):
        evaluate_data(str(folder), out=folder / out, **{**QUICK, **options})
        return pd.read_parquet(folder / out / "scores")

    return evaluate


def command(folder, out="out"):
    """What `run` does, as a command.  -> what it says where it stops, None where it ends well"""
    try:
        main([*QUICK_COMMAND.split(), "--model", str(folder), "--out", str(folder / out)])
    except SystemExit as stopped:
        return stopped.code


def test_rows_are_those_of_the_evaluation_whatever_the_batch(folder, run):
    options = dict(steps=2, samples=2)
    table, data = run(methods=["random", "Chefer", "m2ib"], **options), load_pairs("scenes", 5)
    assert [pair for pair, _ in groupby(table["pair"])] == data.ids  # pair by pair
    assert list(table["method"].unique()) == ["M2IB", "Chefer et al.", "Random"]
    assert table["error"].isna().all()
    clip, pairs, keys = load_model(str(folder), "cpu"), list(data), ["pair", "modality", "metric"]
    for name, rows in table.groupby("method"):
        a = METHODS[name](clip, pairs, **(options if name == "M2IB" else {}))
        masks = localisation(a, pairs, "masks").query("modality == 'image'")
        masks = masks.assign(metric=masks["metric"] + " of masks")
        cosines = dict(pair=data.ids, modality="pair", metric="similarity", value=a.similarity, chance=a.others.mean(dim=1))
        tables = [localisation(a, pairs), masks, occurrences(a, pairs), confidence(clip, a, pairs), pd.DataFrame(cosines)]
        direct = pd.concat(tables)
        ours, theirs = (t.set_index(keys)[["value", "chance"]].astype(float).sort_index() for t in (rows, direct))
        assert_frame_equal(ours, theirs, **NEAR)


def test_pairs_without_boxes_or_masks_have_the_scores_that_they_can_have(clip, pairs):
    plain = [replace(pair, boxes=[]) for pair in pairs[:2]]
    boxed = [replace(pair, boxes=[replace(box, mask=None) for box in pair.boxes]) for pair in pairs[:2]]
    bare = {"similarity", "drop", "increase", "deletion AUC", "insertion AUC"}
    assert set(scores(clip, "Chefer et al.", plain, {})["metric"]) == bare
    found = set(scores(clip, "Chefer et al.", boxed, {})["metric"])
    assert {"energy inside", "words hit", "drop"} <= found
    assert not any(name.endswith("of masks") for name in found)


def test_a_bad_pair_is_a_row_that_says_why(run, folder, changed, capsys):
    whole, blank = run("whole"), replace(load_pairs("scenes")[2], caption=" ")
    changed({1: OSError("picture.png is cut short"), 2: blank})
    table = run("broken")
    errors = table.dropna(subset="error").set_index("pair")["error"]
    assert errors["scenes-test-1-1"] == "OSError: picture.png is cut short"
    assert "give at least one word" in errors["scenes-test-1-2"]
    assert len(errors) == 2
    rest = whole[~whole["pair"].isin(errors.index)]
    assert_frame_equal(table[table["error"].isna()].reset_index(drop=True), rest.reset_index(drop=True), **NEAR)
    changed({i: OSError("gone") for i in range(5)})
    assert command(folder) is None
    assert "bad pairs: not read 5" in capsys.readouterr().out


def test_torn_pictures_and_torn_lines_of_a_table_are_rows(folder, capsys):
    images = folder / "images"
    images.mkdir()
    load_pairs("scenes")[0].image.save(images / "a.png")
    (images / "torn.png").write_bytes((images / "a.png").read_bytes()[:500])
    whole = {"image": "a.png", "caption": "an owl zq"}
    lines = [whole, whole | {"id": "\ud800"}, whole | {"image": "\udfff.png"}, {"image": "torn.png", "caption": "two mice"}]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    given = ["--data", str(folder / "captions.jsonl"), "--root", str(images), "--out", str(folder / "out")]
    with pytest.warns(UserWarning, match=r"\d+ warnings from a.png to torn.png, the last: .*zq"):
        main(["evaluate", "--model", str(folder), *given, "--methods", "chefer", "--device", "cpu"])
    table = pd.read_parquet(folder / "out" / "scores")
    assert table.groupby("pair", sort=False).size().tolist() == [9, 1, 1, 1]
    errors = table.dropna(subset="error").set_index("pair")["error"]
    assert list(errors.index) == ["captions.jsonl, line 2", "captions.jsonl, line 3", "torn.png"]
    assert errors.iloc[:2].str.contains("half a character").all()
    assert "torn.png" in errors["torn.png"]
    assert "bad pairs: not read 3" in capsys.readouterr().out


def test_rows_in_memory_are_known_again_by_what_they_say(run):
    rows = [{"image": pair.image, "caption": pair.caption} for pair in load_pairs("scenes", 3)]
    first = run(data=rows, count=None)
    assert list(run("drawn", data=rows, count=2, seed=5)["pair"].unique()) == load_pairs(rows, 2, 5).ids
    again = [{**row, "image": row["image"].copy()} for row in rows]  # elsewhere in memory, as in another process
    assert_frame_equal(run(data=again, count=None), first)
    with pytest.raises(ValueError, match="data digest was"):
        run(data=[{**row, "caption": "an owl"} for row in rows], count=None)


def test_a_map_that_is_not_finite_is_an_error_of_its_pair_alone(run, monkeypatch):
    find, dark = METHODS["Chefer et al."], load_pairs("scenes")[3].caption

    def sometimes_nan(clip, pairs, **options):
        attribution = find(clip, pairs, **options)
        attribution.image_maps[[pair.caption == dark for pair in pairs]] = torch.nan
        return attribution

    monkeypatch.setitem(METHODS, "Chefer et al.", sometimes_nan)
    table = run(batch_size=4, shard=5)
    assert table.dropna(subset="error")["pair"].tolist() == ["scenes-test-1-3"]
    assert table.loc[table["error"].isna(), "pair"].nunique() == 4


def out_of_memory_above(most, monkeypatch):
    """Let chefer run out of memory for more than so many pairs.  -> the list of the batch sizes that it was asked for"""
    find, asked = METHODS["Chefer et al."], []

    def greedy(clip, pairs, **options):
        asked.append(len(pairs))
        if len(pairs) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return find(clip, pairs, **options)

    monkeypatch.setitem(METHODS, "Chefer et al.", greedy)
    return asked


def test_a_batch_that_the_device_has_no_memory_for_is_halved_for_good(run, folder, monkeypatch):
    options = dict(count=12, shard=8, batch_size=8, methods=["chefer", "random"])
    whole, asked = run("whole", **options), out_of_memory_above(2, monkeypatch)
    table = run("halved", **options)
    assert asked == [1, 8, 4, 2, 2, 4, 2, 2, 2, 2]  # the first is on trial
    assert_frame_equal(table, whole, **NEAR)
    last = folder / "halved" / "scores" / "000000008.parquet"
    last.unlink()
    del asked[:]
    assert_frame_equal(run("halved", **options), table)
    assert asked == [2, 2]  # also by a later process
    last.unlink()
    out_of_memory_above(0, monkeypatch)
    bad = run("halved", **options).dropna(subset="error")  # pairs that are too large alone
    assert bad["pair"].tolist() == load_pairs("scenes", 12).ids[8:]
    assert (set(bad["method"]), set(bad["error"])) == ({"Chefer et al."}, {"OutOfMemoryError: CUDA out of memory"})


def test_a_fault_of_the_machine_is_none_of_a_pair(run, folder, changed):
    full = OSError(errno.ENOSPC, "No space left on device")
    named = OSError(f"pair 'a' (line 2): {full}")
    named.__cause__ = full  # as load_pairs names the pair
    for error in (full, named, OSError(errno.EMFILE, "Too many open files"), MemoryError("full")):
        changed({1: error})
        with pytest.raises(type(error), match=re.escape(str(error))):
            run()
    assert "memory is full: make room, then give the same command" in command(folder)
    changed({})
    assert run()["error"].isna().all()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_a_disk_that_runs_full_loses_nothing(run, folder):
    whole, path = run(), folder / "out" / "scores" / "000000002.parquet"
    for full in (path, folder / "out" / "summary.csv"):
        full.unlink()
        full.with_name(f".{full.name}.part").symlink_to("/dev/full")
        assert re.search(f"No space left on device: mend that, then give the same command to go on: '{full}'", command(folder))
        assert not full.exists()
        assert_frame_equal(run(), whole)


def test_an_interrupted_run_says_how_to_go_on(run, folder, changed, capsys):
    whole = run("whole")
    changed({3: KeyboardInterrupt()})
    assert command(folder) == 130
    assert "give the same command to go on" in capsys.readouterr().err
    changed({})
    assert command(folder) is None
    said = capsys.readouterr().out
    assert said.startswith("2 of 5 pairs are there")
    assert "bad pairs: none" in said
    assert_frame_equal(pd.read_parquet(folder / "out" / "scores"), whole)


def stop_at(point, monkeypatch):
    """Let the process 'die' before the n-th step of its writing to the disk, and clear nothing away.  -> the steps so far"""
    reached = []

    def stoppable(owner, name):
        step = getattr(owner, name)

        def stop_or_go(*arguments, **options):
            reached.append(name)
            if len(reached) == point:
                raise Killed
            return step(*arguments, **options)

        monkeypatch.setattr(owner, name, stop_or_go)

    for owner, name in ((store.pq, "write_table"), (os, "fsync"), (Path, "replace")):
        stoppable(owner, name)
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok: None)
    return reached


def test_a_file_is_the_old_or_the_new_one_wherever_the_writing_stops(tmp_path):
    path = tmp_path / "a"
    for point, step, left in ((1, "fsync", "old"), (2, "replace", "old"), (3, "fsync", "new")):
        path.write_text("old")
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed), written_whole(path) as part:
            reached = stop_at(point, patch)
            part.write_text("new")
        assert (reached[-1], path.read_text()) == (step, left)
    with pytest.raises(Killed), written_whole(path) as part:
        part.write_text("half")
        raise Killed
    assert path.read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_a_run_killed_at_any_step_of_its_writing_ends_as_an_unbroken_one(run):
    whole = run("whole", count=3)
    for point in range(1, 15):  # the manifest 3, the summary 3, each of two shards 4
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            stop_at(point, patch)
            run(f"out{point}", count=3)
        assert_frame_equal(run(f"out{point}", count=3), whole)
    with pytest.MonkeyPatch.context() as patch:
        stop_at(15, patch)
        assert_frame_equal(run("out", count=3), whole)


def test_a_broken_shard_is_made_again(run, folder, capsys):
    whole, path = run(), folder / "out" / "scores" / "000000002.parquet"
    for harm in (lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:200] + b"\0" * 50 + b[250:]):
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
    for name, value in dict(seed=3, count=4, batch_size=1, methods=["random"], dtype="bfloat16").items():
        with pytest.raises(ValueError, match=f"holds another run .*{'pairs' if name == 'count' else name} was"):
            run(**{name: value})
    manifest = json.loads((folder / "out" / "manifest.json").read_text())
    assert {"model digest", "data digest", "code", "torch", "transformers", "seed", "methods"} <= set(manifest)
    clip.model.save_pretrained(folder)  # other weights under the same name
    with pytest.raises(ValueError, match="model digest was"):
        run()
    for spoil in (lambda path: path.write_text('{"seed": '), Path.unlink):
        spoil(folder / "out" / "manifest.json")
        with pytest.raises(ValueError, match="without their manifest"):
            run()


def test_two_runs_do_not_share_a_folder(run, folder):
    with store.only_run(folder / "out"), pytest.raises(ValueError, match="another run writes to"):
        run()
    run()


def test_what_no_run_can_mean_is_refused_before_the_first_pair(run, folder):
    for options, message in (
        (dict(methods=["nib", "m3ib"]), "no method 'm3ib': there are m2ib, saliency"),
        (dict(methods=["nib"], steps=3), "steps: only M2IB takes that"),
        (dict(batch_size=0), "batch_size is 0"),
        (dict(shard=0), "shard is 0"),
        (dict(methods=["m2ib"], layer=99), "image layer 99 is out of range"),
    ):
        with pytest.raises(ValueError, match=message):
            run(**options)
        assert not (folder / "out" / "scores").exists()
    run(methods=["random"])  # a command that failed at once binds no other


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


def test_the_help_page_names_what_can_be_asked_for(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["evaluate", "--help"])
    page = capsys.readouterr().out
    assert all(name in page for name in ("m2ib", *RIVALS))
    needed = ["evaluate", "--model", "a", "--data", "b", "--out", "c"]
    given = [*needed, "--methods", "m2ib,nib", "--layer", "9,7", "--beta", "0.1", "--count", "3"]
    options = vars(command_line().parse_args(given))
    assert (options["layer"], options["beta"], options["methods"], options["count"]) == ((9, 7), 0.1, ["m2ib", "nib"], 3)
    assert "sigma2" not in options  # the model's own
    with pytest.raises(SystemExit, match="2"):
        main([*needed, "--beta", "much"])
    assert "'much' is no float and no two of them" in capsys.readouterr().err


def test_one_pair_is_explained_from_the_shell(folder, capsys):
    picture, out = folder / "a picture (1).png", folder / "new" / "out"
    pair = load_pairs("scenes")[0]
    pair.image.save(picture)
    given = ["explain", str(picture), pair.caption, "--model", str(folder), "--device", "cpu", "--seed", "3", "--steps", "2"]
    main([*given, "--layer", "0,1", "--out", str(out)])
    found = explain(load_model(folder, "cpu"), pair.image, pair.caption, layer=(0, 1), steps=2, seed=3)
    said = capsys.readouterr().out
    assert found.verdict(0) in said
    assert [line.split()[::2] for line in said.splitlines() if " nats " in line] == [
        [f"{score:.3f}", word] for word, score in zip(*found.words(0), strict=True)
    ]
    with np.load(out / "maps.npz") as kept:
        np.testing.assert_array_equal(kept["image_maps"], found.image_maps)
    np.testing.assert_array_equal(np.asarray(Image.open(out / "masks" / "picture.png")) > 0, found.segments()[0].mask)
    assert Image.open(out / "explained.png").width > 1000


@pytest.mark.parametrize(
    ("given", "message"),
    [(["none.png", "an owl"], "none.png"), (["README.md", "an owl"], "convert it to PNG"), ([None, " "], "at least one word")],
)
def test_one_pair_that_cannot_be_explained_is_an_error_that_names_it(folder, given, message, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])
    load_pairs("scenes")[0].image.save(folder / "a.png")
    with pytest.raises(SystemExit, match=message):
        main(["explain", given[0] or str(folder / "a.png"), given[1], "--model", str(folder), "--out", str(folder / "out")])
    assert not (folder / "out").exists()


def done(out):
    """How many shards lie in a run's folder."""
    return len(list((out / "scores").glob("*.parquet")))


def say_into(log, command):
    tqdm.set_lock(RLock())  # tqdm's own is a semaphore of the system, which a killed process leaves behind
    with log.open("w", buffering=1) as said, redirect_stdout(said), redirect_stderr(said):
        main(command)


def kill_in_its_work(command, log, rng):
    """Start a run and kill -9 it at a random moment after it began to work.  -> its exit status"""
    out = Path(command[-1])
    log.write_text("")
    process = PROCESSES.Process(target=say_into, args=(log, command), daemon=True)
    process.start()
    while "pairs are there" not in log.read_text():
        assert process.is_alive(), log.read_text()
        time.sleep(0.001)
    enough = done(out) + int(rng.integers(2))
    while done(out) < enough and process.is_alive():
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.5))  # about the time of a pair
    process.kill()
    process.join()
    return process.exitcode


def test_a_process_killed_at_random_moments_ends_with_the_table_of_an_unbroken_one(tmp_path, request):
    kills, rng = request.config.getoption("--kills"), np.random.default_rng(0)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    options = f"--data scenes --count {3 * kills} --methods chefer,random,m2ib --steps 2 --samples 2 --shard 1 --device cpu"
    command = ["evaluate", "--model", "testbed", *options.split(), "--out"]
    main([*command, str(whole)])
    ends = [(kill_in_its_work([*command, str(broken)], tmp_path / "log", rng), done(broken)) for _ in range(kills)]
    print(f"\nkilled with so many of {3 * kills} shards done: {[count for status, count in ends if status == -signal.SIGKILL]}")
    assert sum(status == -signal.SIGKILL for status, _ in ends) > kills / 2, (tmp_path / "log").read_text()
    main([*command, str(broken)])
    assert_frame_equal(*(pd.read_parquet(out / "scores") for out in (whole, broken)), check_exact=True)
    assert (whole / "summary.csv").read_bytes() == (broken / "summary.csv").read_bytes()
