"""Writes splits/*.csv and their SHA256SUMS: how the committed splits were made, to be repeated or argued with.

Three of them need what only the images show: Kvasir-SEG's fingerprints and given split, CVC-ClinicDB's sequences,
BUSI's near duplicates. `--data` is a folder with these sets in the project's layout, named NAME_256.zip.

Usage: python -m data_scripts.make_splits --data DIR
"""

import argparse
import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from rwkvlib.data.dataset import iter_items
from rwkvlib.files import write_file

from .audit import audit, groups_of
from .similarity import fingerprint
from .splits import FOLDER, assign

SEED = 0
EIGHT_ONE_ONE = {"train": 8, "validation": 1, "test": 1}
SYNAPSE_TEST = (8, 22, 38, 36, 32, 2, 29, 3, 1, 4, 25, 35)  # of TransUNet
SYNAPSE_ALL = (*range(1, 11), *range(21, 41))  # the challenge's volumes with labels


def synapse(_: Path) -> pd.DataFrame:
    table = pd.DataFrame({"volume": [f"{i:04d}" for i in SYNAPSE_ALL]})
    test = table["volume"].isin([f"{i:04d}" for i in SYNAPSE_TEST])
    table["split"] = np.where(test, "test", "train")
    table["split_validation"] = table["split"]
    table.loc[~test, "split_validation"] = assign(table["volume"][~test], {"train": 15, "validation": 3}, SEED)
    return table


def acdc(_: Path) -> pd.DataFrame:
    patients = np.arange(1, 101)
    parts = np.select([patients <= 20, patients <= 30], ["test", "validation"], "train")
    return pd.DataFrame({"patient": patients, "split": parts})


def busi(data: Path) -> pd.DataFrame:
    items = pd.DataFrame([row for row, _ in iter_items(data / "busi_256.zip")])[["name", "label"]]
    groups = groups_of(audit(data / "busi_256.zip")["near_duplicates"], list(items["name"]))
    normal = [f"normal_({i})" for i in range(1, 134)]
    table = pd.concat([items, pd.DataFrame({"name": normal, "label": "normal"})], ignore_index=True)
    table["group"] = [groups.get(name, len(groups) + i) for i, name in enumerate(table["name"])]
    # A group of both labels is dealt with its first image's, whole.
    of_group = table.groupby("group")["label"].transform("first")
    table["split"] = pd.concat([assign(part["group"], EIGHT_ONE_ONE, SEED) for _, part in table.groupby(of_group)])
    return table


def cvc_clinicdb(data: Path) -> pd.DataFrame:
    items = pd.DataFrame([row for row, _ in iter_items(data / "cvc_clinicdb_256.zip")])[["name", "sequence"]]
    items["split"] = assign(items["sequence"], EIGHT_ONE_ONE, SEED)
    items["split_image"] = assign(items["name"], EIGHT_ONE_ONE, SEED)
    return items


def cvc_colondb(_: Path) -> pd.DataFrame:
    number = np.arange(1, 381)
    table = pd.DataFrame({"name": number.astype(str)})
    table["split"] = np.select([number <= 304, number <= 342], ["train", "validation"], "test")
    table["split_image"] = assign(table["name"], EIGHT_ONE_ONE, SEED)
    return table


def kvasir_seg(data: Path) -> pd.DataFrame:
    rows = [(fingerprint(read()[0]), row["split"]) for row, read in iter_items(data / "kvasir_seg_256.zip")]
    return pd.DataFrame(rows, columns=["fingerprint", "split"]).sort_values("fingerprint")


def isic2017(data: Path) -> pd.DataFrame:
    items = pd.DataFrame([row for row, _ in iter_items(data / "isic2017_256.zip")])
    table = items[["name"]].assign(official=items["split"], split="test")
    train = table["official"] == "train"
    table.loc[train, "split"] = assign(table["name"][train], {"train": 9, "validation": 1}, SEED)
    return table


def glas(_: Path) -> pd.DataFrame:
    names = [
        (f"{part}_{i}", part) for part, n in (("train", 85), ("testA", 60), ("testB", 20)) for i in range(1, n + 1)
    ]
    table = pd.DataFrame(names, columns=["name", "official"]).assign(split="test")
    train = table["official"] == "train"
    table.loc[train, "split"] = assign(table["name"][train], {"train": 68, "validation": 17}, SEED)
    return table


def main() -> None:
    """Makes all eight."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    args = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    lines = []
    for make in (acdc, busi, cvc_clinicdb, cvc_colondb, glas, isic2017, kvasir_seg, synapse):
        content = make(args.data).to_csv(index=False, lineterminator="\n").encode()
        name = f"{make.__name__}.csv"
        write_file(FOLDER / name, content)
        lines.append(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
        print(name, pd.read_csv(FOLDER / name)["split"].value_counts().to_dict())
    write_file(FOLDER / "SHA256SUMS", "".join(lines))


if __name__ == "__main__":
    main()
