"""Pairs of an image and a caption, from the testbed."""

from .images import Images, open_image
from .pairs import Box, Pair
from .radiographs import one_of_each, radiographs
from .scenes import distinct_scenes, scenes

__all__ = ["Box", "Images", "Pair", "distinct_scenes", "one_of_each", "open_image", "radiographs", "scenes"]
