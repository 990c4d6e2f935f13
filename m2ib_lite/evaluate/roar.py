"""ROAR+: what a model no longer learns from pairs whose most important pixels or words are gone.

The paper's form of remove and retrain (Hooker et al. 2019): fine-tuned, with the contrastive loss in the place of an accuracy.
"""

import math
from copy import deepcopy

import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from ..explain import BAR_DELAY, check_positive
from ..models import Clip
from .degrade import remove_pixels, remove_words, spread
from .localise import tidy

HELD_OUT = 0.2  # the share of the pairs that stay clean, to measure the loss on


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
    """A float32 copy of the model after `epochs` of AdamW over the rows `train`, in the generator's order.  -> Clip"""
    model = deepcopy(clip.model).float().eval().requires_grad_(True)
    copy = Clip(model, clip.tokenizer, clip.processor, clip.name, clip.defaults)
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr)
    for _ in range(epochs):
        order = train[torch.randperm(len(train), generator=generator)]
        for rows in parts(order, batch_size):
            optimiser.zero_grad()
            embeddings = embed_pairs(copy, pixels[rows], ids[rows], whole[rows])
            info_nce(*embeddings, model.logit_scale.exp()).backward()
            optimiser.step()
    return copy


def held_out_loss(clip, pixels, ids, test, batch_size):
    """InfoNCE over all held-out pairs at once, embedded batch by batch."""
    with torch.no_grad():
        embedded = [embed_pairs(clip, pixels[rows], ids[rows], ids[rows]) for rows in parts(test, batch_size)]
        images, texts = (torch.cat(part) for part in zip(*embedded, strict=True))
        return info_nce(images, texts, clip.model.logit_scale.exp()).item()


def roar(clip, attributions, pairs, seeds=5, epochs=3, lr=1e-4, batch_size=40, progress=True):
    """ROAR+ of some methods' maps of the same pairs: a tidy table with a row a seed ("seed 0", ...) in the place of a pair.

    Training pairs lose what their map calls most important in one modality, the other stays whole; a copy of the model is fine-tuned
    on 80% of them with InfoNCE; the value is by how many percent its loss on the clean 20% is above that after clean training.
    Higher is better.  A seed has its own split and order, the same for all methods and for the clean training.
    batch_size: the pairs that are told apart in training; it bounds the memory, and it matters to the result.
    ValueError for a bad option, or for so few pairs that fewer than two are held out.
    """
    check_positive(seeds=seeds, epochs=epochs, lr=lr)
    test_size = int(HELD_OUT * len(pairs))
    if test_size < 2:
        raise ValueError(f"{len(pairs)} pairs hold out {test_size}: give 10 at least, a contrastive loss needs two held out")
    if batch_size < 2:
        raise ValueError(f"batch_size is {batch_size}: a contrastive loss needs two pairs in a batch")
    first, text = attributions[0], clip.tokens([pair.caption for pair in pairs])
    pixels = torch.cat([clip.pixels([image]) for image in first.images]).float()
    inputs = [("clean", "", pixels, text.ids)]
    for a in attributions:
        scores = spread(a.text_maps, text.content)
        inputs.append((a.method, "image", remove_pixels(pixels, a.image_maps), text.ids))
        inputs.append((a.method, "text", pixels, remove_words(text.ids, scores, clip.blank)))
    return inputs
