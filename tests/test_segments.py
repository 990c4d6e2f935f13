from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.filters import threshold_otsu

from m2ib_lite.attribution import Attribution
from m2ib_lite.segments import THRESHOLDS, segment

RULES = [("share", 0.5), ("percentile", 80), ("otsu", None), ("kmeans", None)]
HEAT = np.zeros((6, 6))
HEAT[1:3, 1:3] = 8
HEAT[3, 3], HEAT[4, 5] = 7, 9
EVERYWHERE = np.ones(HEAT.shape, bool)


def attribution_of(patches, size=(60, 40), view=(10, 0, 50, 40)):
    """One pair of a wide image of which the model saw the middle, with this map (gh, gw)."""
    maps = torch.as_tensor(patches, dtype=torch.float32)[None]
    return Attribution(maps, [torch.ones(1)], [["owl"]], [Image.new("RGB", size)], ["owl"], [view])


@pytest.mark.parametrize(("threshold", "level"), RULES)
def test_every_threshold_parts_high_from_low(threshold, level):
    found = segment(HEAT, EVERYWHERE, threshold, level)
    np.testing.assert_array_equal(found.mask, HEAT >= 7)
    assert found.box == (1, 1, 5, 4)
    assert found.corners == [1, 1, 6, 5]
    assert found.point == (5, 4)
    assert found.threshold == (threshold if level is None else f"{threshold} {level}")


def test_the_largest_piece_holds_corners_and_its_own_point():
    found = segment(HEAT, EVERYWHERE, largest=True)
    np.testing.assert_array_equal(found.mask, (HEAT == 8) | (HEAT == 7))  # 7 touches the square by a corner
    assert found.box == (1, 1, 3, 3)
    assert found.point == (1, 1)  # the first of the equal ones, not the 9 of the other piece
    heat = np.array([[3.0, 0, 4.0]])  # of equal pieces the brighter stays
    assert segment(heat, heat >= 0, "share", 0.5, largest=True).box == (2, 0, 1, 1)


def test_a_share_and_a_percentile_by_hand():
    heat = np.arange(2.0, 13)[None]  # 2 to 12
    seen = heat > 0
    assert segment(heat, seen, "share", 0.3).mask.sum() == 8  # 5 to 12
    assert segment(heat, seen, "percentile", 90).mask.sum() == 2  # 11 and 12
    assert segment(heat, seen, "share", 0).mask.sum() == 10  # all but the lowest
    signed = np.array([[-9.0, -1, 1, 2, 4]])
    assert segment(signed, seen[:, :5], "share", 0.5).mask.tolist() == [[False, False, False, True, True]]


def test_otsu_is_skimages_and_kmeans_the_best_split_of_all():
    heat = np.random.default_rng(0).gamma(1.0, size=(30, 40)).astype(np.float32)
    seen = np.ones(heat.shape, bool)
    np.testing.assert_array_equal(segment(heat, seen, "otsu").mask, heat > threshold_otsu(heat))

    def within(mask):  # the sum of squares around both means, which 2-means makes small
        return sum(((part - part.mean()) ** 2).sum() for part in (heat[mask], heat[~mask]))

    best = min(within(heat >= level) for level in np.unique(heat)[1:])
    assert within(segment(heat, seen, "kmeans").mask) == pytest.approx(best, rel=1e-3)


@pytest.mark.parametrize(("threshold", "level"), RULES)
def test_only_what_the_model_saw_counts(threshold, level):
    patches = 1 + np.random.default_rng(1).random((4, 4))
    wide, whole = attribution_of(patches), attribution_of(patches, size=(40, 40), view=(0, 0, 40, 40))
    (inside,), (alone,) = wide.segments(threshold, level), whole.segments(threshold, level)
    np.testing.assert_array_equal(inside.mask[:, 10:50], alone.mask)
    assert not inside.mask[:, :10].any()
    assert not inside.mask[:, 50:].any()
    assert inside.box == (alone.box[0] + 10, *alone.box[1:])
    assert inside.point == (alone.point[0] + 10, alone.point[1])


@pytest.mark.parametrize(("threshold", "level"), RULES)
@pytest.mark.parametrize("value", [0.0, 2.5, -1.0])
def test_a_flat_map_has_an_empty_mask_and_no_other_has(threshold, level, value):
    (found,) = attribution_of(np.full((4, 4), value)).segments(threshold, level, largest=True)
    assert not found.mask.any()
    assert found.box is found.corners is found.point is None
    almost_flat = np.full((4, 4), abs(value))
    almost_flat[1, 2] += 1e-3
    (found,) = attribution_of(almost_flat).segments(threshold, level, largest=True)
    assert found.mask[10:20, 30:40].any()


def test_maps_that_are_not_finite_or_not_there_are_refused():
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="image map of pair 0 is not finite"):
            attribution_of(np.full((4, 4), bad)).segments()
    with pytest.raises(ValueError, match="no image maps"):
        replace(attribution_of(np.ones((4, 4))), image_maps=None).segments()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(threshold="li"), "threshold is 'li': give one of 'share', 'percentile', 'otsu', 'kmeans'"),
        (dict(threshold="share"), "level is None: 'share' needs one from 0 to below 1"),
        (dict(threshold="share", level=1), "level is 1"),
        (dict(threshold="percentile", level=float("nan")), "level is nan: 'percentile' needs one from 0 to below 100"),
        (dict(threshold="percentile", level="90"), "level is 90"),
        (dict(threshold="otsu", level=0.3), "leave it out"),
    ],
)
def test_bad_thresholds_and_levels_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        attribution_of(np.eye(4)).segments(**options)
    assert {rule for rule, _ in RULES} == set(THRESHOLDS)
