"""What `datasets` reads: rows in memory, shards in Parquet or webdataset's tars, as img2dataset writes them, and the hub."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq

from .records import OTHERS, PROBLEM, Record, as_records, columns_in, unique

OURS = ("boxes", "mask_file_name", "status")  # columns that are read where they are
KEYS = ("key", "__key__")  # of a shard, in Parquet and in a tar
SECONDS = 3  # that the hub has to answer


def read_rows(rows, image, caption, name="row", where=None, folder=None):
    """A record for each row of a `datasets.Dataset`, or of anything else that has a length and gives dicts.

    ValueError for the dict of splits that `datasets.load_dataset` gives, or without those columns; TypeError for a DataFrame.
    """
    if hasattr(rows, "iloc"):
        raise TypeError(f"a {type(rows).__name__} of pandas gives columns, not rows: give df.to_dict('records')")
    if isinstance(rows, Mapping):
        raise ValueError(f"a {type(rows).__name__} of {', '.join(map(str, rows))} is no list of rows: give one of them")
    columns, keys = (image, caption), range(len(rows))
    if hasattr(rows, "cast_column"):
        import datasets  # takes a second

        columns = columns_in(rows.column_names, image, caption, where or type(rows).__name__)
        keys = next((rows[column] for column in KEYS if where and column in rows.column_names), keys)
        if not rows.format["type"]:  # else it gives what its owner made of it
            rows = rows.select_columns([name for name in rows.column_names if name in (*columns, *OURS)])
            if isinstance(rows.features[columns[0]], datasets.Image):
                rows = rows.cast_column(columns[0], datasets.Image(decode=False))  # `open_image` checks and decodes
    where = where or f"a row of {type(rows).__name__}"
    ids = unique([""] * len(rows), [f"{name}-{key}" for key in keys])
    return [Record(id, where, rows, i, columns, folder or Path()) for i, id in enumerate(ids)]


def read_hub(name, image, caption):
    """The records of a data set "owner/name" of the hub, or "owner/name:split".  OSError where the hub does not give it."""
    import datasets
    from huggingface_hub import HfApi, constants

    place, _, split = name.partition(":")
    try:
        if not constants.HF_HUB_OFFLINE:
            HfApi().dataset_info(place, timeout=SECONDS)  # alone, `load_dataset` tries for half a minute
        rows = datasets.load_dataset(place, split=split or None)
    except Exception as error:  # of httpx, huggingface_hub and datasets
        remedy = "give the path of existing data or a name that the hub has; HF_HUB_OFFLINE=1 takes what was kept of it"
        raise OSError(f"no data {name!r} here, and none from the hub ({error}): {remedy}") from None
    if isinstance(rows, Mapping):
        if len(rows) > 1:
            raise ValueError(f"{name} has the splits {', '.join(rows)}: give one, as in '{place}:{next(iter(rows))}'")
        (rows,) = rows.values()
    return read_rows(rows, image, caption)


def read_shard(path, folder, image, caption):
    """The records of a .parquet or .tar; one that cannot be read is a bad pair of its own, which harms no other shard."""
    import datasets

    try:
        if path.suffix.lower() == ".tar":
            rows = datasets.load_dataset("webdataset", data_files=str(path), split="train")
        elif is_listing(set(pq.read_schema(path).names)):
            return as_records(listed_rows(path), path.name, folder)
        else:
            rows = datasets.Dataset.from_parquet(str(path))
    except Exception as error:  # of datasets and Arrow
        cause = error.__cause__ or error
        if isinstance(cause, MemoryError) or getattr(cause, "errno", None):  # the machine's fault, not the shard's
            raise
        torn = {PROBLEM: f"it cannot be read ({cause}): write it again, as img2dataset does when run again"}
        return as_records({"all of it": torn}, path.name, folder)
    return read_rows(rows, image, caption, path.stem, path.name, folder)


def is_listing(columns):
    """Whether a Parquet file with those columns only lists what img2dataset downloaded into a folder or a tar beside it."""
    return columns >= {"key", "status"} and not columns & {"image", *OTHERS["image"]}


def listed_rows(path):
    """The downloads of such a file that are pictures in that folder, and those that failed."""
    files = [file for file in path.with_suffix("").glob("*") if file.suffix not in (".txt", ".json")]
    pictures = {file.stem: f"{path.stem}/{file.name}" for file in files}
    in_tar = path.with_suffix(".tar").exists()
    wanted = [row for row in pq.read_table(path).to_pylist() if not (in_tar and row["status"] == "success")]
    said = {row["key"]: {"caption": row.get("caption"), "status": row["status"]} for row in wanted}
    return {key: {"id": f"{path.stem}-{key}", "image": pictures.get(key), **row} for key, row in said.items()}
