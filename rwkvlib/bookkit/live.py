"""Live elements: a slider that moves through pictures, with a kernel or without.

A static page has no Python to compute a figure when the slider moves, so every figure is drawn beforehand, and the
slider is linked to them in the browser. With a kernel there is also a field for any other number.
"""

from __future__ import annotations

import base64
import html
import io
import numbers
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ipywidgets
    from matplotlib.figure import Figure

MAX_BYTES = 600_000


def png(figure: Figure, dpi: int, colours: int = 128) -> bytes:
    """Draws `figure` as a PNG of at most `colours` colours, which is far smaller than a full-colour one; close it."""
    import matplotlib.pyplot as plt
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    plt.close(figure)
    picture = Image.open(buffer).convert("RGB").quantize(colours, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    picture.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def image(picture: bytes, alt: str) -> str:
    """Returns the HTML of a frame."""
    data = base64.b64encode(picture).decode()
    return f'<img class="rwkv-live-frame" alt="{html.escape(alt)}" src="data:image/png;base64,{data}">'


def any_value(draw: Callable[[Any], Figure], values: Sequence[Any], alt: str, dpi: int) -> ipywidgets.VBox:
    """Returns a field that draws the figure of any number, for which Python must run; the pages hide it."""
    import ipywidgets

    whole = all(isinstance(value, numbers.Integral) for value in values)
    field = (ipywidgets.IntText if whole else ipywidgets.FloatText)(
        value=values[0], description="or any number:", style={"description_width": "initial"}
    )
    shown = ipywidgets.HTML()

    def redraw(change: dict) -> None:
        try:
            shown.value = image(png(draw(change["new"]), dpi), f"{alt}: {change['new']}.")
        except Exception as error:  # whatever the chapter's function says of this number, the reader should see
            shown.value = html.escape(f"{type(error).__name__}: {error}")

    field.observe(redraw, "value")
    box = ipywidgets.VBox([field, shown])
    box.add_class("rwkv-live-kernel")
    return box


def live(
    frames: Sequence[Figure] | Callable[[Any], Figure],
    values: Sequence[Any],
    *,
    label: str,
    alt: str,
    start: int = 0,
    dpi: int = 100,
    fmt: str | Callable[[Any], str] = "{}",
) -> ipywidgets.VBox:
    """Returns a slider over `values` that shows one picture for each, also in a page without a kernel.

    Args:
        frames: one matplotlib figure for each value, or a function from a value to its figure. Figures are closed.
            Keep axis limits and figure size the same in all of them, or the picture jumps.
        values: what the slider runs through; at least two.
        label: what the slider changes, in a few words: it stands before the slider.
        alt: what the pictures show, for readers who do not see them; label and value are added for each.
        start: index of the value shown first.
        dpi: resolution of the pictures; they are shown at their width in pixels, or narrower where the page is.
        fmt: how a value is written beside the slider: a format string or a function.

    Raises:
        ValueError: fewer than two values, as many frames as values not given, an empty label or alt, a start outside
            the values, two values written alike, or pictures above 600 kB in all.
    """
    values = list(values)
    if len(values) < 2:
        raise ValueError(f"a live element needs at least two values, got {len(values)}")
    if not label.strip() or not alt.strip():
        raise ValueError("label and alt must say something: they are all that some readers have")
    if not 0 <= start < len(values):
        raise ValueError(f"start must be an index of the {len(values)} values, got {start}")
    texts = [fmt(value) if callable(fmt) else fmt.format(value) for value in values]
    if len(set(texts)) < len(texts):
        raise ValueError(f"two values are written alike, choose another fmt: {texts}")
    if not callable(frames) and len(frames) != len(values):
        raise ValueError(f"{len(frames)} frames for {len(values)} values")

    import ipywidgets

    pictures = [png(frames(value) if callable(frames) else frames[i], dpi) for i, value in enumerate(values)]
    # The page holds a picture as text, four characters for three bytes.
    size = sum(4 * len(picture) // 3 for picture in pictures)
    if size > MAX_BYTES:
        raise ValueError(
            f"{len(pictures)} pictures take {size / 1e3:.0f} kB in the page, more than {MAX_BYTES / 1e3:.0f} kB: "
            "take fewer values, a smaller figure, or a lower dpi"
        )

    # HTML instead of ipywidgets.Image, which has no alternative text.
    slides = [
        ipywidgets.HTML(image(picture, f"{alt} {label}: {text}."))
        for picture, text in zip(pictures, texts, strict=True)
    ]
    slider = ipywidgets.SelectionSlider(
        options=[(text, i) for i, text in enumerate(texts)],
        index=start,
        description=label,
        style={"description_width": "initial"},
        layout={"width": "100%", "max_width": "560px"},
    )
    stack = ipywidgets.Stack(slides, selected_index=start, layout={"width": "100%"})
    link = ipywidgets.jslink((slider, "index"), (stack, "selected_index"))
    parts = [slider, stack]
    if callable(frames) and all(isinstance(v, numbers.Real) and not isinstance(v, bool) for v in values):
        parts.append(any_value(frames, values, f"{alt} {label}", dpi))
    box = ipywidgets.VBox(parts, layout={"width": "100%"})
    box.add_class("rwkv-live")
    box.link = link  # or the link is collected before the notebook's state is stored
    return box
