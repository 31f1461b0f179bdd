"""ACDC: short-axis cine magnetic resonance of the heart."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from rwkvlib.data import stretch
from rwkvlib.files import walk_folders

from . import volumes
from .entry import Case, Entry, Item
from .raw import files

CLASSES = ("right ventricle", "myocardium", "left ventricle")
PATTERN = r"patient(\d{3})_frame(\d{2})\.(nii|nii\.gz|h5)"


def cases(raw: Path) -> Iterator[Case]:
    """Official NIfTI (``patient001/patient001_frame01.nii.gz`` with ``..._gt.nii.gz``), or HDF5 volumes of the same
    names with the arrays image and label. Patients beyond 100 are another test set, and are left out."""
    for where in sorted(where for where, names in walk_folders(raw) if any(re.match(PATTERN, n) for n in names)):
        for file in files(where, (".nii", ".nii.gz", ".h5")):
            match = re.fullmatch(PATTERN, file.name)
            if match and int(match[1]) <= 100:
                yield _frame(file, int(match[1]), int(match[2]))


def _frame(file: Path, patient: int, frame: int) -> Case:
    name = f"patient{patient:03d}_frame{frame:02d}"

    def load() -> Iterator[Item]:
        spacing = None
        if file.suffix == ".h5":
            image, label = volumes.read_arrays(file)
        else:
            truth = file.with_name(file.name.replace(".nii", "_gt.nii"))
            image, label, spacing = volumes.read_pair(file, truth, axial=False)
        columns = {"patient": patient, "frame": frame}
        yield from volumes.slices(name, image, label, stretch, len(CLASSES), spacing, **columns)

    return Case(name, load)


def make_split() -> pd.DataFrame:
    """By the patients' numbers, as the published code does."""
    patients = np.arange(1, 101)
    parts = np.select([patients <= 20, patients <= 30], ["test", "validation"], "train")
    return pd.DataFrame({"patient": patients, "split": parts})


ENTRY = Entry(
    name="acdc",
    title="ACDC (Automated Cardiac Diagnosis Challenge)",
    modality="cardiac cine magnetic resonance, short axis",
    classes=CLASSES,
    counts="100 patients, 2 frames each (end of diastole and of systole), 1,902 slices",
    licence="CC BY-NC-SA 4.0",
    citation="Bernard et al., IEEE TMI 37(11), 2018",
    page="https://www.creatis.insa-lyon.fr/Challenge/acdc/databases.html",
    manual="Everything, as the owners ask for registration: the folder training/.",
    layout="patient001/patient001_frame01.nii.gz and patient001_frame01_gt.nii.gz, at any depth; or HDF5 volumes of "
    "the same names",
    splits="by patient, as in the published code: 1-20 test, 21-30 validation, 31-100 train. Patients 74 and 76 have "
    "identical images; both are in train",
    cases=cases,
    make_split=make_split,
)
