"""M2IB: pairs of an image and a caption in, what each tower had to keep for them to match out."""

import hashlib
import math
from dataclasses import dataclass
from itertools import chain, product
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from tqdm.auto import tqdm

from . import bottleneck
from .data import open_image
from .hooks import capture, frozen
from .words import join_scores, whole_words

MODALITIES = ("image", "text")  # in the order of Clip.towers
COUNTS = ("steps", "samples", "batch_size")
LEVELS = ("rise", "random")  # methods whose scores do not add up: by a sum, a word would gain from having more pieces
BAR_DELAY = 2  # seconds before the progress bar shows


@dataclass(eq=False)  # maps are tensors, which == does not compare to one truth
class Attribution:
    """What a method found in B pairs.

    image_maps: (B, gh, gw) float32, one score a patch, in `unit`.  text_maps: one (n_content_tokens,) a pair.
    tokens: each caption's words, or pieces of them, as it writes them; words(i) joins the pieces.  views: the rectangle of each
    image that the model saw, as (left, top, right, bottom) in the image's own pixels.  plot(i) draws pair i.
    Maps of a modality that was not asked for: None.
    """

    image_maps: torch.Tensor | None
    text_maps: list[torch.Tensor] | None
    tokens: list[list[str]]
    images: list[Image.Image]
    captions: list[str]
    views: list[tuple[float, float, float, float]]
    method: str = "M2IB"
    unit: str = "nats"

    def __len__(self):
        return len(self.images)

    def words(self, i):
        """The words of caption i and their scores, the sum over a word's pieces: information adds up.  -> [str], (n_words,)"""
        words, places = whole_words(self.captions[i], self.tokens[i])
        return words, join_scores(places, self.text_maps[i], mean=self.method in LEVELS)

    def heat(self, i):
        """Image map i over the image's own pixels, bilinear between patch centres, 0 where the model saw nothing.  (H, W)"""
        image, (left, top, right, bottom) = self.images[i], self.views[i]
        gh, gw = self.image_maps[i].shape
        sx, sy = gw / (right - left), gh / (bottom - top)
        patches = np.pad(self.image_maps[i].cpu().numpy(), 1, mode="edge")  # so that the outer half patches have a neighbour
        to_patches = (sx, 0, 1 - left * sx, 0, sy, 1 - top * sy)  # from the image's pixels
        heat = Image.fromarray(patches).transform(image.size, Image.Transform.AFFINE, to_patches, Image.Resampling.BILINEAR)
        seen = np.zeros((image.height, image.width), bool)
        seen[max(0, round(top)) : round(bottom), max(0, round(left)) : round(right)] = True
        return np.where(seen, np.asarray(heat), 0)


def pair_up(images, captions):
    """One or many images and captions as two lists of the same length: RGB images and words.  ValueError otherwise."""
    one = isinstance(images, str | Path | Image.Image) or getattr(images, "ndim", 4) <= 3  # an array (H, W) or (H, W, C)
    images = [images] if one else list(images)
    captions = [captions] if isinstance(captions, str) else list(captions)
    if len(images) != len(captions) or not images:
        raise ValueError(f"{len(images)} images and {len(captions)} captions: give one caption for each image, at least one")
    for i, caption in enumerate(captions):
        if not isinstance(caption, str) or not caption.strip():
            raise ValueError(f"caption {i} is {caption!r}: give at least one word")
    return [open_image(image) for image in images], captions


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


def check_modality(modality):
    """ValueError for another word than these three."""
    if modality not in ("both", *MODALITIES):
        raise ValueError(f"modality is {modality!r}: give 'both', 'image' or 'text'")


def own_generator(seed, content):
    """A generator seeded by `seed` and one pair's input: its draws never depend on the pairs beside it."""
    digest = hashlib.blake2b(content.float().cpu().numpy().tobytes(), digest_size=7, key=str(seed).encode())
    return torch.Generator(content.device).manual_seed(int.from_bytes(digest.digest()))


def noise_source(seed, inputs, samples, lengths, width):
    """() -> (S, B, T, D) standard normal noise, each pair's from a generator of its own, seeded by seed and input."""
    generators = []
    for row, length in zip(inputs, lengths, strict=True):
        content = row[:length] if row.ndim == 1 else row  # a caption without its padding, which depends on the batch
        generators.append(own_generator(seed, content))
    noise = torch.zeros(samples, len(lengths), max(lengths), width, device=inputs.device)

    def draw():
        for b, (length, generator) in enumerate(zip(lengths, generators, strict=True)):
            noise[:, b, :length] = torch.randn(samples, length, width, generator=generator, device=noise.device)
        return noise

    return draw


def cosine_to(target, tower, layer, inputs):
    """Z (S, B, T, D) -> (S, B): the cosine of target (B, E) and what the rest of the tower makes of Z."""

    def similarity(z):
        embedding = tower.rest(rearrange(z, "s b t d -> (s b) t d"), layer, inputs)
        return (rearrange(embedding, "(s b) e -> s b e", s=len(z)).float() * target.float()).sum(dim=-1)

    return similarity


def information(tower, inputs, hidden, target, valid, layer, beta, sigma2, steps, samples, lr, seed):
    """What each position of one tower had to keep, summed over its width, in nats.  (B, T, D) -> (B, T)"""
    similarity = cosine_to(target, tower, layer, inputs)
    draw = noise_source(seed, inputs, samples, valid.sum(dim=1).tolist(), hidden.shape[-1])
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
    parts, title = [], kind.get("method", Attribution.method)
    with frozen(clip.model), tqdm(total=len(images), unit="pair", desc=title, delay=BAR_DELAY, disable=not progress) as bar:
        for start in range(0, len(images), batch_size):
            chunk = slice(start, start + batch_size)
            parts.append(find(images[chunk], captions[chunk]))
            bar.update(len(images[chunk]))
    image_maps, text_maps, tokens = zip(*parts, strict=True)
    image_maps = None if image_maps[0] is None else torch.cat(image_maps)
    text_maps = None if text_maps[0] is None else list(chain(*text_maps))
    views = [clip.view(image.size) for image in images]
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
):
    """M2IB attribution of image-caption pairs, in both towers.  -> Attribution, in nats  (paper, section 3)

    images: PIL images, arrays or paths; captions: strings; one of each, or as many of both.
    layer, beta, sigma2: one value, or a pair (image, text); None takes the model's own, layer 3/4 of the depth (9 of 12),
    beta 0.1 and sigma2 1 as published unless its m2ib.json says otherwise.  lr, steps, samples: Adam's, with so many noise
    draws a step.  A result depends on (pair, options, seed) alone, on one kind of device; batch_size pairs are optimised
    at once and bound the memory.  modality: "image" or "text" leaves out the other's maps and their time.  The model comes back
    as it was, whatever happens.
    ValueError for a bad option, caption, image or number of them, or where the maps are not finite.
    """
    given = dict(layer=layer, beta=beta, sigma2=sigma2)
    chosen = {name: both(name, value, clip.defaults[name]) for name, value in given.items()}
    check_layers(clip, chosen["layer"])
    check_modality(modality)
    options = dict(steps=steps, samples=samples, lr=lr)
    check_positive(**options, batch_size=batch_size)
    for name, k in product(("beta", "sigma2"), (0, 1)):
        check_positive(**{name: chosen[name][k]})
    of_image, of_text = ({name: pair[k] for name, pair in chosen.items()} for k in (0, 1))

    def find(images, captions):
        return explain_batch(clip, images, captions, of_image, of_text, modality, seed=seed, **options)

    return in_batches(clip, images, captions, find, batch_size, progress)
