"""Load a checkpoint of the Hugging Face layout, or OpenAI's own, as a Clip."""

import json
import zlib
from contextlib import ExitStack, suppress
from pathlib import Path
from pickle import UnpicklingError
from threading import Thread

import torch
from huggingface_hub import get_session, hf_hub_url, snapshot_download
from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError  # HTTPError is httpx's or httpx2's, as its client has it
from safetensors import SafetensorError
from tokenizers.normalizers import Lowercase, Sequence
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel, PreTrainedConfig, SiglipModel, TokenizersBackend
from transformers.utils import logging as transformers_logging

from . import openai
from .clip import Clip
from .siglip import Siglip

PACKAGE = Path(__file__).parents[1]
TESTBED = PACKAGE / "testbed" if (PACKAGE / "testbed").exists() else PACKAGE.parent / "data"  # in a wheel, in a clone
TWINS = ("radiographs-biased", "radiographs-clean", "scenes-biased", "scenes-clean")  # with planted shortcuts, and without
BUILT_IN = {"testbed": TESTBED / "models" / "scenes"} | {name: TESTBED / "models" / name for name in ("radiographs", *TWINS)}
FAMILIES = {"clip": (CLIPModel, Clip), "siglip": (SiglipModel, Siglip)}  # by model_type
PATIENCE = 2  # seconds for the hub to answer; its own client tries for half a minute, with a warning each time
WANTED = """give 'testbed', 'radiographs', or the folder, file or hub name of a CLIP or SigLIP in the Hugging Face layout, as \
laion/CLIP-ViT-B-32-laion2B-s34B-b79K is, or of OpenAI's weights; one that only open_clip reads, as BiomedCLIP, is not supported"""


def pick_device(device="auto"):
    """ "auto": CUDA where there is one, else the CPU."""
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(automatic if device == "auto" else device)


