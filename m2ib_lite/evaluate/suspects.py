"""An audit without labels: what carries a word's information again and again?  (our own)

Pictures and captions go in, no boxes.  What a word should stand on an audit cannot know; it shows an auditor what it stands on.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from sklearn.cluster import KMeans

from ..attribution import Attribution
from ..data import Images
from ..explain import explain
from ..hooks import frozen
from ..metrics import t_interval, unit_scale
from ..side import MODALITIES, sides
from ..words import whole_words
from .localise import check_captions

LOOKS = 16  # groups of patches that the model reads alike
FEWEST = 6  # captions that say a word, and that do not, for it to be audited; its pairs that have a carrier, for a score
PERMUTATIONS, LEVEL = 1000, 0.05
FLOOR = 1e-3  # added to the spread of a mean share: what never varies is no finding
ELSEWHERE = 4  # equal regions that are taken out beside each suspect


@dataclass(eq=False, repr=False)
class Audit:
    """What carries the information of each word over many pairs.

    suspects: a row for each word and what carries it, best first; see `audit`.  said: (B, n_words) bool, which caption says which
    of `words`.  carriers: their names.  scores: (n_words, n_carriers).  shares: (B, P), the share of each patch or token in its
    map.  members: (B, P, n_carriers) bool, what belongs to which.  maps: the Attribution of B maps.  captions: the whole caption
    of each map.  of: (B,), the pair that each map is of; with word maps a pair has several.
    """

    modality: str
    suspects: pd.DataFrame
    words: list[str]
    carriers: list[str]
    scores: np.ndarray
    said: np.ndarray
    shares: np.ndarray
    members: np.ndarray
    maps: Attribution
    captions: list[str]
    of: np.ndarray

    def evidence(self, word, carrier, count=8):
        """The maps and the patch or token of each in which a carrier holds most of a word's information, most first; map i is of
        pair of[i].  -> [(i, position)], at most `count`"""
        held = self.shares * self.members[:, :, self.carriers.index(carrier)]
        held = held[rows := np.flatnonzero(self.said[:, self.words.index(word)])]
        order = np.argsort(-held.sum(axis=1), kind="stable")[:count]
        return [(int(rows[i]), int(held[i].argmax())) for i in order if held[i].any()]

    def crop(self, i, position, around=1):
        """What lies at a patch of image i, with so many patches around it.  -> RGB PIL image"""
        left, top, right, bottom = self.maps.views[i]
        gh, gw = self.maps.image_maps[i].shape
        row, column = divmod(position, gw)
        wide, high = (right - left) / gw, (bottom - top) / gh
        x, y = left + (column - around) * wide, top + (row - around) * high
        across = 2 * around + 1
        return self.maps.images[i].crop(tuple(map(round, (x, y, x + across * wide, y + across * high))))


def audit(clip, pairs, maps=None, modality="image", seed=0):
    """Which places, looks or other words carry each word's information in pair after pair.  -> Audit

    pairs: of an image and a caption; boxes are not read.  maps: an Attribution of these pairs by any method, M2IB at its published
    settings unless given.  Or a list of WordMaps, one of each pair: then a word, or phrase, is audited by its own maps, not by
    those of its captions, and is itself the "caption" of a map below.  modality: "image", where a carrier is a place (a patch of
    the grid) or a look (the patches that the model reads alike, wherever they lie), or "text", where it is another word.

    share, area: mean share of the word's maps that the carrier holds, and of the patches or tokens that it is.  score: z of the
    first above the second, over the 95% point of the highest z among the word's carriers, both by permutation: captions are given
    to maps at random, or for the text a caption's scores to its tokens, so that in the text it tells what carries much beside a
    word, and not for it alone.  Above 1 it is a suspect, of which about one word in twenty has one by chance; 0 where it holds no
    more than its area or than chance, or where fewer than FEWEST of the word's pairs have it.
    ValueError for other pairs, maps of the other modality, or where no word is said in FEWEST pairs and left out in as many.
    """
    if modality not in MODALITIES:
        raise ValueError(f"modality is {modality!r}: give 'image' or 'text'")
    captions = [pair.caption for pair in pairs]
    if maps is None:
        maps = explain(clip, [pair.image for pair in pairs], captions, modality=modality, seed=seed, **clip.published)
    of = np.arange(len(captions))
    if isinstance(maps, Attribution):
        check_captions(maps, captions)
    else:
        maps, of = by_word(maps, captions)
    if getattr(maps, f"{modality}_maps") is None:
        remedy = f"ask for modality='both' or {modality!r}, and of word maps, which are of images alone, for 'image'"
        raise ValueError(f"the {maps.method} attribution holds no {modality} maps: {remedy}")
    words, said = vocabulary(maps)
    shares, tokens = information(maps, modality)
    carriers, members = places_and_looks(clip, maps, of, shares, seed) if modality == "image" else other_words(maps)
    score, share, area = associate(shares, members, said, tokens, modality, seed)
    if modality == "text":  # that a word carries itself is no news
        score[np.array(words)[:, None] == np.array(carriers)] = 0
    w, c = at = np.nonzero(score)
    columns = dict(word=np.array(words)[w], carrier=np.array(carriers)[c], pairs=said.sum(axis=0)[w])
    suspects = pd.DataFrame(columns | dict(share=share[at], area=area[at], score=score[at]))
    suspects = suspects.sort_values("score", ascending=False, kind="stable", ignore_index=True)
    return Audit(modality, suspects, words, carriers, score, said, shares, members, maps, [captions[i] for i in of], of)


def by_word(found, captions):
    """All word maps as one Attribution, whose captions are the words, and the pair of each map; a word that a caption says again
    has one map, the mean.  [WordMaps] -> Attribution of B maps, (B,)"""
    grids, words, of = [], [], []
    if [getattr(one, "caption", one) for one in found] != captions:
        raise ValueError("the maps are not of these pairs: give an Attribution, or a list of WordMaps, one of each, in their order")
    for pair, one in enumerate(found):
        said = [word.lower() for word in one.words]
        for word in dict.fromkeys(said):
            grids.append(one.maps.image_maps[torch.tensor([other == word for other in said])].mean(dim=0))
            words.append(word)
            of.append(pair)
    images, views = Images([found[pair].maps.images.sources[0] for pair in of]), [found[pair].maps.views[0] for pair in of]
    kind = dict(method=found[0].maps.method, unit=found[0].maps.unit)
    return Attribution(torch.stack(grids), None, [[word] for word in words], images, words, views, **kind), np.array(of)


def said_words(maps):
    """The words of each caption, lower case, with the index of the word that each token belongs to.  -> [([str], [int])]"""
    split = (whole_words(caption, tokens) for caption, tokens in zip(maps.captions, maps.tokens, strict=True))
    return [([word.lower() for word in words], places) for words, places in split]


def vocabulary(maps):
    """The words that FEWEST captions say and FEWEST do not.  -> [str], (B, n_words) bool"""
    captions = [set(words) for words, _ in said_words(maps)]
    counts = Counter(word for caption in captions for word in caption if any(letter.isalnum() for letter in word))
    words = sorted(word for word, count in counts.items() if FEWEST <= count <= len(captions) - FEWEST)
    if not words:
        raise ValueError(f"no word is said in {FEWEST} of the {len(captions)} captions and left out in as many: give more pairs")
    return words, np.array([[word in caption for word in words] for caption in captions])


def information(maps, modality):
    """Each map, what is negative at 0 and then its minimum, as shares of its sum; a flat one is even.

    -> (B, P), 0 behind a caption's last token; (B, P) bool, what is not behind it"""
    rows = maps.image_maps.flatten(1) if modality == "image" else maps.text_maps
    shares = np.zeros((len(rows), max(map(len, rows))))
    for share, row in zip(shares, rows, strict=True):
        unit = unit_scale(row.cpu().numpy())
        share[: len(row)] = unit / unit.sum() if unit.any() else 1 / len(row)
    return shares, np.arange(shares.shape[1]) < np.array([len(row) for row in rows])[:, None]


