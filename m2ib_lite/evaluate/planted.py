"""An audit judged where the truth is known: planted markers, and how far each truly moves the cosine."""

from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from einops import reduce
from PIL import Image

from ..metrics import bootstrap_interval
from .suspects import FEWEST

USED = 0.02  # of a cosine, by which a marker must raise it for a word that uses it


def paint(pair, marker, grey):
    """The pair with a marker of its boxes painted into its image, in one grey."""
    canvas = np.array(pair.image)
    for box in pair.boxes:
        if box.label == marker:
            canvas[box.mask] = grey
    return replace(pair, image=Image.fromarray(canvas))


def effects(clip, without, shown):
    """By how much each pair's cosine is higher with a marker than without.  Two lists of B pairs -> (B,)"""

    def cosines(pairs):
        with torch.no_grad():
            images = clip.image.encode(clip.pixels([pair.image for pair in pairs]))
            return (images * clip.text.encode(clip.tokens([pair.caption for pair in pairs]).ids)).sum(dim=1).cpu().numpy()

    return cosines(shown) - cosines(without)


def on_patches(found, pairs, marker):
    """The patches on which a marker of the boxes lies, of images that the model saw whole.  -> (B, P) bool"""
    gh, gw = found.maps.image_maps.shape[1:]
    marked = [[box.mask for box in pair.boxes if box.label == marker] for pair in pairs]
    masks = [np.any([np.zeros(pair.image.size[::-1], bool), *its], 0) for pair, its in zip(pairs, marked, strict=True)]
    return np.stack([reduce(mask, "(gh h) (gw w) -> (gh gw)", "max", gh=gh, gw=gw) for mask in masks])


def on_phrase(found, phrase):
    """The tokens of a phrase, in the captions that begin with it.  -> (B, P) bool"""
    on = np.zeros(found.shares.shape, bool)
    for row, caption, tokens in zip(on, found.maps.captions, found.maps.tokens, strict=True):
        ends = np.cumsum([len(token) for token in tokens])
        if caption.startswith(phrase):
            row[: len(tokens)] = ends <= len(phrase.replace(" ", ""))
    return on


def judge_audit(found, on, effect):
    """What an audit says of a marker, and what is true, for each word FEWEST of whose pairs show it.  -> word, effect, low, high,
    used, score, rank

    on: (pairs, P) bool, where the marker lies.  effect: (pairs,), what it adds to the cosine, 0 for a pair that does not show it.
    used: the mean effect over the word's pairs is above USED, and its 95% interval above 0.  score: the highest of the carriers
    that are the marker, those with half or more of the word's information in them on it; 0 where there is none.  rank: among the
    word's carriers, from 1; NaN where the score is 0.
    """
    on, effect, weights = on[found.of], effect[found.of], found.said.T.astype(float)
    held = np.einsum("vb,bp,bpc->vc", weights, found.shares, found.members, optimize=True)
    on_it = np.einsum("vb,bp,bpc->vc", weights, found.shares * on, found.members, optimize=True)
    rows, marked = [], on_it >= np.maximum(held, 1e-9) / 2
    for word, said, scores, is_marker in zip(found.words, found.said.T, found.scores, marked, strict=True):
        if (said & on.any(axis=1)).sum() >= FEWEST:
            mean, low, high = bootstrap_interval(effect[said])
            score = scores[is_marker].max(initial=0)
            rank = (scores > score).sum() + 1 if score > 0 else np.nan
            rows.append((word, mean, low, high, mean > USED and low > 0, score, rank))
    return pd.DataFrame(rows, columns=["word", "effect", "low", "high", "used", "score", "rank"]).astype({"used": bool})
