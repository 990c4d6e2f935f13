"""What is asked of the explorer at one moment: the maps to find, and the code that finds them."""

from dataclasses import dataclass

from ..explain import explain
from ..rivals import RIVALS
from ..word_maps import explain_words

FILE = "a file of yours"  # the source that load_pairs does not know
NAMES = {0: "first", 1: "second"}  # of the captions, in files and code
IMPORTS = """from m2ib_lite import explain, explain_words, load_model
from m2ib_lite.data import load_pairs
from m2ib_lite.rivals import RIVALS
"""


@dataclass(frozen=True)
class Wish:
    """source: a name for load_pairs and a number, or FILE, a name and its bytes.  captions: one or two; words: for each the number
    of the word whose own map is wanted, or None.  options, for_words: M2IB's, for a caption and beside the model's own for a word,
    with effort: steps and the like.  methods: names of RIVALS."""

    source: tuple
    captions: list
    words: list
    options: dict
    for_words: dict
    effort: dict
    methods: list

    def tasks(self):
        """(panel, method, caption, word, options) of each map; panel: a caption's or a method's place, and the word."""
        for n, (caption, word) in enumerate(zip(self.captions, self.words, strict=True)):
            if word is not None:  # first, since it is what is looked at
                yield (n, word), "M2IB", caption, word, self.for_words | self.effort
            yield (n, None), "M2IB", caption, None, self.options | self.effort
        for name in self.methods:
            yield (name, None), name, self.captions[0], self.words[0], {}

    def code(self, model, step, level):
        """Python that finds these maps after `step` steps, and masks above a level."""
        source, which = self.source[:2]
        picture = repr(which) if source == FILE else f"load_pairs({source!r})[{which}].image"
        lines = [IMPORTS, f"clip = load_model({str(model)!r})", f"image = {picture}"]
        for (place, of), method, caption, word, options in self.tasks():
            name = NAMES.get(place, place) + ("" if of is None else "_word")
            lines.append(f"{name} = {call(method, caption, word, options | (dict(steps=step) if options else {}))}")
            lines += [f"{name}_mask = {name}.segments('share', level={level:g})[0]"] * (level > 0)
        return "\n".join(lines)


def find_map(clip, image, method, caption, word, options):
    """-> an Attribution of the image and the caption, or of one of its words"""
    if word is not None:
        return explain_words(clip, image, caption, [word], method, **options).maps
    if method == "M2IB":
        return explain(clip, image, caption, progress=False, **options)
    return RIVALS[method](clip, image, caption, modality="image", progress=False)


def call(method, caption, word, options):
    """What find_map does, as Python."""
    given = "".join(f", {name}={value!r}" for name, value in options.items())
    if word is not None:
        return f"explain_words(clip, image, {caption!r}, [{word}], {method!r}{given}).maps"
    if method == "M2IB":
        return f"explain(clip, image, {caption!r}{given})"
    return f"RIVALS[{method!r}](clip, image, {caption!r}, modality='image')"
