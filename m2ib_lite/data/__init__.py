"""Pairs of an image and a caption: from the testbed, from tables and datasets of one's own."""

from .images import Images, open_image, png
from .load import load_pairs
from .pairs import Box, Pair, Pairs, hull, inside, readable

__all__ = ["Box", "Images", "Pair", "Pairs", "hull", "inside", "load_pairs", "open_image", "png", "readable"]
