"""One tower of some pairs as a method sees it, and what makes a method of images and captions from a method of one tower."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange

from ..explain import check_modality, check_positive, encode, in_batches
from ..models import Clip, Tower, has_bfloat16


@dataclass
class Side:
    """One tower of B pairs.  inputs: pixels or ids.  content: (B, T) bool, the positions that have a score.
    target: (B, E), the other tower's embeddings.  pooled: (B,), where the own embedding is read."""

    clip: Clip
    is_image: bool
    tower: Tower
    inputs: torch.Tensor
    content: torch.Tensor
    target: torch.Tensor
    pooled: torch.Tensor

    def score(self, hidden, layer):
        """y from the output of block `layer` on; -1: from what the first block reads.  (N, T, D) -> (N,), N a multiple of B"""
        embedding = self.tower.rest(hidden, layer, self.inputs).float()
        return (embedding * self.target.float().repeat(len(embedding) // len(self.target), 1)).sum(dim=-1)

    def enter(self, layer):
        """What block `layer` reads.  -> (B, T, D)"""
        return encode(self.tower, self.inputs, layer - 1)[1] if layer else self.tower.embed(self.inputs)

    def pick(self, scores):
        """The scores of the positions that have one, one vector a pair.  (B, T) -> [(n,)]"""
        return [row[content] for row, content in zip(scores, self.content, strict=True)]

    def singles(self):
        """Each pair as a Side of its own, a CLIP's caption without its padding, which a SigLIP reads."""
        for b in range(len(self.inputs)):
            one, cut = slice(b, b + 1), slice(None if self.is_image else self.pooled[b] + 1)
            rows = dict(target=self.target[one], pooled=self.pooled[one])
            yield replace(self, inputs=self.inputs[one, cut], content=self.content[one, cut], **rows)

    def keep(self, kept):
        """y of a single pair where only some is kept: a patch taken out is 0, the preprocessing's channel mean, a word taken
        out is the padding token.  In bfloat16 where the device has it.
        (N, n) of 0 and 1, or (N, 1, H, W), what share of each pixel -> (N,)"""
        if self.is_image:
            kept = kept if kept.ndim == 4 else rearrange(kept, "n (gh gw) -> n 1 gh gw", gh=self.clip.grid[0])
            masked = self.inputs * F.interpolate(kept, self.inputs.shape[-2:]).to(self.inputs.dtype)
        else:
            masked = self.inputs.repeat(len(kept), 1)
            masked[:, self.content[0]] = masked[:, self.content[0]].where(kept.bool(), self.clip.blank)
        fast = has_bfloat16(masked.device)  # its rounding is far below what another draw of masks changes
        with torch.autocast(masked.device.type, torch.bfloat16, enabled=fast):
            return self.score(self.tower.embed(masked), -1)


def sides(clip, images, captions):
    """Both towers of pairs, each with the other's embedding as its target.  -> image Side, text Side, the captions' tokens"""
    pixels, text = clip.pixels(images), clip.tokens(captions)
    (image_embedding, hidden), (text_embedding, _) = encode(clip.image, pixels, 0), encode(clip.text, text.ids, 0)
    patches = torch.zeros(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
    patches[:, clip.image.patches] = True
    image = Side(clip, True, clip.image, pixels, patches, text_embedding, clip.image.pooled(pixels))
    return image, Side(clip, False, clip.text, text.ids, text.content, image_embedding, clip.text.pooled(text.ids)), text.tokens


def rival(scores):
    """Make `scores(side, **options)`, which gives one vector (n,) a pair, a method of images and captions; it stays as .scores"""

    def method(clip, images, captions, batch_size=8, progress=True, modality="both", **options):
        def find(images, captions):
            image, text, tokens = sides(clip, images, captions)
            image_maps = text_maps = None
            if modality != "text":
                image_maps = rearrange([row.float() for row in scores(image, **options)], "b (gh gw) -> b gh gw", gh=clip.grid[0])
            if modality != "image":
                text_maps = [row.float() for row in scores(text, **options)]
            return image_maps, text_maps, tokens

        check_modality(modality)
        check_positive(batch_size=batch_size)
        return in_batches(clip, images, captions, find, batch_size, progress, method=scores.__name__, unit="cosine")

    method.scores, method.__name__, method.__doc__ = scores, scores.__name__, scores.__doc__
    return method
