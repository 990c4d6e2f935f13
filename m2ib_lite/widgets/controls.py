"""The explorer's parts: what sets M2IB's options, and a panel for each map."""

import itertools
import math
from html import escape

from ipywidgets import HTML, Box, Button, Checkbox, FloatLogSlider, GridBox, Image, IntSlider, Layout, VBox
from matplotlib.colors import to_hex

from ..plots import own_scale, shade

NARROW = Layout(width="136px")
COPY = "navigator.clipboard.writeText(this.nextElementSibling.innerText)"
EFFORT = dict(steps=(10, 1, 30, 1), samples=(4, 2, 20, 2), seed=(0, 0, 99, 1))  # at first the fast quality's; least, most, stride


def option_slider(name, value, blocks):
    """What sets one of M2IB's options in a tower of so many blocks, at first to `value`."""
    if name == "standardise":
        return Checkbox(value=value, indent=False, layout=NARROW)
    if name == "layer":
        return IntSlider(value, -1, blocks - 2, layout=NARROW)
    power = math.log10(value)
    ends = dict(min=min(-3, math.floor(power)), max=max(2, math.ceil(power)))
    return FloatLogSlider(value, **ends, step=0.1, readout_format=".3g", layout=NARROW)


class Settings(VBox):
    """M2IB's options in both towers, at first the model's own, and its effort."""

    def __init__(self, clip, changed):
        self.defaults, self.options, cells = clip.defaults, {}, [HTML(""), HTML("<b>image</b>"), HTML("<b>words</b>")]
        for name, values in clip.defaults.items():
            pairs = zip(values, clip.towers, strict=True)
            self.options[name] = [option_slider(name, value, len(tower.blocks)) for value, tower in pairs]
            cells += [HTML(name), *self.options[name]]
        wide = dict(layout=Layout(width="360px"), style=dict(description_width="64px"))
        self.effort = {name: IntSlider(*limits, description=name, **wide) for name, limits in EFFORT.items()}
        self.antithetic = Checkbox(value=True, description="noise in pairs of opposite sign", indent=False)
        grid = dict(grid_template_columns="86px 140px 140px", align_items="center", overflow="hidden")
        super().__init__([GridBox(cells, layout=Layout(**grid)), *self.effort.values(), self.antithetic])
        for widget in (*itertools.chain(*self.options.values()), *self.effort.values(), self.antithetic):
            widget.observe(changed, "value")

    def asked(self):
        """The options of a caption's maps, those that a word's map takes for the model's own: what was moved; and the effort."""
        options = {name: tuple(widget.value for widget in widgets) for name, widgets in self.options.items()}
        moved = {name: value for name, (value, _) in options.items() if value != self.defaults[name][0]}
        effort = {name: widget.value for name, widget in self.effort.items()} | dict(antithetic=self.antithetic.value)
        return dict(options=options, for_words=moved, effort=effort)


class Panel(VBox):
    """One map: what it is of, its picture, and what it shows in numbers."""

    word = None  # the number of the word whose own map is shown

    def __init__(self, title="", *below):
        self.title, self.picture, self.note = HTML(f"<b>{title}</b>"), Image(format="png"), HTML()
        super().__init__([self.title, self.picture, self.note, *below], layout=Layout(width="296px"))


class Column(Panel):
    """What one caption says of the picture: its map and its words, of which a click chooses one and calls `chosen`.  name: the
    caption's, beside its input."""

    def __init__(self, name, chosen):
        self.name, self.buttons, self.chosen, self.sum = name, [], chosen, HTML()
        self.words = Box(layout=Layout(flex_flow="row wrap", max_width="286px"))
        super().__init__(f"M2IB, {name}", self.words, self.sum)

    def choose(self, button):
        """Show the map of this word, or where it is shown the caption's again."""
        number = self.buttons.index(button)
        self.word = None if self.word == number else number
        self.mark()
        self.chosen()

    def mark(self):
        """Say which word's map is shown."""
        for number, button in enumerate(self.buttons):
            button.layout.border = f"2px solid {'black' if number == self.word else 'transparent'}"
        shown = self.name if self.word is None else f"{escape(self.buttons[self.word].description)} alone"
        self.title.value = f"<b>M2IB, {shown}</b>"

    def show_words(self, attribution):
        """The words of the one pair of an Attribution, each on a ground as dark as its score."""
        words, scores = attribution.words(0)
        scale = own_scale(scores, attribution.unit)
        while len(self.buttons) < len(words):
            self.buttons.append(Button(layout=Layout(width="auto", height="26px", margin="1px", padding="0 6px")))
            self.buttons[-1].on_click(self.choose)
        for button, word, score in zip(self.buttons, words, scores.tolist(), strict=False):
            ground, button.style.text_color = shade(float(scale(score)))
            button.style.button_color = to_hex(ground)
            button.description, button.tooltip = word, f"{score:.3g} {attribution.unit}; click for its own map"
        self.words.children = self.buttons[: len(words)]
        self.sum.value = f"maximum {scores.max():.3g} {attribution.unit} per word"
        self.mark()


def said(text, colour="#b00020"):
    """A message, in the place that it is about."""
    return f'<div style="color:{colour};line-height:1.35;white-space:normal">{escape(text)}</div>'


def to_copy(code):
    """Code, below a button that copies it."""
    style = "background:#f5f5f5;padding:6px;white-space:pre-wrap;font-size:11px;line-height:1.4"
    return f'<button onclick="{COPY}">Copy the code</button><pre style="{style}">{escape(code)}</pre>'
