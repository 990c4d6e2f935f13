"""The explorer: choose or upload a picture, type a caption, move a slider, and see the maps."""

import re
import time
import warnings
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import ipywidgets as w
from PIL import ImageOps

from ..attribution import Attribution
from ..data import Images, load_pairs, open_image, png
from ..exports import save_segments
from ..hooks import replace as hooked
from ..models.load import BUILT_IN
from ..rivals import RIVALS
from .controls import Column, Panel, Settings, said, to_copy
from .latest import Dropped, Latest
from .pictures import SIDE, draw_map
from .wish import FILE, NAMES, Wish, find_map

SOURCES = ("scenes", "radiographs", "photographs")
EARLY, PAUSE, PATIENCE = 0.1, 0.15, 0.3  # seconds before the first look at a map on its way, between two, before the progress bar
KEPT = 300  # maps in memory
WIDE, WRAP = w.Layout(width="372px"), w.Layout(flex_flow="row wrap")
AMBER, GREEN = "#8a5a00", "#1b6e1b"
pairs_of = lru_cache(load_pairs)


class Explorer(w.HBox):
    """The maps of a Clip for one picture and one or two captions, in Jupyter, as fast as the inputs change.

    Its inputs are widgets, which may be set from Python: source, number, upload, captions, settings, step, threshold, methods,
    folder.  settled: the Future of the newest maps.  code(): the Python that finds what is seen.
    """

    def __init__(self, clip):
        self.clip, self.latest, self.file, self.own_caption = clip, Latest(), (FILE, None), ""
        self.kept, self.found, self.opened = {}, {}, (None, None)
        self.make_inputs()
        self.make_outputs()
        super().__init__([self.left, self.right], layout=w.Layout(align_items="flex-start"))
        observed = {self.pick: [self.source, self.number], self.draw_all: [self.step, self.threshold]}
        for act, widgets in (observed | {self.ask: [*self.captions, *self.methods.values()]}).items():
            for widget in widgets:
                widget.observe(act, "value")
        self.upload.observe(self.take, "value")
        self.settings.effort["steps"].observe(self.stretch, "value")
        self.save_button.on_click(self.save)
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
        self.message, self.settings = w.HTML(layout=WIDE), Settings(self.clip, self.ask)
        most = self.settings.effort["steps"].value
        self.step = w.IntSlider(most, 1, most, description="step", layout=w.Layout(width="240px"))
        self.play = w.Play(value=most, min=1, max=most, interval=250)
        w.jslink((self.play, "value"), (self.step, "value"))
        self.threshold = w.FloatSlider(0, min=0, max=0.95, step=0.05, description="mask above", layout=WIDE)
        self.methods = {key: w.ToggleButton(description=of.title, layout=w.Layout(width="auto")) for key, of in RIVALS.items()}
        self.folder, self.save_button = w.Text("explored", description="folder", layout=WIDE), w.Button(description="Save")
        self.saved, self.shown_code = w.HTML(layout=WIDE), w.HTML(layout=WIDE)
        saving = w.VBox([self.folder, self.save_button, self.saved, self.shown_code])
        titles = "Settings of M2IB", "Other methods beside it", "Save, and the code"
        more = w.Accordion([self.settings, w.Box([*self.methods.values()], layout=WRAP), saving], titles=titles, selected_index=0)
        picture = [self.source, self.number, self.upload, *self.captions, self.message, self.threshold]
        self.left = w.VBox([*picture, w.HBox([self.play, self.step]), more], layout=w.Layout(width="410px", flex="0 0 auto"))

    def make_outputs(self):
        """The right column."""
        self.original, self.bar, self.doing = Panel("picture"), w.FloatProgress(0, max=1), w.HTML()
        columns = {n: Column(widget.description, self.ask) for n, widget in enumerate(self.captions)}
        self.panels = columns | {key: Panel(of.title) for key, of in RIVALS.items()}
        self.busy = w.HBox([self.bar, self.doing], layout=w.Layout(visibility="hidden"))
        self.maps = w.Box(layout=WRAP)
        self.right = w.VBox([self.busy, self.maps])

    def pick(self, *_):
        """Take the chosen picture, and its caption unless another was typed."""
        try:
            if self.source.value != FILE:
                pairs = pairs_of(self.source.value)
                self.number.max = len(pairs) - 1
                own, self.own_caption = self.own_caption, pairs[self.number.value].caption
                if self.captions[0].value in ("", own):
                    self.captions[0].value = self.own_caption
            self.ask()
        except (OSError, ValueError) as error:
            self.say(str(error))

    def say(self, text, *colour):
        """A message below the captions, which calls them as they are called there."""
        text = text.replace("caption 0", "the caption").replace("caption 1", "the caption beside it")
        self.message.value = said(text, *colour)

    def take(self, change):
        """Take an uploaded picture."""
        if change.new:
            self.file = FILE, change.new[0]["name"], bytes(change.new[0]["content"])
            self.upload.value = ()  # so that the same file may come again
            self.source.value = FILE
            self.ask()

    def stretch(self, change):
        """Let the step slider end at the last step."""
        for widget in (self.play, self.step):
            widget.max = widget.value = change.new

    def ask(self, change=None):
        """Begin to find what the inputs now ask for, and leave what they asked for before."""
        for n, widget in enumerate(self.captions):
            if change and change.owner is widget:
                self.panels[n].word = None
        captions = [self.captions[0].value, *filter(None, [self.captions[1].value])]
        self.wish = Wish(
            source=self.file if self.source.value == FILE else (self.source.value, self.number.value),
            captions=captions,
            words=[self.panels[n].word for n in range(len(captions))],
            methods=[key for key, button in self.methods.items() if button.value],
            **self.settings.asked(),
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
                self.found, self.maps.children = {}, ()
                self.say(str(error) or repr(error))
            self.busy.layout.visibility = "hidden"

    def find(self, wish, check):
        """Map by map, each shown as soon as it is there, those that were found before at once."""
        tasks = list(wish.tasks())
        self.clip.tokens(wish.captions)  # says what is wrong with them
        image = self.read(wish.source)
        self.original.picture.value = png(ImageOps.contain(image, (SIDE, SIDE)))
        self.found = {task[0]: self.found[task[0]] for task in tasks if task[0] in self.found}
        self.maps.children = [self.original, *(self.panels[key] for key in (*range(len(wish.captions)), *wish.methods))]
        keys = {panel: (wish.source, *map(repr, task)) for panel, *task in tasks}
        for done, (panel, *task) in enumerate(sorted(tasks, key=lambda task: keys[task[0]] not in self.kept)):
            key = keys[panel]
            if key not in self.kept:
                self.kept[key] = self.steps_of(panel, task, image, check, (done, len(tasks)))
            check()
            self.found[panel] = self.kept[key]
            self.draw(panel)
        self.kept = dict(list(self.kept.items())[-KEPT:])
        self.shown_code.value = to_copy(self.code())

    def read(self, source):
        """The picture of a source.  ValueError or OSError where there is none."""
        if source == (FILE, None):
            raise ValueError("there is no picture: upload one, or choose another source")
        if source != self.opened[0]:
            try:
                self.opened = source, open_image(source[2]) if source[0] == FILE else pairs_of(source[0])[source[1]].image
            except ValueError as error:
                raise ValueError(f"{source[1]}: {error}") from error
        return self.opened[1]

    def steps_of(self, panel, task, image, check, place):
        """A task's maps after each of M2IB's steps, from 0 on, or a rival's.  place: of how many it is which.  -> [Attribution]"""
        (method, caption, word, options), rows, start, looked = task, {"image": [], "text": []}, time.time(), [EARLY - PAUSE]
        steps = (options.get("steps", 0) + 1) * (1 if word is not None else 2)

        def watch(modality, _, scores):
            shape = (1, *self.clip.grid) if modality == "image" else (-1,)
            rows[modality].append(scores[0].float().view(shape))
            if modality == "text":
                tick(scores)

        def tick(_):
            check()
            gone, column, ended = time.time() - start, self.panels[panel[0]], len(rows["text"]) == 1  # the image's map, that is
            wanted = column.word == panel[1] and rows["image"] and (ended or not rows["text"])
            if wanted and (ended or gone > looked[0] + PAUSE):
                looked[0], row = gone, rows["image"][: self.step.value + 1][-1]
                one = Attribution(row, None, [[]], Images([image]), [caption], [self.clip.view(image.size)])
                column.picture.value, _ = draw_map(self.clip, one, self.threshold.value)
            if gone > PATIENCE:
                self.busy.layout.visibility = "visible"
                self.bar.value = (place[0] + sum(map(len, rows.values())) / steps) / place[1]
                self.doing.value = f"{method}, {gone:.0f} s"

        with hooked(self.clip.image.norms[-1], tick):
            found = find_map(self.clip, image, method, caption, word, options | ({"watch": watch} if options else {}))
        maps = [replace(found, image_maps=row) for row in rows["image"]] or [found]
        return [replace(one, text_maps=[row]) for one, row in zip(maps, rows["text"], strict=True)] if rows["text"] else maps

    def at_step(self, panel):
        """What was found for a panel, after the step that the slider shows."""
        return self.found[panel][: self.step.value + 1][-1]

    def draw(self, panel):
        """The picture of a map, and the words of a caption."""
        place, attribution = self.panels[panel[0]], self.at_step(panel)
        if attribution.text_maps is not None:
            place.show_words(attribution)
        if place.word == panel[1]:
            place.picture.value, note = draw_map(self.clip, attribution, self.threshold.value)
            verdict = attribution.verdict(0).replace("no match", "<b>no match</b>")
            place.note.value = f'<div style="line-height:1.4">{verdict}<br>{note}</div>'

    def draw_all(self, *_):
        """Everything, for another step or threshold."""
        for panel in list(self.found):
            self.draw(panel)
        self.shown_code.value = to_copy(self.code())

    def code(self):
        return self.wish.code(self.clip.name, self.step.value, self.threshold.value)

    def save(self, *_):
        """What is seen as files: pictures, maps.npz and the rest of Attribution.save, masks, and the code."""
        name = re.sub(r"[^\w-]+", "-", "-".join(map(str, self.wish.source[:2]))).strip("-")
        folder, level = Path(self.folder.value) / name, self.threshold.value
        shown = {place: self.at_step((place, word)) for place, word in self.found if word == self.panels[place].word}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for place, attribution in shown.items():
                own = folder / NAMES.get(place, place)
                attribution.save(own, [name])
                own.with_suffix(".png").write_bytes(self.panels[place].picture.value)
                if level:
                    save_segments(attribution.segments("share", level=level), own / "masks", [name])
            (folder / "code.py").write_text(self.code() + "\n")
            self.saved.value = said(f"saved in {folder.resolve()}", GREEN)
        except (OSError, ValueError) as error:
            self.saved.value = said(str(error))
