from dataclasses import replace
from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import seaborn as sns
import torch
from matplotlib.colors import Normalize, to_rgba
from matplotlib.offsetbox import TextArea
from matplotlib.patches import Rectangle
from PIL import Image

from m2ib_lite import explain, plots
from m2ib_lite.attribution import Attribution
from m2ib_lite.data import Box
from m2ib_lite.metrics import bootstrap_interval
from m2ib_lite.plots import as_seen, draw_degradation, draw_image, draw_words, error_bar, own_scale, plot_methods, plot_pairs

mpl.use("Agg")


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture
def attribution():
    images, views = [Image.new("RGB", (8, 8)), Image.new("RGB", (12, 8))], [(0, 0, 8, 8), (2, 0, 10, 8)]
    words = [["an", "owl"], ["a", "very", "long", "caption", "of", "many", "words", "that", "needs", "lines"]]
    maps = [torch.tensor([1.0, 3.0]), torch.arange(10.0)]
    return Attribution(torch.arange(32.0).reshape(2, 4, 4), maps, words, images, ["an owl", " ".join(words[1])], views)


def texts(figure):
    figure.canvas.draw()
    return [text for text in figure.findobj(plt.Text) if text.get_text()]


def test_every_word_and_the_ends_of_each_scale_can_be_read_and_what_was_not_seen_is_pale(attribution):
    figure = plot_pairs(attribution)
    written = {text.get_text() for text in texts(figure)}
    assert {"an", "owl", *attribution.tokens[1]} <= written
    assert {"0 to 3 nats per word", "0 to 15 nats per patch", f"0 to 31 nats per patch,\n{plots.UNSEEN}", "M2IB"} <= written
    heats = [image for ax in figure.axes for image in ax.images if image.get_cmap().name == "inferno"]
    assert [(heat.norm.vmin, heat.norm.vmax) for heat in heats] == [(0, 15), (0, 31)]
    assert [heat.get_array().mask.sum() for heat in heats] == [0, 4 * 8]
    assert to_rgba(heats[1].get_cmap().get_bad()) == to_rgba("white")


def test_a_scale_runs_from_the_lowest_score_or_zero_and_a_flat_map_is_bright():
    def ends(*scores, unit="cosine"):
        scale = own_scale(torch.tensor(scores), unit)
        return scale.vmin, scale.vmax

    assert [ends(-7.0, 8.0), ends(2.0, 8.0), ends(3.0, 3.0), ends(-2.0, -1.0)] == [(0, 8), (2, 8), (0, 3), (0, 0)]
    assert [ends(2.0, 8.0, unit="nats"), ends(3.0, 3.0, unit="nats")] == [(0, 8), (0, 3)]  # where 0 is no information
    assert ends(0.1, 0.3, unit="nats") == (0, 1)  # a faint map is not stretched to full brightness
    assert own_scale(torch.tensor([3.0]), "nats")(3.0) == 1


def test_a_figures_bars_are_the_intervals_of_its_table():
    values = np.random.default_rng(0).random(12)
    (bar,) = (line for line in sns.pointplot(x=values, y=["a"] * 12, errorbar=error_bar).lines if len(set(line.get_xdata())) > 1)
    assert (min(bar.get_xdata()), max(bar.get_xdata())) == bootstrap_interval(values)[1:]


def test_words_in_pieces_are_drawn_whole_and_dollars_are_no_mathematics(attribution):
    attribution.captions[0] = "a$b$c owl"
    attribution.tokens[0], attribution.text_maps[0] = ["a$b$c", "o", "wl"], torch.tensor([1.0, 3.0, 4.0])
    written = {text.get_text() for text in texts(attribution.plot(0))}
    assert {"a$b$c", "owl", "0 to 7 nats per word"} <= written
    assert not {"o", "wl"} & written


def test_words_do_not_overlap_or_leave_the_page(attribution):
    figure, ax = plt.subplots(figsize=(3.6, 2))
    draw_words(ax, attribution.tokens[1], attribution.text_maps[1], Normalize(0, 9))
    boxes = [text.get_window_extent() for text in texts(figure)]
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 for box in boxes)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_the_ground_of_a_word_is_as_dark_as_its_score(attribution):
    figure, ax = plt.subplots()
    draw_words(ax, ["an", "owl"], torch.tensor([0.0, 2.0]), Normalize(0, 2))
    grounds = {text.get_text(): text.get_bbox_patch().get_facecolor() for text in texts(figure)}
    assert grounds["an"] == to_rgba(plt.get_cmap(plots.TEXT_COLOURS)(0.0))
    assert sum(grounds["owl"][:3]) < sum(grounds["an"][:3])


