"""Load a CLIP, encode with it, and run one tower from a block on; the only module that knows transformers."""

import json
import warnings
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel
from transformers.masking_utils import create_causal_mask
from transformers.utils import logging as transformers_logging

TESTBED = Path(__file__).parents[1] / "data"  # shipped beside the package, in the clone that it is installed from
BUILT_IN = {"testbed": TESTBED / "models" / "scenes", "radiographs": TESTBED / "models" / "radiographs"}
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


@dataclass(frozen=True)
class Captions:
    """Tokenised captions.  ids: (B, T) padded; valid, content: (B, T) bool, BOS to EOS and what lies between;
    tokens: the caption's own letters of each content token, one list a caption."""

    ids: torch.Tensor
    valid: torch.Tensor
    content: torch.Tensor
    tokens: list[list[str]]


class Tower:
    """What both towers share: their blocks, and a block opened up.  `rest(embed(inputs), -1, inputs)` is `encode(inputs)`."""

    causal = False

    def __init__(self, model, project):
        self.model, self.project, self.blocks = model, project, model.encoder.layers
        self.norms = [block.layer_norm1 for block in self.blocks]  # a block's attention reads its input through this

    def attention(self, normed, layer):
        """Queries, keys and values of a block, (N, h, T, d), and its attention probabilities, (N, h, T, T)."""
        attend = self.blocks[layer].self_attn
        projections = attend.q_proj, attend.k_proj, attend.v_proj
        q, k, v = (rearrange(f(normed), "n t (h d) -> n h t d", h=attend.num_heads) for f in projections)
        scores = (q @ k.mT * attend.scale).float()
        if self.causal:
            scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
        return q, k, v, scores.softmax(dim=-1).to(v.dtype)

    def finish(self, hidden, mixed, layer):
        """A block's output for its input and what its attention mixed, before the projection.  (N, h, T, d) -> (N, T, D)"""
        block = self.blocks[layer]
        hidden = hidden + block.self_attn.out_proj(rearrange(mixed, "n h t d -> n t (h d)"))
        return hidden + block.mlp(block.layer_norm2(hidden))


class ImageTower(Tower):
    """The image tower; its inputs are pixels (B, 3, H, W)."""

    def embed(self, pixels):
        """What the first block reads.  (B, 3, H, W) -> (B, T, D)"""
        return self.model.pre_layrnorm(self.model.embeddings(pixels))

    def encode(self, pixels):
        """(B, 3, H, W) -> (B, E), of length 1"""
        return F.normalize(self.project(self.model(pixels).pooler_output), dim=-1)

    def rest(self, hidden, layer, pixels):
        """From the output of block `layer` to the embedding, running only the blocks after it.  (N, T, D) -> (N, E)"""
        for block in self.blocks[layer + 1 :]:
            hidden = block(hidden, None)
        return F.normalize(self.project(self.model.post_layernorm(hidden[:, 0])), dim=-1)


