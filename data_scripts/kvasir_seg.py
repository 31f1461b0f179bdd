"""Kvasir-SEG: polyps, one image a finding."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from rwkvlib.data.dataset import iter_items

from .entry import Case, Entry
from .raw import folder, paired
from .similarity import fingerprint


def cases(raw: Path) -> Iterator[Case]:
    """``images/NAME.jpg`` with ``masks/NAME.jpg``, whose lossy black and white are thresholded."""
    return paired(folder(raw, "images"), folder(raw, "masks"))


def make_split(data: Path) -> pd.DataFrame:
    """The split that items.csv of `data` has, by the images' fingerprints."""
    rows = [(fingerprint(read()[0]), row["split"]) for row, read in iter_items(data)]
    return pd.DataFrame(rows, columns=["fingerprint", "split"]).sort_values("fingerprint")


ENTRY = Entry(
    name="kvasir_seg",
    title="Kvasir-SEG",
    modality="colonoscopy and gastroscopy, still images",
    classes=("polyp",),
    counts="1,000 images",
    licence="research and education",
    citation="Jha et al., MultiMedia Modeling 2020",
    page="https://datasets.simula.no/kvasir-seg/",
    manual="Nothing.",
    layout="Kvasir-SEG/images/NAME.jpg and Kvasir-SEG/masks/NAME.jpg",
    splits="800/100/100; there is no official one. The images are known by a fingerprint of what they show, as copies "
    "of the set differ in names, size and compression",
    cases=cases,
    make_split=make_split,
    split_needs_images=True,
    downloads=("https://datasets.simula.no/downloads/kvasir-seg.zip",),
)
