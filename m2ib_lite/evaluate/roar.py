"""ROAR+: what a model no longer learns from pairs whose most important pixels or words are gone.  The paper's form of remove and
retrain (Hooker et al. 2019): fine-tuned, with the contrastive loss in the place of an accuracy."""

import math
from copy import deepcopy

import joblib
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch.utils.data import TensorDataset
from tqdm.auto import tqdm

from ..options import check_positive
from ..side import BAR_DELAY
from .degrade import remove_pixels, remove_words, spread
from .localise import check_captions

HELD_OUT, FEWEST = 0.2, 2  # the share of the pairs that stay clean, to measure the loss on, and how many at least
SHARED = HELD_OUT / (1 - HELD_OUT)  # for metrics.paired_test: the seeds split the same pairs
MOST = 5.0  # the norm of a gradient at most: clean pairs' are 2 to 3 on the testbed, some without their words 25, which diverges


def info_nce(images, texts, scale):
    """The symmetric InfoNCE loss of matching rows, in nats; every other row is a wrong answer, one with the same caption too.
    (B, E), (B, E), a number -> ()"""
    logits = scale * images @ texts.T
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def embed_pairs(clip, pixels, ids, whole):
    """Both towers' embeddings.  whole: the ids before words were taken out, which tell where to read.  -> (B, E), (B, E)"""
    return clip.image.encode(pixels), clip.text.rest(clip.text.embed(ids), -1, whole)


def parts(rows, batch_size):
    """Rows in as few batches as batch_size allows, of nearly equal size: a batch of one pair has no loss."""
    return rows.tensor_split(math.ceil(len(rows) / batch_size))


def loss_after(clip, clean, degraded, seed, epochs, lr, batch_size):
    """The loss over all clean held-out pairs, in nats, of a float32 copy of the clip after SGD over the others as `degraded`."""
    generator = torch.Generator().manual_seed(seed)  # on the CPU, so that split and order are the same on every device
    order = torch.randperm(len(clean), generator=generator)
    test, train = order.tensor_split([max(FEWEST, int(HELD_OUT * len(order)))])
    copy = clip.like(deepcopy(clip.model).float().eval().requires_grad_(True))
    optimiser = torch.optim.SGD(copy.model.parameters(), lr=lr)  # AdamW's steps are as long for small gradients: drowned in noise
    for _ in range(epochs):
        for rows in parts(train[torch.randperm(len(train), generator=generator)], batch_size):
            optimiser.zero_grad()
            with torch.enable_grad():
                info_nce(*embed_pairs(copy, *degraded[rows]), copy.model.logit_scale.exp()).backward()
            torch.nn.utils.clip_grad_norm_(copy.model.parameters(), MOST)
            optimiser.step()
    with torch.no_grad():
        embedded = [embed_pairs(copy, *clean[rows]) for rows in parts(test, batch_size)]
        images, texts = (torch.cat(side).double() for side in zip(*embedded, strict=True))  # in float32 it may be 0, no divisor
        return info_nce(images, texts, copy.model.logit_scale.exp()).item()


def trainings(clip, attributions, clean, content):
    """What to train on, one after the other: the clean data, then without what each attribution calls most important.
    -> (method, modality), dataset"""
    pixels, ids, _ = clean.tensors
    yield ("", ""), clean
    for a in attributions:
        yield (a.method, "image"), TensorDataset(remove_pixels(pixels, a.image_maps), ids, ids)
        if a.text_maps is not None:
            yield (a.method, "text"), TensorDataset(pixels, remove_words(ids, spread(a.text_maps, content), clip.blank), ids)


def roar(clip, attributions, seeds=10, epochs=2, lr=0.05, batch_size=40, progress=True):
    """ROAR+ of some methods' maps of the same pairs: a tidy table with a row a seed ("seed 0", ...) in the place of a pair.

    Training pairs lose what their map calls most important in one modality; a copy of the model is fine-tuned on 80% of them
    with InfoNCE, a SigLIP too.  The value is 100 log(its loss on the clean 20% / the loss after clean training), which for
    small ones is by how many percent it is above; of the ratio itself, one seed near 0 would make the mean.
    Higher is better; chance is not known, NaN.  A seed has its own split and order, the same for all methods; data that are equal
    are trained on once.
    batch_size: the pairs told apart in a step of training; it bounds the memory, and the result depends on it.
    epochs, lr: the testbed's; for another model take those that leave the loss of clean training about where it was.
    ValueError for a bad option, for attributions of different pairs, for fewer than four: two held out, two to train on.
    """
    check_positive(seeds=seeds, epochs=epochs, lr=lr, batch_size=batch_size)
    images, captions = attributions[0].images, attributions[0].captions
    for a in attributions:
        check_captions(a, captions)
    if len(captions) < 2 * FEWEST or batch_size < 2:
        raise ValueError(f"{len(captions)} pairs in batches of {batch_size}: give 4 pairs at least, two a batch; one has no loss")
    text, options = clip.tokens(captions), dict(epochs=epochs, lr=lr, batch_size=batch_size)
    clean = TensorDataset(torch.cat([clip.pixels([image]) for image in images]).float(), text.ids, text.ids)
    total = seeds * (1 + sum(2 - (a.text_maps is None) for a in attributions))
    bar = tqdm(total=total, unit="training", desc="ROAR+", delay=BAR_DELAY, disable=not progress)
    rows, whole, known = [], {}, {}
    for (method, modality), data in trainings(clip, attributions, clean, text.content):
        same = joblib.hash([part.cpu().numpy() for part in data.tensors])  # two maps may leave equal data
        for seed in range(seeds):
            if (same, seed) not in known:
                known[same, seed] = np.float64(loss_after(clip, clean, data, seed, **options))
            loss = known[same, seed]
            value = 100 * np.log(loss / whole.setdefault(seed, loss))  # the first training of a seed is the clean one
            rows.append((f"seed {seed}", modality, "ROAR+", value, np.nan, method))
            bar.update()
    return pd.DataFrame(rows[seeds:], columns=["pair", "modality", "metric", "value", "chance", "method"])
