"""A folder in which a run can be killed at any moment: what has its name there is whole, and one run at a time writes to it."""

import fcntl
import json
import os
from contextlib import contextmanager, suppress

import pyarrow as pa
import pyarrow.parquet as pq

MANIFEST, SCORES, LOCK = "manifest.json", "scores", ".lock"
NUMBERS = ("value", "chance")
COLUMNS = ("pair", "modality", "metric", "value", "chance", "method", "error")
SCHEMA = pa.schema([(name, pa.float64() if name in NUMBERS else pa.string()) for name in COLUMNS])


def write_whole(path, content):
    """Bytes into a file, whole or not at all, and on the disk when this returns.  OSError where there is no room."""
    part = path.with_name(f".{path.name}.part")  # readers of a Parquet folder skip names with a dot
    try:
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise OSError(error.errno, f"{error.strerror}: mend that, then give the same command to go on", str(path)) from error


def sync_folder(folder):
    """So that a name in it outlives a crash of the machine."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def only_run(folder):
    """Keep other runs out of a folder, made where it is missing; the lock ends with the process.  ValueError where one is in it."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another run writes to {folder}: wait for its end, or give another --out") from None
        yield


def settle(folder, manifest):
    """Write down what a run depends on.  ValueError where the folder holds a run that depends on something else."""
    path, manifest = folder / MANIFEST, json.loads(json.dumps(manifest))
    if not (folder / SCORES).exists():  # whatever a command that failed at once wrote down binds nothing
        write_whole(path, json.dumps(manifest, indent=1).encode())
    elif not path.exists():
        raise ValueError(f"{folder} holds scores without their {MANIFEST}: give another --out")
    try:
        known = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): give another --out") from error
    names = [name for name in known | manifest if known.get(name) != manifest.get(name)]
    if names:
        differing = "; ".join(f"{name} was {known.get(name)}, is {manifest.get(name)}" for name in names)
        raise ValueError(f"{folder} holds another run ({differing}): give its options again, or another --out")


def shards(folder, count, size):
    """Where the scores of `count` pairs lie, `size` pairs a file.  -> {path: range of pairs}"""
    starts = range(0, count, size)
    return {folder / SCORES / f"{start:09d}.parquet": range(start, min(start + size, count)) for start in starts}


def write_shard(path, table, batch_size):
    """The scores of a shard, with the batch size that the next one starts with."""
    content = pa.Table.from_pandas(table.reindex(columns=COLUMNS), SCHEMA, preserve_index=False)
    sink = pa.BufferOutputStream()
    pq.write_table(content.replace_schema_metadata({"batch_size": str(batch_size)}), sink, write_page_checksum=True)
    path.parent.mkdir(exist_ok=True)
    write_whole(path, sink.getvalue())


def read_shard(path):
    """-> scores, batch size; or None, None where there is no such file, a part of it is lost, or a value lost a bit."""
    try:
        table = pq.ParquetFile(path, page_checksum_verification=True).read()
        return table.to_pandas(), int(table.schema.metadata[b"batch_size"])
    except (OSError, ValueError, TypeError, pa.ArrowException):  # a footer has no checksum, its text may be anything
        return None, None
