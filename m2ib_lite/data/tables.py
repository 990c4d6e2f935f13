"""Tables as {line: a dict of columns}; a line that makes no row is one with its PROBLEM, so that it harms no other.

`datasets`' csv and json builders give up a whole file for one torn line, so lines are read here one by one.
"""

import csv
import json
from collections import Counter
from contextlib import contextmanager

from .records import DRAWN_IN, PROBLEM

MS_CXR = {"category_name", "label_text", "path", "dicom_id", "x", "y", "w", "h", "image_width", "image_height"}


@contextmanager
def lines_of(path):
    """The lines of a UTF-8 file, a byte order mark left out.  ValueError where it cannot be read as that."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as lines:
            yield lines
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}): save it again in that encoding") from error


def csv_rows(path, **options):
    """Of a CSV with a header.  ValueError where its quotes are wrong, after which no line is certain."""
    rows = {}
    with lines_of(path) as lines:
        reader = csv.DictReader(lines, strict=True, **options)
        try:
            for row in reader:
                whole = None not in row and None not in row.values()
                problem = (
                    f"it has not the {len(reader.fieldnames)} columns {', '.join(reader.fieldnames)}: quote what holds a separator"
                )
                rows[f"line {reader.line_num}"] = row if whole else {PROBLEM: problem}
        except csv.Error as error:
            place = f"{path}, line {reader.reader.line_num}"
            raise ValueError(f"{place} is not CSV ({error}): close its quotes and double those inside") from error
    return rows


def tsv_rows(path):
    """Of a TSV as Conceptual Captions has it: caption, tab, image, with neither header nor quotes."""
    return csv_rows(path, fieldnames=["caption", "image"], delimiter="\t", quoting=csv.QUOTE_NONE)


def json_rows(path):
    """Of a file with a JSON object on each line that is not blank."""
    with lines_of(path) as lines:
        return {f"line {number}": _object(line) for number, line in enumerate(lines, 1) if line.strip()}


def _object(line):
    try:
        row = json.loads(line)
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # JSON can say "\ud800", which no table of results can hold
        return {PROBLEM: "it holds half a character (a surrogate): write the whole one"}
    except (ValueError, RecursionError) as error:
        return {PROBLEM: f"it is not JSON ({error}): write one object a line"}
    return row if isinstance(row, dict) and row else {PROBLEM: "it is not a JSON object: write one a line"}


def phrases(rows, folder):
    """The rows of MS-CXR's CSV, radiologists' boxes in MIMIC-CXR, those of one phrase of one picture made one.

    folder: that of MIMIC-CXR-JPG which holds `files`, or `files` itself.  Boxes are in pixels of the original; where the file has
    another size, it is taken for the whole picture resized.
    """
    groups, numbers, found = {}, Counter(), {}
    for line, row in rows.items():
        key = line if PROBLEM in row else (row["dicom_id"], row["label_text"])
        groups.setdefault(key, {})[line] = row
    for group in groups.values():
        line, first = next(iter(group.items()))
        found[line] = first
        if PROBLEM not in first:
            numbers[first["dicom_id"]] += 1
            found[line] = _phrase(list(group.values()), numbers[first["dicom_id"]], folder)
    return found


def _phrase(rows, number, folder):
    """One row with all boxes.  number: counts the phrases of its picture."""
    first, image = rows[0], rows[0]["path"].removeprefix("files/")
    image = f"files/{image}" if (folder / "files").is_dir() else image
    phrase = dict(id=f"{first['dicom_id']}-{number}", image=image, caption=first["label_text"])
    try:
        boxes = [dict(label=row["category_name"], **{side: float(row[side]) for side in "xywh"}) for row in rows]
        sizes = {(round(float(row["image_width"])), round(float(row["image_height"]))) for row in rows}
    except (ValueError, OverflowError) as error:
        return {**phrase, PROBLEM: f"{error}: x, y, w, h, image_width and image_height are pixels"}
    if len(sizes) > 1 or min(min(sizes)) <= 0:
        return {**phrase, PROBLEM: f"its picture has the sizes {sorted(sizes)}: give its true size"}
    return {**phrase, "boxes": boxes, DRAWN_IN: sizes.pop()}
