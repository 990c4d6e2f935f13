"""The explorer: choose or upload a picture, type a caption, move a slider, and see the maps."""

import re
import time
import warnings
from dataclasses import replace
from functools import lru_cache, partial
from html import escape
from pathlib import Path

import ipywidgets as w

from ..attribution import Attribution
from ..data import Images, load_pairs, open_image
from ..exports import save_segments
from ..hooks import replace as hooked
from ..models.load import BUILT_IN
from ..rivals import RIVALS
from ..side import MODALITIES
from .controls import Column, Panel, Settings, said
from .latest import Dropped, Latest
from .pictures import draw_map, enlarge, png
from .wish import FILE, Wish

SOURCES = ("scenes", "radiographs", "photographs")
PATIENCE, PAUSE = 0.3, 0.15  # seconds before a map is shown on its way, and between two looks at it
KEPT = 300  # maps in memory
WIDE = w.Layout(width="372px")
AMBER = "#8a5a00"
COPY = "navigator.clipboard.writeText(this.nextElementSibling.innerText)"
pairs_of = lru_cache(load_pairs)


class Explorer(w.HBox):
    """The maps of a Clip for one picture and one or two captions, in Jupyter, as fast as the inputs change.

    Every input is a widget and may be set from Python: source, number, upload, captions, settings, step, threshold, methods,
    folder.  settled: the Future of the newest maps.  code(): the Python that finds what is seen.
    """

    def __init__(self, clip):
        self.clip, self.latest, self.settled, self.file = clip, Latest(), None, None
        self.kept, self.found, self.opened, self.wish = {}, {}, (None, None), None
        self.make_inputs()
        self.make_outputs()
        super().__init__([self.left, self.right], layout=w.Layout(align_items="flex-start"))
        self.listen()
        self.pick()

    def make_inputs(self):
        """The left column."""
        name = str(self.clip.name)
        first = "radiographs" if name.startswith("radiographs") else "scenes" if name in BUILT_IN else "photographs"
        self.source = w.Dropdown(options=[*SOURCES, FILE], value=first, description="picture", layout=WIDE)
        self.number = w.IntSlider(0, 0, 1, description="number", layout=WIDE)
        self.upload = w.FileUpload(accept=".png,.jpg,.jpeg", description="Upload a PNG or JPEG", layout=WIDE)
        hints = {"caption": "what the picture shows", "beside it": "a second caption, if you like"}
        self.captions = [w.Text(placeholder=hint, description=label, layout=WIDE) for label, hint in hints.items()]
        self.message, self.settings = w.HTML(layout=WIDE), Settings(self.clip)
        most = self.settings.effort["steps"].value
        self.step = w.IntSlider(most, 1, most, description="step", layout=w.Layout(width="240px"))
        self.play = w.Play(value=most, min=1, max=most, interval=250, show_repeat=False)
        w.jslink((self.play, "value"), (self.step, "value"))
        self.threshold = w.FloatSlider(0, min=0, max=0.95, step=0.05, description="mask above", layout=WIDE)
        self.methods = {key: w.ToggleButton(description=of.title, layout=w.Layout(width="auto")) for key, of in RIVALS.items()}
        self.folder, self.save_button = w.Text("explored", description="folder", layout=WIDE), w.Button(description="Save")
        self.saved, self.shown_code = w.HTML(layout=WIDE), w.HTML(layout=WIDE)
        rare = [
            self.settings,
            w.Box([*self.methods.values()], layout=w.Layout(flex_flow="row wrap")),
            w.VBox([self.folder, self.save_button, self.saved, self.shown_code]),
        ]
        more = w.Accordion(rare, titles=("Settings of M2IB", "Other methods beside it", "Save, and the code"), selected_index=0)
        playing = w.HBox([self.play, self.step])
        inputs = [self.source, self.number, self.upload, *self.captions, self.message, self.threshold, playing, more]
        self.left = w.VBox(inputs, layout=w.Layout(width="410px", flex="0 0 auto"))

    def make_outputs(self):
        """The right column."""
        self.original, self.bar, self.doing = Panel("picture"), w.FloatProgress(0, max=1), w.HTML()
        self.panels = {0: Column(self.ask), 1: Column(self.ask)}
        self.panels |= {key: Panel(of.title) for key, of in RIVALS.items()}
        self.maps = w.Box(layout=w.Layout(flex_flow="row wrap"))
        self.busy = w.HBox([self.bar, self.doing], layout=w.Layout(visibility="hidden"))
        self.right = w.VBox([self.busy, self.maps])

    def listen(self):
        """Let every input do what it is for."""
        self.source.observe(self.pick, "value")
        self.number.observe(self.pick, "value")
        self.upload.observe(self.take, "value")
        for n, caption in enumerate(self.captions):
            caption.observe(partial(self.retype, n), "value")
        self.settings.watch(self.ask)
        self.settings.effort["steps"].observe(self.stretch, "value")
        for button in self.methods.values():
            button.observe(self.ask, "value")
        for widget in (self.step, self.threshold):
            widget.observe(self.draw_all, "value")
        self.save_button.on_click(self.save)

    def pick(self, *_):
        """Take the chosen picture, and its caption unless another was typed."""
        if self.source.value != FILE:
            try:
                pairs = pairs_of(self.source.value)
                self.number.max = len(pairs) - 1
                caption = pairs[self.number.value].caption
            except (OSError, ValueError) as error:
                return self.say(str(error))
            if self.captions[0].value in ("", getattr(self, "own_caption", "")):
                self.captions[0].value = caption
            self.own_caption = caption
        return self.ask()

    def take(self, change):
        """Take an uploaded picture."""
        if change.new:
            self.file = (FILE, change.new[0].name, bytes(change.new[0].content))
            self.upload.value = ()  # so that the same file may come again
            self.source.value = FILE
            self.ask()

    def retype(self, n, _):
        """Take a caption as it is typed; no word of it is chosen."""
        self.panels[n].word = None
        self.ask()

    def stretch(self, change):
        """Let the step slider end at the last step."""
        for widget in (self.play, self.step):
            widget.max = widget.value = change.new

    def ask(self, *_):
        """Begin to find what the inputs now ask for, and leave what they asked for before."""
        captions = [self.captions[0].value] + [self.captions[1].value] * (self.captions[1].value != "")
        self.wish = Wish(
            source=(self.file or (FILE, None)) if self.source.value == FILE else (self.source.value, self.number.value),
            captions=tuple(captions),
            words=tuple(self.panels[n].word for n in range(len(captions))),
            own={modality: self.settings.of(modality) for modality in MODALITIES},
            for_words=self.settings.moved(),
            effort=self.settings.work(),
            methods=tuple(key for key, button in self.methods.items() if button.value),
        )
        self.settled = self.latest.ask(partial(self.work, self.wish))

    def work(self, wish, check):
        """Find the maps of a wish and show them, or say what is wrong with it."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                self.find(wish, check)
                self.say("; ".join(dict.fromkeys(str(warning.message) for warning in caught)), AMBER)
            except Dropped:
                raise
            except Exception as error:  # whatever it is: the explorer goes on
                self.found = {}
                self.maps.children = ()
                self.say(str(error) or repr(error))
        self.busy.layout.visibility = "hidden"

    def find(self, wish, check):
        """Map by map, each shown as soon as it is there, those that were found before at once."""
        image, tasks = self.read(wish.source), list(wish.tasks())
        for caption in wish.captions:
            self.clip.tokens([caption])  # says what is wrong with it
        self.found = {panel: of for panel, of in self.found.items() if panel in {task.panel for task in tasks}}
        self.show_panels(wish)
        for done, task in enumerate(tasks):
            key = (wish.source, task)
            if key not in self.kept:
                self.kept[key] = self.steps_of(task, image, check, lambda share, done=done: (done + share) / len(tasks))
            check()
            self.found[task.panel] = self.kept[key]
            self.draw(task.panel)
        for key in list(self.kept)[:-KEPT]:
            del self.kept[key]
        self.show_code()

    def read(self, source):
        """The picture of a source.  ValueError or OSError where there is none"""
        if source != self.opened[0]:
            if source == (FILE, None):
                raise ValueError("there is no picture: upload one, or choose another source")
            try:
                image = open_image(source[2]) if source[0] == FILE else pairs_of(source[0])[source[1]].image
            except ValueError as error:
                raise ValueError(f"{source[1]}: {error}") from error
            self.opened = source, image
        return self.opened[1]

    def show_panels(self, wish):
        """The panels that a wish has maps for."""
        self.original.picture.value = png(enlarge(self.opened[1]))
        shown = [*range(len(wish.captions)), *wish.methods]
        self.maps.children = [self.original, *(self.panels[key] for key in shown)]

    def steps_of(self, task, image, check, share):
        """The maps of a task after each of M2IB's steps, 0 too, or a rival's one.  -> [Attribution]"""
        rows, start, seen = [], time.time(), [0.0]

        def watch(modality, n, scores):
            rows.append(scores[0].float())

        def tick(_):
            check()
            now = time.time()
            if now - start > PATIENCE and now - seen[0] > PAUSE:
                seen[0] = now
                steps = self.settings.effort["steps"].value + 1
                self.bar.value, self.busy.layout.visibility = share(min(1, len(rows) / steps)), "visible"
                self.doing.value = f"{task.method}, {task.modality}: {now - start:.0f} s"
                if rows and task.modality == "image":
                    self.draw_live(task, image, rows[-1])

        tower = self.clip.towers[MODALITIES.index(task.modality)]
        with hooked(tower.norms[-1], tick):
            found = task.find(self.clip, image, **(dict(watch=watch) if task.method == "M2IB" else {}))
        if task.modality == "text":
            return [replace(found, text_maps=[row]) for row in rows] or [found]
        return [replace(found, image_maps=row.view(1, *self.clip.grid)) for row in rows] or [found]

    def draw_live(self, task, image, row):
        """A map on its way."""
        view = self.clip.view(image.size)
        one = Attribution(row.view(1, *self.clip.grid), None, [[]], Images([image]), [task.caption], [view])
        self.panels[task.panel[0]].picture.value, _ = draw_map(self.clip, one, self.threshold.value)

    def at_step(self, panel):
        """What is found for a panel, after the step that the slider shows."""
        steps = self.found[panel]
        return steps[min(self.step.value, len(steps) - 1)]

    def draw(self, panel):
        """One map, or the words of a caption."""
        place, attribution = self.panels[panel[0]], self.at_step(panel)
        if panel[1] == "text":
            return place.show_words(attribution)
        place.picture.value, place.note.value = draw_map(self.clip, attribution, self.threshold.value)
        if isinstance(place, Column):
            place.title.value = f"<b>{escape('map of ' + attribution.tokens[0][0] if place.word is not None else 'M2IB')}</b>"
            place.verdict.value = escape(attribution.verdict(0))
        return None

    def draw_all(self, *_):
        """Everything, for another step or threshold."""
        for panel in list(self.found):
            self.draw(panel)
        self.show_code()

    def code(self):
        """The Python that finds what is seen."""
        return self.wish.code(self.clip.name, self.step.value, self.threshold.value)

    def show_code(self):
        """The code, and a button that copies it."""
        box = "background:#f5f5f5;padding:6px;overflow-x:auto;font-size:11px;line-height:1.4"
        self.shown_code.value = f'<button onclick="{COPY}">Copy the code</button><pre style="{box}">{escape(self.code())}</pre>'

    def say(self, text, colour="#b00020"):
        """A message below the captions."""
        self.message.value = said(text, colour)

    def seen(self):
        """What is on the screen.  -> {name: Attribution}"""
        shown = {}
        for key, modality in self.found:
            if modality == "image":
                one = self.at_step((key, modality))
                if (key, "text") in self.found and self.panels[key].word is None:
                    one = replace(one, text_maps=self.at_step((key, "text")).text_maps)
                shown[key] = one
        return shown

    def save(self, *_):
        """What is on the screen as files: pictures, maps.npz and the rest of Attribution.save, masks, and the code."""
        name = re.sub(r"[^\w-]+", "-", "-".join(map(str, self.wish.source[:2]))).strip("-")
        folder, level = Path(self.folder.value) / name, self.threshold.value
        try:
            if not self.found:
                raise ValueError("there is no map to save")
            folder.mkdir(parents=True, exist_ok=True)
            for key, one in self.seen().items():
                own = folder / {0: "first", 1: "second"}.get(key, key)
                one.save(own, [name])
                own.with_suffix(".png").write_bytes(self.panels[key].picture.value)
                if level:
                    save_segments(one.segments("share", level=level), own / "masks", [name])
            (folder / "code.py").write_text(self.code() + "\n")
            self.saved.value = said(f"saved in {folder.resolve()}", "#1b6e1b")
        except (OSError, ValueError) as error:
            self.saved.value = said(str(error))
