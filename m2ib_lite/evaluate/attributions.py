"""M2IB and its rivals by name, and their maps kept on disk, so that no notebook asks for the same maps twice."""

import fcntl
import hashlib
from functools import cache
from pathlib import Path

import torch

from ..attribution import Attribution
from ..explain import explain
from ..rivals import RIVALS

METHODS = {"M2IB": explain, **RIVALS}
SEEDED = ("M2IB", "kernelshap", "rise", "random")


@cache
def sources():
    """A digest of the package's own code: maps of another version are not taken for ours."""
    files = sorted(Path(__file__).parents[1].rglob("*.py"))
    return hashlib.blake2b(b"".join(file.read_bytes() for file in files), digest_size=8).hexdigest()


def digest(clip, options):
    """What maps depend on besides their pair: the weights, the tokenizer, the defaults, the kind of device, the options."""
    state = hashlib.blake2b(digest_size=8)
    for name, weight in clip.model.state_dict().items():
        state.update(name.encode() + weight.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    settings = (clip.tokenizer.get_vocab(), clip.defaults, clip.processor.to_dict(), clip.device.type, options)
    state.update(repr([sorted(part.items()) if isinstance(part, dict) else part for part in settings]).encode())
    return state.hexdigest()


def pair_key(pair):
    """A digest of a pair's image and caption."""
    content = pair.caption.encode() + repr(pair.image.size).encode() + pair.image.convert("RGB").tobytes()
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def attribute(method, clip, pairs, folder, **options):
    """The maps of METHODS[method] for pairs, read from `folder` where an earlier call left them there.  -> Attribution

    options: the method's own.  What is kept is kept by pair, which is right because a map depends on (pair, options, seed)
    alone, and only for these weights, options and sources.
    """
    store = Path(folder) / "attributions" / sources() / f"{method}-{digest(clip, options)}.pt"
    known = stored(store, clip.device)
    keys = [pair_key(pair) for pair in pairs]
    new = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in known}
    if new:
        found = METHODS[method](clip, [pair.image for pair in new.values()], [pair.caption for pair in new.values()], **options)
        known |= keep(dict(zip(new, zip(found.image_maps, found.text_maps, found.tokens, strict=True), strict=True)), store)
    image_maps, text_maps, tokens = zip(*(known[key] for key in keys), strict=True)
    images, captions = [pair.image for pair in pairs], [pair.caption for pair in pairs]
    views, unit = [clip.view(image.size) for image in images], "nats" if method == "M2IB" else "cosine"
    return Attribution(torch.stack(image_maps), list(text_maps), list(tokens), images, captions, views, method, unit)


def attribute_all(clip, pairs, folder, steps, seed):
    """The maps of every method for pairs, as `attribute` keeps them.  steps: M2IB's; seed: of those that draw numbers.

    -> {name: Attribution}, in the order of METHODS
    """
    options = method_options(seed, steps=steps)
    return {name: attribute(name, clip, pairs, folder, **options[name]) for name in METHODS}


def method_options(seed, **ours):
    """{name: options} for METHODS: the seed for those that draw numbers, and M2IB's own."""
    options = {name: dict(seed=seed) if name in SEEDED else {} for name in METHODS}
    options["M2IB"] |= ours
    return options


def stored(store, device):
    """What `keep` left there."""
    return torch.load(store, weights_only=True, map_location=device) if store.exists() else {}


def keep(found, store):
    """Add to what a file holds, whole or not at all, one process at a time: notebooks run side by side.  -> found"""
    store.parent.mkdir(parents=True, exist_ok=True)
    with open(store.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        torch.save(stored(store, "cpu") | found, store.with_suffix(".part"))
        store.with_suffix(".part").replace(store)
    return found
