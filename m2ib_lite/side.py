"""One tower of some pairs as a method sees it, and what makes of a method for towers a method for images and captions.

M2IB and its rivals answer the same question of a `Side`: what of its input carries y, the cosine of the pair's two embeddings?
"""

import hashlib
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from tqdm.auto import tqdm

from .attribution import Attribution
from .data import Images, Pair
from .hooks import capture, frozen
from .models import Clip, Tower, check_caption, has_bfloat16
from .options import both, check_positive

MODALITIES = ("image", "text")  # in the order of Clip.towers
BAR_DELAY = 2  # seconds before a progress bar shows
LEAST = 1e-3  # two embeddings, which are 1 long, that are less apart are the same


def asked(modality):
    """The modalities of "both", "image" or "text".  ValueError for another word."""
    if modality not in ("both", *MODALITIES):
        raise ValueError(f"modality is {modality!r}: give 'both', 'image' or 'text'")
    return MODALITIES if modality == "both" else (modality,)


def own_generator(seed, content):
    """A generator seeded by `seed` and one pair's input: its draws never depend on the pairs beside it."""
    digest = hashlib.blake2b(content.float().cpu().numpy().tobytes(), digest_size=7, key=str(seed).encode())
    return torch.Generator(content.device).manual_seed(int.from_bytes(digest.digest()))


def encode(tower, inputs, layer):
    """One pass of a tower: its embedding (B, E), and the output of block `layer`, -1 for what the first block reads (B, T, D)."""
    with torch.no_grad(), capture(tower.blocks[max(layer, 0)]) as outputs:
        embedding = tower.encode(inputs)
        hidden = tower.embed(inputs) if layer < 0 else outputs[0]
    if not torch.isfinite(embedding).all():
        raise ValueError("the model's embedding is not finite: load it with dtype=torch.float32, or get the checkpoint again")
    return embedding, hidden


