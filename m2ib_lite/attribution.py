"""What a method found in pairs of an image and a caption."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from .data import Images, inside
from .words import join_scores, whole_words

PER_PAIR = ("image_maps", "text_maps", "tokens", "images", "captions", "views", "similarity", "others")
MATCH = 0.95  # the share of other captions that the cosine of a pair that matches lies above
LEVELS = ("RISE", "Random")  # methods whose scores do not add up: by a sum, a word would gain from having more pieces


@dataclass(eq=False, repr=False)  # maps are tensors, which == does not compare to one truth
class Attribution:
    """What a method found in B pairs.

    image_maps: (B, gh, gw) float32, one score a patch, in `unit`.  text_maps: one (n_content_tokens,) a pair.
    tokens: each caption's words, or pieces of them, as it writes them; words(i) joins the pieces.  views: the rectangle of each
    image that the model saw, as (left, top, right, bottom) in the image's own pixels.  images: those given as paths are opened
    anew each time they are asked for.  similarity: (B,), the cosine of each pair.  others: (B, K), those of its image with the
    fixed captions of `Clip.others`, beside which it says whether there is a match at all.  Both None in maps from elsewhere.
    plot(i) draws pair i, segments() cuts masks, save(folder) writes files.
    Maps of a modality that was not asked for: None.  attribution[3], attribution[:5] and iteration give Attributions, too.
    """

    image_maps: torch.Tensor | None
    text_maps: list[torch.Tensor] | None
    tokens: list[list[str]]
    images: Images
    captions: list[str]
    views: list[tuple[float, float, float, float]]
    method: str = "M2IB"
    unit: str = "nats"
    similarity: torch.Tensor | None = None
    others: torch.Tensor | None = None

    def __len__(self):
        return len(self.images)

    def __repr__(self):
        patches = "no image maps" if self.image_maps is None else "image maps of {} x {} patches".format(*self.image_maps.shape[1:])
        words = "no text maps" if self.text_maps is None else f"text maps of {sum(map(len, self.text_maps))} tokens"
        return f"<Attribution of {len(self)} pairs by {self.method}, in {self.unit}: {patches}, {words}>"

    def __getitem__(self, i):
        """Pair i, or the pairs of a slice, as an Attribution of its own.  IndexError where there is no pair i."""
        i = i if isinstance(i, slice) else slice(self.place(i), self.place(i) + 1)
        parts = {name: getattr(self, name) for name in PER_PAIR}
        return replace(self, **{name: part if part is None else part[i] for name, part in parts.items()})

    def place(self, i):
        """i counted from 0; a negative one counts from the end.  IndexError where there is no pair i."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"there is no pair {i}: give 0 to {len(self) - 1}")
        return i % len(self)

    def rank(self, i):
        """The share of the other captions whose cosine with image i is not above the pair's; below MATCH there is no match."""
        i = self.place(i)
        return (self.others[i] <= self.similarity[i]).float().mean().item()

    def verdict(self, i):
        """What the cosine of pair i says, in words; nothing where it is not known."""
        if self.similarity is None:
            return ""
        rank = self.rank(i)
        return f"{'' if rank >= MATCH else 'no match: '}cosine {self.similarity[i]:.2f}, above {rank:.0%} of other captions"

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
        return inside(self.views[i], self.images[i].size)
