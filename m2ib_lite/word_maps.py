"""A map for each word of a caption: which region of the image goes with it?  (our own)

With the whole caption as its target no method can say which region goes with which word.  The target of word w is what it adds:
e'_w = (e(caption) - e(caption without w)) / |.|, its tokens blanked and the embedding read where the whole caption's is.
"""

import re
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .attribution import Attribution
from .data import Images
from .explain import m2ib
from .hooks import frozen
from .rivals import RIVALS
from .side import LEAST, cosines, pair_up, sides
from .words import whole_words

SECTION = "best for words"  # of a model's settings


@dataclass(eq=False, repr=False)
class WordMaps:
    """A map of one image for each of n words, or phrases, of its caption.

    words: as the caption writes them.  weights: (n,), how far each moves the caption's embedding, which is 1 long; 0 for one that
    changes nothing, whose map is 0 throughout.  maps: an Attribution with an image map for each of them, in its unit, so that
    maps.segments() and maps.save(folder) serve each word; its cosines are the whole caption's.  plot() draws them.
    """

    caption: str
    words: list[str]
    weights: torch.Tensor
    maps: Attribution

    def __repr__(self):
        shown = ", ".join(f"{word} {weight:.2f}" for word, weight in zip(self.words, self.weights.tolist(), strict=True))
        return f"<WordMaps of {self.caption!r} by {self.maps.method}, in {self.maps.unit}; weights: {shown}>"

    def heat(self, word):
        """The map of a word over the image's pixels.  word: as in `words`, or its number there.  -> (H, W)"""
        if isinstance(word, str):
            if self.words.count(word) != 1:
                raise ValueError(f"{word!r} stands {self.words.count(word)} times among {self.words}: give the number of one")
            word = self.words.index(word)
        return self.maps[word].heat(0)


def find_phrases(caption, words, phrases):
    """Which of a caption's words each phrase is made of.  -> [set of indices].  ValueError for one that it does not have."""
    spans, end = [], 0
    for word in words:
        start = caption.find(word, end)
        end = start + len(word)
        spans.append((start, end))
    found = []
    for phrase in phrases:
        if isinstance(phrase, int):
            if phrase not in range(len(words)):
                raise ValueError(f"there is no word {phrase}: give 0 to {len(words) - 1}")
            found.append({phrase})
            continue
        place = re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", caption) if phrase.strip() else None  # no "owl" in "bowl"
        if place is None:
            raise ValueError(f"{phrase!r} does not stand in the caption {caption!r}: give words of it as it writes them")
        found.append({n for n, (left, right) in enumerate(spans) if left < place.end() and place.start() < right})
    return found


def what_words_add(clip, caption, groups):
    """e(caption) - e(caption with these content tokens blanked), for each group of them.  [(n_content_tokens,) bool] -> (n, E)"""
    text = clip.tokens([caption])
    whole, content = text.ids.repeat(len(groups) + 1, 1), text.content[0]
    ids = whole.clone()
    ids[1:, content] = ids[1:, content].masked_fill(torch.stack(groups).to(ids.device), clip.blank)
    with torch.no_grad():
        embeddings = clip.text.rest(clip.text.embed(ids), -1, whole).float()
    return embeddings[0] - embeddings[1:]


def explain_words(clip, image, caption=None, phrases=None, method="M2IB", **options):
    """Which region of an image each word of its caption goes with, by M2IB or a rival in the image tower.  -> WordMaps

    image, caption: one of each as `explain` takes them, or a Pair.  phrases: words of the caption, or runs of them such as "piece
    of cheese", the first where it stands more than once, or a word's number, from 0; each of its words where None.  method: "M2IB"
    or a name of RIVALS; options: that method's, by default the model's own for words.  The image is encoded once, and all words go
    on from there as one batch.
    ValueError for a bad option, phrase, image or caption.
    """
    if method not in ("M2IB", *RIVALS):
        raise ValueError(f"method is {method!r}: give one of {', '.join(('M2IB', *RIVALS))}")
    images, captions = pair_up(image, caption)
    if len(images) > 1:
        raise ValueError(f"{len(images)} pairs: give one image and one caption")
    phrases = [phrases] if isinstance(phrases, str) else phrases
    if phrases is not None and not phrases:
        raise ValueError("there are no phrases: give words of the caption, or None for all of them")
    title, unit, layers = "M2IB", "nats", (0, 0)
    if method == "M2IB":
        scores, layers = m2ib(clip, "image", **clip.own(SECTION, method) | options)
    else:
        title, unit, scores = RIVALS[method].title, "cosine", RIVALS[method].finder(clip, SECTION, **options)
    with frozen(clip.model):
        side, text_side, (tokens,) = sides(clip, images, captions, layers)
        (caption,) = captions
        words, places = whole_words(caption, tokens)
        groups = [{n} for n in range(len(words))] if phrases is None else find_phrases(caption, words, phrases)
        added = what_words_add(clip, caption, [torch.tensor([place in group for place in places]) for group in groups])
        weights = added.norm(dim=1)
        telling = weights >= LEAST
        maps = torch.zeros(len(groups), *clip.grid, device=weights.device)
        if telling.any():
            rows = scores(side.towards(F.normalize(added[telling], dim=-1)))
            maps[telling] = torch.stack(list(rows)).float().view(-1, *clip.grid)
    words = words if phrases is None else [words[phrase] if isinstance(phrase, int) else phrase for phrase in phrases]
    n = len(words)
    views, opened = [clip.view(images[0].size)] * n, Images(images.sources * n)
    match = [of_pair.expand(n, *of_pair.shape[1:]) for of_pair in cosines(clip, side, text_side)]
    found = Attribution(maps, None, [[word] for word in words], opened, words, views, title, unit, *match)
    return WordMaps(caption, words, weights.where(telling, 0), found)
