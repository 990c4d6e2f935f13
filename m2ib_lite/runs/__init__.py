"""Every metric for every pair of a large data set, written as it comes; a run that was killed goes on where it was."""

from .evaluation import evaluate_data

__all__ = ["evaluate_data"]
