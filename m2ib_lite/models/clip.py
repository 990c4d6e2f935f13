"""A CLIP with its tokenizer and image processor: pictures and captions in, what its towers read out."""

import warnings
from dataclasses import dataclass
from textwrap import shorten

import torch
from einops import rearrange

from .towers import ImageTower, TextTower, pooled_position

SHOWN = 200  # letters of a caption in a message


@dataclass(frozen=True)
class Captions:
    """Tokenised captions.  ids: (B, T) padded; valid, content: (B, T) bool, BOS to EOS and what lies between;
    tokens: the caption's own letters of each content token, one list a caption."""

    ids: torch.Tensor
    valid: torch.Tensor
    content: torch.Tensor
    tokens: list[list[str]]


class Clip:
    """A CLIP with its tokenizer and image processor.  Made by `load_model`.

    image, text: the two towers.  defaults: {"layer", "beta", "sigma2"}, each an (image, text) pair.
    """

    def __init__(self, model, tokenizer, processor, name, defaults):
        self.model, self.tokenizer, self.processor, self.name = model, tokenizer, processor, name
        self.image = ImageTower(model.vision_model, model.visual_projection)
        self.text = TextTower(model.text_model, model.text_projection)
        self.blank = tokenizer.pad_token_id  # what stands where a word is taken out
        self.defaults = {"layer": tuple(map(default_layer, self.towers)), "beta": (0.1, 0.1), "sigma2": (1.0, 1.0), **defaults}

    @property
    def towers(self):
        return self.image, self.text

    @property
    def device(self):
        return self.model.device

    @property
    def grid(self):
        """(gh, gw) of the image's patches."""
        config = self.model.config.vision_config
        return (config.image_size // config.patch_size,) * 2

    def untrained(self, seed=0):
        """A Clip of the same shape, on the CPU, with the weights that its family starts its training from.

        The same seed gives the same weights, whatever device this one is on.
        """
        with torch.random.fork_rng(devices=[]):  # transformers takes no generator here, it draws from the CPU's global one
            torch.default_generator.manual_seed(seed)
            model = type(self.model)(self.model.config).eval().requires_grad_(False)
        return Clip(model, self.tokenizer, self.processor, self.name, self.defaults)

    def to_grid(self, scores):
        """The scores of the patches, CLS dropped, on their grid.  (B, T) -> (B, gh, gw)"""
        return rearrange(scores[:, 1:], "b (gh gw) -> b gh gw", gh=self.grid[0])

    def pixels(self, images):
        """RGB PIL images through the checkpoint's own preprocessing.  -> (B, 3, H, W) on the model's device"""
        pixels = self.processor(images=list(images), return_tensors="pt").pixel_values
        return pixels.to(self.device, self.model.dtype)

    def view(self, size):
        """(left, top, right, bottom) of what the model sees of an image of (width, height), in the image's own pixels."""
        target, crop = self.processor.size, self.processor.crop_size
        if "shortest_edge" not in target or not self.processor.do_center_crop:
            return 0, 0, *size  # squeezed to a square, nothing is cut off
        scale = target["shortest_edge"] / min(size)
        w, h = crop["width"] / scale, crop["height"] / scale
        left, top = (size[0] - w) / 2, (size[1] - h) / 2
        return left, top, left + w, top + h

    def tokens(self, captions):
        """Captions -> Captions.  Warns of words that are cut off or not known.  ValueError where a caption has no word."""
        for i, caption in enumerate(captions):
            check_caption(caption, f"caption {i}")
        most = self.model.config.text_config.max_position_embeddings
        plain = dict(split_special_tokens=True)  # "<eos>" in a caption is text like any other
        whole = self.tokenizer(captions, return_offsets_mapping=True, verbose=False, **plain)
        for i, caption in enumerate(captions):
            if len(whole.input_ids[i]) <= 2:
                raise ValueError(f"caption {i} is {caption!r}: give at least one word")
            self._warn_of_cut(i, caption, whole.offset_mapping[i], most)
            self._warn_of_unknown(i, caption, whole.input_ids[i][: most - 1], whole.offset_mapping[i])
        batch = self.tokenizer(captions, padding=True, truncation=True, max_length=most, return_tensors="pt", **plain)
        end = pooled_position(batch.input_ids, self.model.config.text_config.eos_token_id)[:, None]
        place = torch.arange(batch.input_ids.shape[1])[None]
        content = (place > 0) & (place < end)
        spans = zip(captions, whole.offset_mapping, content.sum(dim=1), strict=True)
        tokens = [[caption[a:b] for a, b in offsets[1 : n + 1]] for caption, offsets, n in spans]
        return Captions(*(x.to(self.device) for x in (batch.input_ids, place <= end, content)), tokens)

    @staticmethod
    def _warn_of_cut(i, caption, offsets, most):
        if len(offsets) > most:
            lost = caption[offsets[most - 1][0] :]
            warnings.warn(
                f"caption {i} is longer than the model's {most} positions; cut off: {shorten(lost, SHOWN)!r}", stacklevel=3
            )

    def _warn_of_unknown(self, i, caption, ids, offsets):
        unknown = self.tokenizer.unk_token_id
        if unknown == self.tokenizer.eos_token_id:  # CLIP's byte-level vocabulary knows every string
            return
        words = [caption[a:b] for token, (a, b) in zip(ids, offsets, strict=False) if token == unknown]
        if words:
            message = f"caption {i} has words that the tokenizer of {self.name} does not know: {shorten(', '.join(words), SHOWN)}"
            warnings.warn(message, stacklevel=3)


def default_layer(tower):
    """Three quarters of the depth, 9 of 12 as published, and never the last block, after which no token meets another."""
    return min(len(tower.blocks) * 3 // 4, len(tower.blocks) - 2)


def check_caption(caption, name="the caption"):
    """ValueError where a caption is no text, has no word, or holds what no text file can.  name: what the message calls it."""
    if not isinstance(caption, str) or not caption.strip():
        raise ValueError(f"{name} is {caption!r}: give at least one word")
    if any("\ud800" <= letter <= "\udfff" for letter in caption):
        raise ValueError(f"{name} is {shorten(repr(caption), SHOWN)}: it holds half a character (a surrogate), read it as UTF-8")
