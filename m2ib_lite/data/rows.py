"""Rows of a Hugging Face `datasets.Dataset`, or of anything else that has a length and gives dicts."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..models import check_caption
from .images import open_image
from .pairs import Pair


@dataclass(frozen=True, slots=True)
class Row:
    """Row `index` of `rows`; image and caption: the names of its columns."""

    rows: object
    index: int
    image: str
    caption: str

    @property
    def id(self):
        return f"row-{self.index}"

    @property
    def where(self):
        return f"a row of {type(self.rows).__name__}"

    def read(self):
        """The pair, its image opened.  ValueError or OSError where it is bad."""
        row = self.rows[self.index]
        if not isinstance(row, Mapping):
            raise ValueError(f"it is a {type(row).__name__}: give a dict of columns")
        check_columns(row, self.image, self.caption)
        check_caption(row[self.caption])
        return Pair(open_image(row[self.image]), row[self.caption], id=self.id)

    def content(self):
        """The fingerprint that `datasets` gives data and all that was done to them; without one, the row's caption."""
        said = getattr(self.rows, "_fingerprint", None)
        if said is None and isinstance(row := self.rows[self.index], Mapping):
            said = row.get(self.caption)
        return self.id, self.image, self.caption, said


def read_rows(rows, image, caption):
    """A record for each row.  ValueError for the dict of splits that `datasets.load_dataset` gives, or without those columns;
    TypeError for a DataFrame."""
    if hasattr(rows, "iloc"):
        raise TypeError(f"a {type(rows).__name__} of pandas gives columns, not rows: give df.to_dict('records')")
    if isinstance(rows, Mapping):
        raise ValueError(f"a {type(rows).__name__} of {', '.join(map(str, rows))} is no list of rows: give one of them")
    check_columns(getattr(rows, "column_names", (image, caption)), image, caption)
    return [Row(rows, index, image, caption) for index in range(len(rows))]


def check_columns(columns, image, caption):
    """ValueError where one of the two is not among a row's columns."""
    for option, name in (("image", image), ("caption", caption)):
        if name not in columns:
            raise ValueError(f"there is no column {name!r} but {', '.join(columns)}: say load_pairs(..., {option}='its name')")
