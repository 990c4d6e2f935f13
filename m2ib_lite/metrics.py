"""Scores of attribution maps and of retrieval: arrays in, numbers out; nothing here knows a model.

`chance` of a score is what a uniform map gets.  Maps are (H, W), masks (H, W) bool, in the pixels of the image.
"""

import numpy as np
from scipy import stats
from skimage.filters import threshold_otsu
from skimage.metrics import structural_similarity as ssim
from sklearn import metrics as sklearn_metrics


def recall_at_1(similarity):
    """How often each row's own column scores highest.  (N, N) -> (N,) 0 or 1; transpose for the other direction."""
    return (np.asarray(similarity).argmax(axis=1) == np.arange(len(similarity))).astype(float)


def _checked(heat, *masks):
    heat = np.asarray(heat, dtype=np.float64)
    for mask in masks:
        if np.shape(mask) != heat.shape:
            raise ValueError(f"the map is {heat.shape} and the mask {np.shape(mask)}: bring the map to the image's size first")
    if not np.isfinite(heat).all() or (heat < 0).any():
        raise ValueError("the map holds negative or non-finite values: clip it at zero first")
    return heat


def unit_scale(heat):
    """One map, from its minimum at 0 to its maximum at 1; what is negative counts as 0, a map without a maximum is 0 throughout."""
    heat = heat.clip(min=0)
    span = heat.max() - heat.min()
    return (heat - heat.min()) / span if span > 0 else 0 * heat


def energy_inside(heat, mask):
    """Share of the map's mass inside the mask; chance is the mask's share of the area.  A map of zeros counts as uniform."""
    heat = _checked(heat, mask)
    return float(heat[mask].sum() / heat.sum()) if heat.any() else float(np.mean(mask))


def pointing_game(heat, mask):
    """1 where the map's maximum lies inside the mask (a tie inside counts), else 0.  (Zhang et al. 2016)"""
    heat = _checked(heat, mask)
    return float((heat[mask] == heat.max()).any())


def iou(found, mask):
    """Intersection over union of two masks; two empty ones agree, which is 1."""
    union = np.sum(found | mask)
    return float(np.sum(found & mask) / union) if union else 1.0


def dice(found, mask):
    """Dice's coefficient of two masks, twice the intersection over the sum of the areas; two empty ones agree, which is 1."""
    overlap = iou(found, mask)
    return 2 * overlap / (1 + overlap)


def iou_at(heat, mask, share=0.3):
    """IoU of the mask with the pixels that reach a share of the map's maximum."""
    heat = _checked(heat, mask)
    return iou(heat >= share * heat.max(), mask)


def iou_otsu(heat, mask):
    """IoU of the mask with the pixels that reach Otsu's threshold, which needs no truth.  (Otsu 1979)"""
    heat = _checked(heat, mask)
    return iou(heat > threshold_otsu(heat), mask) if np.ptp(heat) else iou(np.ones_like(mask), mask)


def iou_best(heat, mask):
    """IoU of the mask with the pixels above the threshold that suits it best: a bound that needs the truth."""
    heat = _checked(heat, mask).ravel()
    order = np.argsort(-heat)
    inside, taken = np.cumsum(np.ravel(mask)[order]), np.arange(1, heat.size + 1)
    whole = np.append(np.diff(heat[order]) < 0, True)  # pixels of equal heat come in together
    return float((inside / (taken + np.sum(mask) - inside))[whole].max())


def foremost(scores, count):
    """Which are among the `count` highest; of equal ones all or, where not all fit, none.  -> as scores, bool"""
    scores = np.asarray(scores, dtype=np.float64)
    return scores > np.sort(scores, axis=None)[::-1][count:].max(initial=-np.inf)  # the first that is left out


def instances_hit(heat, masks):
    """Share of the objects that are found: at least half of an object among as many of the highest pixels as all cover together."""
    heat = _checked(heat, *masks)
    found = foremost(heat, int(np.any(masks, axis=0).sum()))
    return float(np.mean([found[mask].mean() >= 0.5 for mask in masks]))


