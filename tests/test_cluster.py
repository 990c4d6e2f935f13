import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from pandas.testing import assert_frame_equal

from m2ib_lite.__main__ import main
from m2ib_lite.data import load_pairs
from m2ib_lite.evaluate import digest
from m2ib_lite.runs import evaluate_data
from m2ib_lite.runs.cluster import Worker

COMMAND = "evaluate --model testbed --data scenes --count {} --methods m2ib,random --steps 2 --samples 2 --shard 1 --device cpu"


def workers_of(driver):
    return [child for child in psutil.Process(driver).children(recursive=True) if child.name().startswith("ray::Worker")]


def victim(driver, turn):
    """A process to kill: in the first turn and every second after it the driver, in the others a worker, once workers have begun.
    None where there is none any more."""
    while driver.poll() is None:
        workers = workers_of(driver.pid)
        if workers:
            return workers[turn // 2 % len(workers)].pid if turn % 2 else driver.pid
        time.sleep(0.01)
    return None


def test_a_cluster_whose_processes_are_killed_ends_with_the_files_of_one_process(tmp_path, request, monkeypatch):
    monkeypatch.setenv("RAY_worker_niceness", "0")  # else its workers wait for the processes of all other tests
    monkeypatch.setenv("RAY_prestart_worker_first_driver", "0")  # processes for tasks, of which there are none
    kills, rng = request.config.getoption("--kills"), np.random.default_rng(0)
    whole, broken, left, log = tmp_path / "whole", tmp_path / "broken", [], tmp_path / "log"
    shards = 4 + kills
    run = [*COMMAND.format(shards).split(), "--out"]
    main([*run, str(whole)])
    command = [sys.executable, "-m", "m2ib_lite", *run, str(broken), "--ray", "local", "--workers"]
    for turn in range(kills):
        if turn == 0 or turn % 2:
            workers = 1 + turn % 2  # each takes seconds to start; a second one where one of them is killed
            driver = subprocess.Popen([*command, str(workers)], stdout=log.open("ab"), stderr=subprocess.STDOUT)
        process = victim(driver, turn)
        time.sleep(rng.uniform(0, 3))  # a worker loads the model for seconds
        if process and driver.poll() is None and psutil.pid_exists(process):
            os.kill(process, signal.SIGKILL)
            left.append((("driver", "worker")[turn % 2], len(list(broken.glob("scores/*.parquet")))))
        if turn % 2 == 0:
            driver.wait()
    print(f"\nkilled, with so many of {shards} shards there: {left}")
    assert len(left) > kills / 2, log.read_text()
    assert kills % 2 or driver.wait() == 0  # the others finish the work of a killed worker
    main([*run, str(broken)])
    assert_frame_equal(*(pd.read_parquet(out / "scores") for out in (whole, broken)), check_exact=True)
    for name in ("summary.csv", "manifest.json"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes()


def test_a_worker_makes_the_shard_of_its_places_and_refuses_another_model(clip):
    pairs, known = load_pairs("scenes", 4), digest(clip, {})
    given = pairs, {"Random": {"seed": 0}}, 2, torch.get_num_threads()
    model = ("testbed", "cpu", torch.float32, None)
    path, table, batch_size = Worker(model, known, *given).make("a", range(1, 3))
    assert (path, batch_size, list(table["pair"].unique())) == ("a", 2, pairs.ids[1:3])
    with pytest.raises(ValueError, match="another one on a machine of the cluster"):
        Worker(("radiographs", *model[1:]), known, *given)


def test_what_no_cluster_can_do_is_said(folder, monkeypatch):
    ray = pytest.importorskip("ray", reason="no Ray: pip install 'm2ib_lite[ray]'")
    monkeypatch.setattr(ray, "init", lambda *given, **options: None)  # nothing is started
    monkeypatch.setattr(ray, "cluster_resources", lambda: dict(CPU=2))
    for options, message in (
        (dict(workers=3, ray="local"), "workers is 3: the cluster has 2 CPUs, give 1 to 2"),
        (dict(workers=2), "workers is 2: give ray, too"),
        (dict(workers=-1, ray="local"), "workers is -1"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate_data(str(folder), "scenes", folder / "out", ["random"], 2, device="cpu", **options)


def test_without_ray_the_extra_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install 'm2ib_lite\[ray\]'"):
        evaluate_data(str(folder), "scenes", folder / "out", ["random"], 2, device="cpu", ray="local")
