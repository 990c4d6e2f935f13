"""M2IB and the rivals once on ViT-B/32 and ViT-L/14 at their full size, with random weights: shapes, finite maps, seconds.

python tests/benchmarks/full_size.py [ViT-B/32] [ViT-L/14]   (L/14 takes 1.7 GB; the vocabulary is that of clip-anytorch)
python tests/benchmarks/full_size.py --device cuda   seconds there, minutes on 2 cores
python tests/benchmarks/full_size.py ViT-B/32 --save build/vit-b-32   only saves it, as a folder for the notebooks' MODEL
"""

import time

import torch
from common import SIZES, options, random_clip
from families import openai_bpe
from PIL import Image

from m2ib_lite.evaluate import METHODS
from m2ib_lite.models import pick_device
from m2ib_lite.models.openai import read_bpe

FEW = dict(M2IB=dict(steps=2, samples=2), kernelshap=dict(samples=1), rise=dict(image_masks=8, text_masks=8), nib=dict(steps=2))
CAPTION = "a small left pneumothorax"


def run(clip):
    """Every method on one picture and one caption; the towers' last step against the model's own features."""
    image = Image.effect_noise((500, 333), 64).convert("RGB")
    pixels, text = clip.pixels([image]), clip.tokens([CAPTION])
    own = clip.model.get_image_features(pixels).pooler_output, clip.model.get_text_features(text.ids).pooler_output
    for tower, x, features in zip(clip.towers, (pixels, text.ids), own, strict=True):
        found = tower.rest(tower.embed(x), -1, x)
        torch.testing.assert_close(found, torch.nn.functional.normalize(features), rtol=0, atol=1e-5)
    for method, ask in METHODS.items():
        start = time.perf_counter()
        a = ask(clip, image, CAPTION, progress=False, **FEW.get(method, {}))
        assert torch.isfinite(a.image_maps).all()
        shapes = tuple(a.image_maps.shape), tuple(a.text_maps[0].shape)
        print(f"{clip.name} {method}: {shapes}, words {a.words(0)[0]}, {time.perf_counter() - start:.1f} s", flush=True)


def main():
    parser = options(__doc__)
    parser.add_argument("sizes", nargs="*", default=list(SIZES), metavar="SIZE", help=" or ".join(SIZES))
    parser.add_argument("--save", metavar="FOLDER")
    args = parser.parse_args()
    if args.save:
        clip = random_clip(args.sizes[0], read_bpe(openai_bpe()))
        for part in (clip.model, clip.tokenizer, clip.processor):
            part.save_pretrained(args.save)
    else:
        for size in args.sizes:
            run(random_clip(size, read_bpe(openai_bpe()), pick_device(args.device)))


if __name__ == "__main__":
    main()
