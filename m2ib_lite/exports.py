"""Attributions and segments as files that other programs read: numbers as npz and csv, pictures as PNG.

A folder's index (maps.npz, segments.csv) comes last, and goes first where files are replaced: where it stands, all of its files do.
Files of other names in the folder stay.
"""

import re
from collections import Counter

import numpy as np
import pandas as pd
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from .files import filled_whole
from .metrics import dice, iou
from .plots import overlay, own_scale, seen_heat
from .segments import check_finite
from .side import BAR_DELAY

SAFE_ID = re.compile(r"[\w-]+(\.[\w-]+)*")
PIXELS = ("x", "y", "w", "h", "point_x", "point_y")  # the columns of a box and a point


def file_names(ids, count):
    """A name for the files of each pair: its id, or its number where `ids` is None.  ValueError for ids that cannot be names."""
    if ids is None:
        return [f"{i:04d}" for i in range(count)]
    names = [ids] if isinstance(ids, str) else list(map(str, ids))
    if len(names) != count:
        raise ValueError(f"{len(names)} ids for {count} pairs: give one each")
    times = Counter(map(str.casefold, names))  # some file systems take A for a
    for name in names:
        if not SAFE_ID.fullmatch(name):
            raise ValueError(f"id {name!r} is no safe file name: use letters, digits, '-', '_' and single dots between them")
        if times[name.casefold()] > 1:
            raise ValueError(f"id {name!r} is that of two pairs, upper and lower case being the same: give each its own")
    return names


def as_arrays(attribution):
    """What an Attribution holds besides its images, as arrays of numbers and of text; see `save`."""
    counts = [len(words) for words in attribution.tokens]
    tokens = [words + [""] * (max(counts) - len(words)) for words in attribution.tokens]
    arrays = dict(captions=attribution.captions, tokens=tokens, n_tokens=counts, views=attribution.views)
    arrays |= dict(sizes=[image.size for image in attribution.images], method=attribution.method, unit=attribution.unit)
    if attribution.similarity is not None:
        arrays |= dict(similarity=attribution.similarity.cpu(), others=attribution.others.cpu())
        arrays["ranks"] = [attribution.rank(i) for i in range(len(attribution))]
    if attribution.image_maps is not None:
        arrays["image_maps"] = attribution.image_maps.cpu().numpy()
    if attribution.text_maps is not None:
        arrays["text_maps"] = pad_sequence(attribution.text_maps, batch_first=True, padding_value=np.nan).float().cpu().numpy()
    return {name: np.asarray(array) for name, array in arrays.items()}


def save_heat(heat, path, unit):
    """A heat (H, W) as a 16-bit gray PNG, its text unit, low and high: the lowest and highest value, or 0.  -> (low, high)"""
    low, high = float(heat.min(initial=0)), float(heat.max(initial=0))
    text = PngInfo()
    for name, value in dict(low=low, high=high, unit=unit).items():
        text.add_text(name, str(value))
    shares = (heat - low) / (high - low) if high > low else 0 * heat
    Image.fromarray(np.rint(65535 * shares).astype(np.uint16)).save(path, pnginfo=text)
    return low, high


def save(attribution, folder, ids=None):
    """The maps of B pairs as files in `folder`, made where there is none; ids: a safe file name for each pair, None numbers them.

    maps.npz, for np.load without pickle: image_maps (B, gh, gw) and text_maps (B, T), NaN beyond a caption's n_tokens (B,), where
        there are any; ids, captions (B,) and tokens (B, T), text; views (B, 4), left, top, right, bottom, and sizes (B, 2), width,
        height, in pixels of the image; heat_ranges (B, 2), low and high; method; unit, that of maps and heats; similarity and
        ranks (B,), others (B, K): of the cosine, as in Attribution, where it is known.
    heats/ID.png: the heat at the image's own size in 16 bits of gray: low + pixel / 65535 * (high - low).
    overlays/ID.png: the heat over the image in grey, as `plot` draws it, pale where the model did not see the image.
    All files are written, or none where writing fails.
    ValueError for bad ids or image maps that are not finite; FileNotFoundError or NotADirectoryError for a folder that cannot be.
    """
    arrays = as_arrays(attribution) | dict(ids=file_names(ids, len(attribution)))
    check_finite(attribution)
    with filled_whole(folder, "maps.npz") as part:
        if attribution.image_maps is not None:
            (part / "heats").mkdir()
            (part / "overlays").mkdir()
            arrays["heat_ranges"] = []
            for i, name in enumerate(tqdm(arrays["ids"], desc="files", unit="pair", delay=BAR_DELAY)):
                heat = seen_heat(attribution, i)
                arrays["heat_ranges"].append(save_heat(heat.data, part / "heats" / f"{name}.png", attribution.unit))
                overlay(attribution.images[i], heat, own_scale(heat, attribution.unit)).save(part / "overlays" / f"{name}.png")
        np.savez_compressed(part / "maps.npz", **arrays)


def table(segments, ids=None, truths=None):
    """Segments in numbers, a row each: id, threshold, box, point, area, and dice and iou where there is a truth.  -> DataFrame

    area: the mask's share of the image.  truths: a mask (H, W) for each segment, foreground is what is not 0; None for one or
    for all where it is not known.  ValueError for bad ids, or truths of another number or size.
    """
    rows, count = [], len(segments)
    truths = [None] * count if truths is None else truths
    if len(truths) != count:
        raise ValueError(f"{len(truths)} truths for {count} segments: give one each, None where it is not known")
    for name, segment, truth in zip(file_names(ids, count), segments, truths, strict=True):
        box, point = segment.box or (None,) * 4, segment.point or (None,) * 2
        row = dict(id=name, threshold=segment.threshold, **dict(zip(PIXELS, box + point, strict=True)), area=segment.mask.mean())
        if truth is not None:
            truth = np.asarray(truth) != 0
            if truth.shape != segment.mask.shape:
                raise ValueError(f"the truth of {name} is {truth.shape}, its image {segment.mask.shape}: bring it to that size")
            row |= dict(dice=dice(segment.mask, truth), iou=iou(segment.mask, truth))
        rows.append(row)
    return pd.DataFrame(rows).astype(dict.fromkeys(PIXELS, "Int64"))


def save_segments(segments, folder, ids=None, truths=None):
    """Segments as files, with the folder, ids and errors of `save`: segments.csv, their `table`, and masks as ID.png, 0 or 255."""
    numbers = table(segments, ids, truths)
    with filled_whole(folder, "segments.csv") as part:
        for name, segment in zip(numbers["id"], segments, strict=True):
            Image.fromarray(np.uint8(255) * segment.mask).save(part / f"{name}.png")
        numbers.to_csv(part / "segments.csv", index=False)
