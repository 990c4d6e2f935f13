"""M2IB and its rivals by name, and their maps kept on disk, so that no notebook asks for the same maps twice."""

from functools import cache
from importlib.metadata import version
from pathlib import Path

import joblib
import numpy as np
import torch
from filelock import FileLock, Timeout

from ..attribution import Attribution
from ..explain import explain
from ..files import written_whole
from ..rivals import RIVALS

BY_TITLE = {method.title: method for method in RIVALS.values()}
METHODS = {"M2IB": explain, **BY_TITLE}
SEEDED = ("M2IB", "KernelSHAP", "RISE", "Random")
SLOW = ("KernelSHAP", "RISE")  # which take hundreds of passes a map
SETTINGS = ("published", "best")
PATIENCE = 0.2  # seconds to wait for maps that another process is making, before asking for others
LIBRARIES = ("captum", "numpy", "pillow", "scikit-image", "scikit-learn", "scipy", "tokenizers", "torch", "transformers")


def versions():
    """The versions of the libraries that maps and scores depend on.  -> {library: version}"""
    return {library: version(library) for library in LIBRARIES}


@cache
def sources():
    """A digest of the package's own code: maps of another version are not taken for ours."""
    return joblib.hash([file.read_bytes() for file in sorted(Path(__file__).parents[1].rglob("*.py"))])


def digest(clip, options):
    """What maps depend on besides their pair: the weights, tokenizer, settings, other captions, kind of device, options."""
    weights = clip.model.state_dict().items()
    bits = [(name, joblib.hash(weight.detach().cpu().flatten().view(torch.uint8).numpy())) for name, weight in weights]
    settings = (clip.tokenizer.get_vocab(), clip.settings, clip.others, clip.processor.to_dict(), clip.device.type, options)
    settings = [sorted(part.items()) if isinstance(part, dict) else part for part in settings]
    return joblib.hash(repr((bits, settings)))


def all_options(method, clip, options, section="best"):
    """All that a rival works with: the options given, then the model's own of a section, then its defaults.  A pair of equal values
    becomes that value, so that equal requests have equal options.  M2IB's come back as given.  -> {option: value}"""
    if method not in BY_TITLE:
        return options
    options = BY_TITLE[method].published | clip.own(section, BY_TITLE[method].__name__) | options
    pairs = {name: value for name, value in options.items() if isinstance(value, tuple) and len(value) == 2}
    return options | {name: first for name, (first, second) in pairs.items() if repr(first) == repr(second)}


def attribute(method, clip, pairs, folder, timeout=-1, **options):
    """The maps of METHODS[method] with these options for pairs, read from `folder` where an earlier call left them there, with the
    same weights, sources and library versions.  -> Attribution
    While another process makes such maps this one waits for them, at most `timeout` seconds, and then raises filelock's Timeout."""
    asked = digest(clip, all_options(method, clip, options) | versions())
    store = Path(folder) / "attributions" / sources() / f"{method}-{asked}.pt"
    images, captions = [pair.image for pair in pairs], [pair.caption for pair in pairs]
    keys = [joblib.hash((caption, np.asarray(image.convert("RGB")))) for image, caption in zip(images, captions, strict=True)]
    store.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(store.with_suffix(".lock"), timeout):
        known = torch.load(store, weights_only=True, map_location=clip.device) if store.exists() else {}
        new = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in known}
        if new:
            found = METHODS[method](clip, list(new.values()), **options)
            words = found.text_maps or [None] * len(new)  # LeGrad has none
            maps = zip(found.image_maps, words, found.tokens, found.similarity, found.others, strict=True)
            known |= dict(zip(new, maps, strict=True))
            with written_whole(store) as part:
                torch.save(known, part)
    image_maps, text_maps, tokens, *match = map(list, zip(*(known[key] for key in keys), strict=True))
    views, unit = [clip.view(image.size) for image in images], "nats" if method == "M2IB" else "cosine"
    text_maps = None if text_maps[0] is None else text_maps
    return Attribution(torch.stack(image_maps), text_maps, tokens, images, captions, views, method, unit, *map(torch.stack, match))


def attribute_all(clip, pairs, folder, options, slow=None):
    """`attribute` by every method of options {name: its options}, as `method_options` gives them.  -> {name: Attribution}
    slow: of how many pairs, the first ones, SLOW methods are asked; all unless given.  Maps that another process is making come
    last, so that notebooks side by side share the work."""
    found, left = {}, list(options)
    while left:
        name = left.pop(0)
        try:
            found[name] = attribute(name, clip, pairs[:slow] if name in SLOW else pairs, folder, PATIENCE, **options[name])
        except Timeout:
            left.append(name)
    return {name: found[name] for name in options}


def method_options(clip, settings, seed, medical=False, masks=None, **ours):
    """{name: options} for METHODS: the seed for those that draw numbers, masks, how many RISE takes of each image unless its own
    number, and M2IB's own.

    settings: "published", where `medical` takes those of the paper's chest X-rays for M2IB, or "best": the model's own, chosen for
    each method by the same rule; for a model that has none these are the published ones."""
    options = {name: dict(seed=seed) if name in SEEDED else {} for name in METHODS}
    if settings == "published":
        published = {"M2IB": clip.published_medical if medical else clip.published}
        options = {name: (published.get(name) or METHODS[name].published) | own for name, own in options.items()}
    options["M2IB"] |= ours
    options["RISE"] |= {} if masks is None else dict(image_masks=masks)
    return options
