"""M2IB and its rivals by name, and their maps kept on disk, so that no notebook asks for the same maps twice."""

from functools import cache
from importlib.metadata import version
from pathlib import Path

import joblib
import numpy as np
import torch
from filelock import FileLock

from ..attribution import Attribution
from ..explain import explain
from ..files import written_whole
from ..rivals import RIVALS

METHODS = {"M2IB": explain, **RIVALS}
SEEDED = ("M2IB", "kernelshap", "rise", "random")
LIBRARIES = ("captum", "numpy", "pillow", "scikit-image", "scikit-learn", "scipy", "tokenizers", "torch", "transformers")


def versions():
    """The versions of the libraries that maps and scores depend on.  -> {library: version}"""
    return {library: version(library) for library in LIBRARIES}


@cache
def sources():
    """A digest of the package's own code: maps of another version are not taken for ours."""
    return joblib.hash([file.read_bytes() for file in sorted(Path(__file__).parents[1].rglob("*.py"))])


def digest(clip, options):
    """What maps depend on besides their pair: the weights, tokenizer, defaults, other captions, kind of device, options."""
    weights = clip.model.state_dict().items()
    bits = [(name, joblib.hash(weight.detach().cpu().flatten().view(torch.uint8).numpy())) for name, weight in weights]
    settings = (clip.tokenizer.get_vocab(), clip.defaults, clip.others, clip.processor.to_dict(), clip.device.type, options)
    settings = [sorted(part.items()) if isinstance(part, dict) else part for part in settings]
    return joblib.hash(repr((bits, settings)))


def attribute(method, clip, pairs, folder, **options):
    """The maps of METHODS[method] with these options for pairs, read from `folder` where an earlier call left them there, with the
    same weights, sources and library versions.  -> Attribution"""
    store = Path(folder) / "attributions" / sources() / f"{method}-{digest(clip, options | versions())}.pt"
    images, captions = [pair.image for pair in pairs], [pair.caption for pair in pairs]
    keys = [joblib.hash((caption, np.asarray(image.convert("RGB")))) for image, caption in zip(images, captions, strict=True)]
    known = kept(store, clip.device)
    new = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in known}
    if new:
        found = METHODS[method](clip, list(new.values()), **options)
        maps = zip(found.image_maps, found.text_maps, found.tokens, found.similarity, found.others, strict=True)
        known = kept(store, clip.device, dict(zip(new, maps, strict=True)))
    image_maps, text_maps, tokens, *cosines = map(list, zip(*(known[key] for key in keys), strict=True))
    views, unit = [clip.view(image.size) for image in images], "nats" if method == "M2IB" else "cosine"
    cosines = map(torch.stack, cosines)
    return Attribution(torch.stack(image_maps), text_maps, tokens, images, captions, views, method, unit, *cosines)


def kept(store, device, new=None):
    """What a file holds, with the `new` added to it: one process at a time, as notebooks run side by side.  -> {key: maps}"""
    store.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(store.with_suffix(".lock")):
        known = torch.load(store, weights_only=True, map_location=device) if store.exists() else {}
        if new:
            known |= new
            with written_whole(store) as part:
                torch.save(known, part)
    return known


def attribute_all(clip, pairs, folder, steps, seed):
    """`attribute` by every method.  steps: M2IB's; seed: of those that draw numbers.  -> {name: Attribution}, as METHODS"""
    options = method_options(seed, steps=steps)
    return {name: attribute(name, clip, pairs, folder, **options[name]) for name in METHODS}


def method_options(seed, **ours):
    """{name: options} for METHODS: the seed for those that draw numbers, and M2IB's own."""
    options = {name: dict(seed=seed) if name in SEEDED else {} for name in METHODS}
    options["M2IB"] |= ours
    return options