def places_and_looks(clip, maps, of, shares, seed):
    """Patches by where they lie, and by what the model's first block makes of them beside what it makes of that place in other
    pictures: LOOKS groups, found where the information lies.  -> names, (B, P, n) bool"""
    with frozen(clip.model), torch.no_grad():
        firsts = np.unique(of, return_index=True)[1]  # of several maps of one image
        embedded = (clip.image.embed(clip.pixels([maps.images[int(n)]])) for n in firsts)
        states = torch.cat([clip.image.run(hidden, clip.image.blocks[:1])[:, clip.image.patches].float() for hidden in embedded])
    states = (states - states.mean(dim=0)).cpu().numpy()[of]
    rows = states.reshape(-1, states.shape[-1])
    groups = KMeans(min(LOOKS, len(rows)), random_state=seed).fit(rows, sample_weight=shares.ravel())
    looks = groups.labels_.reshape(shares.shape)[..., None] == np.arange(groups.n_clusters)
    places = np.broadcast_to(np.eye(shares.shape[1], dtype=bool), (len(shares), *(shares.shape[1],) * 2))
    names = [f"row {p // clip.grid[1] + 1}, column {p % clip.grid[1] + 1}" for p in range(shares.shape[1])]
    return names + [f"look {k + 1}" for k in range(groups.n_clusters)], np.concatenate([places, looks], axis=2)


