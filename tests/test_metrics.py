from itertools import permutations

import numpy as np
import pytest
import torch
from scipy import stats

from m2ib_lite import metrics

HEAT = np.array([[0.0, 1.0], [2.0, 5.0]])
LEFT = np.array([[True, False], [True, False]])


def test_recall_at_1_by_hand():
    similarity = np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.1], [0.3, 0.1, 0.5]])
    assert metrics.recall_at_1(similarity).tolist() == [1, 0, 1]
    assert metrics.recall_at_1(similarity.T).tolist() == [1, 1, 1]


def test_energy_inside_and_pointing_game_by_hand():
    assert metrics.energy_inside(HEAT, LEFT) == pytest.approx(2 / 8)
    assert metrics.energy_inside(np.zeros((2, 2)), LEFT) == 0.5
    assert metrics.energy_inside(10 * HEAT, LEFT) == metrics.energy_inside(HEAT, LEFT)
    assert metrics.pointing_game(HEAT, LEFT) == 0
    assert metrics.pointing_game(HEAT, ~LEFT) == 1
    assert metrics.pointing_game(np.ones((2, 2)), LEFT) == 1  # a tie inside counts


def test_named_preference_by_hand():
    named, unnamed = np.array([[False, False], [False, True]]), LEFT
    assert metrics.named_preference(HEAT, named, unnamed) == pytest.approx(5 / (5 + 1))
    assert metrics.named_preference(np.zeros((2, 2)), named, unnamed) == 0.5
    with pytest.raises(ValueError, match="drop the scenes"):
        metrics.named_preference(HEAT, named, np.zeros((2, 2), bool))


def test_average_precision_by_hand():
    assert metrics.average_precision([3, 2, 1], [True, False, True]) == pytest.approx((1 + 2 / 3) / 2)
    assert metrics.average_precision([1, 1, 1, 1], [True, False, False, False]) == pytest.approx(0.25)
    with pytest.raises(ValueError, match="no word"):
        metrics.average_precision([1, 2], [False, False])


@pytest.mark.parametrize(("n", "found"), [(1, 1), (4, 1), (5, 2), (6, 4)])
def test_chance_precision_is_the_mean_over_all_orders(n, found):
    relevant = [True] * found + [False] * (n - found)
    orders = [metrics.average_precision(order, relevant) for order in permutations(range(n))]
    assert metrics.chance_precision(relevant) == pytest.approx(np.mean(orders))


def test_the_bootstrap_interval_is_that_of_the_normal_law_where_that_holds():
    values = np.random.default_rng(0).normal(2.0, 1.0, 400)
    mean, low, high = metrics.bootstrap_interval(values)
    half = 1.96 * values.std() / 20
    assert mean == pytest.approx(values.mean())
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.01)
    assert metrics.bootstrap_interval([0.5, 0.5]) == (0.5, 0.5, 0.5)
    assert metrics.bootstrap_interval(np.ones(256)) == pytest.approx((1, 0.025 ** (1 / 256), 1))  # Clopper-Pearson
    assert [metrics.bootstrap_interval([x, x], most=0) for x in (0.0, 1.0)] == [(0, 0, 0), (1, 1, 1)]
    assert metrics.bootstrap_interval([100.0] * 8, most=100) == pytest.approx((100, 100 * 0.025 ** (1 / 8), 100))
    assert metrics.bootstrap_interval([0.0] * 8, most=100) == pytest.approx((0, 0, 100 * (1 - 0.025 ** (1 / 8))))
    with pytest.raises(ValueError, match="at least one pair"):
        metrics.bootstrap_interval([])


def test_maps_that_are_negative_not_finite_or_of_another_size_are_refused():
    for heat in (HEAT - 1, HEAT * np.nan):
        with pytest.raises(ValueError, match="negative or non-finite"):
            metrics.energy_inside(heat, LEFT)
    with pytest.raises(ValueError, match="bring the map to the image's size"):
        metrics.pointing_game(HEAT, np.zeros((3, 2), bool))


def test_unit_scale_clips_at_zero_then_runs_from_minimum_to_maximum():
    assert metrics.unit_scale(np.array([1.0, 2.0, 5.0])).tolist() == [0, 0.25, 1]
    assert metrics.unit_scale(np.array([-7.0, 1.0, 4.0])).tolist() == [0, 0.25, 1]
    assert metrics.unit_scale(torch.tensor([-1.0, 2.0])).tolist() == [0, 1]
    assert metrics.unit_scale(np.full(3, 4.0)).tolist() == metrics.unit_scale(np.full(3, -4.0)).tolist() == [0, 0, 0]


def test_iou_by_hand():
    heat = np.array([[1.0, 0.2, 0.0], [0.4, 0.3, 0.0]])
    mask = np.array([[True, False, False], [True, False, False]])
    assert metrics.iou_at(heat, mask) == pytest.approx(2 / 3)  # 1, 0.4 and 0.3 are found
    assert metrics.iou_at(heat, mask, 0.35) == 1
    assert metrics.iou_best(heat, mask) == 1
    assert metrics.iou_best(-heat + 1, mask) == pytest.approx(2 / 6)  # upside down nothing beats taking all


def test_dice_and_iou_by_hand():
    found, mask = np.array([[True, True, True, False]]), np.array([[False, True, True, True]])
    assert metrics.iou(found, mask) == pytest.approx(2 / 4)
    assert metrics.dice(found, mask) == pytest.approx(2 * 2 / (3 + 3))
    assert metrics.dice(found, found) == 1
    empty = np.zeros_like(mask)
    assert metrics.dice(found, empty) == metrics.iou(found, empty) == 0
    assert metrics.dice(empty, empty) == metrics.iou(empty, empty) == 1


