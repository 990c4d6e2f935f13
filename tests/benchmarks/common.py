"""What the benchmarks share."""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

from m2ib_lite.models import Clip

sys.path.insert(0, str(Path(__file__).parents[1]))  # for tests/families.py

SIZES = {  # width, blocks, heads and patch of the image tower; width and heads of the text tower; width of the embedding
    "ViT-B/32": (768, 12, 12, 32, 512, 8, 512),
    "ViT-L/14": (1024, 24, 16, 14, 768, 12, 768),
}


def options(page):
    """A parser whose help is a benchmark's docstring, with --device."""
    parser = argparse.ArgumentParser(description=page, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    return parser


def random_clip(size, tokenizer, device="cpu", dtype=torch.float32, **ids):
    """A Clip of that size with the weights that training starts from.  ids: of the tokenizer's special tokens."""
    D, blocks, heads, patch, text_D, text_heads, E = SIZES[size]
    vision = dict(hidden_size=D, intermediate_size=4 * D, num_hidden_layers=blocks, num_attention_heads=heads, patch_size=patch)
    text = dict(hidden_size=text_D, intermediate_size=4 * text_D, num_attention_heads=text_heads, vocab_size=49408, **ids)
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=E)).eval().requires_grad_(False)
    return Clip(model.to(device, dtype), tokenizer, CLIPImageProcessorPil(), size, {}, ["a photo"])


def measured(command):
    """Run a command.  -> its peak resident memory in MB, seconds"""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    unit = 1e6 if sys.platform == "darwin" else 1e3  # bytes there, kilobytes on Linux
    return used.ru_maxrss / unit, time.perf_counter() - start
