"""Files and folders that are written whole or not at all, whatever happens on the way."""

import os
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def written_whole(path):
    """A path to write to; what is there takes the name `path`, and is on the disk, once the block ended well.  OSError if not."""
    part = path.with_name(f".{path.name}.part")  # readers of a Parquet folder skip names with a dot
    try:
        yield part
        sync(part)
        part.replace(path)
        sync(path.parent)
    except OSError as error:
        message = f"{error.strerror or error}: mend that, then give the same command to go on"
        raise OSError(error.errno, message, str(path)) from error
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def filled_whole(folder, index):
    """A temporary folder; its files move to `folder` once the block ended well, the file `index` last, or none does.  -> Path"""
    folder = Path(folder)
    if not folder.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {folder.parent} to make {folder.name} in: make it first")
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file: give the name of a folder")
    folder.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".part-") as part:  # inside, so that a move never crosses file systems
        yield Path(part)
        files = [file.relative_to(part) for file in Path(part).rglob("*") if file.is_file()]
        for file in files:
            (folder / file).parent.mkdir(exist_ok=True)
        (folder / index).unlink(missing_ok=True)
        for file in sorted(files, key=lambda file: file == Path(index)):
            (part / file).replace(folder / file)


def sync(path):
    """So that a file's bytes, or the names in a folder, outlive a crash of the machine."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
