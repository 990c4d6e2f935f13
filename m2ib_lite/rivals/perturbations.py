"""Methods that take parts of the input away and look what becomes of y: KernelSHAP, RISE; and the control that knows nothing."""

import torch
import torch.nn.functional as F
from captum.attr import KernelShap

from ..options import check_positive
from ..side import own_generator, rival

AT_ONCE = 64  # masked inputs that go through a tower together


@rival("Random")
def random(side, seed=0):
    """The control that knows nothing: independent uniform scores in [0, 1), without a unit.  Option: seed=0."""
    for one in side.singles():
        generator = own_generator(seed, one.inputs)
        yield torch.rand(int(one.content.sum()), generator=generator, device=generator.device)


@rival("KernelSHAP")
def kernelshap(side, samples=10, seed=0):
    """Shapley values of patches and words, which come to y(all) - y(none) together, in cosine; in or out of a coalition as
    `Side.keep`.  Options: samples=10, coalitions drawn a feature; seed=0.  (Lundberg and Lee 2017, section 4.1)"""
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


@rival("RISE")
def rise(side, image_masks=2000, text_masks=200, p=0.5, cells=8, seed=0):
    """The mean y over random masks that keep a share p, weighted by how much of the position each keeps, in cosine.

    Options: image_masks=2000, smooth, of cells=8 each way; text_masks=200; p=0.5; seed=0; what is not kept as in `Side.keep`.
    Divided by the sum of the masks, not its expectation: less noise.  (Petsiuk, Das and Saenko 2018, section 3)"""
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
        weighed = one.keep(mask)[:, None] * share  # and summed below: autocast would round a @
        total, weight = total + weighed.sum(dim=0), weight + share.sum(dim=0)
    return total / weight.clamp(min=1e-6)


def enlarge(cells, shifts, size):
    """Bilinear, to one cell more than the image each way; the image is cut out at a shift of up to one cell.  -> (N, 1, H, W)"""
    (H, W), step = size, [-(-length // count) for length, count in zip(size, cells.shape[-2:], strict=True)]
    large = F.interpolate(cells, (H + step[0], W + step[1]), mode="bilinear")
    starts = (shifts.cpu() * (torch.tensor(step) + 1)).long().tolist()
    return torch.stack([mask[:, y : y + H, x : x + W] for mask, (y, x) in zip(large, starts, strict=True)])
