"""The means of a run, with one shard in memory at a time."""

from functools import reduce

import numpy as np
import pandas as pd

from ..metrics import t_interval

OURS, UNREAD = "M2IB", "not read"
SCORE = ["pair", "modality", "metric"]


def against_rivals(scores):
    """What M2IB's value is above each rival's, pair by pair, as rows of a method "M2IB - rival"."""
    wide = scores.pivot(index=SCORE, columns="method", values="value")
    if OURS not in wide:
        return scores.iloc[:0]
    above = wide.drop(columns=OURS).rsub(wide[OURS], axis=0).add_prefix(f"{OURS} - ")
    return above.reset_index().melt(SCORE, var_name="method").dropna()


def sums(table):
    """Number, sum and sum of squares of each method's values in each metric, and of `against_rivals`."""
    scores = table[table["error"].isna()]
    values = pd.concat([scores, against_rivals(scores)])
    groups = values.assign(square=values["value"] ** 2).groupby(["method", "modality", "metric"])
    return groups.agg(pairs=("value", "count"), total=("value", "sum"), squares=("square", "sum"))


def failures(table):
    """How many pairs each method gave no scores for, and how many could not be read.  -> Series"""
    return table[table["error"].notna()].fillna({"method": UNREAD}).groupby("method")["pair"].nunique()


def summarise(tables):
    """The mean of each method in each metric, with its 95% t interval; of "M2IB - rival" that is a paired t test.

    tables: the shards of a run, one after the other.  -> DataFrame of method, modality, metric, pairs, mean, low, high; the number
    of bad pairs by method, as a Series
    """
    parts = ((sums(table), failures(table)) for table in tables)
    found, bad = reduce(lambda a, b: [x.add(y, fill_value=0) for x, y in zip(a, b, strict=True)], parts)
    mean = found["total"] / found["pairs"]
    variance = (found["squares"] - found["pairs"] * mean**2) / (found["pairs"] - 1)
    low, high = t_interval(mean, np.sqrt(variance.clip(lower=0)), found["pairs"])  # rounding takes a constant's below 0
    summary = pd.DataFrame(dict(pairs=found["pairs"].astype(int), mean=mean, low=low, high=high))
    return summary.reset_index(), bad.astype(int)
