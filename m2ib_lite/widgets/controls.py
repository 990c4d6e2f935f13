"""The explorer's inputs: what M2IB's options are set by, and one caption with its map and its words."""

import math
from html import escape

from ipywidgets import HTML, Box, Button, Checkbox, FloatLogSlider, GridBox, Image, IntSlider, Layout, VBox

from ..plots import own_scale
from ..side import MODALITIES
from .pictures import shade

NARROW = Layout(width="136px")
RANGE = -3, 2  # powers of ten that beta and sigma2 reach at least
EFFORT = dict(steps=(1, 30, 1, 10), samples=(2, 20, 2, 4), seed=(0, 99, 1, 0))  # least, most, stride, at first
STILL = dict(description_width="64px")


def option_slider(name, value, blocks):
    """What sets one of M2IB's options in one tower of so many blocks, at `value`."""
    if name == "standardise":
        return Checkbox(value=value, indent=False, layout=NARROW)
    if name == "layer":
        return IntSlider(value, -1, blocks - 2, layout=NARROW)
    least, most = min(RANGE[0], math.floor(math.log10(value))), max(RANGE[1], math.ceil(math.log10(value)))
    return FloatLogSlider(value, min=least, max=most, step=0.1, readout_format=".3g", layout=NARROW)


class Settings(VBox):
    """M2IB's options, each for image and words, and its effort; at first the model's own options and the fast effort."""

    def __init__(self, clip):
        self.defaults, self.options, cells = clip.defaults, {}, [HTML(""), HTML("<b>image</b>"), HTML("<b>words</b>")]
        for name, values in clip.defaults.items():
            cells.append(HTML(name))
            for modality, tower, value in zip(MODALITIES, clip.towers, values, strict=True):
                self.options[name, modality] = option_slider(name, value, len(tower.blocks))
                cells.append(self.options[name, modality])
        self.effort = {}
        for name, (least, most, stride, value) in EFFORT.items():
            self.effort[name] = IntSlider(value, least, most, stride, description=name, style=STILL, layout=Layout(width="360px"))
        grid = GridBox(cells, layout=Layout(grid_template_columns="86px 140px 140px", align_items="center", overflow="hidden"))
        super().__init__([grid, *self.effort.values()])

    def watch(self, changed):
        """Call `changed` whenever one of them changes."""
        for widget in (*self.options.values(), *self.effort.values()):
            widget.observe(changed, "value")

    def of(self, modality):
        """The options of one tower."""
        return {name: widget.value for (name, of), widget in self.options.items() if of == modality}

    def moved(self):
        """The image's options that are not the model's own: they count for a word's map, too."""
        return {name: value for name, value in self.of("image").items() if value != self.defaults[name][0]}

    def work(self):
        """steps, samples, ...; each sample comes with its negative."""
        return {name: widget.value for name, widget in self.effort.items()} | dict(antithetic=True)


class Panel(VBox):
    """One map: what it is of, its picture, and what it shows in numbers."""

    def __init__(self, title="", *below):
        self.title, self.picture, self.note = HTML(f"<b>{title}</b>"), Image(format="png"), HTML()
        super().__init__([self.title, self.picture, self.note, *below], layout=Layout(width="340px"))


class Column(Panel):
    """What one caption says of the picture: its map, its cosine, and its words, of which a click chooses one."""

    def __init__(self, chosen):
        self.word, self.buttons, self.chosen, self.verdict = None, [], chosen, HTML()
        self.words, self.sum = Box(layout=Layout(flex_flow="row wrap", max_width="330px")), HTML()
        super().__init__("", self.verdict, self.words, self.sum)

    def choose(self, button):
        """Show the map of this word, or where it is shown the caption's again."""
        number = self.buttons.index(button)
        self.word = None if self.word == number else number
        self.chosen()

    def show_words(self, attribution):
        """The words of the one pair of an Attribution, each on a ground as dark as its score."""
        words, scores = attribution.words(0)
        scale = own_scale(scores, attribution.unit)
        while len(self.buttons) < len(words):
            self.buttons.append(Button(layout=Layout(width="auto", height="26px", margin="1px", padding="0 6px")))
            self.buttons[-1].on_click(self.choose)
        for number, (button, word, score) in enumerate(zip(self.buttons, words, scores.tolist(), strict=False)):
            button.style.button_color, button.style.text_color = shade(float(scale(score)))
            button.description, button.tooltip = word, f"{score:.3g} {attribution.unit}: click for the word's own map"
            button.layout.border = "2px solid black" if number == self.word else "2px solid transparent"
        self.words.children = self.buttons[: len(words)]
        self.sum.value = f"maximum {scores.max():.3g} {attribution.unit} a word"


def said(text, colour="#b00020"):
    """A message in the place where it belongs."""
    return f'<div style="color:{colour};line-height:1.35;white-space:normal">{escape(text)}</div>'
