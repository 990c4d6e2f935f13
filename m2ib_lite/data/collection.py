"""A dataset that is read pair by pair, so that its images are never in memory all at once."""

import hashlib
import warnings


class Pairs:
    """Pairs of an image and a caption, each read when it is asked for.  Made by `load_pairs`.

    data[i] is a Pair, data[a:b] again Pairs, iteration reads one after the other, and nothing that was read is kept.
    records: what each pair is read from: `id`, `where` (its place, for messages), `read()` -> Pair, and `content()`, what it says.
    """

    def __init__(self, records):
        self._records = records
        places = {}
        for record in records:
            if record.id in places:
                raise ValueError(f"two pairs have the id {record.id!r}, {places[record.id]} and {record.where}: give each its own")
            places[record.id] = record.where

    def __len__(self):
        return len(self._records)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i):
        """ValueError or OSError where the pair cannot be read; the message names the pair, its place and the remedy."""
        if isinstance(i, slice):
            return Pairs(self._records[i])
        record = self._records[i]
        try:
            return record.read()
        except (OSError, ValueError, TypeError) as error:
            kind = next((kind for kind in (FileNotFoundError, OSError) if isinstance(error, kind)), ValueError)
            raise kind(f"pair {record.id!r} ({record.where}): {error}") from error

    @property
    def ids(self):
        """The unique name of each pair, known without opening an image."""
        return [record.id for record in self._records]

    def digest(self):
        """A hash of what is known of the pairs without opening an image, in their order.

        Tables: ids, captions, boxes, the images' names and their files' bytes, counted, not read.  Generated pairs: their ids,
        which hold all that a generator draws from.  Rows of `datasets`: its fingerprint; other rows: their captions.
        """
        state = hashlib.blake2b(digest_size=16)
        for record in self._records:
            state.update(repr(record.content()).encode() + b"\n")
        return state.hexdigest()


def readable(pairs):
    """The pairs that can be read, all at once, as a list; a warning says of the others why not.  ValueError where none can."""
    found, problems = [], []
    for i in range(len(pairs)):
        try:
            found.append(pairs[i])
        except (ValueError, OSError) as error:
            problems.append(str(error))
    if not found:
        raise ValueError(f"none of {len(pairs)} pairs can be read; the first: {problems[0]}")
    if problems:
        warnings.warn(f"{len(problems)} of {len(pairs)} pairs are left out; the first: {problems[0]}", stacklevel=2)
    return found
