"""CVC-ClinicDB: polyps in frames of 29 colonoscopy videos."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from rwkvlib.data.dataset import iter_items

from .entry import Case, Entry
from .raw import folder, paired
from .splits import EIGHT_ONE_ONE, SEED, assign


def cases(raw: Path) -> Iterator[Case]:
    """``Original/1.tif`` with ``Ground Truth/1.tif``; .png as well."""
    return paired(folder(raw, "Original"), folder(raw, "Ground Truth"))


def make_split(data: Path) -> pd.DataFrame:
    """By the sequences that items.csv of `data` names, and by image."""
    items = pd.DataFrame([row for row, _ in iter_items(data)])[["name", "sequence"]]
    items["split"] = assign(items["sequence"], EIGHT_ONE_ONE, SEED)
    items["split_image"] = assign(items["name"], EIGHT_ONE_ONE, SEED)
    return items


ENTRY = Entry(
    name="cvc_clinicdb",
    title="CVC-ClinicDB",
    modality="colonoscopy, video frames",
    classes=("polyp",),
    counts="612 frames of 29 sequences",
    licence="research and education; the owners ask to be cited",
    citation="Bernal et al., Computerized Medical Imaging and Graphics 43, 2015",
    page="https://polyp.grand-challenge.org/CVCClinicDB/",
    manual="Everything: the page links to a file share that asks for a click.",
    layout="Original/1.tif and Ground Truth/1.tif (give the TIF or the PNG folder of a copy that holds both)",
    splits="8:1:1 by sequence, seeded (column split): frames of one video never on both sides. split_image is 8:1:1 by "
    "image as in the literature, and leaks",
    cases=cases,
    make_split=make_split,
    split_needs_images=True,
)
