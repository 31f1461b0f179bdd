"""ISIC 2017, part 1: skin lesions seen through a dermatoscope."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from rwkvlib.data.dataset import iter_items

from .entry import Case, Entry
from .raw import by_stem, files, folder, folders, image_case, masks_of
from .splits import SEED, assign

PARTS = {"train": "Training", "validation": "Validation", "test": "Test_v2"}


def cases(raw: Path) -> Iterator[Case]:
    """``ISIC-2017_Training_Data/ISIC_0000000.jpg`` with
    ``ISIC-2017_Training_Part1_GroundTruth/ISIC_0000000_segmentation.png``; Validation and, if there, Test_v2 alike."""
    for official, part in PARTS.items():
        if official == "test" and not folders(raw, f"ISIC-2017_{part}_Data"):
            continue
        truth = files(folder(raw, f"ISIC-2017_{part}_Part1_GroundTruth"))
        masks = by_stem(truth, "_segmentation")
        for image in files(folder(raw, f"ISIC-2017_{part}_Data"), (".jpg", ".jpeg")):  # .png are superpixels
            columns = {"official": official} | ({"split": "official_test"} if official == "test" else {})
            yield image_case(image, masks_of(image, masks), **columns)


def make_split(data: Path) -> pd.DataFrame:
    """The official parts, as items.csv of `data` names them, with a tenth of the training images for validation."""
    items = pd.DataFrame([row for row, _ in iter_items(data)])
    table = items[["name"]].assign(official=items["split"], split="test")
    train = table["official"] == "train"
    table.loc[train, "split"] = assign(table["name"][train], {"train": 9, "validation": 1}, SEED)
    return table


_S3 = "https://isic-challenge-data.s3.amazonaws.com/2017/ISIC-2017_"
ENTRY = Entry(
    name="isic2017",
    title="ISIC 2017, part 1 (lesion segmentation)",
    modality="dermoscopy",
    classes=("lesion",),
    counts="2,000 train, 150 validation, 600 test",
    licence="CC-0 as the archive lists the 2017 set; verify",
    citation="Codella et al., ISBI 2018",
    page="https://challenge.isic-archive.com/data/#2017",
    manual="Nothing.",
    layout="ISIC-2017_Training_Data/ISIC_0000000.jpg and ISIC-2017_Training_Part1_GroundTruth/"
    "ISIC_0000000_segmentation.png; the same for Validation and, if there, Test_v2",
    splits="as the literature of this model: the official validation images are split test, and 200 of the 2,000 "
    "training images, seeded, are validation. The official test images, where given, are split official_test",
    cases=cases,
    make_split=make_split,
    split_needs_images=True,
    downloads=tuple(f"{_S3}{part}_{what}.zip" for part in PARTS.values() for what in ("Data", "Part1_GroundTruth")),
)