def instances_seen(heat, masks, share=0.1):
    """Share of the objects that stand out of the dark: the highest point of each reaches that share of the map's maximum."""
    heat = _checked(heat, *masks)
    return float(np.mean([heat[mask].max() >= share * heat.max() > 0 for mask in masks]))


def words_hit(scores, relevant):
    """Share of the relevant words among as many of the highest words (R-precision)."""
    relevant = np.asarray(relevant, bool)
    return float(foremost(scores, int(relevant.sum()))[relevant].mean())


def drop(before, after):
    """Drop in confidence, 100 max(0, s - s'): what the pair's cosine s loses where only the important is kept.  Lower is better."""
    return 100 * np.maximum(0.0, np.asarray(before) - np.asarray(after))


def increase(before, after):
    """Increase in confidence, 100 where the cosine rises though only the important is kept, else 0.  Higher is better."""
    return 100.0 * (np.asarray(after) > np.asarray(before))


def area_under(scores):
    """Area under a curve whose points stand at equal distances from 0 to 1, by the trapezoid rule.  (..., n) -> (...)"""
    return np.trapezoid(scores, dx=1 / (np.shape(scores)[-1] - 1), axis=-1)


def rank_correlation(one, other):
    """Spearman's correlation of two maps; 0 where one of them has no order."""
    one, other = np.ravel(one), np.ravel(other)
    return float(stats.spearmanr(one, other).statistic) if np.ptp(one) and np.ptp(other) else 0.0


def structural_similarity(one, other):
    """SSIM of two maps, each from its minimum to its maximum, in windows of 7 pixels.  (Wang et al. 2004)"""
    return float(ssim(unit_scale(np.asarray(one, float)), unit_scale(np.asarray(other, float)), data_range=1))


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
    others = (np.sum(relevant) - 1) / max(1, len(relevant) - 1)  # the chance that any other word is relevant too
    return float(others + (1 - others) * np.mean(1 / np.arange(1, len(relevant) + 1)))


def bootstrap_interval(values, most=1.0):
    """(mean, low, high): the mean of one value a pair with its 95% percentile bootstrap interval, of 10,000 resamples; where all
    values are 0 or all are `most`, so that a resample shows no spread, with the exact binomial one.  most=0: for no shares."""
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        raise ValueError("no values to take a mean of: give at least one pair")
    mean = low = high = values.mean()
    if most and set(values) in ({0.0}, {most}):
        low, high = (most * end for end in stats.binomtest(int(values.sum() / most), len(values)).proportion_ci())
    elif len(values) > 1:
        options = dict(n_resamples=10_000, method="percentile", batch=1000, rng=np.random.default_rng(0))
        low, high = stats.bootstrap((values,), np.mean, **options).confidence_interval
    return float(mean), float(low), float(high)


def paired_test(differences, shared=0.0):
    """(mean, low, high, p) of paired differences, by the t test and its 95% interval.

    shared: where each value is of a fresh split of the same data, the size of its test set by that of its training set: the values
    are not independent, and their variance counts for so much more.  (Nadeau and Bengio 2003, corrected resampled t test)"""
    count, mean = len(differences), np.mean(differences)
    if count < 2:
        raise ValueError(f"{count} pairs: a paired test needs two at least")
    spread = np.std(differences, ddof=1) * np.sqrt(1 + count * shared)
    low, high = t_interval(mean, spread, count)
    t = mean / (spread / np.sqrt(count)) if spread else np.copysign(np.inf, mean) if mean else 0.0
    return float(mean), float(low), float(high), float(2 * stats.t.sf(abs(t), count - 1))


def holm(chances):
    """p values corrected for how many there are: none of the true hypotheses falls, but for 5% of all such tables.  (Holm 1979)"""
    chances = np.asarray(chances, dtype=np.float64)
    order = chances.argsort()
    raised = np.maximum.accumulate(chances[order] * np.arange(len(chances), 0, -1)).clip(max=1)
    return raised[order.argsort()]


def t_interval(mean, spread, count):
    """95% (low, high) around the mean of `count` values of standard deviation `spread`; numbers or arrays, NaN for one value."""
    reach = stats.t.ppf(0.975, np.subtract(count, 1)) * spread / np.sqrt(count)
    return mean - reach, mean + reach
