"""OpenAI's own files: a state dict of its CLIP as a CLIPModel, its BPE vocabulary as a tokenizer."""

import gzip
import re
import zipfile

import torch
from safetensors.torch import load_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

MERGES = 49152 - 256 - 2  # of the lines of the BPE file OpenAI uses so many, after the first
NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")  # which a saved TorchScript brings along
HEAD = 64  # the width of an attention head in all of OpenAI's models
WIDEST = 1024  # the image tower of its ViT-L; the heads of open_clip's wider ones are not 64 wide
TELLING = {  # the weights whose shapes tell the configuration, and how many dimensions they have
    "visual.conv1.weight": 4,
    "visual.positional_embedding": 2,
    "positional_embedding": 2,
    "token_embedding.weight": 2,
    "text_projection": 2,
    "visual.transformer.resblocks.0.mlp.c_fc.weight": 2,
    "transformer.resblocks.0.mlp.c_fc.weight": 2,
}
TORCHSCRIPT = """{path} is a TorchScript archive, which holds code. If you trust it, save its weights alone and load those:
import torch
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
    """A file with the state dict of one of OpenAI's ViTs -> CLIPModel, what was loaded of it, and its image processor.

    QuickGELU, as OpenAI's; an open_clip checkpoint has the same names and may want GELU, which no weight tells.
    ValueError for a TorchScript archive, for a pickle that holds more than tensors, for a ResNet, for other widths and weights.
    """
    state = read_state(path)
    config = configuration(state, path)
    options = dict(config=config, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True)
    model, report = CLIPModel.from_pretrained(None, state_dict=converted(state), **options)
    if report["unexpected_keys"]:
        raise ValueError(f"{path} has weights that OpenAI's CLIP does not have, such as {min(report['unexpected_keys'])}")
    side = config.vision_config.image_size
    return model, report, CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


def read_state(path):
    """The tensors of a file by OpenAI's names, without the wrapping that training leaves around them."""
    if is_torchscript(path):
        raise ValueError(TORCHSCRIPT.format(path=str(path)))
    try:
        safe = path.suffix == ".safetensors"
        state = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a torn pickle raises whatever it meets
        reason = f"{path} cannot be read as tensors alone, and nothing else of a file is run"
        raise ValueError(f"{reason}: save the model's state_dict() with torch.save ({str(error).splitlines()[0]})") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    weights = {name: value for name, value in state.items() if isinstance(value, torch.Tensor) and name not in NOT_WEIGHTS}
    return {str(name).removeprefix("module."): tensor for name, tensor in weights.items()}


def is_torchscript(path):
    """Whether a file is an archive of torch.jit.save."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def configuration(state, path):
    """The CLIPConfig that the shapes of a state dict tell.  ValueError where they tell none."""
    if "visual.layer1.0.conv1.weight" in state:
        raise ValueError(f"{path} is a CLIP with a ResNet, which has no patches to explain: give one of the ViTs")
    shapes = {name: state[name].shape for name in TELLING if name in state and state[name].numel()}
    absent = [name for name, dimensions in TELLING.items() if len(shapes.get(name, ())) != dimensions]
    if absent:
        layout = "a checkpoint of the Hugging Face layout is given as its folder"
        wanted = f"{absent[0]} of {TELLING[absent[0]]} dimensions"
        raise ValueError(f"{path} has no {wanted}, so it is no state dict of OpenAI's CLIP; {layout}")
    convolution, image_positions, positions, (vocabulary, _), projection, *_ = shapes.values()
    patch, grid = convolution[-1], round((image_positions[0] - 1) ** 0.5)
    vision = dict(tower_sizes(state, "visual.transformer"), image_size=grid * patch, patch_size=patch)
    text = tower_sizes(state, "transformer")
    widths = vision["hidden_size"], text["hidden_size"]
    if widths[0] > WIDEST or any(width % HEAD for width in widths):
        towers = f"its towers are {widths[0]} and {widths[1]} wide"
        raise ValueError(f"{path} is not one of OpenAI's ViTs ({towers}): convert it to the Hugging Face layout")
    ids = dict(vocab_size=vocabulary, bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1, pad_token_id=vocabulary - 1)
    text |= dict(max_position_embeddings=positions[0], **ids)
    return CLIPConfig(vision_config=vision, text_config=text, projection_dim=projection[1])


def tower_sizes(state, prefix):
    """What the blocks of a tower tell, as transformers calls it."""
    blocks = {name.removeprefix(f"{prefix}.resblocks.").split(".")[0] for name in state if name.startswith(f"{prefix}.resblocks.")}
    wide, D = state[f"{prefix}.resblocks.0.mlp.c_fc.weight"].shape
    sizes = dict(hidden_size=D, intermediate_size=wide, num_hidden_layers=len(blocks), num_attention_heads=D // HEAD)
    return dict(sizes, hidden_act="quick_gelu")


def converted(state):
    """The same weights under transformers' names; projections are transposed, queries, keys and values split."""
    found = {}
    for name, tensor in state.items():
        for pattern, replacement in RENAMED:
            name = re.sub(pattern, replacement, name)
        if name.endswith("_projection.weight"):
            tensor = tensor.T
        if ".in_proj_" in name:
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                found[name.replace("in_proj_", f"{part}_proj.")] = piece.contiguous()
        else:
            found[name] = tensor.contiguous()
    return found


def read_bpe(path):
    """OpenAI's bpe_simple_vocab_16e6.txt.gz (or unpacked) as CLIP's tokenizer: the ids are those of its SimpleTokenizer."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
        merges = [tuple(line.split()) for line in file.read().split("\n")[1 : MERGES + 1]]
    if len(merges) < MERGES or any(len(merge) != 2 for merge in merges):
        raise ValueError(f"{path} is not OpenAI's BPE file, which lists {MERGES} pairs: give bpe_simple_vocab_16e6.txt.gz")
    letters = sorted(ByteLevel.alphabet())
    letters = [x for x in letters if x < "\u0100"] + [x for x in letters if x >= "\u0100"]
    vocabulary = [*letters, *(letter + "</w>" for letter in letters), *map("".join, merges), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(vocabulary)}, merges=merges)
