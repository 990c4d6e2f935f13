"""What makes a figure repeatable: recorded numbers, claims held or not held, and the runner of the notebooks."""

from .report import Report, save_figure

__all__ = ["Report", "save_figure"]
