"""Files that are written whole or not at all, whatever happens on the way."""

import os
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path):
    """A path to write to in the place of `path`, which has its name, and is on the disk, once the block ended well.  -> Path"""
    path = Path(path)
    part = path.with_name(f".{path.name}.part")  # readers of a Parquet folder skip names with a dot
    try:
        yield part
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
        sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


def sync_folder(folder):
    """So that a name in it outlives a crash of the machine."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
