"""The two towers of a CLIP: encode with one, run it from a block on, open one block up."""

import torch
import torch.nn.functional as F
from einops import rearrange
from transformers.masking_utils import create_causal_mask


class Tower:
    """What both towers share: their blocks, and a block opened up.  `rest(embed(inputs), -1, inputs)` is `encode(inputs)`."""

    causal = False

    def __init__(self, model, project):
        self.model, self.project, self.blocks = model, project, model.encoder.layers
        self.norms = [block.layer_norm1 for block in self.blocks]  # a block's attention reads its input through this

    def attention(self, normed, layer):
        """Queries, keys and values of a block, (N, h, T, d), and its attention probabilities, (N, h, T, T)."""
        attend = self.blocks[layer].self_attn
        projections = attend.q_proj, attend.k_proj, attend.v_proj
        q, k, v = (rearrange(f(normed), "n t (h d) -> n h t d", h=attend.num_heads) for f in projections)
        scores = (q @ k.mT * attend.scale).float()
        if self.causal:
            scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
        return q, k, v, scores.softmax(dim=-1).to(v.dtype)

    def last_block(self, hidden, pooled):
        """What the last block gives at the pooled position (N,), the only place that is read: the queries and the MLP of the
        others would be wasted.  (N, T, D) -> (N, D)"""
        last, rows = len(self.blocks) - 1, torch.arange(len(hidden), device=hidden.device)
        attend, normed = self.blocks[last].self_attn, self.norms[last](hidden)
        keys, values = (rearrange(f(normed), "n t (h d) -> n h t d", h=attend.num_heads) for f in (attend.k_proj, attend.v_proj))
        query = rearrange(attend.q_proj(normed[rows, pooled]), "n (h d) -> n h 1 d", h=attend.num_heads)
        seen = None
        if self.causal:
            seen = (torch.arange(hidden.shape[1], device=hidden.device) <= pooled[:, None])[:, None, None]
        mixed = F.scaled_dot_product_attention(query, keys, values, seen, scale=attend.scale)
        return self.finish(hidden[rows, pooled][:, None], mixed, last)[:, 0]

    def finish(self, hidden, mixed, layer):
        """A block's output for its input and what its attention mixed, before the projection.  (N, h, T, d) -> (N, T, D)"""
        block = self.blocks[layer]
        hidden = hidden + block.self_attn.out_proj(rearrange(mixed, "n h t d -> n t (h d)"))
        return hidden + block.mlp(block.layer_norm2(hidden))


class ImageTower(Tower):
    """The image tower; its inputs are pixels (B, 3, H, W)."""

    @property
    def final_norm(self):
        """What the pooled state goes through before it is projected."""
        return self.model.post_layernorm

    def embed(self, pixels):
        """What the first block reads.  (B, 3, H, W) -> (B, T, D)"""
        return self.model.pre_layrnorm(self.model.embeddings(pixels))

    def encode(self, pixels):
        """(B, 3, H, W) -> (B, E), of length 1"""
        return F.normalize(self.project(self.model(pixels).pooler_output), dim=-1)

    def rest(self, hidden, layer, pixels):
        """From the output of block `layer` to the embedding, running only the blocks after it.  (N, T, D) -> (N, E)"""
        for block in self.blocks[layer + 1 : -1]:
            hidden = block(hidden, None)
        cls = torch.zeros(len(hidden), dtype=torch.long, device=hidden.device)
        pooled = self.last_block(hidden, cls) if layer < len(self.blocks) - 1 else hidden[:, 0]
        return F.normalize(self.project(self.final_norm(pooled)), dim=-1)


class TextTower(Tower):
    """The text tower; its inputs are token ids (B, T)."""

    causal = True

    @property
    def final_norm(self):
        """As ImageTower.final_norm."""
        return self.model.final_layer_norm

    def embed(self, ids):
        """As ImageTower.embed.  (B, T) -> (B, T, D)"""
        return self.model.embeddings(ids)

    def encode(self, ids):
        """(B, T) -> (B, E), of length 1"""
        return F.normalize(self.project(self.model(ids).pooler_output), dim=-1)

    def rest(self, hidden, layer, ids):
        """As ImageTower.rest; N may be a multiple of B: the copies of the captions one after the other."""
        mask = create_causal_mask(self.model.config, inputs_embeds=hidden, attention_mask=None, past_key_values=None)
        for block in self.blocks[layer + 1 : -1]:
            hidden = block(hidden, mask, is_causal=True)
        at = pooled_position(ids, self.model.eos_token_id).repeat(len(hidden) // len(ids))
        rows = torch.arange(len(hidden), device=hidden.device)
        pooled = self.last_block(hidden, at) if layer < len(self.blocks) - 1 else hidden[rows, at]
        return F.normalize(self.project(self.final_norm(pooled)), dim=-1)


def pooled_position(ids, eos_token_id):
    """Where CLIP reads a caption's embedding: its first EOS, which checkpoints that say 2 mean by the highest id.  -> (B,)"""
    return ids.argmax(dim=-1) if eos_token_id == 2 else (ids == eos_token_id).int().argmax(dim=-1)