class TextTower(Tower):
    """The text tower; its inputs are token ids (B, T)."""

    causal = True

    def embed(self, ids):
        """As ImageTower.embed.  (B, T) -> (B, T, D)"""
        return self.model.embeddings(ids)

    def encode(self, ids):
        """(B, T) -> (B, E), of length 1"""
        return F.normalize(self.project(self.model(ids).pooler_output), dim=-1)

    def rest(self, hidden, layer, ids):
        """As ImageTower.rest; N may be a multiple of B: the copies of the captions one after the other."""
        mask = create_causal_mask(self.model.config, inputs_embeds=hidden, attention_mask=None, past_key_values=None)
        for block in self.blocks[layer + 1 :]:
            hidden = block(hidden, mask, is_causal=True)
        at = pooled_position(ids, self.model.eos_token_id).repeat(len(hidden) // len(ids))
        pooled = self.model.final_layer_norm(hidden[torch.arange(len(hidden), device=hidden.device), at])
        return F.normalize(self.project(pooled), dim=-1)


def pooled_position(ids, eos_token_id):
    """Where CLIP reads a caption's embedding: its first EOS, which checkpoints that say 2 mean by the highest id.  -> (B,)"""
    return ids.argmax(dim=-1) if eos_token_id == 2 else (ids == eos_token_id).int().argmax(dim=-1)


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

    def to_grid(self, scores):
        """The scores of the patches, CLS dropped, on their grid.  (B, T) -> (B, gh, gw)"""
        return rearrange(scores[:, 1:], "b (gh gw) -> b gh gw", gh=self.grid[0])

    def pixels(self, images):
        """RGB PIL images through the checkpoint's own preprocessing.  -> (B, 3, H, W) on the model's device"""
        pixels = self.processor(images=images, return_tensors="pt").pixel_values
        return pixels.to(self.device, self.model.dtype)

    def view(self, size):
        """(left, top, right, bottom) of what the model sees of an image of (width, height), in the image's own pixels."""
        short, crop = min(size), self.processor.crop_size
        scale = self.processor.size["shortest_edge"] / short
        w, h = crop["width"] / scale, crop["height"] / scale
        left, top = (size[0] - w) / 2, (size[1] - h) / 2
        return left, top, left + w, top + h

    def tokens(self, captions):
        """Captions -> Captions.  Warns of words that are cut off or not known.  ValueError where a caption has no word."""
        most = self.model.config.text_config.max_position_embeddings
        whole = self.tokenizer(captions, return_offsets_mapping=True)
        for i, caption in enumerate(captions):
            if len(whole.input_ids[i]) <= 2:
                raise ValueError(f"caption {i} is {caption!r}: give at least one word")
            self._warn_of_cut(caption, whole.offset_mapping[i], most)
            self._warn_of_unknown(caption, whole.input_ids[i][: most - 1], whole.offset_mapping[i])
        batch = self.tokenizer(captions, padding=True, truncation=True, max_length=most, return_tensors="pt")
        end = pooled_position(batch.input_ids, self.model.config.text_config.eos_token_id)[:, None]
        place = torch.arange(batch.input_ids.shape[1])[None]
        content = (place > 0) & (place < end)
        spans = zip(captions, whole.offset_mapping, content.sum(dim=1), strict=True)
        tokens = [[caption[a:b] for a, b in offsets[1 : n + 1]] for caption, offsets, n in spans]
        return Captions(*(x.to(self.device) for x in (batch.input_ids, place <= end, content)), tokens)

    @staticmethod
    def _warn_of_cut(caption, offsets, most):
        if len(offsets) > most:
            lost = caption[offsets[most - 1][0] :]
            warnings.warn(f"a caption is longer than the model's {most} positions; cut off: {lost!r}", stacklevel=4)

    def _warn_of_unknown(self, caption, ids, offsets):
        unknown = self.tokenizer.unk_token_id
        if unknown == self.tokenizer.eos_token_id:  # CLIP's byte-level vocabulary knows every string
            return
        words = [caption[a:b] for token, (a, b) in zip(ids, offsets, strict=False) if token == unknown]
        if words:
            warnings.warn(f"the tokenizer of {self.name} does not know: {', '.join(words)}", stacklevel=4)


def default_layer(tower):
    """Three quarters of the depth, 9 of 12 as published, and never the last block, after which no token meets another."""
    return min(len(tower.blocks) * 3 // 4, len(tower.blocks) - 2)


def pick_device(device="auto"):
    """ "auto": CUDA where there is one, else the CPU."""
    if device != "auto":
        return torch.device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_model(name="testbed", device="auto", dtype=torch.float32):
    """A CLIP of the Hugging Face layout, frozen and in evaluation mode, as a Clip.

    name: "testbed", "radiographs", a folder, or a hub name such as "openai/clip-vit-base-patch32". Weights are read as
    safetensors, or with `weights_only=True`; no code of the checkpoint runs. A file m2ib.json in a folder holds its default
    layer, beta and sigma2. FileNotFoundError where there is no such model or it has no weights; ValueError where they are not
    finite.
    """
    source = BUILT_IN.get(name, Path(name))
    local = source.is_dir()
    if local:
        check_folder(source)
    elif name in BUILT_IN:
        raise FileNotFoundError(f"the {name} model is not at {source}: install from a clone with `pip install -e .`")
    source = str(source if local else name)
    try:
        with without_bars() if local else nullcontext():
            model = CLIPModel.from_pretrained(source, dtype=dtype)
        tokenizer = AutoTokenizer.from_pretrained(source)
        processor = CLIPImageProcessorPil.from_pretrained(source)
    except OSError as error:
        message = f"no model {name!r}: give 'testbed', a folder that holds a CLIP, or the name of one on the hub (needs a network)"
        raise FileNotFoundError(message) from error
    check_finite(model, name)
    own = Path(source) / "m2ib.json"
    defaults = json.loads(own.read_text()) if own.exists() else {}
    model = model.to(pick_device(device)).eval().requires_grad_(False)
    return Clip(model, tokenizer, processor, name, {key: tuple(value) for key, value in defaults.items()})


@contextmanager
def without_bars():
    """transformers draws a bar even for a folder that loads in a moment."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def check_finite(model, name):
    """ValueError where a weight is NaN or infinite."""
    bad = [key for key, weight in model.named_parameters() if not torch.isfinite(weight).all()]
    if bad:
        raise ValueError(f"{name}: {len(bad)} weights hold NaN or infinity, the first is {bad[0]}: get the checkpoint again")


def check_folder(folder):
    """FileNotFoundError where a folder lacks a part of a Hugging Face checkpoint."""
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{folder} has no config.json: give the folder that save_pretrained wrote")
    if not any(any(folder.glob(pattern)) for pattern in WEIGHTS):
        raise FileNotFoundError(f"{folder} has no weights: put {' or '.join(WEIGHTS)} beside its config.json")
