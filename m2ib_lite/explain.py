"""M2IB: pairs of an image and a caption in, what each tower had to keep for them to match out."""

import hashlib
import math
from itertools import chain
from numbers import Integral, Real
from pathlib import Path

import torch
from einops import rearrange
from PIL import Image
from tqdm.auto import tqdm

from . import bottleneck
from .attribution import Attribution
from .data import Images
from .hooks import capture, frozen
from .models import check_caption

MODALITIES = ("image", "text")  # in the order of Clip.towers
COUNTS = ("steps", "samples", "batch_size", "shard")
BAR_DELAY = 2  # seconds before the progress bar shows


def pair_up(images, captions):
    """One or many images and captions: as many Images and words.  ValueError otherwise."""
    one = isinstance(images, str | Path | Image.Image) or getattr(images, "ndim", 4) <= 3  # an array (H, W) or (H, W, C)
    sources = images.sources if isinstance(images, Images) else images
    images = Images([sources] if one else list(sources))
    captions = [captions] if isinstance(captions, str) else list(captions)
    if len(images) != len(captions) or not images:
        raise ValueError(f"{len(images)} images and {len(captions)} captions: give one caption for each image, at least one")
    for i, caption in enumerate(captions):
        check_caption(caption, f"caption {i}")
    return images, captions


def both(name, value, default):
    """An option as an (image, text) pair: one value serves both, None takes the model's own."""
    pair = default if value is None else value
    pair = tuple(pair) if isinstance(pair, tuple | list) else (pair, pair)
    if len(pair) != 2:
        raise ValueError(f"{name} is {value!r}: give one value, or a pair (image, text)")
    return tuple(own if given is None else given for given, own in zip(pair, default, strict=True))


def check_layers(clip, layers):
    """ValueError where a layer is out of range, or the last one, after which no token reaches the pooled one."""
    for name, tower, layer in zip(("image", "text"), clip.towers, layers, strict=True):
        last = len(tower.blocks) - 2
        if not isinstance(layer, Integral) or not 0 <= layer <= last:
            raise ValueError(f"{name} layer {layer!r} is out of range: {clip.name} takes 0 to {last}, some blocks must come after")


def check_positive(**numbers):
    """ValueError for the first of them that is no finite number above zero; a count must be whole."""
    for name, value in numbers.items():
        if not isinstance(value, Real) or not 0 < value < math.inf:
            raise ValueError(f"{name} is {value}: give a number above zero")
        if name in COUNTS and not isinstance(value, Integral):
            raise ValueError(f"{name} is {value}: give a whole number")


def of_towers(clip, **given):
    """The options layer, beta and sigma2 of each tower, checked.  -> image's, text's, as dicts"""
    chosen = {name: both(name, value, clip.defaults[name]) for name, value in given.items()}
    check_layers(clip, chosen["layer"])
    for k in (0, 1):
        check_positive(beta=chosen["beta"][k], sigma2=chosen["sigma2"][k])
    return [{name: pair[k] for name, pair in chosen.items()} for k in (0, 1)]


def check_modality(modality):
    """ValueError for another word than these three."""
    if modality not in ("both", *MODALITIES):
        raise ValueError(f"modality is {modality!r}: give 'both', 'image' or 'text'")


def own_generator(seed, content):
    """A generator seeded by `seed` and one pair's input: its draws never depend on the pairs beside it."""
    digest = hashlib.blake2b(content.float().cpu().numpy().tobytes(), digest_size=7, key=str(seed).encode())
    return torch.Generator(content.device).manual_seed(int.from_bytes(digest.digest()))


def noise_source(seed, inputs, samples, lengths, width, antithetic=False):
    """() -> (S, B, T, D) standard normal noise, each pair's from a generator of its own, seeded by seed and input.

    antithetic: the second half is the first with its sign turned.
    """
    generators = []
    for row, length in zip(inputs, lengths, strict=True):
        content = row[:length] if row.ndim == 1 else row  # a caption without its padding, which depends on the batch
        generators.append(own_generator(seed, content))
    noise = torch.zeros(samples, len(lengths), max(lengths), width, device=inputs.device)
    drawn = samples // 2 if antithetic else samples

    def draw():
        for b, (length, generator) in enumerate(zip(lengths, generators, strict=True)):
            noise[:drawn, b, :length] = torch.randn(drawn, length, width, generator=generator, device=noise.device)
        if antithetic:
            torch.neg(noise[:drawn], out=noise[drawn:])
        return noise

    return draw


def cosine_to(target, tower, layer, inputs):
    """Z (S, B, T, D) -> (S, B): the cosine of target (B, E) and what the rest of the tower makes of Z."""

    def similarity(z):
        embedding = tower.rest(rearrange(z, "s b t d -> (s b) t d"), layer, inputs)
        return (rearrange(embedding, "(s b) e -> s b e", s=len(z)).float() * target.float()).sum(dim=-1)

    return similarity


