"""M2IB and the rivals once on ViT-B/32 and ViT-L/14 at their full size, with random weights: shapes, finite maps, seconds.

python tests/benchmarks/full_size.py [ViT-B/32] [ViT-L/14]   (L/14 takes 1.7 GB; the vocabulary is that of clip-anytorch)
python tests/benchmarks/full_size.py --device cuda   seconds there, minutes on 2 cores
python tests/benchmarks/full_size.py ViT-B/32 --save build/vit-b-32   only saves it, as a folder for the notebooks' MODEL
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

sys.path.insert(0, str(Path(__file__).parents[1]))
from families import openai_bpe

from m2ib_lite import explain
from m2ib_lite.models import Clip, pick_device
from m2ib_lite.models.openai import read_bpe
from m2ib_lite.rivals import RIVALS

SIZES = {  # width, blocks, heads and patch of the image tower; width and heads of the text tower; width of the embedding
    "ViT-B/32": (768, 12, 12, 32, 512, 8, 512),
    "ViT-L/14": (1024, 24, 16, 14, 768, 12, 768),
}
FEW = dict(M2IB=dict(steps=2, samples=2), kernelshap=dict(samples=1), rise=dict(image_masks=8, text_masks=8), nib=dict(steps=2))


def build(name, device):
    """A Clip of that size with the weights that training starts from."""
    D, blocks, heads, patch, text_D, text_heads, E = SIZES[name]
    vision = dict(hidden_size=D, intermediate_size=4 * D, num_hidden_layers=blocks, num_attention_heads=heads, patch_size=patch)
    text = dict(hidden_size=text_D, intermediate_size=4 * text_D, num_attention_heads=text_heads, vocab_size=49408)
    model = CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=E)).eval().requires_grad_(False)
    return Clip(model.to(device), read_bpe(openai_bpe()), CLIPImageProcessorPil(), name, {})


def main():
    """Save the first model, or every method on one noisy photo and one caption."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", default=list(SIZES), metavar="SIZE", help=" or ".join(SIZES))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--save", metavar="FOLDER")
    args = parser.parse_args()
    torch.manual_seed(0)
    if args.save:
        clip = build(args.sizes[0], "cpu")
        for part in (clip.model, clip.tokenizer, clip.processor):
            part.save_pretrained(args.save)
    else:
        run(args.sizes, pick_device(args.device))


def run(sizes, device):
    """Every method on one noisy photo and one caption."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (333, 500, 3), np.uint8))
    for name in sizes:
        clip = build(name, device)
        pixels, text = clip.pixels([image]), clip.tokens(["a small left pneumothorax"])
        own = clip.model.get_image_features(pixels).pooler_output, clip.model.get_text_features(text.ids).pooler_output
        for tower, x, features in zip(clip.towers, (pixels, text.ids), own, strict=True):
            found = tower.rest(tower.embed(x), -1, x)
            torch.testing.assert_close(found, torch.nn.functional.normalize(features), rtol=0, atol=1e-5)
        for method, ask in {"M2IB": explain, **RIVALS}.items():
            start = time.perf_counter()
            a = ask(clip, image, "a small left pneumothorax", progress=False, **FEW.get(method, {}))
            assert torch.isfinite(a.image_maps).all()
            shapes = tuple(a.image_maps.shape), tuple(a.text_maps[0].shape)
            print(f"{name} {method}: {shapes}, words {a.words(0)[0]}, {time.perf_counter() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
