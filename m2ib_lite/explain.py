"""M2IB: pairs of an image and a caption in, what each tower had to keep for them to match out."""

from functools import partial
from numbers import Integral

import torch

from .bottleneck import capacity, descend, moments
from .options import both, check_positive
from .side import MODALITIES, asked, attribute_sides, own_generator

QUALITIES = {  # Adam's steps, noise samples a step, and whether half of them are the others' negatives
    "fast": dict(steps=10, samples=4, antithetic=True),
    "published": dict(steps=10, samples=10, antithetic=False),
    "converged": dict(steps=20, samples=20, antithetic=True),
}


def of_tower(clip, modality, first, layer=None, beta=None, sigma2=None, standardise=None):
    """The options of one tower, each given as `both` takes it; no layer below `first`.  -> dict
    ValueError where a number is not above zero, or the layer is out of range or the last, after which no token meets another."""
    k, given = MODALITIES.index(modality), dict(layer=layer, beta=beta, sigma2=sigma2, standardise=standardise)
    own = {name: both(name, value, clip.defaults[name])[k] for name, value in given.items()}
    layer, last = own["layer"], len(clip.towers[k].blocks) - 2
    if not isinstance(layer, Integral) or not first <= layer <= last:
        raise ValueError(f"{modality} layer {layer!r} is out of range: {clip.name} takes {first} to {last}, blocks must come after")
    check_positive(beta=own["beta"], sigma2=own["sigma2"])
    return own


def noise_source(seed, inputs, valid, width, samples=10, antithetic=False):
    """() -> (S, B, T, D) standard normal noise, each pair's from a generator of its own, seeded by seed and input; antithetic:
    the second half is the first with its sign turned.  valid: (B, T) bool"""
    captions, lengths = inputs.ndim == 2, valid.sum(dim=1).tolist()  # a caption without its padding, which depends on the batch
    generators = [own_generator(seed, row[:length] if captions else row) for row, length in zip(inputs, lengths, strict=True)]
    noise = torch.zeros(samples, len(lengths), max(lengths), width, device=inputs.device)
    drawn = samples // 2 if antithetic else samples

    def draw():
        for b, (length, generator) in enumerate(zip(lengths, generators, strict=True)):
            noise[:drawn, b, :length] = torch.randn(drawn, length, width, generator=generator, device=noise.device)
        if antithetic:
            torch.neg(noise[:drawn], out=noise[drawn:])
        return noise

    return draw


def problem(side, standardise):
    """What is optimised in one tower: R (B, T, D), the cosine (S, B, T, D) -> (S, B), the valid positions (B, T)."""
    if not standardise:
        return side.hidden, side.similarity, side.valid
    mean, spread = moments(side.hidden, side.valid)

    def similarity(z):
        return side.similarity((z * spread + mean).to(side.hidden.dtype))

    return (side.hidden - mean) / spread, similarity, side.valid


def information(own, side, *, steps, samples, antithetic, lr, seed, watch=None):
    """What each position of one tower's `hidden` had to keep, in nats.  own: {modality: of_tower}  -> one vector (n,) a pair"""
    beta, sigma2 = own[side.modality]["beta"], own[side.modality]["sigma2"]
    hidden, similarity, valid = problem(side, own[side.modality]["standardise"])
    draw = noise_source(seed, side.inputs, valid, hidden.shape[-1], samples, antithetic)
    walk = descend(hidden, similarity, valid, draw, beta=beta, sigma2=sigma2, lr=lr)
    for n, alpha in zip(range(steps + 1), walk, strict=False):
        if watch:
            watch(side.modality, n, side.pick(capacity(hidden, alpha, sigma2).sum(dim=-1)))
    scores = capacity(hidden, alpha, sigma2).sum(dim=-1)  # (B, T)
    if not torch.isfinite(scores).all():
        raise ValueError("a map is not finite: load the model with dtype=torch.float32, or take a smaller lr")
    return side.pick(scores)


def m2ib(clip, modality, quality="published", steps=None, samples=None, antithetic=None, lr=1.0, seed=0, watch=None, **own):
    """M2IB as one more method for a Side.  Options as in `explain`.  -> scores(side), and the layer of each tower for `sides`"""
    if quality not in QUALITIES:
        raise ValueError(f"quality is {quality!r}: give one of {', '.join(QUALITIES)}")
    given = dict(steps=steps, samples=samples, antithetic=antithetic)
    effort = QUALITIES[quality] | {name: value for name, value in given.items() if value is not None}
    check_positive(lr=lr, steps=effort["steps"], samples=effort["samples"])
    if effort["antithetic"] and effort["samples"] % 2:
        raise ValueError(f"samples is {effort['samples']}: antithetic noise comes in twos, give an even number")
    if unknown := sorted(own.keys() - clip.defaults.keys()):
        raise TypeError(f"M2IB has no option {', '.join(unknown)}: help(explain) lists them")
    towers = {name: of_tower(clip, name, -1, **own) for name in asked(modality)}
    layers = [towers[name]["layer"] if name in towers else 0 for name in MODALITIES]
    return partial(information, towers, lr=lr, seed=seed, watch=watch, **effort), layers


def explain(clip, images, captions=None, *, batch_size=8, progress=True, modality="both", against=None, **options):
    """M2IB attribution of image-caption pairs, in both towers.  -> Attribution, in nats  (paper, section 3)

    images: PIL images, paths, arrays (H, W, C) or tensors (3, H, W) in [0, 1]; captions: strings; as many of both, or one of
    either for all of the other.  Pairs bring their captions.
    against: one other caption, or one a pair; the image map, it alone, then shows what speaks for the caption and not the other.
    modality: "image" or "text" leaves out the other's maps, and does not look at its options.  batch_size bounds the memory.
    options:
    layer, beta, sigma2: one value, or a pair (image, text), by default the model's own: layer 3/4 of the depth (9 of 12), beta 0.1
        and sigma2 1 as published, unless its settings.json says otherwise.  Layer -1 stands before the first block.
    standardise, given likewise: the bottleneck stands on states with mean 0 and deviation 1 in each channel of each pair (our
        option, after Schulz et al. 2020); False unless settings.json says otherwise.
    quality: "published", 10 of Adam's steps with 10 draws of noise each; "fast", 10 of 4, whose maps are about as good;
        "converged", 20 of 20, nearer to where a long optimisation ends.  steps, samples and antithetic (each draw comes with its
        negative) replace the quality's.  lr=1: Adam's.  seed=0: of the noise.
    watch(modality, n, scores): called after n = 0, 1, ... steps, with one vector a pair; what it raises ends all.
    A result depends on (pair, options, seed) alone, on one kind of device.  The model comes back as it was, whatever happens.
    ValueError for a bad option, caption, image or number of them, or where the maps are not finite.
    """
    find, layers = m2ib(clip, modality, **options)
    kind = dict(layers=layers, against=against, method="M2IB", unit="nats")
    return attribute_sides(find, clip, images, captions, batch_size, progress, modality, **kind)
