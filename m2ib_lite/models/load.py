"""Load a checkpoint of the Hugging Face layout as a Clip."""

import json
from contextlib import contextmanager, nullcontext
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel
from transformers.utils import logging as transformers_logging

from .clip import Clip

TESTBED = Path(__file__).parents[2] / "data"  # shipped beside the package, in the clone that it is installed from
BUILT_IN = {"testbed": TESTBED / "models" / "scenes", "radiographs": TESTBED / "models" / "radiographs"}
UNREADABLE = (OSError, ValueError, SafetensorError, RuntimeError, EOFError, TypeError)  # the last three of a torn pickle
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


def load_model(name="testbed", device="auto", dtype=torch.float32):
    """A CLIP of the Hugging Face layout, frozen and in evaluation mode, as a Clip.

    name: "testbed", "radiographs", a folder, or a hub name such as "openai/clip-vit-base-patch32". Weights are read as
    safetensors, or with `weights_only=True`; no code of the checkpoint runs. A file m2ib.json in a folder holds its default
    layer, beta and sigma2. FileNotFoundError where there is no such model or it has no weights; ValueError where it is no CLIP,
    cannot be read, or its weights are not all there and finite.
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
            model, report = CLIPModel.from_pretrained(source, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True)
        tokenizer = AutoTokenizer.from_pretrained(source)
        processor = CLIPImageProcessorPil.from_pretrained(source)
    except UnpicklingError as error:  # torch's message says how to run what a file holds
        raise ValueError(f"{name} has a pickle that is torn or holds more than weights: get the weights as safetensors") from error
    except UNREADABLE as error:
        if local:
            raise ValueError(f"{name} cannot be read ({error}): save model, tokenizer and image processor there again") from error
        message = f"no model {name!r}: give 'testbed', a folder that holds a CLIP, or the name of one on the hub (needs a network)"
        raise FileNotFoundError(message) from error
    check_weights(model, report, name)
    model = model.to(pick_device(device)).eval().requires_grad_(False)
    return Clip(model, tokenizer, processor, name, own_defaults(Path(source)))


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
        raise ValueError(f"{name} lacks {len(absent)} weights of a CLIP, the first is {absent[0]}: get a whole CLIP checkpoint")
    bad = [key for key, weight in model.named_parameters() if not torch.isfinite(weight).all()]
    if bad:
        raise ValueError(f"{name}: {len(bad)} weights hold NaN or infinity, the first is {bad[0]}: get the checkpoint again")


def check_folder(folder):
    """FileNotFoundError where a folder lacks a part of a Hugging Face checkpoint."""
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{folder} has no config.json: give the folder that save_pretrained wrote")
    try:
        kind = json.loads((folder / "config.json").read_text()).get("model_type")
    except json.JSONDecodeError as error:
        raise ValueError(f"{folder / 'config.json'} is not JSON ({error}): save the model there again") from error
    if kind != "clip":
        raise ValueError(f"{folder} holds a model of type {kind!r}: give a CLIP")
    if not any(any(folder.glob(pattern)) for pattern in WEIGHTS):
        raise FileNotFoundError(f"{folder} has no weights: put {' or '.join(WEIGHTS)} beside its config.json")
