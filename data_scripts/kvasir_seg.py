"""Kvasir-SEG: polyps, one image a finding."""

from collections.abc import Iterator
from pathlib import Path

from .entry import Case, Entry
from .raw import folder, paired


def cases(raw: Path) -> Iterator[Case]:
    """``images/NAME.jpg`` with ``masks/NAME.jpg``, whose lossy black and white are thresholded."""
    return paired(folder(raw, "images"), folder(raw, "masks"))


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
    downloads=("https://datasets.simula.no/downloads/kvasir-seg.zip",),
)