def information(tower, inputs, hidden, target, valid, layer, beta, sigma2, steps, samples, lr, seed, antithetic):
    """What each position of one tower had to keep, summed over its width, in nats.  (B, T, D) -> (B, T)"""
    similarity = cosine_to(target, tower, layer, inputs)
    draw = noise_source(seed, inputs, samples, valid.sum(dim=1).tolist(), hidden.shape[-1], antithetic)
    alpha = bottleneck.optimise(hidden, similarity, valid, draw, beta=beta, sigma2=sigma2, steps=steps, lr=lr)
    scores = bottleneck.capacity(hidden, alpha, sigma2).sum(dim=-1)
    if not torch.isfinite(scores).all():
        raise ValueError("a map is not finite: load the model with dtype=torch.float32, or take a smaller lr")
    return scores


def encode(tower, inputs, layer):
    """One pass of a tower: its embedding (B, E), and the output of block `layer` (B, T, D)."""
    with torch.no_grad(), capture(tower.blocks[layer]) as hidden:
        embedding = tower.encode(inputs)
    if not torch.isfinite(embedding).all():
        raise ValueError("the model's embedding is not finite: load it with dtype=torch.float32, or get the checkpoint again")
    return embedding, hidden[0]


def explain_batch(clip, images, captions, of_image, of_text, modality, **options):
    """`explain` for the pairs that are optimised together.  -> image maps (B, gh, gw), text maps, tokens

    of_image, of_text: layer, beta and sigma2 of each tower.
    """
    pixels, text = clip.pixels(images), clip.tokens(captions)
    image_embedding, image_hidden = encode(clip.image, pixels, of_image["layer"])
    text_embedding, text_hidden = encode(clip.text, text.ids, of_text["layer"])
    image_maps = text_maps = None
    if modality != "text":
        everywhere = torch.ones(image_hidden.shape[:2], dtype=torch.bool, device=pixels.device)
        scores = information(clip.image, pixels, image_hidden, text_embedding, everywhere, **of_image, **options)
        image_maps = clip.to_grid(scores)
    if modality != "image":
        scores = information(clip.text, text.ids, text_hidden, image_embedding, text.valid, **of_text, **options)
        text_maps = [row[content] for row, content in zip(scores, text.content, strict=True)]
    return image_maps, text_maps, text.tokens


def in_batches(clip, images, captions, find, batch_size, progress, **kind):
    """find(images, captions) -> (image maps, text maps, tokens), batch by batch on the frozen model.  -> Attribution

    kind: the Attribution's method and unit, where it is not M2IB.
    """
    images, captions = pair_up(images, captions)
    views = [clip.view(image.size) for image in images]  # opens each once: a bad one is told of before any work is done
    parts, title = [], kind.get("method", Attribution.method)
    with frozen(clip.model), tqdm(total=len(images), unit="pair", desc=title, delay=BAR_DELAY, disable=not progress) as bar:
        for start in range(0, len(images), batch_size):
            chunk = slice(start, start + batch_size)
            parts.append(find(images[chunk], captions[chunk]))
            bar.update(len(images[chunk]))
    image_maps, text_maps, tokens = zip(*parts, strict=True)
    image_maps = None if image_maps[0] is None else torch.cat(image_maps)
    text_maps = None if text_maps[0] is None else list(chain(*text_maps))
    return Attribution(image_maps, text_maps, list(chain(*tokens)), images, captions, views, **kind)


def explain(
    clip,
    images,
    captions,
    layer=None,
    beta=None,
    sigma2=None,
    steps=10,
    samples=10,
    lr=1.0,
    seed=0,
    batch_size=8,
    progress=True,
    modality="both",
    antithetic=False,
):
    """M2IB attribution of image-caption pairs, in both towers.  -> Attribution, in nats  (paper, section 3)

    images: PIL images, arrays or paths; captions: strings; one of each, or as many of both.
    layer, beta, sigma2: one value, or a pair (image, text); None takes the model's own, layer 3/4 of the depth (9 of 12),
    beta 0.1 and sigma2 1 as published unless its m2ib.json says otherwise.  lr, steps, samples: Adam's, with so many noise
    draws a step.  antithetic: each draw comes with its negative; at the published settings four agree over seeds as well as ten
    plain ones.  A result depends on (pair, options, seed) alone, on one kind of device; batch_size pairs are optimised
    at once and bound the memory.  modality: "image" or "text" leaves out the other's maps and their time.  The model comes back
    as it was, whatever happens.
    ValueError for a bad option, caption, image or number of them, or where the maps are not finite.
    """
    of_image, of_text = of_towers(clip, layer=layer, beta=beta, sigma2=sigma2)
    check_modality(modality)
    options = dict(steps=steps, samples=samples, lr=lr)
    check_positive(**options, batch_size=batch_size)
    if antithetic and samples % 2:
        raise ValueError(f"samples is {samples}: antithetic noise comes in twos, give an even number")

    def find(images, captions):
        return explain_batch(clip, images, captions, of_image, of_text, modality, seed=seed, antithetic=antithetic, **options)

    return in_batches(clip, images, captions, find, batch_size, progress)
