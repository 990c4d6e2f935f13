"""SigLIP, and SigLIP 2 of a fixed resolution: no CLS, no BOS, an attention-pooling head over the patches, padding that counts."""

import torch
import torch.nn.functional as F
from einops import rearrange

from .clip import Clip
from .towers import Tower


class SiglipTower(Tower):
    """What both share: nothing is projected after the model's own head."""

    def encode(self, inputs):
        """As Tower.encode."""
        return F.normalize(self.model(inputs).pooler_output, dim=-1)


class SiglipImageTower(SiglipTower):
    """SigLIP's image tower.  Its pooling head is opened up as if it were one more block: the probe, its only query, reads the
    patches as CLS does in the last block of a CLIP."""

    patches = slice(None)

    def __init__(self, model):
        super().__init__(model, model.head, model.post_layernorm)
        self.reader = len(self.blocks)
        self.norms.append(self.final_norm)

    def embed(self, pixels):
        """What the first block reads.  (B, 3, H, W) -> (B, T, D)"""
        return self.model.embeddings(pixels)

    def pooled(self, pixels):
        """Where the embedding is read: what the head gives has one position.  -> (B,)"""
        return torch.zeros(len(pixels), dtype=torch.long, device=pixels.device)

    def rest(self, hidden, layer, pixels):
        """As Tower.rest; after the head, as block `reader`, nothing is left to run."""
        if layer == self.reader:
            return F.normalize(hidden[:, 0], dim=-1)
        return F.normalize(self.project(self.final_norm(self.run(hidden, self.blocks[layer + 1 :]))), dim=-1)

    def heads(self, normed, layer):
        """As Tower.heads; the probe is the head's only query, (N, h, 1, d)."""
        if layer < self.reader:
            return super().heads(normed, layer)
        attend, probe = self.project.attention, self.project.probe.repeat(len(normed), 1, 1)
        parts = zip((probe, normed, normed), attend.in_proj_weight.chunk(3), attend.in_proj_bias.chunk(3), strict=True)
        return [rearrange(F.linear(*part), "n t (h d) -> n h t d", h=attend.num_heads) for part in parts]

    def finish(self, hidden, mixed, layer):
        """As Tower.finish; the probe is not added to what it read.  (N, h, 1, d) -> (N, 1, D)"""
        if layer < self.reader:
            return super().finish(hidden, mixed, layer)
        pooled = self.project.attention.out_proj(rearrange(mixed, "n h t d -> n t (h d)"))
        return pooled + self.project.mlp(self.project.layernorm(pooled))


class SiglipTextTower(SiglipTower):
    """SigLIP's text tower: every position sees every other, padding too."""

    def __init__(self, model):
        super().__init__(model, model.head, model.final_layer_norm)

    def embed(self, ids):
        """What the first block reads.  (B, T) -> (B, T, D)"""
        return self.model.embeddings(ids)

    def pooled(self, ids):
        """Where the embedding is read: the last position, mostly padding.  -> (B,)"""
        return torch.full((len(ids),), ids.shape[1] - 1, device=ids.device)


class Siglip(Clip):
    """A SigLIP with its tokenizer and image processor, used as a Clip.

    Captions are padded to the length that it was trained with, and all of it is valid: what a word says goes on in the padding,
    where the embedding is read.  Embeddings are compared by their cosine, as CLIP's: the sigmoid of its loss rises with it.
    """

    fixed_length = True

    @staticmethod
    def open_towers(model):
        """The image tower and the text tower."""
        return SiglipImageTower(model.vision_model), SiglipTextTower(model.text_model)

    def pixels(self, images):
        """As Clip.pixels, without the last rows and columns that the patches do not reach (6 of 384 with patches of 14)."""
        gh, gw = self.grid
        return super().pixels(images)[..., : gh * self.patch, : gw * self.patch]
