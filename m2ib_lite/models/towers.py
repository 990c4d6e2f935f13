"""The two towers of a CLIP: encode with one, run it from a block on, open one block up."""

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from transformers.masking_utils import create_causal_mask


class Tower:
    """What the towers of all families share: their blocks, and a block opened up.  `rest(embed(inputs), -1, inputs)` is
    `encode(inputs)`.  reader: the last attention, which the embedding is read from."""

    causal = False

    def __init__(self, model, project, final_norm):
        self.model, self.project, self.blocks = model, project, model.encoder.layers
        self.final_norm = final_norm  # what the pooled state goes through before it is projected
        self.norms = [block.layer_norm1 for block in self.blocks]  # a block's attention reads its input through this
        self.reader = len(self.blocks) - 1

    def embed(self, inputs):
        """What the first block reads.  -> (B, T, D)"""
        return self.model.embeddings(inputs)

    def encode(self, inputs):
        """(B, 3, H, W) or (B, T) -> (B, E), of length 1"""
        return F.normalize(self.project(self.model(inputs).pooler_output), dim=-1)

    def pooled(self, inputs):
        """Where the embedding is read: the first position, CLS or what a pooling head gives.  -> (B,)"""
        return torch.zeros(len(inputs), dtype=torch.long, device=inputs.device)

    def run(self, hidden, blocks):
        """Some blocks, one after the other.  (N, T, D) -> (N, T, D)"""
        given = dict(inputs_embeds=hidden, attention_mask=None, past_key_values=None)
        mask = create_causal_mask(self.model.config, **given) if self.causal else None
        for block in blocks:
            hidden = block(hidden, mask, is_causal=self.causal)
        return hidden

    def rest(self, hidden, layer, inputs):
        """From the output of block `layer` to the embedding, running only the blocks after it; N may be a multiple of B: the
        copies of the inputs one after the other.  (N, T, D) -> (N, E)"""
        hidden = self.run(hidden, self.blocks[layer + 1 : -1])
        at = self.pooled(inputs).repeat(len(hidden) // len(inputs))
        rows = torch.arange(len(hidden), device=hidden.device)
        pooled = self.last_block(hidden, at) if layer < len(self.blocks) - 1 else hidden[rows, at]
        return F.normalize(self.project(self.final_norm(pooled)), dim=-1)

    def heads(self, normed, layer):
        """Queries, keys and values of a block.  (N, T, D) -> 3 of (N, h, T, d)"""
        attend = self.blocks[layer].self_attn
        projections = attend.q_proj, attend.k_proj, attend.v_proj
        return [rearrange(f(normed), "n t (h d) -> n h t d", h=attend.num_heads) for f in projections]

    def attention(self, normed, layer):
        """Queries, keys and values of a block, (N, h, T, d), and its attention probabilities, (N, h, T, T)."""
        q, k, v = self.heads(normed, layer)
        scores = (q @ k.mT * q.shape[-1] ** -0.5).float()
        if self.causal:
            scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
        return q, k, v, scores.softmax(dim=-1).to(v.dtype)

    def last_block(self, hidden, pooled):
        """What the last block gives at the pooled position (N,), the only place that is read.  (N, T, D) -> (N, D)

        The queries and the MLP of the others would be wasted, and so would their keys and values: q . (W x) = (W^T q) . x turns
        the one query, and the mean over positions is taken before W is applied to it.  The bias of the keys adds the same to
        every score, which the softmax takes out.
        """
        last, rows = len(self.blocks) - 1, torch.arange(len(hidden), device=hidden.device)
        attend, normed = self.blocks[last].self_attn, self.norms[last](hidden)
        weights = attend.k_proj.weight, attend.v_proj.weight, attend.v_proj.bias
        of_keys, of_values, bias = (rearrange(w, "(h d) ... -> h d ...", h=attend.num_heads) for w in weights)
        query = rearrange(attend.q_proj(normed[rows, pooled]), "n (h d) -> n h d", h=attend.num_heads)
        scores = einsum(query, of_keys, "n h d, h d e -> n h e") @ normed.mT * attend.scale
        if self.causal:
            unseen = torch.arange(hidden.shape[1], device=hidden.device) > pooled[:, None]
            scores = scores.masked_fill(unseen[:, None], -torch.inf)
        mixed = scores.float().softmax(dim=-1).to(normed.dtype) @ normed
        mixed = einsum(mixed, of_values, "n h e, h d e -> n h d") + bias
        return self.finish(hidden[rows, pooled][:, None], mixed[:, :, None], last)[:, 0]

    def finish(self, hidden, mixed, layer):
        """A block's output for its input and what its attention mixed, before the projection.  (N, h, T, d) -> (N, T, D)"""
        block = self.blocks[layer]
        hidden = hidden + block.self_attn.out_proj(rearrange(mixed, "n h t d -> n t (h d)"))
        return hidden + block.mlp(block.layer_norm2(hidden))


class ImageTower(Tower):
    """CLIP's image tower; its inputs are pixels (B, 3, H, W)."""

    patches = slice(1, None)  # after CLS

    def __init__(self, clip):
        super().__init__(clip.vision_model, clip.visual_projection, clip.vision_model.post_layernorm)

    def embed(self, pixels):
        return self.model.pre_layrnorm(self.model.embeddings(pixels))


class TextTower(Tower):
    """CLIP's text tower; its inputs are token ids (B, T), of which each sees those before it."""

    causal = True

    def __init__(self, clip):
        super().__init__(clip.text_model, clip.text_projection, clip.text_model.final_layer_norm)

    def pooled(self, ids):
        eos = self.model.eos_token_id  # of which the first is read; checkpoints that say 2 mean the highest id
        return ids.argmax(dim=-1) if eos == 2 else (ids == eos).int().argmax(dim=-1)
