"""Load a checkpoint of the Hugging Face layout, or OpenAI's own, as a Clip."""

import json
import zlib
from contextlib import contextmanager, nullcontext
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from tokenizers.normalizers import Lowercase, Sequence
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel, PreTrainedConfig, SiglipModel, TokenizersBackend
from transformers.utils import logging as transformers_logging

from . import openai
from .clip import Clip
from .siglip import Siglip

PACKAGE = Path(__file__).parents[1]
TESTBED = PACKAGE / "testbed"  # as a wheel brings it
if not TESTBED.exists():
    TESTBED = PACKAGE.parent / "data"  # in a clone
BUILT_IN = {"testbed": TESTBED / "models" / "scenes", "radiographs": TESTBED / "models" / "radiographs"}
UNREADABLE = (OSError, ValueError, SafetensorError, RuntimeError, EOFError, TypeError)  # the last three of a torn pickle
FAMILIES = {"clip": (CLIPModel, Clip), "siglip": (SiglipModel, Siglip)}  # by model_type
OPENAI_TOKENIZER = "openai/clip-vit-base-patch32"
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def pick_device(device="auto"):
    """ "auto": CUDA where there is one, else the CPU."""
    if device != "auto":
        return torch.device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_bfloat16(device):
    """Whether the device multiplies bfloat16 itself; a CPU that does not is ten times slower at it than at float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16"))


def load_model(name="testbed", device="auto", dtype=torch.float32, tokenizer=None):
    """A CLIP or SigLIP, frozen and in evaluation mode, as a Clip.

    name: "testbed", "radiographs", a folder of the Hugging Face layout, a hub name such as "openai/clip-vit-base-patch32" or
    "google/siglip-base-patch16-224" (SigLIP 2: those of a fixed resolution), or a file .pt, .pth or .safetensors with the state
    dict of one of OpenAI's ViTs.  tokenizer: a folder, a hub name, or OpenAI's bpe_simple_vocab_16e6.txt.gz; left out, the
    checkpoint's own; a state dict brings none and takes that of openai/clip-vit-base-patch32.  It is run with QuickGELU, as
    OpenAI's; an open_clip checkpoint has the same names and may want GELU, which no weight tells.
    Weights are read as safetensors, or with `weights_only=True`; no code of a checkpoint runs. A file m2ib.json in a folder
    holds its default layer, beta and sigma2. FileNotFoundError where there is no such model or it has no weights; ValueError
    where it is neither of them, cannot be read, or its weights are not all there and finite.
    """
    source = BUILT_IN.get(name, Path(name))
    with without_bars() if source.exists() else nullcontext():
        if source.is_file():
            (model, report, processor), family = openai.read_model(source, dtype), Clip
        else:
            model, report, processor, family = read_checkpoint(source, name, dtype)
    check_weights(model, report, name)
    own = OPENAI_TOKENIZER if source.is_file() else str(source if source.is_dir() else name)
    words = read_tokenizer(tokenizer or own, name, family)
    model = model.to(pick_device(device)).eval().requires_grad_(False)
    clip = family(model, words, processor, name, own_defaults(source))
    check_tokenizer(clip)
    return clip


def read_checkpoint(source, name, dtype):
    """A checkpoint of the Hugging Face layout: model, what was loaded of it, image processor, family."""
    local = source.is_dir()
    if local:
        check_folder(source)
    elif name in BUILT_IN:
        raise FileNotFoundError(f"the {name} model is not at {source}: install from a clone with `pip install -e .`")
    source = str(source if local else name)
    with reading(name, local):
        kind = PreTrainedConfig.get_config_dict(source)[0].get("model_type")
    if kind not in FAMILIES:
        hint = " (SigLIP 2: one of a fixed resolution, not NaFlex)" if kind == "siglip2" else ""
        raise ValueError(f"{name} holds a model of type {kind!r}: give a CLIP or a SigLIP{hint}")
    read, family = FAMILIES[kind]
    with reading(name, local):
        model, report = read.from_pretrained(source, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True)
        processor = AutoImageProcessor.from_pretrained(source, backend="pil", trust_remote_code=False)  # torchvision is not needed
    return model, report, processor, family


@contextmanager
def reading(name, local):
    """What goes wrong inside while a checkpoint is read, as an error that says what to do."""
    try:
        yield
    except UnpicklingError as error:  # torch's message says how to run what a file holds
        raise ValueError(f"{name} has a pickle that is torn or holds more than weights: get the weights as safetensors") from error
    except UNREADABLE as error:
        if local:
            raise ValueError(f"{name} cannot be read ({error}): save model, tokenizer and image processor there again") from error
        wanted = "'testbed', a folder or file that holds a CLIP or SigLIP, or the name of one on the hub (needs a network)"
        raise FileNotFoundError(f"no model {name!r} ({first_line(error)}): give {wanted}") from error


def first_line(error):
    """What an error says, without the advice that some libraries add."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def read_tokenizer(source, name, family):
    """The tokenizer of a folder, a hub name, or OpenAI's BPE file.  ValueError with what to give where there is none."""
    try:
        if Path(source).is_file():
            return openai.read_bpe(Path(source))
        if family is Clip:
            return AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        words = TokenizersBackend.from_pretrained(source)  # tokenizer.json as it is: the class for SigLIP has no places of tokens
    except (OSError, ValueError, ImportError, EOFError, zlib.error) as error:  # the last two of a torn .gz
        file = "the file bpe_simple_vocab_16e6.txt.gz, which the package clip-anytorch and OpenAI's repository have"
        wanted = f"{file}, or a folder or hub name with a tokenizer.json (needs a network)"
        raise ValueError(f"no tokenizer for {name} at {source} ({first_line(error)}): give tokenizer=, {wanted}") from error
    rules = words.backend_tokenizer.normalizer
    words.backend_tokenizer.normalizer = Sequence([Lowercase(), *([rules] if rules else [])])  # as both SigLIPs were trained
    return words


