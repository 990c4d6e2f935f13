"""A CLIP with its tokenizer and image processor: pictures and captions in, what its towers read out."""

import itertools
import warnings
from dataclasses import dataclass
from textwrap import shorten

import torch

from .towers import ImageTower, TextTower

SHOWN = 200  # letters of a caption in a message


@dataclass(frozen=True)
class Captions:
    """Tokenised captions.  ids: (B, T) padded; valid: (B, T) bool, what the embedding depends on, BOS to EOS in a CLIP; content:
    (B, T) bool, the tokens of its words, without BOS, EOS and padding; tokens: the caption's own letters that each of these adds,
    one list a caption: none where it is one of several tokens of one character, and not the first."""

    ids: torch.Tensor
    valid: torch.Tensor
    content: torch.Tensor
    tokens: list[list[str]]


class Clip:
    """A CLIP with its tokenizer and image processor, made by `load_model`.

    image, text: its towers.  grid: (gh, gw) of an image's patches; patch: the side of one in pixels of the model's.
    published, published_medical, defaults: M2IB's {"layer", "beta", "sigma2", "standardise"}, each an (image, text) pair: the
    paper's, those of its chest X-rays, and the model's own.  settings: what its settings.json holds, {section: {method: options}}.
    others: captions of other things, beside whose cosines with an image that of its own caption is to be read.
    """

    kinds = ImageTower, TextTower
    fixed_length = False  # whether captions are padded to all the positions, and the padding is read

    def __init__(self, model, tokenizer, processor, name, settings, others):
        self.model, self.device, self.tokenizer, self.processor, self.name = model, model.device, tokenizer, processor, name
        self.settings, self.others, self._embedded = settings, others, (None, None)
        self.towers = self.image, self.text = tuple(kind(model) for kind in self.kinds)
        self.patch = model.config.vision_config.patch_size
        self.grid = (model.config.vision_config.image_size // self.patch,) * 2
        self.blank = tokenizer.pad_token_id  # what stands where a word is taken out
        layers, layers_medical = (tuple(map(default_layer, self.towers, of)) for of in ((9, 9), (9, 7)))
        self.published = {"layer": layers, "beta": (0.1, 0.1), "sigma2": (1.0, 1.0), "standardise": (False, False)}
        self.published_medical = self.published | {"layer": layers_medical, "beta": (1.0, 1.0)}
        self.defaults = self.published | self.own("best", "M2IB")

    def __repr__(self):
        gh, gw = self.grid
        blocks = f"{len(self.image.blocks)} image and {len(self.text.blocks)} text blocks"
        defaults = ", ".join(f"{option} {values}" for option, values in self.defaults.items())
        return f"{type(self).__name__} {self.name}: {gh} x {gw} patches, {blocks}, on {self.device}; {defaults}"

    def own(self, section, method):
        """The model's own settings of a method, in "best for words" or else in "best"; {} where it has none.  -> {option: value}"""
        options = self.settings.get(section, self.settings.get("best", {})).get(method, {})
        return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}

    def untrained(self, seed=0):
        """A Clip of the same shape with the weights that its family's training starts from, drawn on the CPU and left there."""
        with torch.random.fork_rng(devices=[]):  # transformers takes no generator here, it draws from the CPU's global one
            torch.default_generator.manual_seed(seed)
            model = type(self.model)(self.model.config).eval().requires_grad_(False)
        return self.like(model)

    def like(self, model):
        """Another model of the same family and shape, used as this one."""
        return type(self)(model, self.tokenizer, self.processor, self.name, self.settings, self.others)

    def pixels(self, images):
        """RGB PIL images through the checkpoint's own preprocessing.  -> (B, 3, H, W) on the model's device"""
        return self.processor(images=list(images), return_tensors="pt").pixel_values.to(self.device, self.model.dtype)

    def similarity(self, images, captions):
        """The cosine of every image with every caption.  images: a list of RGB PIL images; captions: a list of strings.
        -> (n_images, n_captions) on the model's device"""
        with torch.no_grad():
            return self.image.encode(self.pixels(images)) @ self.text.encode(self.tokens(captions).ids).T

    def embed_others(self):
        """The embeddings of `others`, worked out anew only where one of them or a weight has changed since.  -> (K, E)"""
        state = [*self.others, *((weight.data_ptr(), weight._version) for weight in self.model.parameters())]
        if self._embedded[0] != state:
            with torch.no_grad():
                self._embedded = state, self.text.encode(self.tokens(self.others, warn=False).ids)
        return self._embedded[1]

    def view(self, size):
        """(left, top, right, bottom) of what the patches see of an image of (width, height), in the image's own pixels."""
        target, (gh, gw) = self.processor.size, self.grid
        if target["shortest_edge"]:
            w, h = (int(target["shortest_edge"] * side / min(size)) for side in size)
        else:
            w, h = target["width"], target["height"]  # squeezed
        left, top = 0, 0
        if self.processor.do_center_crop:
            left, top = (w - self.processor.crop_size["width"]) // 2, (h - self.processor.crop_size["height"]) // 2
        x, y = size[0] / w, size[1] / h
        return left * x, top * y, (left + gw * self.patch) * x, (top + gh * self.patch) * y

    def tokens(self, captions, warn=True):
        """Captions -> Captions.  Warns of words that are cut off or not known.  ValueError where a caption has no word."""
        for i, caption in enumerate(captions):
            check_caption(caption, f"caption {i}")
        most = self.model.config.text_config.max_position_embeddings
        plain = dict(split_special_tokens=True)  # "<eos>" in a caption is text like any other
        plain |= dict(return_offsets_mapping=True, return_special_tokens_mask=True, return_attention_mask=True)
        whole = self.tokenizer(captions, verbose=False, **plain)
        for i, caption in enumerate(captions):
            if all(whole.special_tokens_mask[i]):
                raise ValueError(f"caption {i} is {caption!r}: give at least one word")
            if warn:
                self._warn(i, caption, whole.input_ids[i], whole.offset_mapping[i], most)
        padding = "max_length" if self.fixed_length else True
        batch = self.tokenizer(captions, padding=padding, truncation=True, max_length=most, return_tensors="pt", **plain)
        attended = batch.attention_mask.bool()
        content = attended & ~batch.special_tokens_mask.bool()
        spans = [offsets[row].tolist() for offsets, row in zip(batch.offset_mapping, content, strict=True)]
        tokens = [letters(*row) for row in zip(captions, spans, strict=True)]
        return Captions(*(x.to(self.device) for x in (batch.input_ids, attended | self.fixed_length, content)), tokens)

    def _warn(self, i, caption, ids, offsets, most):
        if len(ids) > most:
            lost = shorten(caption[offsets[most - 1][0] :], SHOWN)
            warnings.warn(f"caption {i} is longer than the model's {most} positions; cut off: {lost!r}", stacklevel=3)
        unknown = self.tokenizer.unk_token_id
        words = [caption[a:b].strip() for token, (a, b) in zip(ids[: most - 1], offsets, strict=False) if token == unknown]
        if words and unknown != self.tokenizer.eos_token_id:  # CLIP's byte-level vocabulary knows every string
            message = f"caption {i} has words that the tokenizer of {self.name} does not know: {shorten(', '.join(words), SHOWN)}"
            warnings.warn(message, stacklevel=3)


def letters(caption, spans):
    """What each token adds to the letters that those before it stand for: [(0, 2), (3, 4), (3, 4)] of "an 🦉" -> "an", "🦉", ""."""
    ends = [0, *itertools.accumulate((end for _, end in spans), max)]
    found = [caption[max(start, before) : end] for (start, end), before in zip(spans, ends, strict=False)]
    return [text.strip() or text for text in found]  # some tokenizers count the space before a word to it


def default_layer(tower, of_twelve=9):
    """The layer as published for 12 blocks, and never the last block, after which no token meets another."""
    return min(len(tower.blocks) * of_twelve // 12, len(tower.blocks) - 2)


def check_caption(caption, name="the caption"):
    """ValueError where a caption is no text, has no word, or holds what no text file can.  name: what the message calls it."""
    if not isinstance(caption, str) or not caption.strip():
        raise ValueError(f"{name} is {caption!r}: give at least one word")
    if any("\ud800" <= letter <= "\udfff" for letter in caption):
        raise ValueError(f"{name} is {shorten(repr(caption), SHOWN)}: it holds half a character (a surrogate), read it as UTF-8")
