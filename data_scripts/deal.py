"""A split of a data set of one's own: whole groups, in shares, with every label in proportion."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from rwkvlib.data.dataset import iter_items
from rwkvlib.data.items import read_items, read_text
from rwkvlib.files import expand, write_file

from .audit import GROUPS, groups_of
from .similarity import NEAR, copies, digest, thumbnail

PARTS = ("train", "validation", "test")


def deal(groups: Iterable, labels: Iterable, shares: Sequence[float], seed: int) -> np.ndarray:
    """The part, 0 for the first of `shares`, of each item.

    Whole groups, the largest first and equal ones in a seeded order, go each to the part that lacks most of what the
    group holds: items, and items of each label, in proportion to how many there are. No part stays empty.

    Args:
        groups, labels: of each item.
        shares: of the parts, of any sum; no more than there are groups.
    """
    numbers, group_of = np.unique(pd.factorize(pd.Series(groups))[0], return_inverse=True)
    of_label = pd.get_dummies(pd.Series(labels), dummy_na=True, dtype=float).to_numpy()
    kinds = np.column_stack([np.ones(len(group_of)), of_label[:, of_label.any(axis=0)]])
    held = np.zeros((len(numbers), kinds.shape[1]))
    np.add.at(held, group_of, kinds)
    lacks = np.outer(np.asarray(shares) / np.sum(shares), kinds.sum(axis=0))
    order = np.random.default_rng(seed).permutation(len(numbers))
    order = order[np.argsort(-held[order, 0], kind="stable")]
    part = np.full(len(numbers), -1)
    for left, group in zip(range(len(order), 0, -1), order, strict=True):
        need = lacks @ (held[group] / kinds.sum(axis=0))
        empty = ~np.isin(range(len(shares)), part)
        part[group] = np.argmax(np.where(empty, need, -np.inf) if empty.sum() == left else need)
        lacks[part[group]] -= held[group]
    return part[group_of]


def split_data(
    data: str | Path,
    *,
    shares: Sequence[float] | None = None,
    folds: int | None = None,
    group: str | None = None,
    stratify: str | None = None,
    near: float = NEAR,
    column: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> pd.DataFrame:
    """Adds a column to ``items.csv``: train, validation and test, or the numbers of folds.

    What has one patient, sequence, volume, group or value of the column `group`, or shows nearly the same, stays
    together.

    Args:
        data: folder in the project's layout.
        shares: of train, validation and test, as in (7, 1, 2); 0 for none. Either they or `folds` are needed.
        folds: how many parts of one size, 0, 1, ...
        group: a further column whose values must not be parted.
        stratify: a column whose values every part has in proportion.
        near: images whose thumbnails correlate above this are near copies, see `audit`.
        column: to write; default: split, or fold.
        overwrite: replace the column, where there is one.

    Returns: the items, with the columns ``_group``, a number, and at last the new one.

    Raises:
        FileNotFoundError: no such folder. FileExistsError: the column is there.
        ValueError: an argument outside its range, a column that is not there, fewer groups than parts; and as
            `iter_items` and what it reads.
    """
    table = expand(data) / "items.csv"
    if not table.is_file():
        raise FileNotFoundError(f"data: expected a folder with images/, masks/ and items.csv, got {str(data)!r}")
    if (shares is None) == (folds is None):
        raise ValueError("shares: expected either shares or folds")
    if folds is not None and folds < 2:
        raise ValueError(f"folds: expected at least 2, got {folds}")
    if shares is not None and not (len(shares) == 3 and min(shares) >= 0 and shares[0] > 0 and sum(shares) < np.inf):
        shown = ":".join(f"{share:g}" for share in shares)
        raise ValueError(f"shares: expected TRAIN:VALIDATION:TEST as in 7:1:2, 0 for none, got {shown}")
    if not 0 < near < 1:
        raise ValueError(f"near: expected a correlation between 0 and 1, got {near}")
    if seed < 0:
        raise ValueError(f"seed: expected at least 0, got {seed}")
    where, content = f"data: items.csv of {str(data)!r}", table.read_bytes()
    text, items = read_text(content, where), read_items(content, where)
    column = column or ("split" if folds is None else "fold")
    for argument, name in (("group", group), ("stratify", stratify)):
        if name is not None and name not in items:
            raise ValueError(f"{argument}: expected one of {', '.join(items)}, got {name!r}")
    if column in ("name", group, stratify, *GROUPS):
        raise ValueError(f"column: expected a name for the split, got {column!r}")
    if column in text and not overwrite:
        raise FileExistsError(
            f"column: {column!r} is in {str(table)!r}; choose another, or replace it with --overwrite"
        )
    thumbnails, digests = [], []
    for _, read in tqdm(list(iter_items(data)), unit="item", disable=None):
        image = read()[0]
        thumbnails.append(thumbnail(image))
        digests.append(digest(image))
    together = [(i, j) for i, j, *_ in copies(thumbnails, digests, near)]
    for name in {*GROUPS, group} & set(items):
        places = pd.Series(range(len(items))).groupby(items[name].to_numpy())
        together += [(rows.iloc[0], row) for _, rows in places for row in rows]
    numbers = groups_of([dict(a=a, b=b) for a, b in together], list(range(len(items))))
    items["_group"] = [numbers[i] for i in range(len(items))]
    parts = list(range(folds)) if folds else [p for p, share in zip(PARTS, shares, strict=True) if share]
    weights = [1.0] * folds if folds else [share for share in shares if share]
    if (most := items["_group"].nunique()) < len(parts):
        raise ValueError(
            f"{'folds' if folds else 'shares'}: expected at most {most} parts, as many as there are groups that stay "
            f"whole, got {len(parts)}"
        )
    labels = items[stratify] if stratify else [0] * len(items)
    items = items.drop(columns=column, errors="ignore")  # of an earlier split
    items[column] = [parts[i] for i in deal(items["_group"], labels, weights, seed)]
    write_file(table, pd.DataFrame(text | {column: items[column]}).to_csv(index=False))
    return items
