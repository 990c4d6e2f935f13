"""OpenAI's own files: a state dict of its CLIP as a CLIPModel, its BPE vocabulary as a tokenizer."""

import gzip
import re
import warnings

import torch
from safetensors.torch import load_file
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from .clip import Clip

TOKENIZER = "openai/clip-vit-base-patch32"
MERGES = 49152 - 256 - 2  # of the lines of the BPE file OpenAI uses so many, after the first
NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")  # which a saved TorchScript brings along
HEAD = 64  # the width of an attention head in all of OpenAI's models
WIDEST = 1024  # the image tower of its ViT-L; the heads of open_clip's wider ones are not 64 wide
UNREADABLE = """{path} cannot be read as tensors alone, and nothing else of a file is run: save the model's state_dict() with
torch.save. OpenAI's own are TorchScript archives, which hold code: if you trust one, save its weights alone, with
torch.save(torch.jit.load({path!r}, map_location="cpu").state_dict(), "weights.pt")"""
RENAMED = (  # in this order, OpenAI's names -> transformers'
    (r"^visual\.transformer\.resblocks\.", "vision_model.encoder.layers."),
    (r"^transformer\.resblocks\.", "text_model.encoder.layers."),
    (r"^visual\.class_embedding$", "vision_model.embeddings.class_embedding"),
    (r"^visual\.conv1\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual\.positional_embedding$", "vision_model.embeddings.position_embedding.weight"),
    (r"^visual\.ln_pre\.", "vision_model.pre_layrnorm."),
    (r"^visual\.ln_post\.", "vision_model.post_layernorm."),
    (r"^visual\.proj$", "visual_projection.weight"),
    (r"^token_embedding\.", "text_model.embeddings.token_embedding."),
    (r"^positional_embedding$", "text_model.embeddings.position_embedding.weight"),
    (r"^ln_final\.", "text_model.final_layer_norm."),
    (r"^text_projection$", "text_projection.weight"),
    (r"\.ln_([12])\.", r".layer_norm\1."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
    (r"\.attn\.", ".self_attn."),
)


def read_model(path, dtype):
    """A file with the state dict of one of OpenAI's ViTs -> CLIPModel, what was loaded of it, its image processor, and Clip."""
    state = read_state(path)
    config = configuration(state, path)
    options = dict(config=config, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True)
    model, report = CLIPModel.from_pretrained(None, state_dict=converted(state), **options)
    if report["unexpected_keys"]:
        raise ValueError(f"{path} has weights that OpenAI's CLIP does not have, such as {min(report['unexpected_keys'])}")
    side = config.vision_config.image_size
    processor = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    return model, report, processor, Clip


def read_state(path):
    """The tensors of a file by OpenAI's names, without the wrapping that training leaves around them."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of TorchScript, which is refused
            state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a torn pickle raises whatever it meets
        raise ValueError(UNREADABLE.format(path=str(path))) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    weights = {name: value for name, value in state.items() if isinstance(value, torch.Tensor) and name not in NOT_WEIGHTS}
    return {str(name).removeprefix("module."): tensor for name, tensor in weights.items()}


def configuration(state, path):
    """The CLIPConfig that the shapes of a state dict tell.  ValueError where they tell none."""
    if "visual.layer1.0.conv1.weight" in state:
        raise ValueError(f"{path} is a CLIP with a ResNet, which has no patches to explain: give one of the ViTs")

    def shape(name, dimensions=2):
        found = state[name].shape if name in state else ()
        if len(found) != dimensions or 0 in found:
            problem = f"{path} has no {name} of {dimensions} dimensions, so it is no state dict of OpenAI's CLIP"
            raise ValueError(f"{problem}; a checkpoint of the Hugging Face layout is given as its folder")
        return found

    *_, patch = shape("visual.conv1.weight", 4)
    cells, _ = shape("visual.positional_embedding")
    positions, _ = shape("positional_embedding")
    vocabulary, _ = shape("token_embedding.weight")
    _, projection = shape("text_projection")
    vision, text = (tower_sizes(state, tower, shape) for tower in ("visual.transformer", "transformer"))
    seen, said = vision["hidden_size"], text["hidden_size"]
    if seen > WIDEST or seen % HEAD or said % HEAD:
        towers = f"its towers are {seen} and {said} wide"
        raise ValueError(f"{path} is not one of OpenAI's ViTs ({towers}): convert it to the Hugging Face layout")
    vision |= dict(image_size=round((cells - 1) ** 0.5) * patch, patch_size=patch)
    text |= dict(max_position_embeddings=positions, vocab_size=vocabulary)
    text |= dict(bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1, pad_token_id=vocabulary - 1)
    return CLIPConfig(vision_config=vision, text_config=text, projection_dim=projection)


def tower_sizes(state, tower, shape):
    """What the blocks of a tower tell, as transformers calls it."""
    wide, D = shape(f"{tower}.resblocks.0.mlp.c_fc.weight")
    blocks = {name.split(".resblocks.")[1].split(".")[0] for name in state if name.startswith(f"{tower}.resblocks.")}
    sizes = dict(hidden_size=D, intermediate_size=wide, num_hidden_layers=len(blocks), num_attention_heads=D // HEAD)
    return sizes | dict(hidden_act="quick_gelu")  # one of open_clip has the same names and may want GELU, which no weight tells


def converted(state):
    """The same weights under transformers' names; projections are transposed, queries, keys and values split."""
    found = {}
    for name, tensor in state.items():
        for pattern, replacement in RENAMED:
            name = re.sub(pattern, replacement, name)
        if ".in_proj_" in name:
            names = [name.replace("in_proj_", f"{part}_proj.") for part in "qkv"]
            found |= zip(names, tensor.chunk(3), strict=True)
        else:
            found[name] = tensor.T if name.endswith("_projection.weight") else tensor
    return {name: tensor.contiguous() for name, tensor in found.items()}


def read_bpe(path):
    """OpenAI's bpe_simple_vocab_16e6.txt.gz (or unpacked) as CLIP's tokenizer: the ids are those of its SimpleTokenizer."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
        merges = [tuple(line.split()) for line in file.read().split("\n")[1 : MERGES + 1]]
    if len(merges) < MERGES or any(len(merge) != 2 for merge in merges):
        raise ValueError(f"{path} is not OpenAI's BPE file, which lists {MERGES} pairs: give bpe_simple_vocab_16e6.txt.gz")
    letters = list(bytes_to_unicode().values())
    vocabulary = [*letters, *(letter + "</w>" for letter in letters), *map("".join, merges), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(vocabulary)}, merges=merges)
