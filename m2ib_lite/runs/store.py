"""A folder in which a run can be killed at any moment: what has its name there is whole, and one run at a time writes to it."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from ..files import written_whole

MANIFEST, SCORES, LOCK = "manifest.json", "scores", ".lock"
COLUMNS = ("pair", "modality", "metric", "value", "chance", "method", "error")
SCHEMA = pa.schema([(name, pa.float64() if name in ("value", "chance") else pa.string()) for name in COLUMNS])


def only_run(folder):
    """Keep other runs out of a folder within a `with`, or until the process ends.  ValueError where one is in it."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return FileLock(folder / LOCK).acquire(timeout=0)
    except Timeout:
        raise ValueError(f"another run writes to {folder}: wait for its end, or give another --out") from None


def settle(folder, manifest):
    """Write down what a run depends on.  ValueError where the folder holds a run that depends on something else."""
    path, manifest = folder / MANIFEST, json.loads(json.dumps(manifest, default=str))
    if not (folder / SCORES).exists():  # whatever a command that failed at once wrote down binds nothing
        with written_whole(path) as part:
            part.write_text(json.dumps(manifest, indent=1))
    try:
        known = json.loads(path.read_text())
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"{folder} holds scores without their {MANIFEST}, or it is torn ({error}): give another --out") from error
    names = [name for name in known | manifest if known.get(name) != manifest.get(name)]
    if names:
        differing = "; ".join(f"{name} was {known.get(name)}, is {manifest.get(name)}" for name in names)
        raise ValueError(f"{folder} holds another run ({differing}): give its options again, or another --out")


def write_shard(path, table, batch_size):
    """The scores of a shard, with the batch size that the next one starts with."""
    table = pa.Table.from_pandas(table.reindex(columns=COLUMNS), SCHEMA, preserve_index=False)
    path.parent.mkdir(exist_ok=True)
    with written_whole(path) as part:
        pq.write_table(table.replace_schema_metadata({"batch_size": str(batch_size)}), part, write_page_checksum=True)


def read_shard(path):
    """-> scores, batch size; or None, None where there is no such file, a part of it is lost, or a value lost a bit."""
    try:
        table = pq.ParquetFile(path, page_checksum_verification=True).read()
        return table.to_pandas(), int(table.schema.metadata[b"batch_size"])
    except (OSError, ValueError, TypeError, pa.ArrowException):  # a footer has no checksum, its text may be anything
        return None, None
