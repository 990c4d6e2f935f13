"""What a method found in pairs of an image and a caption."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from .data import Images
from .words import join_scores, whole_words

LEVELS = ("rise", "random")  # methods whose scores do not add up: by a sum, a word would gain from having more pieces


@dataclass(eq=False)  # maps are tensors, which == does not compare to one truth
class Attribution:
    """What a method found in B pairs.

    image_maps: (B, gh, gw) float32, one score a patch, in `unit`.  text_maps: one (n_content_tokens,) a pair.
    tokens: each caption's words, or pieces of them, as it writes them; words(i) joins the pieces.  views: the rectangle of each
    image that the model saw, as (left, top, right, bottom) in the image's own pixels.  images: those given as paths are opened
    anew each time they are asked for.  plot(i) draws pair i, segments() cuts masks, save(folder) writes files.
    Maps of a modality that was not asked for: None.
    """

    image_maps: torch.Tensor | None
    text_maps: list[torch.Tensor] | None
    tokens: list[list[str]]
    images: Images
    captions: list[str]
    views: list[tuple[float, float, float, float]]
    method: str = "M2IB"
    unit: str = "nats"

    def __len__(self):
        return len(self.images)

    def words(self, i):
        """The words of caption i and their scores, the sum over a word's pieces: information adds up.  -> [str], (n_words,)"""
        words, places = whole_words(self.captions[i], self.tokens[i])
        return words, join_scores(places, self.text_maps[i], mean=self.method in LEVELS)

    def heat(self, i):
        """Image map i over the image's own pixels, bilinear between patch centres, 0 where the model saw nothing.  (H, W)"""
        image, (left, top, right, bottom) = self.images[i], self.views[i]
        gh, gw = self.image_maps[i].shape
        sx, sy = gw / (right - left), gh / (bottom - top)
        patches = np.pad(self.image_maps[i].cpu().numpy(), 1, mode="edge")  # so that the outer half patches have a neighbour
        to_patches = (sx, 0, 1 - left * sx, 0, sy, 1 - top * sy)  # from the image's pixels
        heat = Image.fromarray(patches).transform(image.size, Image.Transform.AFFINE, to_patches, Image.Resampling.BILINEAR)
        return np.where(self.seen(i), np.asarray(heat), 0)

    def seen(self, i):
        """The pixels of image i that the model saw.  (H, W) bool"""
        image, (left, top, right, bottom) = self.images[i], self.views[i]
        seen = np.zeros((image.height, image.width), bool)
        seen[max(0, round(top)) : round(bottom), max(0, round(left)) : round(right)] = True
        return seen
