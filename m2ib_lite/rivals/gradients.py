"""Methods that read gradients and attention: saliency, GradCAM, Chefer, Grad-ECLIP, NIB."""

import torch
import torch.nn.functional as F
from captum.attr import IntegratedGradients, Saliency
from einops import rearrange

from ..explain import both, of_tower
from ..side import rival


def slope(score, x):
    """dy/dx of each pair, where y = score(x).  -> as x"""
    return Saliency(score).attribute(x.detach().requires_grad_(), abs=False)


@rival
def saliency(side):
    """|dy/dx| summed over channels, the mean over a patch's pixels; |dy/d token embedding| summed over its width; in cosine for one
    unit of normalised pixel or embedding.  (Simonyan, Vedaldi and Zisserman 2014, section 3)"""
    if side.is_image:
        slopes = slope(lambda x: side.score(side.tower.embed(x), -1), side.inputs)  # (B, 3, H, W)
        return F.adaptive_avg_pool2d(slopes.abs().sum(dim=1), side.clip.grid).flatten(1)
    return side.pick(slope(lambda x: side.score(x, -1), side.enter(0)).abs().sum(dim=-1))


@rival
def gradcam(side):
    """relu(sum_c w_c A_c), A the output of the last block's first layer norm, w_c the mean of dy/dA_c over patches or words.

    In cosine.  SigLIP's image tower: A is what its pooling head reads.  (Selvaraju et al. 2017, equations 1 and 2; the place as in
    Chefer et al.: the last block's own output has no gradient where the embedding is not read)
    """
    last = side.tower.reader
    hidden = side.enter(last)

    def score(normed):
        *_, values, probabilities = side.tower.attention(normed, last)
        return side.score(side.tower.finish(hidden, probabilities @ values, last), last)

    normed = side.tower.norms[last](hidden)
    counted = side.content[..., None]  # (B, T, 1)
    weights = (slope(score, normed) * counted).sum(dim=1, keepdim=True) / counted.sum(dim=1, keepdim=True)  # (B, 1, D)
    return side.pick((weights * normed).sum(dim=-1).relu())


@rival
def chefer(side, blocks=1):
    """Relevance to the position the embedding is read at: R = I, then R <- R + mean_heads(relu(dy/dA * A)) R, A a block's attention
    probabilities, in cosine.  Option: blocks=1, the last of each tower.  SigLIP's image tower: its pooling head counts as the last
    block, with the probe's row in the place of CLS's.  (Chefer, Gur and Wolf 2021, equations 5 and 6)"""
    tower, most = side.tower, side.tower.reader + 1
    if not 1 <= blocks <= most:
        raise ValueError(f"blocks is {blocks}: give 1 to {most}")
    layers = range(most)[-blocks:]
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


@rival
def gradeclip(side):
    """relu(sum_d w_d v_id s_i) in the last block: w = dy/do where the embedding is read, o the attention's output before its
    projection; s_i the cosine of key i and the query there, scaled to [0, 1] over patches or words (1 where all are equal).  In
    cosine.  SigLIP's image tower: its pooling head is the last block, the probe its query.  (Zhao et al., Grad-ECLIP, ICML 2024)"""
    last, rows = side.tower.reader, torch.arange(len(side.pooled), device=side.pooled.device)
    hidden = side.enter(last)
    *parts, probabilities = side.tower.attention(side.tower.norms[last](hidden), last)
    slopes = slope(lambda mixed: side.score(side.tower.finish(hidden, mixed, last), last), probabilities @ parts[2])
    slopes, queries, keys, values = (rearrange(x, "b h t d -> b t (h d)") for x in (slopes, *parts))
    near = F.cosine_similarity(queries[rows, side.pooled][:, None], keys, dim=-1)  # (B, T)
    low = near.masked_fill(~side.content, torch.inf).amin(dim=1, keepdim=True)
    high = near.masked_fill(~side.content, -torch.inf).amax(dim=1, keepdim=True)
    share = torch.where(high > low, (near - low) / (high - low), 1)
    return side.pick((slopes[rows, side.pooled][:, None] * values).sum(dim=-1).relu() * share)


@rival
def nib(side, layer=None, steps=10):
    """Integrated gradients from 0 to h, what block `layer` reads: sum_D of h * 1/n sum_i dy/dh at i h / n, with n steps.

    In cosine: ALL positions come to y(h) - y(0) as n grows, which takes thousands: layer norms make y jump close to 0.
    Options: steps=10; layer, the published three quarters of the depth by default.  (narrowing information bottleneck, ICLR 2025)
    """
    layer = of_tower(side.clip, side.modality, both("layer", layer, side.clip.published["layer"]), first=0)["layer"]
    if steps < 2:
        raise ValueError(f"steps is {steps}: give at least 2")
    gradients = IntegratedGradients(lambda hidden: side.score(hidden, layer - 1))
    return side.pick(gradients.attribute(side.enter(layer), n_steps=steps, method="riemann_right").sum(dim=-1))
