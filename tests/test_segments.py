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
    """One pair of a wide image of which the model saw the middle, with this map (gh, gw), or None."""
    maps = None if patches is None else torch.as_tensor(patches, dtype=torch.float32)[None]
    return Attribution(maps, [torch.ones(1)], [["owl"]], [Image.new("RGB", size)], ["owl"], [view])


@pytest.mark.parametrize(("threshold", "level"), RULES)
def test_every_threshold_parts_high_from_low(threshold, level):
    found = segment(HEAT, EVERYWHERE, threshold, level)
    np.testing.assert_array_equal(found.mask, HEAT >= 7)
    assert (found.box, found.corners, found.point) == ((1, 1, 5, 4), [1, 1, 6, 5], (5, 4))
    assert found.threshold == (threshold if level is None else f"{threshold} {level}")


def test_the_largest_piece_holds_corners_and_its_own_point():
    found = segment(HEAT, EVERYWHERE, largest=True)
    np.testing.assert_array_equal(found.mask, (HEAT == 8) | (HEAT == 7))  # 7 touches the square by a corner
    assert (found.box, found.point) == ((1, 1, 3, 3), (1, 1))  # the first of the equal ones, not the 9 of the other piece
    heat = np.array([[3.0, 0, 4.0]])  # of equal pieces the brighter stays
    assert segment(heat, heat >= 0, "share", 0.5, largest=True).box == (2, 0, 1, 1)


@pytest.mark.parametrize(("threshold", "level", "lowest"), [("share", 0.3, 5), ("share", 0, 3), ("percentile", 90, 11)])
def test_a_share_and_a_percentile_by_hand(threshold, level, lowest):
    heat = np.arange(2.0, 13)[None]  # 2 to 12
    np.testing.assert_array_equal(segment(heat, heat > 0, threshold, level).mask, heat >= lowest)
    signed = np.array([[-9.0, -1, 1, 2, 4]])
    assert segment(signed, signed < 9, "share", 0.5).mask.tolist() == [[False, False, False, True, True]]


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
    np.testing.assert_array_equal(inside.mask, np.pad(alone.mask, [(0, 0), (10, 10)]))
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


@pytest.mark.parametrize(
    ("patches", "options", "message"),
    [
        (None, {}, "no image maps"),
        (np.full((4, 4), np.nan), {}, "image map of pair 0 is not finite"),
        (np.full((4, 4), np.inf), {}, "image map of pair 0 is not finite"),
        (np.eye(4), dict(threshold="li"), "threshold is 'li': give one of 'share', 'percentile', 'otsu', 'kmeans'"),
        (np.eye(4), dict(threshold="share"), "level is None: 'share' needs one from 0 to below 1"),
        (np.eye(4), dict(threshold="share", level=1), "level is 1"),
        (np.eye(4), dict(threshold="percentile", level=float("nan")), "level is nan: 'percentile' needs one from 0 to below 100"),
        (np.eye(4), dict(threshold="percentile", level="90"), "level is 90"),
        (np.eye(4), dict(threshold="otsu", level=0.3), "leave it out"),
    ],
)
def test_bad_maps_thresholds_and_levels_are_refused(patches, options, message):
    with pytest.raises(ValueError, match=message):
        attribution_of(patches).segments(**options)
    assert {rule for rule, _ in RULES} == set(THRESHOLDS)
