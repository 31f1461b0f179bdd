"""What a split is worth: the score of a program that only remembers.

For each test image it looks up the training image whose thumbnail correlates best, and answers with that image's mask.
It knows nothing of polyps or lesions. What it scores above what it scores on a clean split is leakage.

Usage: python experiments/memoriser.py --data DIR --out results/audit/memoriser.json
DIR holds prepared data sets: cvc_clinicdb, kvasir_seg, busi (see `python -m data_scripts`).
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from rwkvlib.data import load_data
from rwkvlib.data_scripts.similarity import thumbnail
from rwkvlib.data_scripts.splits import assign
from rwkvlib.provenance import provenance, write_result

SIZE = 128
SEEDS = range(20)
SHARES = {"train": 8, "validation": 1, "test": 1}


def dice(a: np.ndarray, b: np.ndarray) -> float:
    total = a.sum() + b.sum()
    return 2 * (a & b).sum() / total if total else 1.0


def score(correlation: np.ndarray, masks: np.ndarray, split: np.ndarray) -> float:
    """Mean Dice over the test items of the masks of their nearest training items."""
    train, test = np.flatnonzero(split == "train"), np.flatnonzero(split == "test")
    nearest = train[correlation[np.ix_(test, train)].argmax(1)]
    return float(np.mean([dice(masks[i], masks[j]) for i, j in zip(test, nearest, strict=True)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--out", default=Path(__file__).parents[1] / "results/audit/memoriser.json")
    args = parser.parse_args()
    origin = provenance(SEEDS[0], "python experiments/memoriser.py --data DIR")
    sets = {}
    for name, group in {"cvc_clinicdb": "sequence", "busi": "group", "kvasir_seg": None}.items():
        data = load_data(args.data / name, size=SIZE)
        small = np.stack([thumbnail(Image.fromarray(image)) for image in data.images])
        correlation, masks = small @ small.T, data.masks > 0
        one_by_one = pd.Series(range(len(data)))
        ways = {"image": one_by_one} | ({group: data.items[group]} if group else {})
        sets[name] = {
            way: [score(correlation, masks, assign(groups, SHARES, seed).to_numpy()) for seed in SEEDS]
            for way, groups in ways.items()
        }
        for way, scores in sets[name].items():
            print(f"{name}, split by {way}: Dice {np.mean(scores):.3f}, sd {np.std(scores, ddof=1):.3f}")
    write_result(args.out, {"size": SIZE, "splits": len(SEEDS), "dice": sets, "provenance": origin})


if __name__ == "__main__":
    main()
