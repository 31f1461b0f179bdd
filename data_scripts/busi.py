"""BUSI: breast ultrasound images, benign, malignant and normal."""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from rwkvlib.data.dataset import iter_items

from .audit import audit, groups_of
from .entry import Case, Entry
from .raw import files, folder, image_case, item_name
from .splits import EIGHT_ONE_ONE, SEED, assign


def cases(raw: Path) -> Iterator[Case]:
    """``benign/benign (1).png`` with ``benign (1)_mask.png``, and further lesions in ``..._mask_1.png``, ..."""
    for label in ("benign", "malignant", "normal"):
        images, masks = [], defaultdict(list)
        for file in files(folder(raw, label)):
            match = re.fullmatch(r"(.*?)_mask(_\d+)?", file.stem)
            if match:
                masks[match[1]].append(file)
            else:
                images.append(file)
        for image in images:
            name = item_name(image.stem)
            yield image_case(
                image, masks[image.stem], name=name, may_be_empty=label == "normal", unite=True, label=label
            )


def make_split(data: Path) -> pd.DataFrame:
    """Groups of near duplicates, dealt within their label; `data` lacks the normal images."""
    items = pd.DataFrame([row for row, _ in iter_items(data)])[["name", "label"]]
    groups = groups_of(audit(data)["near_duplicates"], list(items["name"]))
    normal = [f"normal_({i})" for i in range(1, 134)]
    table = pd.concat([items, pd.DataFrame({"name": normal, "label": "normal"})], ignore_index=True)
    table["group"] = [groups.get(name, len(groups) + i) for i, name in enumerate(table["name"])]
    # A group of both labels is dealt with its first image's, whole.
    of_group = table.groupby("group")["label"].transform("first")
    table["split"] = pd.concat([assign(part["group"], EIGHT_ONE_ONE, SEED) for _, part in table.groupby(of_group)])
    return table


ENTRY = Entry(
    name="busi",
    title="BUSI (Breast Ultrasound Images)",
    modality="breast ultrasound",
    classes=("lesion",),
    counts="780 images: 437 benign, 210 malignant, 133 normal (empty masks)",
    licence="none stated; the owners ask to be cited",
    citation="Al-Dhabyani et al., Data in Brief 28, 2020",
    page="https://scholar.cu.edu.eg/?q=afahmy/pages/dataset",
    manual="Nothing.",
    layout="Dataset_BUSI_with_GT/{benign,malignant,normal}/benign (1).png with benign (1)_mask.png, "
    "benign (1)_mask_1.png, ...; several masks of one image are united",
    splits="8:1:1, seeded, near-duplicate images (column group) kept together and labels in proportion; the normal "
    "images were not at hand when the groups were found, and are split one by one",
    cases=cases,
    make_split=make_split,
    split_needs_images=True,
    downloads=("https://scholar.cu.edu.eg/Dataset_BUSI.zip",),
)
