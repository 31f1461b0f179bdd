"""The leakage audit of a data set in the project's layout, a folder or a zip."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from rwkvlib.data.dataset import iter_items, mask_problems, mask_values
from rwkvlib.data.items import as_text

from .similarity import NEAR, copies, digest, thumbnail

# Columns that say what must stay on one side of a split.
GROUPS = ("patient", "sequence", "volume", "group")
SPLITS = ("split", "fold")  # what the names of columns that say the splits begin with


def audit(data: str | Path, *, near: float = NEAR) -> dict[str, Any]:
    """Looks for what makes a score too good.

    Args:
        data: folder or zip with images/, masks/ and items.csv.
        near: images whose thumbnails (24 x 24 grey means) correlate above this are near duplicates.

    Returns:
        items, empty_masks (names), mask_values (in how many masks each value occurs, as the files have it; 0 and 255 of
        a binary set are read as 0 and 1), wrong_masks and unreadable (names of masks that are no maps of class indices,
        and of items that cannot be read, with what is wrong; the rest is about the others), doubled_names, split_items
        (how many items each value of each split column has), foreground (share of an image's pixels: min, median, max
        over the images), smallest and largest (the three images with the least foreground above none and the most, with
        its share), exact_duplicates and near_duplicates (pairs of names with correlation, the share of mask pixels that
        differ where sizes agree, and the columns of items.csv of splits, groups and label in which the two differ),
        crossing (for each such column, how many near duplicates differ in it), torn_groups (for each split column and
        group column, the groups on both sides of a split).

    Raises: ValueError: `near` is not between 0 and 1, no item can be read; and as `iter_items`.
    """
    if not 0 < near < 1:
        raise ValueError(f"near: expected a correlation between 0 and 1, got {near}")
    wrong, unreadable = mask_problems(data), {}
    rows, thumbnails, digests, masks = [], [], [], []
    for row, read in tqdm(list(iter_items(data)), unit="item", disable=None):
        if row["name"] in wrong:
            continue
        try:
            image, mask = read()
        except (ValueError, OSError) as error:
            unreadable[row["name"]] = str(error)
            continue
        values = np.asarray(mask, dtype=np.uint8)
        rows.append({**row, "_foreground": float((values > 0).mean())})
        thumbnails.append(thumbnail(image))
        digests.append(digest(image))
        masks.append(values)
    if not rows:
        raise ValueError(
            f"data: no item of {str(data)!r} can be read; the first: {[*wrong.items(), *unreadable.items()][0]}"
        )
    items = pd.DataFrame(rows)
    columns = [c for c in items if c.startswith(SPLITS) or c in (*GROUPS, "label", "official")]

    pairs, exact = [], []
    for i, j, correlation, same in copies(thumbnails, digests, near):
        a, b = items.iloc[i], items.iloc[j]
        exact += [[a["name"], b["name"]]] if same else []
        pair = dict(a=a["name"], b=b["name"], correlation=round(correlation, 5))
        if masks[i].shape == masks[j].shape:
            pair["masks_differ"] = round(float((masks[i] != masks[j]).mean()), 5)
        pair["differ_in"] = [c for c in columns if pd.notna(a[c]) and pd.notna(b[c]) and a[c] != b[c]]
        pairs.append(pair)

    torn = {}
    for split in (c for c in columns if c.startswith(SPLITS)):
        for group in (c for c in GROUPS if c in items):
            sides = items.groupby(group)[split].nunique()
            torn.setdefault(split, {})[group] = [_plain(g) for g in sides.index[sides > 1]]
    share = items["_foreground"]
    ranked = (
        items[share > 0].sort_values("_foreground", kind="stable")[["name", "_foreground"]].round(5).values.tolist()
    )
    return dict(
        items=len(items),
        empty_masks=list(items.loc[share == 0, "name"]),
        foreground={k: round(float(f(share)), 5) for k, f in (("min", np.min), ("median", np.median), ("max", np.max))},
        smallest=ranked[:3],
        largest=ranked[:-4:-1],
        mask_values={str(value): n for value, n in mask_values(data, check=False).items()},
        wrong_masks=wrong,
        unreadable=unreadable,
        doubled_names=sorted(set(items.loc[items["name"].duplicated(), "name"])),
        split_items={
            c: items[c].dropna().map(as_text).value_counts().to_dict() for c in columns if c.startswith(SPLITS)
        },
        near=near,
        exact_duplicates=exact,
        near_duplicates=pairs,
        crossing={c: sum(c in pair["differ_in"] for pair in pairs) for c in columns},
        torn_groups=torn,
    )


def groups_of(pairs: list[dict], names: list[str]) -> dict[str, int]:
    """The number of each name's duplicate group: names that pairs connect, directly or through others, share one."""
    parent = {name: name for name in names}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for pair in pairs:
        parent[root(pair["b"])] = root(pair["a"])
    numbers: dict[str, int] = {}
    return {name: numbers.setdefault(root(name), len(numbers)) for name in names}


def failures(result: dict[str, Any]) -> list[str]:
    """What of an audit's result must not be, a line each: what cannot be read, wrong masks, torn groups, and copies on
    both sides of a split."""
    found = [f"{name}: {problem}" for kind in ("unreadable", "wrong_masks") for name, problem in result[kind].items()]
    for split, each in result["torn_groups"].items():
        for group, torn in each.items():
            found += (
                [f"{split} tears {group} {', '.join(map(str, torn[:9]))}{', ...' * (len(torn) > 9)}"] if torn else []
            )
        across = [f"{p['a']} and {p['b']}" for p in result["near_duplicates"] if split in p["differ_in"]]
        found += [f"{split} parts copies: {', '.join(across[:9])}{', ...' * (len(across) > 9)}"] if across else []
    return found


def summary(result: dict[str, Any]) -> str:
    """An audit's result in a few lines."""
    crossing = ", ".join(f"{column} {n}" for column, n in result["crossing"].items() if n)
    torn = ", ".join(
        f"{len(groups)} by {group} in {split}"
        for split, each in result["torn_groups"].items()
        for group, groups in each.items()
        if groups
    )
    share = result["foreground"]
    return "\n".join(
        (
            f"{result['items']} items, {len(result['empty_masks'])} with an empty mask",
            f"mask values {_values(result['mask_values'])}",
            *(
                f"{column}: {', '.join(f'{k} {n}' for k, n in n_of.items())}"
                for column, n_of in result["split_items"].items()
            ),
            f"foreground {share['min']:.2%} to {share['max']:.2%} of an image, median {share['median']:.2%}",
            *(
                f"{kind} foregrounds: {', '.join(f'{name} {found:.2%}' for name, found in result[kind])}"
                for kind in ("smallest", "largest")
            ),
            f"{len(result['wrong_masks'])} masks that are no class indices, {len(result['unreadable'])} items not read",
            f"names more than once: {', '.join(result['doubled_names']) or 'none'}",
            f"{len(result['exact_duplicates'])} exact duplicates",
            f"{len(result['near_duplicates'])} near duplicates (thumbnails correlate above {result['near']}); "
            f"that differ in: {crossing or 'no column'}",
            f"groups on both sides of a split: {torn or 'none'}",
        )
    )


def _values(counts: dict[str, int]) -> str:
    listed = ", ".join(f"{value} (in {n} masks)" for value, n in list(counts.items())[:20])
    note = "; 255 is read as 1" if "255" in counts else "" if "0" in counts else "; none has 0, the background"
    return f"{listed}{', ...' if len(counts) > 20 else ''}{note}"


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
