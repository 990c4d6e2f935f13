"""MS-CXR: radiologists' phrases and boxes for chest X-rays of MIMIC-CXR (PhysioNet, for credentialed users)."""

from .boxes import parse_box
from .tables import Listed, csv_rows

TEXTS = ("category_name", "label_text", "path", "dicom_id")
NUMBERS = ("x", "y", "w", "h", "image_width", "image_height")


def read_mscxr(path, root=None):
    """The pairs of MS_CXR_Local_Alignment_v1.0.0.csv: the rows of one phrase of one picture are its boxes.  -> a list of Listed

    root: where the table's paths start, the folder of MIMIC-CXR-JPG that holds `files`, or `files` itself; the table's own
    unless given.  Boxes are in original pixels; where a file has another size, it is taken for the whole picture resized.
    """
    folder, phrases = root or path.parent, {}
    for line, row in csv_rows(path, TEXTS + NUMBERS):
        key = (row["dicom_id"], row["label_text"]) if "problem" not in row else line
        phrases.setdefault(key, []).append((line, row))
    if (folder / "files").is_dir() and not any(rows[0][1].get("path", "").startswith("files/") for rows in phrases.values()):
        folder /= "files"
    numbers = {}
    return [_listed(f"{path.name}, line {rows[0][0]}", [row for _, row in rows], folder, numbers) for rows in phrases.values()]


def _listed(where, rows, folder, numbers):
    first, boxes, drawn_in = rows[0], (), None
    picture = first.get("dicom_id") or where
    numbers[picture] = numbers.get(picture, 0) + 1
    problem = first.get("problem", "")
    try:
        if not problem:
            boxes = tuple(parse_box({"label": row["category_name"], **{side: float(row[side]) for side in "xywh"}}) for row in rows)
            drawn_in = int(float(first["image_width"])), int(float(first["image_height"]))
    except (ValueError, OverflowError) as error:
        problem = f"{error}: x, y, w, h, image_width and image_height are pixels"
    if drawn_in and min(drawn_in) < 1:
        problem = f"its picture has {drawn_in[0]} x {drawn_in[1]} pixels: give image_width and image_height"
    image, caption = first.get("path", ""), first.get("label_text", "")
    return Listed(f"{picture}-{numbers[picture]}", where, image, caption, folder, boxes, drawn_in, problem)