def check_tokenizer(clip):
    """ValueError where a tokenizer cannot be the model's: what it puts around a word is not what the model was trained with."""
    config, found = clip.model.config.text_config, clip.tokenizer("a", return_special_tokens_mask=True)
    ids, problem = found.input_ids or [-1], ""
    at_end = clip.text.pooled(torch.tensor([ids])) == len(ids) - 1  # where a CLIP reads its embedding
    if not at_end or ids[-1] != clip.tokenizer.eos_token_id or max(ids) >= config.vocab_size:
        problem = f"ends captions with token {config.eos_token_id} of {config.vocab_size}, this tokenizer with {ids[-1]}"
    elif isinstance(clip, Siglip) and found.special_tokens_mask[0]:
        problem = f"starts captions with their first word, this tokenizer with token {ids[0]}"
    if problem:
        raise ValueError(f"{clip.name} {problem}: give its own as tokenizer=")


def own_defaults(folder):
    """The default layer, beta and sigma2 of a checkpoint's m2ib.json, an (image, text) pair each; {} where it has none."""
    path = folder / "m2ib.json"
    defaults = json.loads(path.read_text()) if path.exists() else {}
    for key, value in defaults.items():
        if key not in ("layer", "beta", "sigma2") or not isinstance(value, list) or len(value) != 2:
            raise ValueError(f"{path}: {key} is {value!r}; it may hold layer, beta and sigma2, each a list [image, text]")
    return {key: tuple(value) for key, value in defaults.items()}


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


def check_weights(model, report, name):
    """ValueError where the checkpoint lacks a weight, or one is NaN or infinite."""
    absent = sorted(report["missing_keys"]) + sorted(key for key, *_ in report["mismatched_keys"])
    if absent:
        raise ValueError(f"{name} lacks {len(absent)} weights of its model, the first is {absent[0]}: get a whole checkpoint")
    bad = [key for key, weight in model.named_parameters() if not torch.isfinite(weight).all()]
    if bad:
        raise ValueError(f"{name}: {len(bad)} weights hold NaN or infinity, the first is {bad[0]}: get the checkpoint again")


def check_folder(folder):
    """FileNotFoundError where a folder lacks a part of a Hugging Face checkpoint."""
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{folder} has no config.json: give the folder that save_pretrained wrote")
    if not any(any(folder.glob(pattern)) for pattern in WEIGHTS):
        raise FileNotFoundError(f"{folder} has no weights: put {' or '.join(WEIGHTS)} beside its config.json")