def has_bfloat16(device):
    """Whether the device multiplies bfloat16 itself; a CPU that does not is ten times slower at it than at float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16"))


def load_model(name="testbed", device="auto", dtype=torch.float32, tokenizer=None):
    """A CLIP or SigLIP, frozen and in evaluation mode, as a Clip.

    name: a key of BUILT_IN, a folder of the Hugging Face layout, a hub name such as "openai/clip-vit-base-patch32" or
    "google/siglip-base-patch16-224", or a .pt, .pth or .safetensors file with the state dict of one of OpenAI's ViTs.
    tokenizer: the checkpoint's own unless given, for a state dict openai/clip-vit-base-patch32's; a folder, a hub name, or
    OpenAI's bpe_simple_vocab_16e6.txt.gz.  A folder's settings.json holds its own settings of M2IB and the rivals,
    its others.txt a caption a line for `Clip.others`.
    No code of a checkpoint runs.  FileNotFoundError where there is no model or no weights; ValueError for one that is of another
    kind, cannot be read, or has weights that are absent or not finite.
    """
    path = BUILT_IN.get(name, Path(name))
    source = path if path.exists() else name
    with ExitStack() as stack:
        if path.exists() and transformers_logging.is_progress_bar_enabled():
            transformers_logging.disable_progress_bar()  # which is drawn even for a folder that loads in a moment
            stack.callback(transformers_logging.enable_progress_bar)
        read = openai.read_model if path.is_file() else read_checkpoint
        model, report, processor, family = read(source, dtype)
    check_weights(model, report, name)
    words = read_tokenizer(tokenizer or (openai.TOKENIZER if path.is_file() else source), name, family)
    others = path / "others.txt" if (path / "others.txt").exists() else Path(__file__).with_name("others.txt")
    kept = own_settings(path), [line for line in others.read_text(encoding="utf-8").splitlines() if line.strip()]
    clip = family(model.to(pick_device(device)).eval().requires_grad_(False), words, processor, name, *kept)
    check_tokenizer(clip)
    return clip


def read_checkpoint(name, dtype):
    """A folder or a hub name -> model, what was loaded of it, image processor, and Clip or Siglip."""
    local = Path(name).is_dir()
    if local and not (name / "config.json").exists():
        raise FileNotFoundError(f"{name} has no config.json: give the folder that save_pretrained wrote")
    if local and not [*name.glob("*.safetensors"), *name.glob("pytorch_model*.bin")]:
        raise FileNotFoundError(f"{name} has no weights: put *.safetensors or pytorch_model*.bin beside its config.json")
    try:
        source = find_source(name)
        kind = PreTrainedConfig.get_config_dict(source)[0].get("model_type")
        read, family = FAMILIES.get(kind, (None, None))
        if family:
            model, report = read.from_pretrained(source, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True)
            processor = AutoImageProcessor.from_pretrained(source, backend="pil", trust_remote_code=False)  # without torchvision
            return model, report, processor, family
    except UnpicklingError as error:  # torch's message says how to run what a file holds
        raise ValueError(f"{name} has a pickle that is torn or holds more than weights: get the weights as safetensors") from error
    except (OSError, ValueError, SafetensorError, RuntimeError, EOFError, TypeError) as error:  # the last three of a torn pickle
        if local:
            raise ValueError(f"{name} cannot be read ({error}): save model, tokenizer and image processor there again") from error
        problem, *_ = str(error).split("\n")  # without the advice that follows
        raise FileNotFoundError(f"no model {str(name)!r} ({problem}): {WANTED}") from None
    hint = " (SigLIP 2: one of a fixed resolution, not NaFlex)" if kind == "siglip2" else ""
    raise ValueError(f"{name} holds a model of type {kind!r}: give a CLIP or a SigLIP{hint}")


def find_source(source):
    """A path, a hub name or, where the hub does not answer, its folder in the cache.  FileNotFoundError where it is nowhere,
    ValueError for what is no name on the hub either."""
    source = str(source)
    if Path(source).exists():
        return source
    url, answers = hf_hub_url(source, "config.json"), []  # any answer will do, be it that there is no such model

    def ask():
        with suppress(OSError, HTTPError):  # the first where HF_HUB_OFFLINE is set
            answers.append(get_session().head(url, timeout=PATIENCE, follow_redirects=False))

    asking = Thread(target=ask, daemon=True)  # looking up the name of a machine has no limit of its own
    asking.start()
    asking.join(PATIENCE)
    try:
        return source if answers else snapshot_download(source, local_files_only=True)
    except LocalEntryNotFoundError:
        raise FileNotFoundError("it is no path and not in the hub's cache, and the hub cannot be reached") from None


def check_weights(model, report, name):
    """ValueError where the checkpoint lacks a weight, or one is NaN or infinite."""
    absent = sorted([*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])])
    if absent:
        raise ValueError(f"{name} lacks {len(absent)} weights of its model, the first is {absent[0]}: get a whole checkpoint")
    bad = [key for key, weight in model.named_parameters() if not weight.isfinite().all()]
    if bad:
        raise ValueError(f"{name}: {len(bad)} weights hold NaN or infinity, the first is {bad[0]}: get the checkpoint again")


def read_tokenizer(source, name, family):
    """The tokenizer of a folder, a hub name, or OpenAI's BPE file.  ValueError with what to give where there is none."""
    try:
        source = find_source(source)
        if Path(source).is_file():
            return openai.read_bpe(Path(source))
        if family is Clip:
            return AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        words = TokenizersBackend.from_pretrained(source)  # tokenizer.json as it is: the class for SigLIP has no places of tokens
    except (OSError, ValueError, ImportError, EOFError, zlib.error) as error:  # the last two of a torn .gz
        problem, *_ = str(error).split("\n")
        wanted = "OpenAI's bpe_simple_vocab_16e6.txt.gz, or a folder or hub name with a tokenizer.json"
        raise ValueError(f"no tokenizer for {name} at {source} ({problem}): give tokenizer=, {wanted}") from error
    rules = words.backend_tokenizer.normalizer
    words.backend_tokenizer.normalizer = Sequence([Lowercase(), *([rules] if rules else [])])  # as both SigLIPs were trained
    return words


def check_tokenizer(clip):
    """ValueError where a tokenizer cannot be the model's: what it puts around a word is not what the model was trained with."""
    name, config, ids = clip.name, clip.model.config.text_config, clip.tokenizer("a").input_ids or [-1]
    at_end = clip.text.pooled(torch.tensor([ids])) == len(ids) - 1  # where a CLIP reads its embedding
    if not at_end or ids[-1] != clip.tokenizer.eos_token_id or max(ids) >= config.vocab_size:
        ends = f"{name} ends captions with token {config.eos_token_id} of {config.vocab_size}, this tokenizer with {ids[-1]}"
        raise ValueError(f"{ends}: give its own as tokenizer=")
    if isinstance(clip, Siglip) and ids[0] in clip.tokenizer.all_special_ids:
        raise ValueError(f"{name} starts captions with their first word, this tokenizer with token {ids[0]}: give its own")


def own_settings(folder):
    """What a checkpoint's settings.json holds, {section: {method: {option: value}}}, {} where it has none."""
    path = folder / "settings.json"
    settings = json.loads(path.read_text()) if path.exists() else {}
    for key, value in settings.get("best", {}).get("M2IB", {}).items():
        if key not in ("layer", "beta", "sigma2", "standardise") or not isinstance(value, list) or len(value) != 2:
            raise ValueError(f"{path}: {key} is {value!r}; M2IB has layer, beta, sigma2, standardise, each a list [image, text]")
    return settings
