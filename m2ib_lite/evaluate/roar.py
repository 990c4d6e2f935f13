"""ROAR+: what a model no longer learns from pairs whose most important pixels or words are gone.

The paper's form of remove and retrain (Hooker et al. 2019): fine-tuned, with the contrastive loss in the place of an accuracy.
"""

import math
from copy import deepcopy

import pandas as pd
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from ..side import BAR_DELAY, check_positive
from .degrade import remove_pixels, remove_words, spread
from .localise import tidy

HELD_OUT, FEWEST = 0.2, 2  # the share of the pairs that stay clean, to measure the loss on, and how many at least

MOST = 5.0  # the norm of a gradient at most: clean pairs' are 2 to 3 on the testbed, some without their words 25, which diverges


def info_nce(images, texts, scale):
    """The symmetric InfoNCE loss of matching rows, in nats.  (B, E), (B, E), a number -> ()

    Every other row of the batch counts as a wrong answer, one with the same caption too: it adds about the same to each loss.
    """
    logits = scale * images @ texts.T
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def embed_pairs(clip, pixels, ids, whole):
    """Both towers' embeddings.  whole: the ids before words were taken out, which tell where to read.  -> (B, E), (B, E)"""
    return clip.image.encode(pixels), clip.text.rest(clip.text.embed(ids), -1, whole)


def parts(rows, batch_size):
    """Rows in as few batches as batch_size allows, of nearly equal size: a batch of one pair has no loss."""
    return rows.tensor_split(math.ceil(len(rows) / batch_size))


def fine_tune(clip, pixels, ids, whole, train, epochs, lr, batch_size, generator):
    """A float32 copy of the clip after `epochs` of SGD over the rows `train`, in an order of the generator's.

    Not AdamW: so few of its steps are as long for a small gradient as for a large one, which drowned the difference in noise.
    """
    model = deepcopy(clip.model).float().eval().requires_grad_(True)
    copy = clip.like(model)
    optimiser = torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(epochs):
        order = train[torch.randperm(len(train), generator=generator)]
        for rows in parts(order, batch_size):
            optimiser.zero_grad()
            embeddings = embed_pairs(copy, pixels[rows], ids[rows], whole[rows])
            info_nce(*embeddings, model.logit_scale.exp()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), MOST)
            optimiser.step()
    return copy


def held_out_loss(clip, pixels, ids, test, batch_size):
    """InfoNCE over all held-out pairs at once, embedded batch by batch, in nats.

    In float64: the loss of a few pairs that are easy to tell apart is 0 in float32, and nothing can be divided by it.
    """
    with torch.no_grad():
        embedded = [embed_pairs(clip, pixels[rows], ids[rows], ids[rows]) for rows in parts(test, batch_size)]
        images, texts = (torch.cat(side).double() for side in zip(*embedded, strict=True))
        return info_nce(images, texts, clip.model.logit_scale.exp()).item()


def loss_after(clip, clean, degraded, seed, batch_size, **options):
    """The loss on clean held-out pairs after training on the others as `degraded`; both are (pixels, ids) of all pairs."""
    generator = torch.Generator().manual_seed(seed)  # on the CPU, so that the split is the same on every device
    order = torch.randperm(len(clean[1]), generator=generator)
    test, train = order.tensor_split([max(FEWEST, int(HELD_OUT * len(order)))])
    with torch.enable_grad():
        copy = fine_tune(clip, *degraded, clean[1], train, batch_size=batch_size, generator=generator, **options)
    return held_out_loss(copy, *clean, test, batch_size)


def without_important(attribution, pixels, text, blank):
    """The training inputs of each modality's trial.  -> {modality: (pixels, ids)}"""
    ids = remove_words(text.ids, spread(attribution.text_maps, text.content), blank)
    return {"image": (remove_pixels(pixels, attribution.image_maps), text.ids), "text": (pixels, ids)}


def roar(clip, attributions, seeds=5, epochs=2, lr=0.05, batch_size=40, progress=True):
    """ROAR+ of some methods' maps of the same pairs: a tidy table with a row a seed ("seed 0", ...) in the place of a pair.

    Training pairs lose what their map calls most important in one modality, the other stays whole; a copy of the model is
    fine-tuned on 80% of them with InfoNCE; the value is by how many percent its loss on the clean 20% is above the loss after
    clean training.  Higher is better.  A seed has its own split and order, the same for all methods and for the clean training.
    batch_size: the pairs told apart in a step of training; it bounds the memory, and the result depends on it.
    epochs, lr: the testbed's; for another model take those that leave the loss of clean training about where it was.
    chance: not known, NaN; the random control stands for it.  A SigLIP is fine-tuned and measured with InfoNCE, too.
    Two pairs at least are held out, two at least trained on: ValueError for fewer than four, or for a bad option.
    """
    check_positive(seeds=seeds, epochs=epochs, lr=lr, batch_size=batch_size)
    count = len(attributions[0])
    if count < 2 * FEWEST or batch_size < 2:
        raise ValueError(f"{count} pairs in batches of {batch_size}: give 4 pairs at least, two a batch; one alone has no loss")
    text = clip.tokens(attributions[0].captions)
    pixels = torch.cat([clip.pixels([image]) for image in attributions[0].images]).float()
    clean, options = (pixels, text.ids), dict(epochs=epochs, lr=lr, batch_size=batch_size)
    bar_options = dict(unit="training", desc="ROAR+", delay=BAR_DELAY, disable=not progress)
    with tqdm(total=seeds * (1 + 2 * len(attributions)), **bar_options) as bar:

        def losses(degraded):
            for seed in range(seeds):
                yield loss_after(clip, clean, degraded, seed, **options)
                bar.update()

        whole, tables = list(losses(clean)), []
        for a in attributions:
            rows = []
            for modality, degraded in without_important(a, pixels, text, clip.blank).items():
                gains = [100 * (loss - ours) / ours for loss, ours in zip(losses(degraded), whole, strict=True)]
                rows += [(f"seed {seed}", modality, "ROAR+", gain, math.nan) for seed, gain in enumerate(gains)]
            tables.append(tidy(rows, a.method))
    return pd.concat(tables, ignore_index=True)
