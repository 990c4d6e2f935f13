"""Jobs side by side, each in a process of its own, under one progress bar."""

import multiprocessing
import os
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager
from functools import partial

import torch
from tqdm import tqdm

AT_ONCE = 2  # one process on two cores leaves a third of them idle
LOOK = 1  # seconds between two looks at the bar


class Counter:
    """What a job has of the bar: `update()` counts a part of it as done, whatever process it is in."""

    done = None

    @classmethod
    def share(cls, done):
        """Called once in each process."""
        cls.done = done

    def update(self):
        with self.done.get_lock():
            self.done.value += 1


@contextmanager
def cores_shared(jobs):
    """Processes that start in the block take a share of the cores each, where the user has not said otherwise."""
    chosen = os.environ.get("OMP_NUM_THREADS")
    try:
        os.environ["OMP_NUM_THREADS"] = chosen or str(max(1, torch.get_num_threads() // jobs))
        yield
    finally:
        if chosen is None:
            del os.environ["OMP_NUM_THREADS"]


def side_by_side(jobs, parts):
    """job(bar) of each job, AT_ONCE at a time, started in their order.  -> what they returned, as they ended

    parts: how often all of them together call bar.update().  An interrupt ends them all.
    """
    fresh = multiprocessing.get_context("spawn")  # a fork would copy the locks of other threads
    done, results = fresh.Value("i"), []
    pool = ProcessPoolExecutor(AT_ONCE, fresh, initializer=Counter.share, initargs=(done,))
    with cores_shared(AT_ONCE), pool, tqdm(total=parts, unit="cell") as bar:
        waiting = {pool.submit(partial(job, bar=Counter())) for job in jobs}
        try:
            while waiting:
                ended, waiting = wait(waiting, timeout=LOOK, return_when=FIRST_COMPLETED)
                bar.update(done.value - bar.n)
                results += [job.result() for job in ended]
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise
    return results
