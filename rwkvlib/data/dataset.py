"""The one data layout: a folder or zip with ``images/``, ``masks/`` and ``items.csv``.

``items.csv`` has a column ``name`` and any others (``split``, ``patient``, ...); the files of an item are
``images/NAME`` and ``masks/NAME``, each with one of the suffixes .png, .jpg, .jpeg, .tif, .tiff, .bmp, .npy and .npz
in any case. The mask's pixel values are class indices, 0 for background; a mask of nothing but 0 and 255, where there
is one class, is taken as 0 and 1. ``dataset.json``, where there is one, names the classes. How images of more than 8
bits and of other channels than RGB are read says `rwkvlib.data.files`.

Where labels overlap, a mask is an array (H, W, classes) of 0 and 1 without the background, in .npy or .npz, or a
picture of the sums of ``2 ** (class - 1)`` over a pixel's classes, which is how such masks are held and written; there
are eight classes at most.
"""

import contextlib
import difflib
import hashlib
import io
import itertools
import json
import math
import os
import unicodedata
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ..files import expand, walk
from .files import (
    ARRAYS,
    IMAGES,
    as_channels,
    open_picture,
    picture_pixels,
    read_array,
    read_channels,
    read_labels,
    whole_labels,
)
from .items import as_text, read_items
from .pixels import Size, pair, place_of
from .synthetic.sets import NAMES, find_synthetic, make_synthetic


def _item(pixels: np.ndarray, labels: np.ndarray, name: str) -> dict[str, Tensor | str]:
    image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    return {"image": image, "mask": torch.from_numpy(labels)[None].float(), "name": name}


