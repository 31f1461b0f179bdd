"""A live element holds every picture beforehand, and the slider moves them without Python."""

import base64
import io
import re

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from rwkvlib.bookkit import live


def frame(value):
    figure, ax = plt.subplots(figsize=(3, 2))
    ax.plot([0, value])
    ax.set_ylim(0, 10)
    return figure


def pictures(box):
    """Decode the pictures of a live element."""
    found = [re.search(r"base64,([^\"]+)", slide.value)[1] for slide in box.children[1].children]
    return [np.array(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")) for text in found]


def test_one_picture_for_each_value_and_no_figure_left_open():
    before = plt.get_fignums()
    box = live(frame, [1, 5, 9], label="end", alt="A line from zero.")
    drawn = pictures(box)
    assert len(drawn) == 3 and drawn[0].shape == (200, 300, 3)
    assert all((drawn[i] != drawn[j]).any() for i, j in [(0, 1), (0, 2), (1, 2)])
    assert plt.get_fignums() == before


def test_figures_and_function_give_the_same_pictures():
    one = live([frame(1), frame(5)], [1, 5], label="end", alt="A line.")
    other = live(frame, [1, 5], label="end", alt="A line.")
    np.testing.assert_array_equal(pictures(one), pictures(other))


def test_slider_is_linked_in_the_browser():
    box = live(frame, [0.1, 0.25, 1], label="decay", alt="A line.", start=1, fmt="{:.2f}")
    slider, stack, kernel = box.children
    assert "rwkv-live-kernel" in kernel._dom_classes, "hidden in the pages, which have no Python"
    assert [text for text, _ in slider.options] == ["0.10", "0.25", "1.00"]
    assert slider.description == "decay" and slider.index == stack.selected_index == 1
    assert isinstance(box.link, ipywidgets.widgets.widget_link.Link)
    assert (box.link.source, box.link.target) == ((slider, "index"), (stack, "selected_index"))


def test_each_picture_has_its_own_escaped_alternative_text():
    box = live([frame(1), frame(2)], ["a<b", 'say "c"'], label="case", alt="A line & more.")
    texts = [re.search(r'alt="([^"]*)"', slide.value)[1] for slide in box.children[1].children]
    assert texts == ["A line &amp; more. case: a&lt;b.", "A line &amp; more. case: say &quot;c&quot;."]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": [1]}, "at least two values"),
        ({"label": " "}, "must say something"),
        ({"alt": ""}, "must say something"),
        ({"start": 2}, "start must be an index"),
        ({"values": [1.01, 1.02], "fmt": "{:.1f}"}, "written alike"),
        ({"frames": []}, "0 frames for 2 values"),
    ],
)
def test_bad_input_is_refused(change, message):
    arguments = {"frames": frame, "values": [1, 2], "label": "end", "alt": "A line."} | change
    with pytest.raises(ValueError, match=message):
        live(arguments.pop("frames"), arguments.pop("values"), **arguments)


def test_an_element_too_heavy_for_a_page_is_refused():
    def noise(seed):
        figure, ax = plt.subplots(figsize=(6, 6))
        ax.imshow(np.random.default_rng(seed).random((500, 500)))
        return figure

    with pytest.raises(ValueError, match=r"pictures take .* kB in the page"):
        live(noise, range(8), label="seed", alt="Noise.")


def test_a_kernel_draws_any_number_and_says_what_went_wrong():
    def draw(value):
        if value < 0:
            raise ValueError("no <negative> decay")
        return frame(value)

    field, shown = live(draw, [0.5, 1.0], label="decay", alt="A line.").children[2].children
    field.value = 0.75
    assert shown.value.startswith("<img") and "A line. decay: 0.75." in shown.value
    field.value = -1.0
    assert shown.value == "ValueError: no &lt;negative&gt; decay"

    names = live(lambda name: frame(len(name)), ["a", "bb"], label="set", alt="A line.")
    assert len(names.children) == 2, "there is no field for what is not a number"
