"""What the registry knows of a data set, and what its reader hands over."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd


class BadItem(ValueError):
    """Says why an item of a raw tree cannot be used."""


@dataclass(frozen=True)
class Item:
    """One image with its mask, decoded, as it will lie in the prepared set."""

    name: str
    image: np.ndarray  # (H, W) or (H, W, 3), uint8
    mask: np.ndarray  # (H, W) uint8 of class indices
    columns: dict[str, Any] = field(default_factory=dict)  # of items.csv, besides the name
    source: Path | None = None  # the image's file, where it may be copied as it is


@dataclass(frozen=True)
class Case:
    """One thing of a raw tree that becomes one item (an image) or several (a volume's slices).

    `load` decodes it when it is asked to, and raises BadItem.
    """

    name: str
    load: Callable[[], Iterable[Item]]


@dataclass(frozen=True)
class Entry:
    """A data set: one in each file beside this one. `cases` walks a raw tree in the layout that `layout` describes."""

    name: str
    title: str
    modality: str
    classes: tuple[str, ...]  # of the mask's values 1, 2, ...
    counts: str
    licence: str
    citation: str
    page: str
    manual: str  # what must be downloaded by hand, and why
    layout: str
    splits: str  # how splits/NAME.csv was made, or the official one that it holds
    cases: Callable[[Path], Iterator[Case]]
    # How splits/NAME.csv was made, as in `splits`: without arguments, or of the set in the project's layout where only
    # its images show what belongs together.
    make_split: Callable[..., pd.DataFrame]
    split_needs_images: bool = False
    # Direct addresses, only where public documentation names them and no registration stands before them.
    downloads: tuple[str, ...] = ()
