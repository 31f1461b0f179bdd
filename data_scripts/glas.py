"""GlaS: glands in colon histology."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pandas as pd

from rwkvlib.files import walk_folders

from .entry import Case, Entry
from .raw import by_stem, files, image_case, masks_of, read_mask
from .splits import SEED, assign


def cases(raw: Path) -> Iterator[Case]:
    """``train_1.bmp`` with ``train_1_anno.bmp`` (a number for each gland), likewise testA and testB."""
    for where in sorted(where for where, names in walk_folders(raw) if any(n.startswith("train_") for n in names)):
        found = files(where)
        masks = by_stem(found, "_anno")
        for image in found:
            if image.stem.startswith(("train_", "testA_", "testB_")) and not image.stem.endswith("_anno"):
                # Glands are numbered, background is 0.
                yield image_case(image, masks_of(image, masks), read=partial(read_mask, foreground=lambda v: v > 0))


def make_split() -> pd.DataFrame:
    """The challenge's parts, with a fifth of the training images for validation."""
    parts = {"train": 85, "testA": 60, "testB": 20}
    names = [(f"{part}_{i}", part) for part, n in parts.items() for i in range(1, n + 1)]
    table = pd.DataFrame(names, columns=["name", "official"]).assign(split="test")
    train = table["official"] == "train"
    table.loc[train, "split"] = assign(table["name"][train], {"train": 68, "validation": 17}, SEED)
    return table


ENTRY = Entry(
    name="glas",
    title="GlaS (Gland Segmentation in Colon Histology)",
    modality="histology, H&E, 20x",
    classes=("gland",),
    counts="165 images: 85 train, 60 test A, 20 test B",
    licence="research only",
    citation="Sirinukunwattana et al., Medical Image Analysis 35, 2017",
    page="https://warwick.ac.uk/fac/cross_fac/tia/data/glascontest/",
    manual="Everything: the owners' page asks to be visited and the challenge's papers to be cited.",
    layout="train_1.bmp and train_1_anno.bmp, testA_1.bmp, testB_1.bmp, ...",
    splits="test A and test B as given, both split test and told apart by the column official; 17 of the 85 training "
    "images, seeded, are validation. Train and test share patients, by design of the challenge",
    cases=cases,
    make_split=make_split,
)