def test_iou_best_takes_ties_together_and_is_the_best_of_all_thresholds():
    mask = np.array([[True, False], [False, False]])
    assert metrics.iou_best(np.ones((2, 2)), mask) == 0.25
    rng = np.random.default_rng(0)
    heat, mask = rng.integers(0, 5, (8, 8)) / 4, rng.random((8, 8)) < 0.3
    assert metrics.iou_best(heat, mask) == pytest.approx(max(metrics.iou(heat >= level, mask) for level in np.unique(heat)))


def test_iou_at_otsus_threshold_parts_two_levels():
    mask = np.zeros((10, 10), bool)
    mask[2:5, 3:7] = True
    assert metrics.iou_otsu(np.where(mask, 0.9, 0.1), mask) == 1
    assert metrics.iou_otsu(np.ones((10, 10)), mask) == pytest.approx(0.12)  # a flat map finds everything


def test_drop_increase_and_area_by_hand():
    before, after = [0.8, 0.5, 0.5], [0.6, 0.7, 0.5]
    assert metrics.drop(before, after) == pytest.approx([20, 0, 0])
    assert metrics.increase(before, after).tolist() == [0, 100, 0]
    assert metrics.area_under([1, 0.5, 0]) == pytest.approx(0.5)
    assert metrics.area_under([[1, 1], [0, 1]]) == pytest.approx([1, 0.5])


def test_rank_correlation_by_hand():
    assert metrics.rank_correlation([[1, 2], [3, 40]], [[5, 6], [7, 8]]) == pytest.approx(1)
    assert metrics.rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert metrics.rank_correlation([1, 2, 3, 4], [2, 1, 4, 3]) == pytest.approx(1 - 6 * 4 / (4 * 15))
    assert metrics.rank_correlation([1, 1, 1], [1, 2, 3]) == 0


def test_structural_similarity_with_itself_with_its_negative_and_of_one_window_by_hand():
    heat = np.random.default_rng(0).random((16, 16))
    assert metrics.structural_similarity(heat, 3 * heat + 1) == pytest.approx(1)
    assert metrics.structural_similarity(heat, heat.max() - heat) < 0
    one, other = np.random.default_rng(1).random((2, 7, 7))
    a, b = metrics.unit_scale(one), metrics.unit_scale(other)
    (va, cov), (_, vb) = np.cov(a.ravel(), b.ravel())
    c1, c2 = 0.01**2, 0.03**2
    by_hand = (2 * a.mean() * b.mean() + c1) * (2 * cov + c2) / ((a.mean() ** 2 + b.mean() ** 2 + c1) * (va + vb + c2))
    assert metrics.structural_similarity(one, other) == pytest.approx(by_hand)


@pytest.mark.parametrize("shared", [0, 0.25])
def test_the_paired_test_is_the_t_test_and_shared_data_count_for_so_much_more(shared):
    values = np.array([2, 3, 1, 4.5])
    mean, low, high, p = metrics.paired_test(values, shared)
    plain, error = stats.ttest_1samp(values, 0), values.std(ddof=1) * (1 / 4 + shared) ** 0.5
    reach = 3.182446 * error  # the 97.5% quantile of t with 3 degrees of freedom
    assert (mean, low, high) == pytest.approx((2.625, 2.625 - reach, 2.625 + reach))
    assert p == pytest.approx(plain.pvalue if not shared else 2 * stats.t.sf(2.625 / error, 3))
    assert metrics.paired_test([-1, -1], shared) == (-1, -1, -1, 0)
    assert metrics.paired_test([0, 0], shared) == (0, 0, 0, 1)
    with pytest.raises(ValueError, match="two at least"):
        metrics.paired_test([1], shared)


def test_holms_correction_by_hand():
    assert metrics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert metrics.holm([0.6, 0.5]).tolist() == [1, 1]


def test_the_foremost_leave_out_ties_that_do_not_fit():
    assert metrics.foremost([3, 1, 2, 0], 2).tolist() == [True, False, True, False]
    assert metrics.foremost([3, 1, 1, 0], 2).tolist() == [True, False, False, False]
    assert metrics.foremost([3, 1], 2).tolist() == [True, True]
    assert not metrics.foremost(np.zeros(5), 3).any()


def test_instances_and_words_hit_by_hand():
    masks = [np.array([[True, True, False, False]]), np.array([[False, False, False, True]])]
    assert metrics.instances_hit(np.array([[3.0, 2.0, 0.0, 1.0]]), masks) == 1
    assert metrics.instances_hit(np.array([[3.0, 0.0, 2.0, 1.0]]), masks) == 1  # half of the first is enough
    assert metrics.instances_hit(np.array([[3.0, 1.0, 2.5, 0.0]]), masks) == 0.5
    assert metrics.instances_hit(np.ones((1, 4)), masks) == 0  # a flat map tells nothing apart
    assert metrics.instances_seen(np.array([[0.2, 1.0, 5.0, 0.5]]), masks) == 1  # 1 and 0.5 reach a tenth of 5
    assert metrics.instances_seen(np.array([[0.2, 1.0, 6.0, 0.5]]), masks) == 0.5
    assert metrics.instances_seen(np.zeros((1, 4)), masks) == 0
    assert metrics.words_hit([5, 1, 4, 3], [True, False, False, True]) == 0.5
    assert metrics.words_hit([5, 1, 2, 3], [True, False, False, True]) == 1
