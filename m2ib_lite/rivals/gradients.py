"""Methods that read gradients and attention: saliency, Grad-CAM, Chefer et al., Grad-ECLIP, LeGrad, NIB."""

import torch
import torch.nn.functional as F
from captum.attr import IntegratedGradients, Saliency
from einops import rearrange

from ..explain import of_tower
from ..metrics import unit_scale
from ..side import MODALITIES, rival


def slope(score, x):
    """dy/dx of each pair, where y = score(x).  -> as x"""
    return Saliency(score).attribute(x.detach().requires_grad_(), abs=False)


def block_of(tower, block):
    """The number, from 0, of a block counted from the end: -1 is the last.  ValueError where there is none."""
    most = tower.reader + 1
    if not -most <= block <= -1:
        raise ValueError(f"block is {block}: give -1, the last, to {-most}")
    return most + block


def last_blocks(blocks, most):
    """The numbers of the last so many of `most` blocks.  ValueError where there are not so many."""
    if not 1 <= blocks <= most:
        raise ValueError(f"blocks is {blocks}: give 1 to {most}")
    return range(most)[-blocks:]


@rival("Saliency")
def saliency(side):
    """|dy/dx| summed over channels, the mean over a patch's pixels; |dy/d token embedding| summed over its width; in cosine for one
    unit of normalised pixel or embedding.  (Simonyan, Vedaldi and Zisserman 2014, section 3)"""
    if side.is_image:
        slopes = slope(lambda x: side.score(side.tower.embed(x), -1), side.inputs)  # (B, 3, H, W)
        return F.adaptive_avg_pool2d(slopes.abs().sum(dim=1), side.clip.grid).flatten(1)
    return side.pick(slope(lambda x: side.score(x, -1), side.enter(0)).abs().sum(dim=-1))


@rival("Grad-CAM")
def gradcam(side, block=-1):
    """relu(sum_c w_c A_c), A the output of a block's first layer norm, w_c the mean of dy/dA_c over patches or words.

    In cosine.  Option: block=-1, the last, -2 the one before.  SigLIP's image tower: A is what its pooling head reads, which counts
    as the last block.  (Selvaraju et al. 2017, equations 1 and 2; the place as in Chefer et al.: the last block's own output has
    no gradient where the embedding is not read)
    """
    layer = block_of(side.tower, block)
    hidden = side.enter(layer)

    def score(normed):
        *_, values, probabilities = side.tower.attention(normed, layer)
        return side.score(side.tower.finish(hidden, probabilities @ values, layer), layer)

    normed = side.tower.norms[layer](hidden)
    counted = side.content[..., None]  # (B, T, 1)
    weights = (slope(score, normed) * counted).sum(dim=1, keepdim=True) / counted.sum(dim=1, keepdim=True)  # (B, 1, D)
    return side.pick((weights * normed).sum(dim=-1).relu())


@rival("Chefer et al.")
def chefer(side, blocks=1):
    """Relevance to the position the embedding is read at: R = I, then R <- R + mean_heads(relu(dy/dA * A)) R, A a block's attention
    probabilities, in cosine.  Option: blocks=1, the last of each tower.  SigLIP's image tower: its pooling head counts as the last
    block, with the probe's row in the place of CLS's.  (Chefer, Gur and Wolf 2021, equations 5 and 6)"""
    tower, layers = side.tower, last_blocks(blocks, side.tower.reader + 1)
    hidden, attentions = side.enter(layers[0]).requires_grad_(), []
    with torch.enable_grad():
        for layer in layers:
            *_, values, probabilities = tower.attention(tower.norms[layer](hidden), layer)
            attentions.append(probabilities)
            hidden = tower.finish(hidden, probabilities @ values, layer)
        slopes = torch.autograd.grad(side.score(hidden, layers[-1]).sum(), attentions)
    relevance = torch.eye(side.content.shape[1], device=hidden.device)
    for layer, attention, steepness in zip(layers, attentions, slopes, strict=True):
        gained = (attention.detach().float() * steepness).relu().mean(dim=1) @ relevance  # (B, T, T), a probe's is (B, 1, T)
        relevance = gained if layer == len(tower.blocks) else relevance + gained  # a probe has no relevance of its own to keep
    return side.pick(relevance[torch.arange(len(relevance), device=relevance.device), side.pooled])


