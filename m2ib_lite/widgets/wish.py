"""What is asked of the explorer at one moment: the maps to find, and the code that finds them."""

from dataclasses import dataclass

from ..explain import explain
from ..rivals import RIVALS
from ..word_maps import explain_words

FILE = "a file of yours"  # the source that is none of load_pairs's


@dataclass(frozen=True)
class Task:
    """One map to find, and the panel that shows it: a caption's number or a rival's name, and the modality."""

    panel: tuple
    method: str
    modality: str
    caption: str
    word: int | None
    options: tuple

    def find(self, clip, image, **watch):
        """-> an Attribution of the image and the caption, or of one of its words"""
        options = dict(self.options) | watch
        if self.word is not None:
            return explain_words(clip, image, self.caption, [self.word], self.method, **options).maps
        method = explain if self.method == "M2IB" else RIVALS[self.method]
        return method(clip, image, self.caption, modality=self.modality, progress=False, **options)


@dataclass(frozen=True)
class Wish:
    """source: a name for load_pairs and a number, or FILE and a name.  captions: one or two; words: for each the number of the one
    whose own map is shown, or None.  own: {modality: options}; for_words: those that differ from the model's own for words; effort:
    steps, samples, ...  methods: names of RIVALS."""

    source: tuple
    captions: tuple
    words: tuple
    own: dict
    for_words: dict
    effort: dict
    methods: tuple

    def tasks(self):
        """Task by task, in the order in which they are looked at."""
        for n, (caption, word) in enumerate(zip(self.captions, self.words, strict=True)):
            options = self.own["image"] if word is None else self.for_words
            yield Task((n, "image"), "M2IB", "image", caption, word, tuple((options | self.effort).items()))
            yield Task((n, "text"), "M2IB", "text", caption, None, tuple((self.own["text"] | self.effort).items()))
        for name in self.methods:
            yield Task((name, "image"), name, "image", self.captions[0], self.words[0], ())

    def code(self, name, step, level):
        """Python that finds the same maps after `step` steps, and the masks where there is a level.  name: the model's."""
        effort = self.effort | dict(steps=step)
        both = {option: (value, self.own["text"][option]) for option, value in self.own["image"].items()}
        worded = any(word is not None for word in self.words)
        lines = [f"from m2ib_lite import explain, {'explain_words, ' if worded else ''}load_model"]
        lines += ["from m2ib_lite.data import load_pairs"] * (self.source[0] != FILE)
        lines += ["from m2ib_lite.rivals import RIVALS"] * (self.words[0] is None and self.methods != ())
        lines += ["", f"clip = load_model({str(name)!r})"]
        source, which = self.source[:2]
        lines += [f"image = {which!r}" if source == FILE else f"image = load_pairs({source!r})[{which}].image"]
        for variable, caption, word in zip(("a", "b"), self.captions, self.words, strict=False):
            lines += ["", f"{variable} = explain(clip, image, {caption!r}, {given(both | effort)})"]
            if word is not None:
                asked = f"[{word}], {given(self.for_words | effort)}"
                lines += [f"{variable}_word = explain_words(clip, image, {caption!r}, {asked}).maps"]
        for method in self.methods:
            lines += [f"{method} = {rival_code(method, self.captions[0], self.words[0])}"]
        if level:
            shown = "a" if self.words[0] is None else "a_word"
            lines += ["", f'(segment,) = {shown}.segments("share", level={level:g})  # .mask, .box, .point']
        return "\n".join(lines)


def given(options):
    """Options as a call writes them."""
    return ", ".join(f"{name}={value!r}" for name, value in options.items())


def rival_code(method, caption, word):
    """The call of a rival for a caption, or for one of its words."""
    if word is not None:
        return f"explain_words(clip, image, {caption!r}, [{word}], method={method!r}).maps"
    return f'RIVALS[{method!r}](clip, image, {caption!r}, modality="image")'
