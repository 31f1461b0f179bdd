"""CVC-ColonDB: polyps in frames of colonoscopy videos, mostly a test set for models trained elsewhere."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from .entry import Case, Entry
from .raw import folder, paired
from .splits import EIGHT_ONE_ONE, SEED, assign


def cases(raw: Path) -> Iterator[Case]:
    """``images/1.png`` with ``masks/1.png``, as the copy of 380 frames has it that papers share."""
    return paired(folder(raw, "images"), folder(raw, "masks"))


def make_split() -> pd.DataFrame:
    """Three runs of the frames' order, and by image."""
    number = np.arange(1, 381)
    table = pd.DataFrame({"name": number.astype(str)})
    table["split"] = np.select([number <= 304, number <= 342], ["train", "validation"], "test")
    table["split_image"] = assign(table["name"], EIGHT_ONE_ONE, SEED)
    return table


ENTRY = Entry(
    name="cvc_colondb",
    title="CVC-ColonDB",
    modality="colonoscopy, video frames",
    classes=("polyp",),
    counts="380 frames of 15 videos, in the copy that papers share; the owners' page describes 300",
    licence="research; the owners ask to be cited",
    citation="Bernal et al., Pattern Recognition 45(9), 2012",
    page="http://mv.cvc.uab.es/projects/colon-qa/cvccolondb",
    manual="Everything: the copy of 380 frames is passed on by authors of polyp papers, not by a stable address.",
    layout="images/1.png and masks/1.png, 1 to 380",
    splits="which frame is of which video is not published: split cuts the frames' order in three runs (8:1:1), so "
    "that a video is cut at most at two places; split_image is 8:1:1 by image, seeded, and leaks",
    cases=cases,
    make_split=make_split,
)