@dataclass
class Side:
    """One tower of B pairs.  inputs: pixels or ids.  hidden: (B, T, D), what block `layer` gives, -1: what the first one reads.
    content: (B, T) bool, the positions that have a score.  valid: (B, T) bool, those that are no padding.  target: (B, E), the
    other tower's embeddings.  pooled: (B,), where the own one is read.  masked: of one input's targets, what `keep` embedded."""

    clip: Clip
    modality: str
    tower: Tower
    inputs: torch.Tensor
    layer: int
    hidden: torch.Tensor
    content: torch.Tensor
    valid: torch.Tensor
    target: torch.Tensor
    pooled: torch.Tensor
    masked: dict | None = None

    @property
    def is_image(self):
        return self.modality == "image"

    def score(self, hidden, layer):
        """y from the output of block `layer` on; -1: from what the first block reads.  (N, T, D) -> (N,), N a multiple of B"""
        return self.match(self.tower.rest(hidden, layer, self.inputs))

    def match(self, embeddings):
        """y of embeddings of this tower.  (N, E) -> (N,), N a multiple of B"""
        return (embeddings.float() * self.target.float().repeat(len(embeddings) // len(self.target), 1)).sum(dim=-1)

    def similarity(self, z):
        """y where Z stands in the place of `hidden`.  (S, B, T, D) -> (S, B)"""
        return rearrange(self.score(rearrange(z, "s b t d -> (s b) t d"), self.layer), "(s b) -> s b", s=len(z))

    def enter(self, layer):
        """What block `layer` reads.  -> (B, T, D)"""
        return encode(self.tower, self.inputs, layer - 1)[1] if layer else self.tower.embed(self.inputs)

    def pick(self, scores):
        """The scores of the positions that have one, one vector a pair.  (B, T) -> [(n,)]"""
        return [row[content] for row, content in zip(scores, self.content, strict=True)]

    def towards(self, targets):
        """This Side of a single pair, once for each of other targets, which share its masked passes.  (N, E) -> a Side of N"""
        names = ("inputs", "hidden", "content", "valid", "pooled")
        rows = {name: getattr(self, name).repeat_interleave(len(targets), 0) for name in names}
        return replace(self, target=targets, masked={}, **rows)

    def singles(self):
        """Each pair as a Side of its own, a CLIP's caption without its padding, which a SigLIP reads."""
        for b in range(len(self.inputs)):
            one, cut = slice(b, b + 1), slice(None if self.is_image else self.pooled[b] + 1)
            rows = {name: getattr(self, name)[one, cut] for name in ("inputs", "hidden", "content", "valid")}
            yield replace(self, **rows, target=self.target[one], pooled=self.pooled[one])

    def keep(self, kept):
        """y of a single pair where only some is kept: a patch taken out is 0, the preprocessing's channel mean, a word the padding
        token.  (N, n) of 0 and 1, or (N, 1, H, W), what share of each pixel -> (N,)"""
        if self.masked is None:
            return self.match(self.encode_kept(kept))
        key = hashlib.blake2b(kept.cpu().numpy().tobytes()).digest()
        if key not in self.masked:
            self.masked[key] = self.encode_kept(kept)
        return self.match(self.masked[key])

    def encode_kept(self, kept):
        """The embeddings of a single pair's input where only some is kept, as `keep` takes it.  -> (N, E)"""
        if self.is_image:
            kept = kept if kept.ndim == 4 else rearrange(kept, "n (gh gw) -> n 1 gh gw", gh=self.clip.grid[0])
            masked = self.inputs * F.interpolate(kept, self.inputs.shape[-2:]).to(self.inputs.dtype)
        else:
            masked = self.inputs.repeat(len(kept), 1)
            masked[:, self.content[0]] = masked[:, self.content[0]].where(kept.bool(), self.clip.blank)
        # bfloat16's rounding is far below what another draw of masks changes
        with torch.autocast(masked.device.type, torch.bfloat16, enabled=has_bfloat16(masked.device)):
            return self.tower.rest(self.tower.embed(masked), -1, self.inputs)


def sides(clip, images, captions, layers=(0, 0)):
    """Both towers of pairs, each with the other's embedding as its target.  layers: the block of each whose output its `hidden`
    is; one pass of a tower gives both.  -> image Side, text Side, the captions' tokens"""
    pixels, text = clip.pixels(images), clip.tokens(captions)
    image_embedding, patches = encode(clip.image, pixels, layers[0])
    text_embedding, words = encode(clip.text, text.ids, layers[1])
    valid = torch.ones(patches.shape[:2], dtype=torch.bool, device=patches.device)
    content = torch.zeros_like(valid)
    content[:, clip.image.patches] = True
    of_image = (pixels, layers[0], patches, content, valid, text_embedding, clip.image.pooled(pixels))
    of_text = (text.ids, layers[1], words, text.content, text.valid, image_embedding, clip.text.pooled(text.ids))
    return Side(clip, "image", clip.image, *of_image), Side(clip, "text", clip.text, *of_text), text.tokens


def pair_up(images, captions):
    """As many Images as captions, from one of each, many of each, one with many of the other, or Pairs.  ValueError otherwise."""
    one = isinstance(images, str | Path | Image.Image | Pair) or getattr(images, "ndim", 4) <= 3  # one array or tensor
    images = [images] if one else list(images.sources if isinstance(images, Images) else images)
    if captions is None:
        if not all(isinstance(image, Pair) for image in images):
            raise ValueError("there are images without captions: give one for each, or Pairs, which have theirs")
        captions = [pair.caption for pair in images]
    captions = [captions] * len(images) if isinstance(captions, str) else list(captions)
    images = images * len(captions) if one else images
    if len(images) != len(captions) or not images:
        raise ValueError(f"{len(images)} images and {len(captions)} captions: give one caption for each image, at least one")
    for i, caption in enumerate(captions):
        check_caption(caption, f"caption {i}")
    return Images([image.image if isinstance(image, Pair) else image for image in images]), captions


def difference(clip, side, captions, against):
    """An image Side whose target is what tells each caption from another one: e'(caption) - e'(other), brought to length 1.
    ValueError where the two are the same to the model."""
    with torch.no_grad():  # both in one batch, whose padding rounds alike
        one, other = clip.text.encode(clip.tokens([*captions, *against]).ids).float().chunk(2)
    gap = one - other
    for caption, other, length in zip(captions, against, gap.norm(dim=-1).tolist(), strict=True):
        if length < LEAST:
            raise ValueError(f"{clip.name} reads {caption!r} and {other!r} alike: give another caption against it")
    return replace(side, target=F.normalize(gap, dim=-1))


def cosines(clip, image_side, text_side):
    """Of each pair, and of its image with each of `Clip.others`.  -> (B,), (B, K) float32"""
    images, captions = text_side.target.float(), image_side.target.float()
    return (images * captions).sum(dim=-1), images @ clip.embed_others().float().T


def attribute_sides(scores, clip, images, captions, batch_size, progress, modality, layers=(0, 0), against=None, **kind):
    """scores(side) -> one vector (n,) a pair, for both towers or one, batch by batch on the frozen model.  -> Attribution
    layers: as in `sides`.  against: as in `explain`.  kind: the Attribution's method and unit."""
    check_positive(batch_size=batch_size)
    maps, tokens, matches = {name: [] for name in asked(modality)}, [], []
    images, captions = pair_up(images, captions)
    if against is not None and "image" in maps:
        against = [against] * len(images) if isinstance(against, str) else list(against)
        if len(against) != len(images):
            raise ValueError(f"{len(against)} captions against {len(images)} pairs: give one, or one for each")
    views = [clip.view(image.size) for image in images]  # opens each once: a bad one is told of before any work is done
    bar = tqdm(total=len(images), unit="pair", desc=kind["method"], delay=BAR_DELAY, disable=not progress)
    with frozen(clip.model), bar:
        for start in range(0, len(images), batch_size):
            chunk = slice(start, start + batch_size)
            image_side, text_side, pieces = sides(clip, images[chunk], captions[chunk], layers)
            matches.append(cosines(clip, image_side, text_side))
            if against is not None and "image" in maps:
                image_side = difference(clip, image_side, captions[chunk], against[chunk])
            for side in (image_side, text_side):
                if side.modality in maps:
                    maps[side.modality] += [row.float() for row in scores(side)]
            tokens += pieces
            bar.update(len(pieces))
    grids = rearrange(maps["image"], "b (gh gw) -> b gh gw", gh=clip.grid[0]) if "image" in maps else None
    similarity, others = map(torch.cat, zip(*matches, strict=True))
    return Attribution(grids, maps.get("text"), tokens, images, captions, views, similarity=similarity, others=others, **kind)


def rival(title, modalities=MODALITIES):
    """Make `scores(side, **options)`, which gives one vector (n,) a pair, a method of images and captions, called `title` as in the
    literature.  It keeps .scores and .title; .published are its options' defaults, but for a seed; .finder(clip, section,
    **options) gives the scores of a Side with these options, each one value or an (image, text) pair, or with the model's own."""

    def make(scores):
        name, defaults = scores.__name__, {key: of.default for key, of in signature(scores).parameters.items() if key != "side"}

        def finder(clip, section, **options):
            options = clip.own(section, name) | options
            unknown = sorted(options.keys() - defaults.keys())
            if unknown:
                raise TypeError(f"{title} has no option {', '.join(unknown)}: there are {', '.join(defaults) or 'none'}")
            pairs = {key: both(key, value) for key, value in options.items()}
            return lambda side: scores(side, **{key: pair[MODALITIES.index(side.modality)] for key, pair in pairs.items()})

        def method(clip, images, captions=None, *, batch_size=8, progress=True, modality="both", against=None, **options):
            if modality == "text" and modality not in modalities:
                raise ValueError(f"{title} has no maps of words: give modality='image'")
            find, modality = finder(clip, "best", **options), modality if len(modalities) > 1 else modalities[0]
            kind = dict(against=against, method=title, unit="cosine")
            return attribute_sides(find, clip, images, captions, batch_size, progress, modality, **kind)

        method.scores, method.finder, method.title, method.__name__, method.__doc__ = scores, finder, title, name, scores.__doc__
        method.published = {key: value for key, value in defaults.items() if key != "seed"}
        return method

    return make
