"""The committed splits: tables in splits/NAME.csv, with their SHA-256 in splits/SHA256SUMS.

The first column says what a row is about: ``name``, ``volume`` or ``patient`` of the items, or ``fingerprint`` of the
image. The column ``split`` holds train, validation and test; columns ``split_...`` are other ways to split; the rest
(sequence, group, ...) says what must not be torn apart.
"""

import hashlib
import io
from pathlib import Path

import numpy as np
import pandas as pd

SEED = 0
EIGHT_ONE_ONE = {"train": 8, "validation": 1, "test": 1}
FOLDER = Path(__file__).parent / "splits"
# Of 256 bits. Copies of one image, resized and compressed again, differ in a few; different images in about half.
MOST_BITS = 32


def load_splits(name: str, folder: Path = FOLDER) -> pd.DataFrame:
    """The table of a data set. Raises ValueError where the file is not the committed one."""
    content = (folder / f"{name}.csv").read_bytes()
    sums = dict(line.split()[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
    if hashlib.sha256(content).hexdigest() != sums.get(f"{name}.csv"):
        raise ValueError(f"splits: {name}.csv is not the committed file: its SHA-256 is not the one in SHA256SUMS")
    return pd.read_csv(io.BytesIO(content), dtype={"name": str, "volume": str, "fingerprint": str})


def assign(groups: pd.Series, shares: dict[str, int], seed: int) -> pd.Series:
    """Deal whole groups into splits.

    Args:
        groups: the group of each item.
        shares: of each split, as in ``{"train": 8, "validation": 1, "test": 1}``.

    Returns:
        The split of each item. Groups come in a seeded order; the smaller splits take theirs first, each until one more
        group would bring it no nearer to its share of the items; the largest split gets the rest.
    """
    sizes = groups.value_counts(sort=False).sort_index()
    queue = [sizes.index[i] for i in np.random.default_rng(seed).permutation(len(sizes))]
    *small, largest = sorted(shares, key=shares.get)
    chosen = {}
    for split in small:
        lack = shares[split] / sum(shares.values()) * len(groups)
        while queue and sizes[queue[0]] < 2 * lack:
            lack -= sizes[queue[0]]
            chosen[queue.pop(0)] = split
    return groups.map(chosen).fillna(largest)


def match_fingerprints(found: dict[str, str], known: list[str]) -> dict[str, str]:
    """From the fingerprints of found items to the known ones.

    Args:
        found: fingerprint (hexadecimal) of each item's name.
        known: fingerprints of the committed table.

    Returns:
        The known fingerprint of each item that has one within MOST_BITS, nearest pairs first and none used twice.
    """
    if not found:
        return {}
    bits = [
        np.unpackbits(np.array([list(bytes.fromhex(x)) for x in each], np.uint8), axis=1)
        for each in (found.values(), known)
    ]
    a, b = (x.astype(np.float32) for x in bits)
    distance = a @ (1 - b).T + (1 - a) @ b.T
    names, pairs = list(found), {}
    taken = set()
    rows, columns = np.nonzero(distance <= MOST_BITS)
    for i in np.argsort(distance[rows, columns], kind="stable"):
        name, key = names[rows[i]], known[columns[i]]
        if name not in pairs and key not in taken:
            pairs[name] = key
            taken.add(key)
    return pairs
