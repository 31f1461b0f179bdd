"""Synapse multi-organ: abdominal CT of the MICCAI 2015 "Beyond the Cranial Vault" challenge (BTCV)."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from rwkvlib.data import window

from . import volumes
from .entry import Case, Entry, Item
from .raw import files, folder, folders
from .splits import SEED, assign

CLASSES = ("aorta", "gallbladder", "left kidney", "right kidney", "liver", "pancreas", "spleen", "stomach")
VOLUMES = (*range(1, 11), *range(21, 41))  # of the challenge, with labels
TEST = (8, 22, 38, 36, 32, 2, 29, 3, 1, 4, 25, 35)  # of TransUNet
# The challenge's thirteen labels to the eight that the literature since TransUNet scores, in its order.
ORGANS = {8: 1, 4: 2, 3: 3, 2: 4, 6: 5, 11: 6, 1: 7, 7: 8}


def eight_organs(label: np.ndarray) -> np.ndarray:
    """The challenge's labels 0 to 13 as 0 to 8, in the order of CLASSES; other values are kept, to be named."""
    out = np.where((label >= 0) & (label <= 13), 0, label)
    for official, ours in ORGANS.items():
        out[label == official] = ours
    return out


def cases(raw: Path) -> Iterator[Case]:
    """Official NIfTI (``img/img0001.nii.gz``, ``label/label0001.nii.gz``), or TransUNet's arrays
    (``train_npz/case0005_slice000.npz``, ``test_vol_h5/case0001.npy.h5``), already clipped to [0, 1]."""
    if folders(raw, "train_npz") or folders(raw, "test_vol_h5"):
        for where, pattern in (
            ("train_npz", r"case(\d{4})_slice(\d+)\.npz"),
            ("test_vol_h5", r"case(\d{4})()\.npy\.h5"),
        ):
            for file in files(folder(raw, where), (".npz", ".h5")):
                if match := re.fullmatch(pattern, file.name):
                    yield _transunet(file, match[1], int(match[2] or 0))
        return
    labels = folder(raw, "label")
    for file in files(folder(raw, "img"), (".nii", ".nii.gz")):
        if match := re.fullmatch(r"img(\d{4})\.nii(\.gz)?", file.name):
            yield _nifti(file, labels / file.name.replace("img", "label"), match[1])


def _nifti(file: Path, label_file: Path, number: str) -> Case:
    def load() -> Iterator[Item]:
        image, label, spacing = volumes.read_pair(file, label_file)
        yield from volumes.slices(number, image, eight_organs(label), window, len(CLASSES), spacing)

    return Case(number, load)


def _transunet(file: Path, number: str, first: int) -> Case:
    def load() -> Iterator[Item]:
        image, label = volumes.read_arrays(file)
        if image.min() < -0.01 or image.max() > 1.01:  # HU where [0, 1] was promised
            raise volumes.BadItem(f"{file.name}: expected values of 0 to 1, got {image.min():g} to {image.max():g}")
        in_hu = image * 400 - 125
        yield from volumes.slices(number, in_hu, label, window, len(CLASSES), first=first)

    return Case(f"{number}_slice_{first:03d}" if file.suffix == ".npz" else number, load)


def make_split() -> pd.DataFrame:
    """TransUNet's, and in split_validation with three of its volumes of training for validation."""
    table = pd.DataFrame({"volume": [f"{i:04d}" for i in VOLUMES]})
    test = table["volume"].isin([f"{i:04d}" for i in TEST])
    table["split"] = np.where(test, "test", "train")
    table["split_validation"] = table["split"]
    table.loc[~test, "split_validation"] = assign(table["volume"][~test], {"train": 15, "validation": 3}, SEED)
    return table


ENTRY = Entry(
    name="synapse",
    title="Synapse multi-organ (BTCV)",
    modality="abdominal CT, portal venous contrast phase",
    classes=CLASSES,
    counts="30 volumes with labels: 18 train (2,211 slices), 12 test",
    licence="CC BY 4.0 as the challenge's page on synapse.org states it; verify after registering",
    citation="Landman et al., MICCAI Multi-Atlas Labeling Beyond the Cranial Vault, 2015",
    page="https://www.synapse.org/Synapse:syn3193805/wiki/217789",
    manual="Everything, as synapse.org asks for an account: RawData.zip (Abdomen), unpacked. Or the arrays that "
    "TransUNet's authors give to those who have one.",
    layout="img/img0001.nii.gz and label/label0001.nii.gz of Training; or train_npz/case0005_slice000.npz and "
    "test_vol_h5/case0001.npy.h5 of TransUNet",
    splits="TransUNet's, by volume, as all papers use it; split_validation carves 3 of the 18 for validation, seeded",
    cases=cases,
    make_split=make_split,
)
