"""The synthetic data sets by name: a row each."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..window import window
from .abdomen import synthetic_abdomen
from .formula import synthetic_formula
from .long_range import synthetic_long_range
from .polyps import synthetic_polyps
from .ultrasound import synthetic_ultrasound


class Case(NamedTuple):
    """Of one seed: (N, H, W, 3) uint8, (N, H, W) uint8, and the columns of each of the N items."""

    images: np.ndarray
    masks: np.ndarray
    rows: list[dict]


@dataclass(frozen=True)
class SyntheticSet:
    """How many cases the split train has by default, and what makes one of a name, a seed and a size."""

    count: int
    make: Callable[..., Case]
    volumes: bool = False
    distance: bool = False  # of the name, as in NAME@DISTANCE, the last argument of `make`


def _polyps(name: str, seed: int, size: int) -> Case:
    image, mask = synthetic_polyps(seed, size)
    return Case(image[None], mask[None], [{"name": name}])


def _ultrasound(name: str, seed: int, size: int) -> Case:
    image, mask = synthetic_ultrasound(seed, size)
    return Case(image[None], mask[None], [{"name": name, "label": "lesion" if mask.any() else "normal"}])


def _formula(name: str, seed: int, size: int) -> Case:
    image, mask = synthetic_formula(seed, size)
    return Case(image[None], mask[None], [{"name": name}])


def _long_range(name: str, seed: int, size: int, distance: int) -> Case:
    image, mask = synthetic_long_range(seed, size, distance)
    return Case(image[None], mask[None], [{"name": name}])


def _abdomen(name: str, seed: int, size: int) -> Case:
    volume, labels, (z, y, x) = synthetic_abdomen(seed, size)
    place = {"spacing_x": x, "spacing_y": y, "spacing_z": z}
    rows = [{"name": f"{name}_{i:03d}", "volume": name, "slice": i, **place} for i in range(len(volume))]
    return Case(np.repeat(window(volume)[..., None], 3, axis=-1), labels, rows)


SETS = {
    "synthetic": SyntheticSet(320, _polyps),
    "synthetic-abdomen": SyntheticSet(8, _abdomen, volumes=True),
    "synthetic-formula": SyntheticSet(320, _formula),
    "synthetic-long-range": SyntheticSet(320, _long_range, distance=True),
    "synthetic-ultrasound": SyntheticSet(320, _ultrasound),
}
NAMES = tuple(name + "@DISTANCE" * row.distance for name, row in SETS.items())


@dataclass(frozen=True)
class Wanted:
    """A name taken apart: NAME, NAME@DISTANCE, NAME:COUNT or NAME@DISTANCE:COUNT."""

    name: str
    count: int
    distance: int | None

    @property
    def row(self) -> SyntheticSet:
        return SETS[self.name]


def find_synthetic(data: str) -> Wanted | None:
    """What a name asks for; None for any other name, which may be a folder's. Raises ValueError for a count of 0."""
    match = re.fullmatch(r"([a-z-]+)(?:@(\d+))?(?::(\d+))?", data)
    row = match and SETS.get(match[1])
    if not match or not row or row.distance != bool(match[2]):
        return None
    count = row.count if match[3] is None else int(match[3])
    if count < 1:
        raise ValueError(f"data: expected a COUNT of at least 1, got {data!r}")
    return Wanted(match[1], count, int(match[2]) if match[2] else None)


def make_synthetic(wanted: Wanted, split: str | None, size: int) -> tuple[np.ndarray, np.ndarray, list[dict]]:
    """Images (N, H, W, 3) and masks (N, H, W) in uint8, and the rows of a split, or of all. Raises ValueError."""
    if size < 16:
        raise ValueError(f"size: expected at least 16 for a synthetic set, got {size}")
    quarter = max(1, wanted.count // 4)
    # The splits are far apart in the seeds' range, so that a larger COUNT never reuses another split's images.
    ranges = {"train": (0, wanted.count), "validation": (10**6, quarter), "test": (2 * 10**6, quarter)}
    if split is not None and split not in ranges:
        raise ValueError(f"split: expected one of {sorted(ranges)}, got {split!r}")
    more = () if wanted.distance is None else (wanted.distance,)
    images, masks, rows = [], [], []
    for part in [split] if split else ranges:
        first, n = ranges[part]
        for seed in range(first, first + n):
            case = wanted.row.make(f"{wanted.name.replace('-', '_')}_{seed}", seed, size, *more)
            images.append(case.images)
            masks.append(case.masks)
            for row in case.rows:  # the split stands second
                rows.append({"name": row.pop("name"), "split": part, **row})
    return np.concatenate(images), np.concatenate(masks), rows