@rival("Grad-ECLIP")
def gradeclip(side, block=-1):
    """relu(sum_d w_d v_id s_i) in one block: w = dy/do where the embedding is read, o the attention's output before its projection;
    s_i the cosine of key i and the query there, scaled to [0, 1] over patches or words (1 where all are equal).  In cosine.

    Option: block=-1, the last, -2 the one before.  SigLIP's image tower: its pooling head is the last block, the probe its query.
    (Zhao et al., Grad-ECLIP, ICML 2024)"""
    layer, rows = block_of(side.tower, block), torch.arange(len(side.pooled), device=side.pooled.device)
    hidden = side.enter(layer)
    *parts, probabilities = side.tower.attention(side.tower.norms[layer](hidden), layer)
    slopes = slope(lambda mixed: side.score(side.tower.finish(hidden, mixed, layer), layer), probabilities @ parts[2])
    slopes, queries, keys, values = (rearrange(x, "b h t d -> b t (h d)") for x in (slopes, *parts))
    near = F.cosine_similarity(queries[rows, side.pooled][:, None], keys, dim=-1)  # (B, T)
    low = near.masked_fill(~side.content, torch.inf).amin(dim=1, keepdim=True)
    high = near.masked_fill(~side.content, -torch.inf).amax(dim=1, keepdim=True)
    share = torch.where(high > low, (near - low) / (high - low), 1)
    return side.pick((slopes[rows, side.pooled][:, None] * values).sum(dim=-1).relu() * share)


@rival("LeGrad", modalities=MODALITIES[:1])
def legrad(side, blocks=2):
    """The sum over blocks l of mean_heads,rows(relu(ds_l/dA_l)), from its minimum at 0 to its maximum at 1: A_l the attention
    probabilities, s_l the cosine that the caption has with block l's output, its mean over all tokens read as CLS is at the end.

    For images alone.  Option: blocks=2, the last ones.  SigLIP: its pooling head reads each block's output, and A_l is the head's.
    (Bousselham et al., LeGrad, ICCV 2025)"""
    tower, layers, total = side.tower, last_blocks(blocks, len(side.tower.blocks)), 0
    with_head, hidden = tower.reader == len(tower.blocks), side.enter(layers[0])
    for layer in layers:
        after = tower.run(hidden, [tower.blocks[layer]])
        read, at = (after, tower.reader) if with_head else (hidden, layer)
        *_, values, attention = tower.attention(tower.norms[at](read), at)

        def score(attention, read=read, at=at, values=values):
            states = tower.finish(read, attention @ values, at)
            return side.score(states if with_head else states.mean(dim=1, keepdim=True), tower.reader)

        total = total + slope(score, attention).relu().mean(dim=(1, 2))
        hidden = after
    return [unit_scale(row) for row in side.pick(total)]


@rival("NIB")
def nib(side, layer=None, steps=10):
    """Integrated gradients from 0 to h, what block `layer` reads: sum_D of h * 1/n sum_i dy/dh at i h / n, with n steps.

    In cosine: ALL positions come to y(h) - y(0) as n grows, which takes thousands: layer norms make y jump close to 0.
    Options: steps=10; layer, the published three quarters of the depth by default.  (narrowing information bottleneck, ICLR 2025)
    """
    layer = of_tower(side.clip, side.modality, 0, side.clip.published["layer"] if layer is None else layer)["layer"]
    if steps < 2:
        raise ValueError(f"steps is {steps}: give at least 2")
    gradients = IntegratedGradients(lambda hidden: side.score(hidden, layer - 1))
    return side.pick(gradients.attribute(side.enter(layer), n_steps=steps, method="riemann_right").sum(dim=-1))
