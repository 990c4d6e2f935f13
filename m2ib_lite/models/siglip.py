"""SigLIP, and SigLIP 2 of a fixed resolution: no CLS, no BOS, an attention-pooling head over the patches, padding that counts."""

import torch
import torch.nn.functional as F
from einops import rearrange

from .clip import Clip
from .towers import Tower


class SiglipTower(Tower):
    """What both share: nothing is projected after the model's own head."""

    def encode(self, inputs):
        return F.normalize(self.model(inputs).pooler_output, dim=-1)


class SiglipImageTower(SiglipTower):
    """The pooling head is opened up as if it were one more block: the probe, its only query, reads the patches as CLS does in the
    last block of a CLIP."""

    patches = slice(None)

    def __init__(self, siglip):
        super().__init__(siglip.vision_model, siglip.vision_model.head, siglip.vision_model.post_layernorm)
        self.reader = len(self.blocks)
        self.norms.append(self.final_norm)

    def rest(self, hidden, layer, pixels):
        if layer == self.reader:  # the head, after which nothing is left to run
            return F.normalize(hidden[:, 0], dim=-1)
        return F.normalize(self.project(self.final_norm(self.run(hidden, self.blocks[layer + 1 :]))), dim=-1)

    def heads(self, normed, layer):
        if layer < self.reader:
            return super().heads(normed, layer)
        attend, probe = self.project.attention, self.project.probe.repeat(len(normed), 1, 1)  # the only query
        parts = zip((probe, normed, normed), attend.in_proj_weight.chunk(3), attend.in_proj_bias.chunk(3), strict=True)
        return [rearrange(F.linear(*part), "n t (h d) -> n h t d", h=attend.num_heads) for part in parts]

    def finish(self, hidden, mixed, layer):
        if layer < self.reader:
            return super().finish(hidden, mixed, layer)
        pooled = self.project.attention.out_proj(rearrange(mixed, "n h t d -> n t (h d)"))
        return pooled + self.project.mlp(self.project.layernorm(pooled))  # the probe is not added to what it read


class SiglipTextTower(SiglipTower):
    """SigLIP's text tower: every position sees every other, padding too."""

    def __init__(self, siglip):
        super().__init__(siglip.text_model, siglip.text_model.head, siglip.text_model.final_layer_norm)

    def pooled(self, ids):
        return torch.full((len(ids),), ids.shape[1] - 1, device=ids.device)  # the last position, mostly padding


class Siglip(Clip):
    """A SigLIP used as a Clip.  Captions are padded to the length that it was trained with, and all of it is valid: what a word
    says goes on in the padding, where the embedding is read.  The sigmoid of its loss rises with the cosine, as CLIP's softmax."""

    kinds = SiglipImageTower, SiglipTextTower
    fixed_length = True

    def pixels(self, images):
        """As Clip.pixels, without the last rows and columns that the patches do not reach (6 of 384 with patches of 14)."""
        gh, gw = self.grid
        return super().pixels(images)[..., : gh * self.patch, : gw * self.patch]
