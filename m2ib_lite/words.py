"""Pieces of words joined back into the words of a caption."""

import re

import torch


def whole_words(caption, tokens):
    """The words of a caption that its tokens are pieces of, and for each token the index of its word.

    tokens: as `Captions.tokens` has them, each letter of the caption once.  A word is a run of letters and digits, or whatever
    else is a token: "an owl-light" has four.  A token across punctuation, as SigLIP has them, joins the runs that it touches: its
    "x-ray" is one word.  Where a script has no spaces, a run of it is one word.
    """
    runs = [run.span() for run in re.finditer(r"\w+", caption)]
    words, places, begin, end, inside = [], [], 0, 0, None
    for token in tokens:
        letters = token.strip()
        if letters:
            start = caption.find(letters, end)
            end = max(end, start + len(letters))
            touched = [run for run in runs if start < run[1] and run[0] < end] or [(start, end)]
            if touched[0] != inside:
                begin = min(start, touched[0][0])
                words.append("")
            inside = touched[-1]
            words[-1] = caption[begin : inside[1]]
            places.append(len(words) - 1)
        elif token or not places:
            places.append(len(words))  # a space alone belongs to the word that it stands before
        else:
            places.append(places[-1])  # one more token of the same character
    words = words or [caption.strip()]
    return words, [min(place, len(words) - 1) for place in places]


def join_scores(places, scores, mean=False):
    """The sum of the scores of each word's pieces, or their mean.  Indices of n tokens, (n,) -> (n_words,)"""
    places = torch.tensor(places, device=scores.device)
    total = scores.new_zeros(int(places.max()) + 1).index_add(0, places, scores)
    return total / places.bincount() if mean else total
