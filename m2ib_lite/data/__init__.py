"""Pairs of an image and a caption: from the testbed, from tables and datasets of one's own."""

from .collection import Pairs, readable
from .images import Images, open_image
from .load import load_pairs
from .pairs import Box, Pair
from .radiographs import one_of_each, radiographs
from .scenes import distinct_scenes, scenes

__all__ = [
    "Box",
    "Images",
    "Pair",
    "Pairs",
    "distinct_scenes",
    "load_pairs",
    "one_of_each",
    "open_image",
    "radiographs",
    "readable",
    "scenes",
]
