"""The explorer, for Jupyter: a picture, a caption, and their maps as fast as one changes them.

from m2ib_lite.widgets import Explorer
Explorer(load_model("testbed"))
"""

from .explorer import Explorer

__all__ = ["Explorer"]
