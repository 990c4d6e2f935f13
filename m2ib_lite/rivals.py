"""The other methods, asked the same question on the same pair: y = cosine(image embedding, text embedding).

Each is written for one tower, Side -> one vector of scores a pair, and `rival` makes of it a method that is used as `explain`:
(clip, images, captions, batch_size=8, progress=True, **options) -> Attribution.  All have a text form.
Maps hold the patches and the content tokens; CLS, BOS, EOS and padding are never part of them.  A result depends on
(pair, options, seed) alone; the model comes back as it was.  ValueError as `explain`, or for a bad option.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from captum.attr import IntegratedGradients, KernelShap, Saliency
from einops import rearrange

from .explain import both, check_layers, check_positive, encode, in_batches, own_generator
from .models import Clip, Tower

AT_ONCE = 64  # masked inputs that go through a tower together


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
        """Each pair as a Side of its own, a caption without its padding."""
        for b in range(len(self.inputs)):
            one, cut = slice(b, b + 1), slice(None if self.is_image else self.pooled[b] + 1)
            rows = dict(target=self.target[one], pooled=self.pooled[one])
            yield replace(self, inputs=self.inputs[one, cut], content=self.content[one, cut], **rows)

    def keep(self, kept):
        """y of a single pair where only some is kept: a patch taken out is 0, the preprocessing's channel mean, a word taken
        out is the padding token.  (N, n) of 0 and 1, or (N, 1, H, W), what share of each pixel -> (N,)"""
        if self.is_image:
            kept = kept if kept.ndim == 4 else rearrange(kept, "n (gh gw) -> n 1 gh gw", gh=self.clip.grid[0])
            masked = self.inputs * F.interpolate(kept, self.inputs.shape[-2:]).to(self.inputs.dtype)
        else:
            masked = self.inputs.repeat(len(kept), 1)
            masked[:, self.content[0]] = masked[:, self.content[0]].where(kept.bool(), self.clip.blank)
        return self.score(self.tower.embed(masked), -1)


def sides(clip, images, captions):
    """Both towers of pairs, each with the other's embedding as its target.  -> image Side, text Side, the captions' tokens"""
    pixels, text = clip.pixels(images), clip.tokens(captions)
    (image_embedding, hidden), (text_embedding, _) = encode(clip.image, pixels, 0), encode(clip.text, text.ids, 0)
    patches = torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
    patches[:, 0] = False  # CLS
    ends = text.content.sum(dim=1) + 1  # BOS, the content, EOS
    image = Side(clip, True, clip.image, pixels, patches, text_embedding, torch.zeros_like(ends))
    return image, Side(clip, False, clip.text, text.ids, text.content, image_embedding, ends), text.tokens


def rival(scores):
    """Make `scores(side, **options)`, which gives one vector (n,) a pair, a method of images and captions; it stays as .scores"""

    def method(clip, images, captions, batch_size=8, progress=True, **options):
        def find(images, captions):
            *both_sides, tokens = sides(clip, images, captions)
            image_maps, text_maps = ([row.float() for row in scores(side, **options)] for side in both_sides)
            return rearrange(image_maps, "b (gh gw) -> b gh gw", gh=clip.grid[0]), text_maps, tokens

        check_positive(batch_size=batch_size)
        return in_batches(clip, images, captions, find, batch_size, progress, method=scores.__name__, unit="cosine")

    method.scores, method.__name__, method.__doc__ = scores, scores.__name__, scores.__doc__
    return method


def slope(score, x):
    """dy/dx of each pair, where y = score(x).  -> as x"""
    return Saliency(score).attribute(x.detach().requires_grad_(), abs=False)


@rival
def random(side, seed=0):
    """The control that knows nothing: independent uniform scores in [0, 1), without a unit.  Option: seed=0."""
    for one in side.singles():
        generator = own_generator(seed, one.inputs)
        yield torch.rand(int(one.content.sum()), generator=generator, device=generator.device)


@rival
def saliency(side):
    """|dy/dx| summed over channels, the mean over a patch's pixels; |dy/d token embedding| summed over its width.

    In cosine for one unit of normalised pixel or embedding.  (Simonyan, Vedaldi and Zisserman 2014, section 3)
    """
    if side.is_image:
        slopes = slope(lambda x: side.score(side.tower.embed(x), -1), side.inputs)  # (B, 3, H, W)
        return F.adaptive_avg_pool2d(slopes.abs().sum(dim=1), side.clip.grid).flatten(1)
    return side.pick(slope(lambda x: side.score(x, -1), side.enter(0)).abs().sum(dim=-1))


@rival
def gradcam(side):
    """relu(sum_c w_c A_c), A the output of the last block's first layer norm, w_c the mean of dy/dA_c over patches or words.

    In cosine.  Captum's LayerGradCam wants the channels first.  (Selvaraju et al. 2017, equations 1 and 2; the place as in
    Chefer et al.: the last block's own output has no gradient where the embedding is not read)
    """
    last = len(side.tower.blocks) - 1
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
    """Relevance to the position the embedding is read at: R = I, then R <- R + mean_heads(relu(dy/dA * A)) R, in cosine.

    A: a block's attention probabilities.  Option: blocks=1, the last of each tower.  (Chefer, Gur and Wolf 2021, eqs 5 and 6)
    """
    tower, layers = side.tower, range(len(side.tower.blocks))[-blocks:]
    if not 1 <= blocks <= len(tower.blocks):
        raise ValueError(f"blocks is {blocks}: give 1 to {len(tower.blocks)}")
    hidden, attentions = side.enter(layers[0]).requires_grad_(), []
    with torch.enable_grad():
        for layer in layers:
            *_, values, probabilities = tower.attention(tower.norms[layer](hidden), layer)
            attentions.append(probabilities)
            hidden = tower.finish(hidden, probabilities @ values, layer)
        slopes = torch.autograd.grad(side.score(hidden, layers[-1]).sum(), attentions)
    relevance = torch.eye(hidden.shape[1], device=hidden.device)
    for attention, steepness in zip(attentions, slopes, strict=True):
        relevance = relevance + (attention.detach().float() * steepness).relu().mean(dim=1) @ relevance  # (B, T, T)
    return side.pick(relevance[torch.arange(len(relevance), device=relevance.device), side.pooled])


@rival
def gradeclip(side):
    """relu(sum_d w_d v_id s_i) in the last block: w = dy/do where the embedding is read, o the attention's output before its
    projection; s_i the cosine of key i and the query there, scaled to [0, 1] over patches or words (1 where all are equal).

    In cosine.  (Zhao et al., Grad-ECLIP, ICML 2024)
    """
    last, rows = len(side.tower.blocks) - 1, torch.arange(len(side.pooled), device=side.pooled.device)
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
    Options: steps=10; layer, explain's own by default.  Deterministic.  (narrowing information bottleneck, ICLR 2025)
    """
    layers = both("layer", layer, side.clip.defaults["layer"])
    check_layers(side.clip, layers)
    if steps < 2:
        raise ValueError(f"steps is {steps}: give at least 2")
    layer = layers[0] if side.is_image else layers[1]
    gradients = IntegratedGradients(lambda hidden: side.score(hidden, layer - 1))
    return side.pick(gradients.attribute(side.enter(layer), n_steps=steps, method="riemann_right").sum(dim=-1))


