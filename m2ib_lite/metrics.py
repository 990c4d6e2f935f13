"""Scores of attribution maps and of retrieval: arrays in, numbers out; nothing here knows a model.

`chance` of a score is what a uniform map gets.  Maps are (H, W), masks (H, W) bool, in the pixels of the image.
"""

import numpy as np
from scipy import stats
from sklearn import metrics as sklearn_metrics


def recall_at_1(similarity):
    """How often each row's own column scores highest.  (N, N) -> (N,) 0 or 1; transpose for the other direction."""
    similarity = np.asarray(similarity)
    return (similarity.argmax(axis=1) == np.arange(len(similarity))).astype(float)


def _checked(heat, *masks):
    heat = np.asarray(heat, dtype=np.float64)
    for mask in masks:
        if np.shape(mask) != heat.shape:
            raise ValueError(f"the map is {heat.shape} and the mask {np.shape(mask)}: bring the map to the image's size first")
    if not np.isfinite(heat).all() or (heat < 0).any():
        raise ValueError("the map holds negative or non-finite values: clip it at zero first")
    return heat


def energy_inside(heat, mask):
    """Share of the map's mass inside the mask; chance is the mask's share of the area.  A map of zeros counts as uniform."""
    heat = _checked(heat, mask)
    return float(heat[mask].sum() / heat.sum()) if heat.any() else float(np.mean(mask))


def pointing_game(heat, mask):
    """1 where the map's maximum lies inside the mask (a tie inside counts), else 0.  (Zhang et al. 2016)"""
    heat = _checked(heat, mask)
    return float((heat[mask] == heat.max()).any())


def named_preference(heat, named, unnamed):
    """Mean heat on the named objects against that on the unnamed: n / (n + u).  0.5 is chance, 1 is only the named."""
    heat = _checked(heat, named, unnamed)
    if not (np.any(named) and np.any(unnamed)):
        raise ValueError("named_preference needs a named and an unnamed object: drop the scenes that lack one")
    n, u = heat[named].mean(), heat[unnamed].mean()
    return float(n / (n + u)) if n + u > 0 else 0.5


def average_precision(scores, relevant):
    """Average precision of the words that are truly in the picture; words of equal score count as one step."""
    if not np.any(relevant):
        raise ValueError("no word is marked relevant, so precision means nothing: drop the caption")
    return float(sklearn_metrics.average_precision_score(np.asarray(relevant, bool), np.asarray(scores)))


def chance_precision(relevant):
    """The mean average precision of all orders of these words: what a map that knows nothing gets."""
    n, found = len(relevant), int(np.sum(relevant))
    ranks = np.arange(1, n + 1)
    others = (found - 1) / max(1, n - 1)  # the chance that any other word is relevant too
    return float(np.mean((1 + (ranks - 1) * others) / ranks))


def bootstrap_interval(values, level=0.95, seed=0):
    """(mean, low, high): the mean of one value a pair with its percentile bootstrap interval, 10,000 resamples.

    Where all values are 0 or all are 1 a resample shows no spread, and the interval is the exact binomial one.
    """
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        raise ValueError("no values to take a mean of: give at least one pair")
    if set(values) in ({0.0}, {1.0}):
        exact = stats.binomtest(int(values.sum()), len(values)).proportion_ci(level)
        return float(values.mean()), float(exact.low), float(exact.high)
    if len(values) == 1:
        return (float(values[0]),) * 3
    options = dict(confidence_level=level, n_resamples=10_000, method="percentile", batch=1000)
    interval = stats.bootstrap((values,), np.mean, rng=np.random.default_rng(seed), **options).confidence_interval
    return float(values.mean()), float(interval.low), float(interval.high)