def other_words(maps):
    """Tokens by the word that they are a piece of, for the words of FEWEST captions.  -> words, (B, P, n) bool"""
    captions = said_words(maps)
    counts = Counter(word for words, _ in captions for word in set(words))
    columns = {word: n for n, word in enumerate(sorted(word for word, count in counts.items() if count >= FEWEST))}
    members = np.zeros((len(captions), max(len(places) for _, places in captions), len(columns)), bool)
    for row, (words, places) in zip(members, captions, strict=True):
        for position, place in enumerate(places):
            if words[place] in columns:
                row[position, columns[words[place]]] = True
    return list(columns), members


def associate(shares, members, said, tokens, modality, seed):
    """The score of `audit`, with the mean share and the mean area of each carrier for each word.  -> (n_words, n_carriers) each"""
    weights, often = (said / said.sum(axis=0)).T, said.T.astype(int) @ members.any(axis=1) >= FEWEST
    area = members.sum(axis=1) / tokens.sum(axis=1)[:, None]
    belongs = members.astype(float) if modality == "text" else members  # once: each draw of the text's null multiplies by it
    held = np.einsum("bp,bpc->bc", shares, belongs, optimize=True)

    def null():
        """The same statistic by chance, PERMUTATIONS times, each time the same ones: they would fill the memory."""
        draw = np.random.default_rng(seed)
        for _ in range(PERMUTATIONS):
            if modality == "image":
                yield weights @ draw.permutation(held - area)
            else:
                order = np.where(tokens, draw.random(tokens.shape), 2).argsort(axis=1)  # padding stays behind
                yield weights @ ((np.take_along_axis(shares, order, axis=1)[:, None] @ belongs)[:, 0] - area)

    found, (centre, square) = weights @ (held - area), sum(np.stack([draw, draw**2]) for draw in null()) / PERMUTATIONS
    spread = np.sqrt((square - centre**2).clip(0)) + FLOOR
    highest = [np.where(often, (draw - centre) / spread, 0).max(axis=1) for draw in null()]
    score = (found - centre) / spread / (np.quantile(highest, 1 - LEVEL, axis=0)[:, None] + FLOOR)
    return np.where((found > 0) & often, score.clip(0), 0), weights @ held, weights @ area


def take_out(clip, found, first=20, seed=0):
    """The first suspects of an Audit, with how far the cosine falls without them.  -> DataFrame

    falls: over the word's pairs that have the carrier, its patches or tokens blanked; falls elsewhere: with an equal region blanked
    in their place, the mean of ELSEWHERE; low, high: the 95% interval of the difference, NaN where there is a single pair.
    """
    chosen = found.suspects[found.suspects["score"] > 1][:first]
    draw, falls = np.random.default_rng(seed), {index: [] for index in chosen.index}
    with frozen(clip.model), torch.no_grad():
        for i, (image, caption) in enumerate(zip(found.maps.images, found.captions, strict=True)):
            regions, n = {}, len(found.maps.tokens[i]) if found.modality == "text" else found.shares.shape[1]
            for index, word, carrier in chosen[["word", "carrier"]].itertuples():
                region = found.members[i, :n, found.carriers.index(carrier)]
                if found.said[i, found.words.index(word)] and 0 < region.sum() < n:
                    regions[index] = [region, *(np.roll(region, k) for k in draw.integers(1, n, ELSEWHERE))]
            if not regions:
                continue
            one = next(sides(clip, [image], [caption])[MODALITIES.index(found.modality)].singles())
            blanked = np.concatenate([np.zeros((1, n), bool), *regions.values()])
            whole, *rest = one.keep(torch.from_numpy(~blanked).float().to(one.hidden.device)).tolist()
            for index, y in zip(regions, np.reshape(rest, (-1, 1 + ELSEWHERE)), strict=True):
                falls[index].append((whole - y[0], whole - y[1:].mean()))
    rows = [fall(np.reshape(of, (-1, 2))) for of in falls.values()]
    return chosen.join(pd.DataFrame(rows, chosen.index, ["falls", "falls elsewhere", "low", "high"]))


def fall(both):
    """Two means, and the 95% interval of their difference; NaN where there are too few.  (n, 2) -> four numbers"""
    difference = both[:, 0] - both[:, 1]
    interval = t_interval(difference.mean(), difference.std(ddof=1), len(both)) if len(both) > 1 else (np.nan, np.nan)
    return [*both.mean(axis=0), *interval] if len(both) else [np.nan] * 4  # no pair has anything beside the suspect