@rival
def kernelshap(side, samples=10, seed=0):
    """Shapley values of patches and words, which come to y(all) - y(none) together; in or out of a coalition as `Side.keep`.

    In cosine.  Options: samples=10, coalitions drawn a feature; seed=0.  (Lundberg and Lee 2017, section 4.1)
    """
    check_positive(samples=samples)
    return [shapley(one, samples, seed) for one in side.singles()]


def shapley(one, samples, seed):
    """The Shapley values of a single pair.  -> (n,)"""
    features = torch.ones(1, int(one.content.sum()), device=one.inputs.device)
    if features.numel() == 1:  # no coalition to draw, which Captum refuses
        return one.keep(features) - one.keep(0 * features)
    counts = dict(n_samples=samples * features.numel() + 2, perturbations_per_eval=AT_ONCE)
    with torch.random.fork_rng(devices=[]):  # Captum takes no generator, it draws from the CPU's global one
        torch.default_generator.manual_seed(own_generator(seed, one.inputs).initial_seed())
        return KernelShap(one.keep).attribute(features, **counts)[0]


@rival
def rise(side, image_masks=2000, text_masks=200, p=0.5, cells=8, seed=0):
    """The mean y over random masks that keep a share p, weighted by how much of the position each keeps, in cosine.

    Options: image_masks=2000, smooth, of cells=8 each way; text_masks=200; p=0.5; seed=0; what is not kept as in `Side.keep`.
    Divided by the sum of the masks, not its expectation: the same limit, less noise.  (Petsiuk, Das and Saenko 2018, section 3)
    """
    check_positive(image_masks=image_masks, text_masks=text_masks, p=p, cells=cells)
    return [masked_mean(one, image_masks if side.is_image else text_masks, p, cells, seed) for one in side.singles()]


def masked_mean(one, count, p, cells, seed):
    """The RISE map of a single pair.  -> (n,)"""
    n, generator, total, weight = int(one.content.sum()), own_generator(seed, one.inputs), 0, 0
    draw = dict(generator=generator, device=generator.device)
    kept = (torch.rand(count, *((1, cells, cells) if one.is_image else (n,)), **draw) < p).float()
    for mask in kept.split(AT_ONCE):
        if one.is_image:
            mask = enlarge(mask, torch.rand(len(mask), 2, **draw), one.inputs.shape[-2:])
        share = F.adaptive_avg_pool2d(mask, one.clip.grid).flatten(1) if one.is_image else mask  # (N, n)
        total, weight = total + one.keep(mask) @ share, weight + share.sum(dim=0)
    return total / weight.clamp(min=1e-6)


def enlarge(cells, shifts, size):
    """Bilinear, to one cell more than the image each way; the image is cut out at a shift of up to one cell.  -> (N, 1, H, W)"""
    (H, W), step = size, [-(-length // count) for length, count in zip(size, cells.shape[-2:], strict=True)]
    large = F.interpolate(cells, (H + step[0], W + step[1]), mode="bilinear")
    starts = (shifts.cpu() * (torch.tensor(step) + 1)).long().tolist()
    return torch.stack([mask[:, y : y + H, x : x + W] for mask, (y, x) in zip(large, starts, strict=True)])


RIVALS = {method.__name__: method for method in (saliency, gradcam, kernelshap, rise, chefer, nib, gradeclip, random)}