@dataclass
class SegmentationData(Dataset):
    """Images and masks in memory, as bytes. An item is a dict of ``image`` (C, H, W) in [0, 1], ``mask`` (1, H, W)
    float32 class indices, and ``name``."""

    images: np.ndarray  # (N, H, W, C) uint8
    masks: np.ndarray  # (N, H, W) uint8
    items: (
        pd.DataFrame
    )  # N rows: name, and whatever else items.csv says of an item (patient, sequence, volume, slice, ...)

    def __post_init__(self):
        if not len(self.images) == len(self.masks) == len(self.items):
            raise ValueError(f"items: expected as many rows and masks as images, got {self}")
        if "name" not in self.items:
            raise ValueError(f"items: expected a column 'name', got {list(self.items)}")

    @property
    def names(self) -> list[str]:
        return list(self.items["name"])

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> dict[str, Tensor | str]:
        return _item(*self.arrays(i), self.items["name"].iloc[i])

    def arrays(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """An item's image (H, W, C) and mask (H, W), uint8."""
        return self.images[i], self.masks[i]

    def take(self, places: Sequence[int] | np.ndarray) -> "SegmentationData":
        """The items at these places."""
        items = self.items.iloc[places].reset_index(drop=True)
        return SegmentationData(self.images[places], self.masks[places], items)

    @property
    def nbytes(self) -> int:
        """Of images and masks, in memory."""
        return self.images.nbytes + self.masks.nbytes

    def batches_on(self, device: torch.device, order: Iterable[Sequence[int]]) -> Iterator[dict]:
        """The batches of these item numbers, as a `DataLoader` collates them, cut on a device that holds all bytes."""
        images = torch.from_numpy(self.images).to(device).permute(0, 3, 1, 2)
        masks = torch.from_numpy(self.masks).to(device)[:, None]
        names = self.names
        for numbers in order:
            where = torch.tensor(numbers)
            if device.type == "cuda":
                where = where.pin_memory().to(device, non_blocking=True)
            image, mask = images[where].float() / 255, masks[where].float()
            yield {"image": image.contiguous(), "mask": mask, "name": [names[i] for i in numbers]}

    def sha256(self) -> str:
        """Of names, pixels and masks: two results with the same one were measured on the same data."""
        digest = hashlib.sha256("\n".join(self.names).encode())
        for array in (self.images, self.masks):
            digest.update(str(array.shape).encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def __repr__(self) -> str:
        return f"SegmentationData(images {self.images.shape}, masks {self.masks.shape}, {len(self.items)} items)"


class _Folder:
    """A folder's files by name: what reads one, and what changes when it does."""

    def __init__(self, path: Path):
        self.names = {p.relative_to(path).as_posix(): str(p) for p in walk(path)}

    def read(self, name: str) -> bytes:
        return Path(name).read_bytes()

    def stamp(self, name: str) -> tuple:
        about = os.stat(name)
        return about.st_size, about.st_mtime_ns


class _Zip:
    """As `_Folder`. Each process has the file open for itself, as workers would move each other's place in it."""

    def __init__(self, path: Path):
        self.path, self.opened = path, (os.getpid(), zipfile.ZipFile(path))
        names = {name.replace("\\", "/"): name for name in self.archive.namelist()}
        self.names = {
            name: own
            for name, own in names.items()
            if not any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
        }

    @property
    def archive(self) -> zipfile.ZipFile:
        if self.opened[0] != os.getpid():
            self.opened = os.getpid(), zipfile.ZipFile(self.path)
        return self.opened[1]

    def __getstate__(self) -> dict:  # for workers that are no copies of this process
        return dict(path=self.path, names=self.names, opened=(0, None))

    def read(self, name: str) -> bytes:
        return self.archive.read(name)

    def stamp(self, name: str) -> tuple:
        about = self.archive.getinfo(name)
        return about.CRC, about.file_size


def _files_of(path: Path, shown: str) -> _Folder | _Zip:
    """The files in a folder or zip, by their names with /."""
    if path.is_dir():
        return _Folder(path)
    if zipfile.is_zipfile(path):
        return _Zip(path)
    if path.is_file():
        raise ValueError(f"data: expected a folder or zip, got {shown!r}: no zip, or one that is cut short")
    if shown.startswith("synthetic"):
        raise ValueError(
            f"data: expected a folder, a zip or one of {', '.join(NAMES)}, with or without :COUNT, got {shown!r}"
        )
    raise FileNotFoundError(f"data: expected a folder or zip with images/, masks/ and items.csv, got {shown!r}")


# What the masks of the last few data sets hold: training opens each of its sets two or three times.
_SEEN: dict[tuple, np.ndarray | str] = {}


class _Set:
    """A data set that was opened: its rows, and what reads an item."""

    def __init__(
        self,
        data: str | Path,
        classes: int | None = None,
        in_channels: int | None = None,
        ignore_index: int | None = None,
        overlapping: bool = False,
    ):
        self.in_channels, self.ignore_index, self.overlapping = in_channels, ignore_index, overlapping
        self.shown, self.path = str(data), expand(data)
        files = _files_of(self.path, self.shown)
        self.names, self._read, self._stamp = files.names, files.read, files.stamp
        if "items.csv" not in self.names:  # zips often hold the folder, not what is in it
            inside = [name for name in self.names if name.count("/") == 1 and name.endswith("/items.csv")]
            if len(inside) != 1:
                raise FileNotFoundError(f"data: expected items.csv in {self.shown!r}")
            root = inside[0].removesuffix("items.csv")
            self.names = {name.removeprefix(root): own for name, own in self.names.items() if name.startswith(root)}
        # macOS takes names apart (NFD), Windows and most tables do not (NFC).
        self.names = {unicodedata.normalize("NFC", name): own for name, own in self.names.items()}
        self.pictures: dict[str, list[str]] = {}
        for name in self.names:
            suffix = next((s for s in IMAGES + ARRAYS if name.lower().endswith(s)), None)
            if suffix:
                self.pictures.setdefault(name[: -len(suffix)], []).append(name)
        self.items = read_items(self._read(self.names["items.csv"]), f"data: items.csv of {self.shown!r}")
        self.rows = self.items.to_dict("records")
        self.class_names = self._class_names()
        if self.class_names and classes not in (None, len(self.class_names)):
            n = len(self.class_names)
            right = n - 1 if overlapping else n if n > 2 else 1
            raise ValueError(
                f"num_classes: dataset.json of {self.shown!r} names {n} classes ({', '.join(self.class_names)}), got a "
                f"model of {classes}; set num_classes to {right}, take a model of as many classes, or "
                "correct dataset.json"
            )
        self.classes = len(self.class_names) if self.class_names else classes

    def _class_names(self) -> tuple[str, ...] | None:
        """The classes, background first, that ``dataset.json`` of data_scripts names."""
        if "dataset.json" not in self.names:
            return None
        where, remedy = f"data: dataset.json of {self.shown!r}", "correct it, or take it out"
        try:
            card = json.loads(self._read(self.names["dataset.json"]))
        except ValueError as error:
            raise ValueError(f"{where}: expected JSON, got {error}; {remedy}") from error
        if not isinstance(card, dict) or "classes" not in card:  # of the user's own, for something else
            return None
        names = card["classes"]
        if not isinstance(names, list) or len(names) < 2 or not all(isinstance(name, str) for name in names):
            raise ValueError(
                f"{where}: classes: expected the names of the background and of every class, got {names!r:.100}; "
                f"{remedy}"
            )
        return tuple(names)

    def file(self, kind: str, item: str) -> str:
        """The one picture ``KIND/ITEM``."""
        found = self.pictures.get(unicodedata.normalize("NFC", f"{kind}/{item}"), [])
        if not found:
            stem = next((item[: -len(s)] for s in IMAGES + ARRAYS if item.lower().endswith(s)), None)
            hint = f"; the column name has no suffix: {stem}" if stem and f"{kind}/{stem}" in self.pictures else ""
            example = f"images/{item}.jpg or .png" if kind == "images" else f"masks/{item}.png"
            raise FileNotFoundError(
                f"data: item {item!r} of {self.shown!r} has no {example}; expected one of "
                f"{', '.join(IMAGES + ARRAYS)}{hint}"
            )
        if len(found) > 1:
            raise ValueError(
                f"data: item {item!r} of {self.shown!r} has several files: {', '.join(sorted(found))}; keep one of them"
            )
        return found[0]

    def _content(self, file: str) -> io.BytesIO:
        return io.BytesIO(self._read(self.names[file]))

    def _labels(self, file: str) -> np.ndarray:
        """A mask's values, (H, W) uint8; of overlapping labels the sums of 2 ** (class - 1)."""
        if not file.lower().endswith(ARRAYS):
            return read_labels(self._content(file))
        values = whole_labels(read_array(self._content(file)))
        if self.overlapping:
            count = (self.classes or 1) - 1
            if values.ndim != 3 or values.shape[2] != count or not np.isin(values, (0, 1)).all():
                raise ValueError(
                    f"{values.dtype} {values.shape}, expected (H, W, {count}) of 0 and 1: a channel for each class "
                    "but the background"
                )
            return (values.astype(np.uint8) << np.arange(count, dtype=np.uint8)).sum(2, dtype=np.uint8)
        if values.ndim != 2 or values.min() < 0 or values.max() > 255:
            hint = "; labels that overlap: overlapping=true" if values.ndim == 3 else ""
            raise ValueError(f"{values.dtype} {values.shape}, expected class indices of 0 to 254 (H, W){hint}")
        return values.astype(np.uint8)

    @cached_property
    def masks(self) -> dict[str, np.ndarray | str]:
        """Of each mask that can be read its values, or why they are no labels. What is missing or damaged is told by
        whoever reads it."""
        found = {}
        for row in self.rows:
            try:
                file = self.file("masks", row["name"])
                key = (os.path.realpath(self.path), file, self._stamp(self.names[file]), self.overlapping)
                if key not in _SEEN:
                    if len(_SEEN) > 100_000:
                        _SEEN.clear()
                    try:
                        _SEEN[key] = np.flatnonzero(np.bincount(self._labels(file).ravel()))
                    except ValueError as error:
                        _SEEN[key] = str(error)
                found[row["name"]] = _SEEN[key]
            except Exception:  # Pillow, zipfile and zlib have each their own
                continue
        return found

    @cached_property
    def binary(self) -> bool:
        """Whether 255 stands for the one class that there is, in the masks that have no 1."""
        if self.overlapping or self.classes is not None:
            return self.classes == 2 and not self.overlapping
        values = [v for v in self.masks.values() if not isinstance(v, str)]
        return all(set(v) <= {0, 1} or set(v) <= {0, 255} for v in values)

    def problem(self, item: str) -> str | None:
        """Why an item's mask is no map of class indices, or None."""
        values = self.masks.get(item)
        if values is None or isinstance(values, str):
            return values
        values = values[values != self.ignore_index]
        if self.binary and set(values) <= {0, 255}:
            return None
        most = self._most()
        return None if not len(values) or values[-1] <= most else f"values {_listed(values)}"

    def _most(self) -> int:
        """The largest value that a mask may hold."""
        if self.classes is None:
            return 254
        return 2 ** (self.classes - 1) - 1 if self.overlapping else self.classes - 1

    def check_masks(self, rows: list[dict] | None = None) -> None:
        """Raises ValueError where masks are no maps of class indices, with the files, their values and the remedy, or
        where an item has several files."""
        rows = self.rows if rows is None else rows
        for row in rows:
            for kind in ("images", "masks"):
                with contextlib.suppress(FileNotFoundError):  # for whoever reads it
                    self.file(kind, row["name"])
        problems = {row["name"]: problem for row in rows if (problem := self.problem(row["name"]))}
        if not problems:
            return
        alike: dict[str, list[str]] = {}
        for name, problem in problems.items():
            alike.setdefault(problem, []).append(self.file("masks", name))
        shown = [
            f"{files[0]}{f' and {len(files) - 1} more have' if len(files) > 1 else ' has'} {problem}"
            for problem, files in sorted(alike.items(), key=lambda pair: len(pair[1]))[:5]  # the odd ones first
        ]
        more = f"; and {len(alike) - 5} other kinds" if len(alike) > 5 else ""
        what = "class indices" if self.classes is None else f"class indices 0 to {self._most()}"
        raise ValueError(
            f"data: {len(problems)} of {len(rows)} masks of {self.shown!r} hold something else than {what}: "
            f"{'; '.join(shown)}{more}.{self._remedy(list(problems))}"
        )

    def _remedy(self, names: list[str]) -> str:
        values = [self.masks[name] for name in names if not isinstance(self.masks[name], str)]
        if not values:  # each message has its own
            return ""
        found = np.unique(np.concatenate(values))
        if len(found) > 16:
            return " So many are grey levels, as JPEG and resizing leave them: threshold the masks, save them as PNG"
        if 255 in found:
            return (
                " 255 stands for the one class of a binary set, in masks of nothing but 0 and 255; else give every "
                "pixel a class index, 0 for background, or set ignore_index to 255 where such pixels are to count for "
                "nothing"
            )
        return f" Renumber them from 0, the background, or set num_classes to {found[-1] + 1}"

    def read(self, name: str) -> tuple[Image.Image, Image.Image]:
        """An item's image (RGB) and mask (L, of class indices), of the same size."""
        pixels, labels = self.arrays(name)
        return Image.fromarray(pixels), Image.fromarray(labels)

    def arrays(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """An item's image (H, W, in_channels) and mask (H, W), uint8."""
        files = self.file("images", name), self.file("masks", name)
        if problem := self.problem(name):
            raise ValueError(f"data: {files[1]} of {self.shown!r} has {problem}.{self._remedy([name])}")
        try:
            pixels, turned = read_channels(self._content(files[0]), files[0], self.in_channels)
            values = self._labels(files[1])
        except Exception as error:  # Pillow, zipfile and zlib have each their own
            if str(error).startswith("in_channels: "):
                raise ValueError(f"{error}: {files[0]} of {self.shown!r}") from error
            raise ValueError(f"data: item {name!r} of {self.shown!r} does not decode: {error}") from error
        if self.binary and self.ignore_index != 255:
            values = np.where(values == 255, np.uint8(1), values)
        if pixels.shape[:2] != values.shape:
            hint = "; the image is turned by its EXIF tag, as viewers show it" if turned else ""
            raise ValueError(
                f"data: item {name!r}: expected a one-channel mask of the image's size {pixels.shape[1::-1]}, "
                f"got {values.shape[::-1]}{hint}"
            )
        return pixels, values


def _listed(values: np.ndarray) -> str:
    if len(values) <= 8:
        return ", ".join(map(str, values))
    return f"{', '.join(map(str, values[:4]))}, ... {values[-1]} ({len(values)} of them)"


def iter_items(
    data: str | Path, *, classes: int | None = None
) -> Iterator[tuple[dict, Callable[[], tuple[Image.Image, Image.Image]]]]:
    """The items of a data set in the layout above, one by one: its row of items.csv, and what reads its image (RGB) and
    mask (one channel of class indices, of the same size).

    Args:
        classes: how many the masks may hold, the background included; None: as ``dataset.json`` says, or any number.

    Raises: FileNotFoundError and ValueError as `load_data` does; those of one item when it is read.
    """
    opened = _Set(data, classes)
    for row in opened.rows:
        yield row, partial(opened.read, row["name"])


def mask_values(data: str | Path, *, classes: int | None = None, check: bool = True) -> dict[int, int]:
    """How many masks of a data set hold each value, as the files have them.

    Raises: ValueError where masks are no maps of class indices, naming files, values and remedy, unless `check` is
        False, which leaves out those that have no whole numbers; as `load_data`.
    """
    opened = _Set(data, classes)
    if check:
        opened.check_masks()
    values = [v for v in opened.masks.values() if not isinstance(v, str)]
    found, counts = np.unique(np.concatenate(values) if values else [], return_counts=True)
    return {int(v): int(n) for v, n in zip(found, counts, strict=True)}


def mask_problems(data: str | Path, *, classes: int | None = None) -> dict[str, str]:
    """Of each item whose mask is no map of class indices the file, what it holds, and the remedy. Errors are those of
    `iter_items`."""
    opened = _Set(data, classes)
    found = ((row["name"], opened.problem(row["name"])) for row in opened.rows)
    return {n: f"{opened.file('masks', n)} has {problem}.{opened._remedy([n])}" for n, problem in found if problem}


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """How images and masks are to be taken; see `load_data`."""

    classes: int | None = None
    in_channels: int = 3
    ignore_index: int | None = None
    overlapping: bool = False


def load_data(
    data: str | Path,
    split: str | int | None = None,
    *,
    size: Size | None = None,
    resize: str = "squash",
    column: str = "split",
    **reading: Any,
) -> SegmentationData:
    """Reads a split of a data set into memory.

    Args:
        data: a folder or zip in the layout above, or the name of a seeded synthetic set: ``synthetic`` (polyps),
            ``synthetic-ultrasound``, ``synthetic-abdomen`` or ``synthetic-long-range@DISTANCE``, each with or without
            ``:COUNT``. COUNT is how many images (volumes, for the abdomen) the split train has, 320 (8) by default;
            validation and test have a quarter of that each.
        split: a value of the column that `column` names, 0 and "0" alike; None takes all items.
        size: height and width in pixels to resize to, or one number for both (images antialiased, masks nearest,
            spacing_x and spacing_y scaled alike); None keeps the files' own, which must then be all the same. Synthetic
            images have 128 by default.
        resize: "squash", or "letterbox": the image's shape is kept, and what is left of `size` is black background.
        column: of ``items.csv``, where a data set is split in several ways.
        reading: ``classes``: how many the masks may hold, the background included; None: as ``dataset.json`` says, or
            any number. The masks of all splits are looked at, so that a wrong one in the test set shows before
            training.
            ``in_channels``: of the images, 3 by default. ``ignore_index``: a further value that masks may hold.
            ``overlapping``: a pixel may be of several classes.

    Raises:
        FileNotFoundError: no data set, or a listed image or mask is not there.
        ValueError: an unknown split or synthetic set, a table or masks that cannot be used as they are, a
            ``dataset.json`` that is broken or names another number of classes, an image and mask of different sizes,
            several files for one item, a file that does not decode.
    """
    options = _Reading(**reading)
    if wanted := find_synthetic(str(data)):
        if options.overlapping:
            raise ValueError(f"overlapping: the labels of {str(data)!r} do not overlap")
        part, (height, width) = None if split is None else str(split), pair(128 if size is None else size)
        images, masks, rows = make_synthetic(wanted, part, max(height, width))
        if height != width:
            images, masks = (
                np.stack([_resized(x, (height, width), resize, method) for x in arrays])
                for arrays, method in ((images, Image.BILINEAR), (masks, Image.NEAREST))
            )
        return SegmentationData(as_channels(images, options.in_channels), masks, pd.DataFrame(rows))
    return FileData(*_choose(data, split, column, options), size, resize).load()


def _resized(pixels: np.ndarray, size: Size, resize: str, method: int) -> np.ndarray:
    """(H, W) or (H, W, C) uint8 in another size, with zeros beside a letterbox."""
    if pixels.ndim == 3 and pixels.shape[2] != 3:  # which Pillow takes one by one
        return np.stack([_resized(channel, size, resize, method) for channel in np.moveaxis(pixels, 2, 0)], 2)
    height, width = pair(size)
    rows, columns = place_of(pixels.shape[:2], size, resize)
    shape = columns.stop - columns.start, rows.stop - rows.start
    found = np.asarray(Image.fromarray(pixels).resize(shape, method))
    if shape == (width, height):
        return found
    out = np.zeros((height, width, *pixels.shape[2:]), np.uint8)
    out[rows, columns] = found
    return out


class FileData(Dataset):
    """Images and masks that are read from their files when they are asked for, by workers as well; items are those of
    `SegmentationData`. See `open_data`."""

    def __init__(self, opened: "_Set", rows: list[dict], size: Size | None = None, resize: str = "squash"):
        self.opened, self.rows, self.size, self.resize = opened, rows, size, resize
        if size is not None:
            place_of(pair(size), size, resize)  # before anything is read

    @property
    def items(self) -> pd.DataFrame:
        """As in items.csv: the spacing is that of the files."""
        return pd.DataFrame(self.rows)

    @property
    def names(self) -> list[str]:
        return [row["name"] for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def _read(self, i: int) -> tuple[np.ndarray, np.ndarray, dict]:
        row = dict(self.rows[i])
        pixels, labels = self.opened.arrays(row["name"])
        if self.size is not None:
            places = place_of(labels.shape, self.size, self.resize)
            for axis, own, place in zip("yx", labels.shape, places, strict=True):
                if f"spacing_{axis}" in row:
                    row[f"spacing_{axis}"] *= own / (place.stop - place.start)
            pixels = _resized(pixels, self.size, self.resize, Image.BILINEAR)
            labels = _resized(labels, self.size, self.resize, Image.NEAREST)
        return pixels, labels, row

    def arrays(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """An item's image (H, W, C) and mask (H, W), uint8."""
        return self._read(i)[:2]

    def __getitem__(self, i: int) -> dict[str, Tensor | str]:
        pixels, labels, row = self._read(i)
        return _item(pixels.copy(), labels.copy(), row["name"])

    def take(self, places: Sequence[int] | np.ndarray) -> "FileData":
        """The items at these places."""
        return FileData(self.opened, [self.rows[i] for i in places], self.size, self.resize)

    def load(self, places: Sequence[int] | None = None) -> SegmentationData:
        """Some items, or all, in memory. Raises ValueError for images that differ in size."""
        places = range(len(self)) if places is None else places
        images = masks = np.empty(0, np.uint8)
        rows = []
        for n, i in enumerate(places):
            pixels, labels, row = self._read(i)
            if n == 0:  # filled in place: a list to be stacked would take the memory twice
                images = np.empty((len(places), *pixels.shape), np.uint8)
                masks = np.empty(images.shape[:3], np.uint8)
            if pixels.shape != images.shape[1:]:
                first = self.rows[places[0]]["name"]
                raise ValueError(
                    f"size: the images differ in size, {row['name']!r} from {first!r}; give one to resize them to"
                )
            images[n], masks[n] = pixels, labels
            rows.append(row)
        return SegmentationData(images, masks, pd.DataFrame(rows))

    def parts(self, count: int = 16) -> Iterator[SegmentationData]:
        """All items, some whole cases at a time: one, or as many as have `count` images of one size."""
        part: list[int] = []
        for places in case_rows(self.items):
            part += places
            if self.size is None or len(part) >= count:
                yield self.load(part)
                part = []
        if part:
            yield self.load(part)

    def sha256(self) -> str:
        """Of names and files: another one than that of the same data in memory, which is of the pixels."""
        digest = hashlib.sha256("\n".join(self.names).encode())
        for kind, name in itertools.product(("images", "masks"), self.names):
            content = self.opened._read(self.opened.names[self.opened.file(kind, name)])
            digest.update(hashlib.sha256(content).digest())
        return digest.hexdigest()


HELD = 4 * 2**30  # bytes of a split that are held in memory


def open_data(
    data: str | Path,
    split: str | int | None = None,
    *,
    size: Size | None = None,
    resize: str = "squash",
    column: str = "split",
    in_memory: bool | None = None,
    **reading: Any,
) -> SegmentationData | FileData:
    """A split of a data set for training and scores: in memory as of `load_data`, whose arguments and errors these are,
    or a `FileData` that reads an item when it is asked for, with the same values.

    Args:
        size: None leaves each image at its own size, in files.
        in_memory: None: up to 4 GiB of pixels and masks. Synthetic sets always are.
    """
    if find_synthetic(str(data)):
        return load_data(data, split, size=size, resize=resize, column=column, **reading)
    options = _Reading(**reading)
    files = FileData(*_choose(data, split, column, options), size, resize)
    if in_memory is None:
        in_memory = size is not None and (options.in_channels + 1) * len(files) * math.prod(pair(size)) <= HELD
    return files.load() if in_memory else files


class Patches(Dataset):
    """Random patches of a set's images, as they stand; smaller images are continued by their edge pixels first.

    Item ``(i, step)`` is the patch of image i at that step of training: it depends on the seed, i and the step alone.
    Item i is that of step 0.
    """

    def __init__(self, data: SegmentationData | FileData, size: Size, seed: int = 0):
        self.data, self.size, self.seed = data, pair(size), seed

    def __len__(self) -> int:
        return len(self.data)

    def sha256(self) -> str:
        """Of the images."""
        return self.data.sha256()

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Tensor | str]:
        i, step = key if isinstance(key, tuple) else (key, 0)
        pixels, labels = self.data.arrays(i)
        missing = [(0, max(0, n - own)) for n, own in zip(self.size, labels.shape, strict=True)]
        if any(more for _, more in missing):
            pixels, labels = np.pad(pixels, [*missing, (0, 0)], "edge"), np.pad(labels, missing, "edge")
        rng = np.random.default_rng([self.seed, step, i])
        corner = [int(rng.integers(own - n + 1)) for n, own in zip(self.size, labels.shape, strict=True)]
        place = tuple(slice(first, first + n) for first, n in zip(corner, self.size, strict=True))
        return _item(pixels[place].copy(), labels[place].copy(), self.data.names[i])


def iter_cases(
    data: str | Path, split: str | int | None = None, *, column: str = "split", **reading: Any
) -> Iterator[SegmentationData]:
    """The cases of a split one by one, at their own sizes: the slices of a volume, or a single image. Only one is in
    memory at a time. Arguments and errors are those of `load_data`."""
    if find_synthetic(str(data)):
        whole = load_data(data, split, **reading)
        for places in case_rows(whole.items):
            items = whole.items.iloc[places].reset_index(drop=True)
            yield SegmentationData(whole.images[places], whole.masks[places], items)
        return
    yield from FileData(*_choose(data, split, column, _Reading(**reading))).parts()


def train_images(data: str | Path) -> list[Image.Image]:
    """The images (RGB) of the split ``train`` of a data set, at their own sizes; of all items where it has no column
    ``split``. Masks are not read. Errors are those of `load_data`."""
    opened, found = _Set(data), []
    for row in opened.rows:
        if "split" in opened.items and (pd.isna(row["split"]) or as_text(row["split"]) != "train"):
            continue
        file = opened.file("images", row["name"])
        try:
            with open_picture(opened._content(file)) as picture:
                found.append(Image.fromarray(picture_pixels(picture)))
        except Exception as error:  # Pillow, zipfile and zlib have each their own
            raise ValueError(f"data: item {row['name']!r} of {opened.shown!r} does not decode: {error}") from error
    return found


def has_volumes(data: str | Path) -> bool:
    """Whether the items of a data set are slices of volumes. Errors are those of `load_data`."""
    if wanted := find_synthetic(str(data)):
        return wanted.row.volumes
    items = _Set(data).items
    return "volume" in items and bool(items["volume"].notna().any())


def class_names(data: str | Path) -> tuple[str, ...] | None:
    """The names of a data set's classes, the background's first, from its ``dataset.json``; None where it has none.
    Errors are those of `load_data`."""
    return None if find_synthetic(str(data)) else _Set(data).class_names


def _choose(data: str | Path, split: str | int | None, column: str, reading: _Reading) -> tuple[_Set, list[dict]]:
    """A data set, and the rows of a split of it."""
    opened = _Set(data, **vars(reading))
    rows = opened.rows
    if split is not None:
        if column not in opened.items or column == "name":
            raise ValueError(
                f"column: expected one of {[c for c in opened.items if c != 'name']}, got {column!r}; "
                f"add it to items.csv of {opened.shown!r}, with train, validation or test for each item"
            )
        rows = [row for row in rows if not pd.isna(row[column])]  # the others are for no split
        counts = Counter(as_text(row[column]) for row in rows)
        if str(split) not in counts:
            near = difflib.get_close_matches(str(split), list(counts), 1, 0.5)
            hint = f"; {near[0]!r} is near" if near else ""
            raise ValueError(f"split: expected one of {sorted(counts)}, got {str(split)!r}{hint}")
        _report_unused(opened.shown, column, counts, str(split))
    opened.check_masks(rows)
    if split is not None:
        rows = [row for row in rows if as_text(row[column]) == str(split)]
    return opened, rows


USUAL_SPLITS = ("train", "validation", "test", "official_test")


def _report_unused(shown: str, column: str, counts: dict[str, int], split: str) -> None:
    """Warns of values beside the usual ones, misspelt ones above all: their items would be left out in silence."""
    if column != "split" or split not in USUAL_SPLITS:
        return
    if unused := {value: n for value, n in counts.items() if value not in USUAL_SPLITS}:
        listed = ", ".join(f"{value!r} ({n} items)" for value, n in unused.items())
        warnings.warn(
            f"split: {shown!r} has items in {listed}, which no command uses unless told to; "
            f"the usual ones are {', '.join(USUAL_SPLITS)}",
            stacklevel=4,
        )


def split_items(
    data: str | Path, split: str | int | None = None, *, column: str = "split", **reading: Any
) -> pd.DataFrame:
    """The items of a split as `load_data` and `iter_cases` have them, without reading an image. Errors are theirs."""
    if find_synthetic(str(data)):
        return load_data(data, split).items
    return pd.DataFrame(_choose(data, split, column, _Reading(**reading))[1])


def case_rows(items: pd.DataFrame) -> list[list[int]]:
    """The places of each case's rows: of the slices of a volume, from the first to the last, or of one image.

    Raises: ValueError where volumes are not whole numbers of neighbouring slices.
    """
    if "volume" not in items or items["volume"].isna().all():
        return [[i] for i in range(len(items))]
    if items["volume"].isna().any() or "slice" not in items:
        raise ValueError("items: expected volume and slice for every item, or volume for none")
    places = []
    for volume, part in items.reset_index(drop=True).groupby("volume", sort=False):
        numbers = pd.to_numeric(part["slice"], errors="coerce")  # "07" as well
        if numbers.isna().any():
            wrong = part["slice"][numbers.isna()].iloc[0]
            raise ValueError(f"items: expected numbers in the column slice of volume {volume!r}, got {wrong!r}")
        part = part.assign(slice=numbers).sort_values("slice")
        if not (part["slice"].diff()[1:] == 1).all():
            raise ValueError(f"items: expected volume {volume!r} to have every slice once, got {list(part['slice'])}")
        places.append(list(part.index))
    return places
