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
    for line, row, problem in csv_rows(path, TEXTS + NUMBERS):
        key = line if problem else (row["dicom_id"], row["label_text"])
        phrases.setdefault(key, []).append((f"{path.name}, line {line}", row, problem))
    below = any(row.get("path", "").startswith("files/") for ((_, row, _), *_) in phrases.values())
    has_files = (folder / "files").is_dir()
    if has_files and not below:
        folder /= "files"
    elif below and not has_files and folder.name == "files":
        folder = folder.parent
    numbers = {}
    return [_listed(rows[0][0], [row for _, row, _ in rows], rows[0][2], folder, numbers) for rows in phrases.values()]


def _listed(where, rows, problem, folder, numbers):
    """The rows of one phrase.  numbers: how many phrases a picture had so far."""
    first, boxes, drawn_in = rows[0], (), None
    picture = first.get("dicom_id") or where
    numbers[picture] = numbers.get(picture, 0) + 1
    try:
        if not problem:
            boxes = tuple(parse_box({"label": row["category_name"], **{side: float(row[side]) for side in "xywh"}}) for row in rows)
            drawn_in = round(float(first["image_width"])), round(float(first["image_height"]))
            sizes = {(float(row["image_width"]), float(row["image_height"])) for row in rows}
            if len(sizes) > 1 or min(drawn_in) <= 0:
                said = " and ".join(f"{width:g} x {height:g}" for width, height in sorted(sizes))
                problem = f"its picture has {said} pixels: give its true size"
    except (ValueError, OverflowError) as error:
        problem = f"{error}: x, y, w, h, image_width and image_height are pixels"
    image, caption = first.get("path", ""), first.get("label_text", "")
    return Listed(f"{picture}-{numbers[picture]}", where, image, caption, folder, boxes, drawn_in, problem)
