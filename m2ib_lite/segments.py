"""Maps as segmentations: the pixels that a map puts forward, with the box and the point that prompt a segmenter."""

from dataclasses import dataclass
from numbers import Real

import numpy as np
from skimage.filters import threshold_otsu
from skimage.measure import label, regionprops
from sklearn.cluster import KMeans

from .data.pairs import hull
from .metrics import unit_scale

THRESHOLDS = {  # (values from 0 to 1, level) -> what the foreground reaches
    "share": lambda values, level: level,
    "percentile": np.percentile,
    "otsu": lambda values, level: threshold_otsu(values),
    "kmeans": lambda values, level: KMeans(2, init=[[0], [1]], n_init=1).fit(values[:, None]).cluster_centers_.mean(),
}
HIGHEST = {"share": 1, "percentile": 100}  # the thresholds that need a level, and what it is below


@dataclass(frozen=True, eq=False)
class Segment:
    """What one map puts forward, in its image's own pixels.

    mask: (H, W) bool.  box: (x, y, w, h), tight around it.  point: (x, y), its highest pixel.  threshold: the rule that cut it.
    An empty mask, as a flat map has, has no box and no point: None.
    """

    mask: np.ndarray
    box: tuple[int, int, int, int] | None
    point: tuple[int, int] | None
    threshold: str

    @property
    def corners(self):
        """The box as SAM takes it, [x0, y0, x1, y1], x1 = x + w and y1 = y + h; None where there is none."""
        if self.box is None:
            return None
        x, y, w, h = self.box
        return [x, y, x + w, y + h]


def check_finite(attribution):
    """ValueError where an image map holds NaN or infinity."""
    for i, patches in enumerate([] if attribution.image_maps is None else attribution.image_maps):
        if not patches.isfinite().all():
            raise ValueError(f"the image map of pair {i} is not finite: ask for it again, of a model with dtype=torch.float32")


def segment(heat, seen, threshold="otsu", level=None, largest=False):
    """One finite heat (H, W) as a Segment; see `find_segments`, which checks.  seen: (H, W) bool, the pixels that count."""
    rule = threshold if level is None else f"{threshold} {level:g}"
    values = unit_scale(heat[seen])
    mask = np.zeros(heat.shape, bool)
    if not values.any():
        return Segment(mask, None, None, rule)
    mask[seen] = (values >= THRESHOLDS[threshold](values, level)) & (values > 0)
    if largest:
        pieces = label(mask)  # pixels touch by a side or a corner
        mask = pieces == max(regionprops(pieces, heat), key=lambda piece: (piece.area, piece.intensity_max)).label
    y, x = np.unravel_index(np.where(mask, heat, -np.inf).argmax(), heat.shape)
    return Segment(mask, hull(mask), (int(x), int(y)), rule)


def find_segments(attribution, threshold="otsu", level=None, largest=False):
    """The pixels of each image that its map puts forward.  -> [Segment], one a pair

    threshold: "share", `level` of the way from the map's lowest to its highest value, 0 to 1; "percentile", `level` in percent;
    "otsu" (Otsu 1979); "kmeans", the mean of two clusters' centres, which is Otsu's criterion without his histogram.
    largest: keep the largest connected piece alone, of equal ones that with the highest pixel.  What is negative counts as 0; what
    the model did not see, and the lowest value, are never foreground, so the mask of a flat map is empty, and no other.
    ValueError for a bad threshold or level, maps that are not finite, or an attribution without image maps.
    """
    if attribution.image_maps is None:
        raise ValueError("the attribution holds no image maps: ask for modality='both' or 'image'")
    check_finite(attribution)
    if threshold not in THRESHOLDS:
        raise ValueError(f"threshold is {threshold!r}: give one of {', '.join(map(repr, THRESHOLDS))}")
    highest = HIGHEST.get(threshold)
    if highest is None and level is not None:
        raise ValueError(f"level is {level}: leave it out, {threshold!r} finds its own")
    if highest is not None and not (isinstance(level, Real) and 0 <= level < highest):
        raise ValueError(f"level is {level}: {threshold!r} needs one from 0 to below {highest}")
    return [segment(attribution.heat(i), attribution.seen(i), threshold, level, largest) for i in range(len(attribution))]
