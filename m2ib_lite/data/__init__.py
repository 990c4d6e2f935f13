"""Pairs of an image and a caption: from the testbed, from tables and datasets of one's own."""

from .images import Images, open_image
from .load import load_pairs
from .pairs import Box, Pair, Pairs, hull, readable

__all__ = ["Box", "Images", "Pair", "Pairs", "hull", "load_pairs", "open_image", "readable"]
