"""What every dataset is made of: pairs of an image and a caption, with the boxes of what the caption names."""

from dataclasses import dataclass, field

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Box:
    """One object: its kind, its bounding box in pixels of the image, and whether the caption names it.

    word: the caption's word for it ("mice" for two boxes of kind "mouse"), empty where it is not known or not named.
    mask: (H, W) bool, its visible pixels in the whole image, where they are known.
    """

    label: str
    x: int
    y: int
    w: int
    h: int
    named: bool = True
    word: str = ""
    mask: np.ndarray | None = field(default=None, repr=False, compare=False)

    def rectangle(self, shape):
        """The pixels inside the box, in an image of shape (H, W).  -> (H, W) bool"""
        inside = np.zeros(shape, bool)
        inside[self.y : self.y + self.h, self.x : self.x + self.w] = True
        return inside


@dataclass(frozen=True)
class Pair:
    """An image, its caption, the boxes that are known, and an id that is unique in its dataset."""

    image: Image.Image
    caption: str
    boxes: list[Box] = field(default_factory=list)
    id: str = ""

    def region(self, named=True, masks=False):
        """The pixels inside any box, or mask, that the caption names (or that it does not).  -> (H, W) bool"""
        inside = np.zeros((self.image.height, self.image.width), bool)
        for box in self.boxes:
            if box.named == named:
                inside |= box.mask if masks else box.rectangle(inside.shape)
        return inside

    def words(self):
        """The caption's words that stand for something in the picture, as a set."""
        return {box.word for box in self.boxes if box.named}


def hull(mask):
    """The tight box of a mask that is not empty.  (H, W) bool -> x, y, w, h"""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    return x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1
