"""The shards of a run made on Ray: by a worker on each GPU, or by some on CPUs, each with the model once.  Needs m2ib_lite[ray]."""

import torch

from ..evaluate import digest
from ..models import load_model
from .scoring import Scorer

RETRIES = 10  # of a shard whose worker died; a pair that takes its worker down each time must not go on for ever


class Worker:
    """What one process of the cluster keeps; `known` is the digest of the model that the manifest speaks of."""

    def __init__(self, model, known, pairs, options, batch_size, threads):
        torch.set_num_threads(threads)  # Ray gives one; sums are added up in another order with more
        clip = load_model(*model)
        if digest(clip, {}) != known:
            raise ValueError(f"model {model[0]} is another one on a machine of the cluster: give all machines the same")
        self.pairs, self.scorer = pairs, Scorer(clip, options, batch_size)

    def make(self, path, places):
        """-> path, scores, and the batch size at the end"""
        return path, self.scorer.table(self.pairs, places, lambda n: None), self.scorer.batch_size


def connect(address):
    """Ray, joined to the cluster at `address`, or "local": one on this machine that ends with the process.  ValueError without."""
    try:
        import ray
    except ImportError:
        raise ValueError("ray is not installed: pip install 'm2ib_lite[ray]'") from None
    try:
        ray.init(address, log_to_driver=False, logging_level="ERROR", **dict(include_dashboard=False) if address == "local" else {})
    except Exception as error:  # a cluster that does not come up in time raises a plain one
        raise ValueError(f"no Ray cluster at {address!r} ({error}): give local, auto, or HOST:PORT of its head") from error
    return ray


def spread(files, sizes, pairs, scorer, done, model, address, workers):
    """As `runs.in_order`, on a cluster: a shard that a dead worker leaves is made again by a new one, and the driver alone writes.

    model: load_model's arguments.  workers: how many, or None for one on each GPU, and without any for a single one.
    """
    todo = {path: places for path, places in files.items() if not sizes[path]}
    ray, cuda = connect(address), scorer.clip.device.type == "cuda"
    try:
        kind = "GPU" if cuda else "CPU"
        room = int(ray.cluster_resources().get(kind, 0))
        count = workers or (room if cuda else 1)
        if not 1 <= count <= room:
            raise ValueError(f"workers is {count}: the cluster has {room} {kind}s, give 1 to {room}")
        lasting = dict(num_cpus=1, num_gpus=int(cuda), max_restarts=-1, max_task_retries=RETRIES)
        given = digest(scorer.clip, {}), ray.put(pairs), scorer.options, scorer.batch_size, torch.get_num_threads()
        actors = [ray.remote(Worker).options(**lasting).remote(model, *given) for _ in range(min(count, len(todo)))]
        pool = ray.util.ActorPool(actors)
        for path, table, batch_size in pool.map_unordered(lambda actor, shard: actor.make.remote(*shard), todo.items()):
            yield path, table, batch_size
            done(len(todo[path]))
    except ray.exceptions.RayActorError as error:
        raise ValueError(f"a worker cannot start, or died {RETRIES} times in one shard: {error}") from error
    finally:
        ray.shutdown()
