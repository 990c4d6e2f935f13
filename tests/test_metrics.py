from itertools import permutations

import numpy as np
import pytest

from m2ib_lite import metrics

HEAT = np.array([[0.0, 1.0], [2.0, 5.0]])
LEFT = np.array([[True, False], [True, False]])


def test_recall_at_1_by_hand():
    similarity = np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.1], [0.3, 0.1, 0.5]])
    assert metrics.recall_at_1(similarity).tolist() == [1, 0, 1]
    assert metrics.recall_at_1(similarity.T).tolist() == [1, 1, 1]


def test_energy_inside_by_hand():
    assert metrics.energy_inside(HEAT, LEFT) == pytest.approx(2 / 8)
    assert metrics.energy_inside(np.zeros((2, 2)), LEFT) == 0.5
    assert metrics.energy_inside(10 * HEAT, LEFT) == metrics.energy_inside(HEAT, LEFT)


def test_pointing_game_counts_a_tie_inside():
    assert metrics.pointing_game(HEAT, LEFT) == 0
    assert metrics.pointing_game(HEAT, ~LEFT) == 1
    assert metrics.pointing_game(np.ones((2, 2)), LEFT) == 1


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
    with pytest.raises(ValueError, match="at least one pair"):
        metrics.bootstrap_interval([])


@pytest.mark.parametrize("heat", [HEAT - 1, HEAT * np.nan])
def test_maps_that_are_negative_or_not_finite_are_refused(heat):
    with pytest.raises(ValueError, match="negative or non-finite"):
        metrics.energy_inside(heat, LEFT)


def test_a_map_of_another_size_is_refused():
    with pytest.raises(ValueError, match="bring the map to the image's size"):
        metrics.pointing_game(HEAT, np.zeros((3, 2), bool))