def test_named_boxes_alone_are_drawn_in_red(attribution):
    _, ax = plt.subplots()
    draw_image(ax, attribution.images[0], [Box("owl", 1, 2, 3, 4), Box("cat", 0, 0, 2, 2, named=False)])
    (box,) = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    assert (box.get_xy(), box.get_width(), box.get_height()) == ((0.5, 1.5), 3, 4)
    assert box.get_edgecolor() == to_rgba("red")


def test_methods_stand_side_by_side_each_on_its_own_range_and_share_a_figure(attribution):
    other = replace(attribution, image_maps=attribution.image_maps - 7, method="NIB")
    figure = plot_methods([attribution, other], [0, 1])
    assert [ax.get_title() for ax in figure.axes[:3]] == ["image", "M2IB", "NIB"]
    assert len(figure.axes) == 6
    ranges = [(heat.norm.vmin, heat.norm.vmax) for heat in (ax.images[1] for ax in figure.axes[1:3])]
    assert ranges == [(0, 15), (0, 8)]
    assert {"an owl", "a very long caption of many [...]", plots.UNSEEN} <= {text.get_text() for text in texts(figure)}
    whole = plt.figure(layout="constrained")
    top, bottom = whole.subfigures(2, 1)
    assert plot_methods([attribution], [0], figure=top) is top
    assert (len(top.axes), len(bottom.axes), len(whole.axes)) == (2, 0, 2)


def test_plot_is_one_row_and_never_shows(attribution, monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: pytest.fail("a plot called show()"))
    assert len(attribution.plot(1).axes) == 3 + 2
    assert "very" in {text.get_text() for text in texts(attribution.plot(-1))}  # the last, as in a list


@pytest.mark.parametrize("row", [99, 2, -3])
def test_a_pair_that_is_not_there_or_has_one_map_alone_is_refused(attribution, row):
    calls = [lambda: attribution.plot(row), lambda: plot_pairs(attribution, [0, row]), lambda: plot_methods([attribution], [row])]
    for call in [*calls, lambda: draw_degradation(None, None, attribution, row, [])]:
        with pytest.raises(IndexError, match=f"no pair {row}: give 0 to 1"):
            call()
    with pytest.raises(ValueError, match="modality='both'"):
        plot_pairs(replace(attribution, text_maps=None))


def test_a_degraded_pair_is_shown_with_its_blanks_and_in_its_own_colours(clip, pairs):
    a = explain(clip, [pairs[0].image], [pairs[0].caption], steps=1, samples=1, progress=False)
    pixels, ids = clip.pixels(a.images), clip.tokens(a.captions).ids
    np.testing.assert_allclose(as_seen(clip, pixels[0]), np.asarray(pairs[0].image) / 255, atol=1e-3)
    np.testing.assert_allclose(as_seen(clip, 0 * pixels[0])[5, 7], clip.processor.image_mean, atol=1e-6)
    blanked = ids.clone()
    blanked[0, 2] = clip.blank
    _, axes = plt.subplots(2, 4)
    draw_degradation(axes, clip, a, 0, [(pixels, ids), (0 * pixels, blanked)])
    columns = [[area.get_text() for area in ax.findobj(TextArea)] for ax in axes[1]]
    assert columns[0] == columns[1] == columns[2] == a.tokens[0]
    assert columns[3] == [a.tokens[0][0], "<B>", *a.tokens[0][2:]]


def test_a_piece_that_became_the_blank_is_shown_inside_its_word(clip, attribution):
    pieces = replace(attribution, captions=["anowl", attribution.captions[1]])
    ids = torch.tensor([[2, 50, 60, 3], [2, clip.blank, 60, 3], [2, clip.blank, clip.blank, 3]])
    content = torch.tensor([[False, True, True, False]])
    stub = SimpleNamespace(blank=clip.blank, processor=clip.processor, tokens=lambda _: SimpleNamespace(content=content))
    _, axes = plt.subplots(2, 5)
    draw_degradation(axes, stub, pieces, 0, [(torch.zeros(1, 3, 8, 8), row[None]) for row in ids])
    columns = [[area.get_text() for area in ax.findobj(TextArea)] for ax in axes[1]]
    assert columns == [["anowl"]] * 3 + [["<B>owl"], ["<B><B>"]]
