"""The one data layout: a folder or zip with ``images/``, ``masks/`` and ``items.csv``.

``items.csv`` has a column ``name`` and any others (``split``, ``patient``, ...); the files of an item are
``images/NAME.{jpg,png}`` and ``masks/NAME.png``, the mask's pixel values being class indices, 0 for background.
"""

import hashlib
import io
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from .synthetic import synthetic_abdomen, synthetic_long_range, synthetic_polyps, synthetic_ultrasound
from .window import window

TEXT = ("name", "volume", "patient", "sequence", "group")  # columns that name something: 001 is not 1


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
        image = torch.from_numpy(self.images[i]).permute(2, 0, 1).float() / 255
        mask = torch.from_numpy(self.masks[i])[None].float()
        return {"image": image, "mask": mask, "name": self.items["name"].iloc[i]}

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


def _reader(path: Path) -> tuple[set[str], Callable[[str], bytes]]:
    """The names in a folder or zip, and what reads one."""
    if path.is_dir():
        names = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()}
        return names, lambda name: (path / name).read_bytes()
    if zipfile.is_zipfile(path):
        archive = zipfile.ZipFile(path)
        return set(archive.namelist()), archive.read
    raise FileNotFoundError(f"data: expected a folder or zip with images/, masks/ and items.csv, got {str(path)!r}")


def iter_items(data: str | Path) -> Iterator[tuple[dict, Callable[[], tuple[Image.Image, Image.Image]]]]:
    """The items of a data set in the layout above, one by one: its row of items.csv, and what reads its image (RGB) and
    mask (one channel, of the same size).

    Raises: FileNotFoundError and ValueError as `load_data` does; those of one item when it is read.
    """
    names, read = _reader(Path(data))
    if "items.csv" not in names:
        raise FileNotFoundError(f"data: expected items.csv in {str(data)!r}")
    items = pd.read_csv(io.BytesIO(read("items.csv")), dtype=dict.fromkeys(TEXT, str))
    if "name" not in items:
        raise ValueError(f"data: expected a column 'name' in items.csv of {str(data)!r}, got {list(items)}")

    def read_item(name: str) -> tuple[Image.Image, Image.Image]:
        file = next((f for f in (f"images/{name}.jpg", f"images/{name}.png") if f in names), None)
        mask_file = f"masks/{name}.png"
        if file is None or mask_file not in names:
            missing = mask_file if file else f"images/{name}.jpg or .png"
            raise FileNotFoundError(f"data: item {name!r} of {str(data)!r} has no {missing}")
        try:
            image = Image.open(io.BytesIO(read(file))).convert("RGB")
            mask = Image.open(io.BytesIO(read(mask_file)))
            image.load(), mask.load()
        except OSError as error:
            raise ValueError(f"data: item {name!r} of {str(data)!r} does not decode: {error}") from error
        if image.size != mask.size or mask.mode not in ("L", "P", "1"):
            raise ValueError(
                f"data: item {name!r}: expected a one-channel mask of the image's size {image.size}, "
                f"got mode {mask.mode} and {mask.size}"
            )
        return image, mask

    for row in items.to_dict("records"):
        yield row, partial(read_item, row["name"])


def load_data(
    data: str | Path, split: str | None = None, *, size: int | None = None, column: str = "split"
) -> SegmentationData:
    """Reads a split of a data set into memory.

    Args:
        data: a folder or zip in the layout above, or the name of a seeded synthetic set: ``synthetic`` (polyps),
            ``synthetic-ultrasound``, ``synthetic-abdomen`` or ``synthetic-long-range@DISTANCE``, each with or without
            ``:COUNT``. COUNT is how many images (volumes, for the abdomen) the split train has, 320 (8) by default;
            validation and test have a quarter of that each.
        split: a value of the column that `column` names; None takes all items.
        size: height and width in pixels to resize to (images antialiased, masks nearest, spacing_x and spacing_y scaled
            alike); None keeps the files' own, which must then be all the same. Synthetic images have 128 by default.
        column: of ``items.csv``, where a data set is split in several ways.

    Raises:
        FileNotFoundError: no data set, or a listed image or mask is not there.
        ValueError: an unknown split or synthetic set, an image and mask of different sizes, a file that does not
            decode.
    """
    if re.fullmatch(r"synthetic([-@:][^/\\]*)?", str(data)):
        return _synthetic(str(data), split, 128 if size is None else size)
    rows, readers = _choose(data, split, column)
    images, masks = [], []
    for row, reader in zip(rows, readers, strict=True):
        image, mask = reader()
        if size is not None:
            for axis, pixels in zip("xy", image.size, strict=True):
                if f"spacing_{axis}" in row:
                    row[f"spacing_{axis}"] *= pixels / size
            image, mask = image.resize((size, size), Image.BILINEAR), mask.resize((size, size), Image.NEAREST)
        images.append(np.asarray(image))
        masks.append(np.asarray(mask, dtype=np.uint8))
    if len({image.shape for image in images}) > 1:
        raise ValueError("size: the images differ in size; give one to resize them to")
    return SegmentationData(np.stack(images), np.stack(masks), pd.DataFrame(rows))


def iter_cases(data: str | Path, split: str | None = None, *, column: str = "split") -> Iterator[SegmentationData]:
    """The cases of a split one by one, at their own sizes: the slices of a volume, or a single image. Only one is in
    memory at a time. Arguments and errors are those of `load_data`."""
    if re.fullmatch(r"synthetic([-@:][^/\\]*)?", str(data)):
        whole = load_data(data, split)
        for places in case_rows(whole.items):
            items = whole.items.iloc[places].reset_index(drop=True)
            yield SegmentationData(whole.images[places], whole.masks[places], items)
        return
    rows, readers = _choose(data, split, column)
    for places in case_rows(pd.DataFrame(rows)):
        pairs = [readers[i]() for i in places]
        if len({image.size for image, _ in pairs}) > 1:
            raise ValueError(f"data: the slices of volume {rows[places[0]]['volume']!r} differ in size")
        images, masks = (np.stack([np.asarray(x[part], dtype=np.uint8) for x in pairs]) for part in (0, 1))
        yield SegmentationData(images, masks, pd.DataFrame([rows[i] for i in places]))


def has_volumes(data: str | Path) -> bool:
    """Whether the items of a data set are slices of volumes. Errors are those of `load_data`."""
    if re.fullmatch(r"synthetic([-@:][^/\\]*)?", str(data)):
        return str(data).startswith("synthetic-abdomen")
    return any("volume" in row and not pd.isna(row["volume"]) for row, _ in iter_items(data))


def _choose(data: str | Path, split: str | None, column: str) -> tuple[list[dict], list[Callable]]:
    """The rows of a split, and what reads the image and mask of each."""
    chosen = list(iter_items(data))
    if split is not None:
        if chosen and column not in chosen[0][0]:
            raise ValueError(f"column: expected one of {[c for c in chosen[0][0] if c != 'name']}, got {column!r}")
        splits = sorted({row[column] for row, _ in chosen if not pd.isna(row[column])})
        if split not in splits:
            raise ValueError(f"split: expected one of {splits}, got {split!r}")
        chosen = [item for item in chosen if item[0][column] == split]
    return [row for row, _ in chosen], [reader for _, reader in chosen]


def split_items(data: str | Path, split: str | None = None, *, column: str = "split") -> pd.DataFrame:
    """The items of a split as `load_data` and `iter_cases` have them, without reading an image. Errors are theirs."""
    if re.fullmatch(r"synthetic([-@:][^/\\]*)?", str(data)):
        return load_data(data, split).items
    return pd.DataFrame(_choose(data, split, column)[0])


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


SYNTHETIC = ("synthetic", "synthetic-abdomen", "synthetic-long-range@DISTANCE", "synthetic-ultrasound")


def _synthetic(data: str, split: str | None, size: int) -> SegmentationData:
    match = re.fullmatch(r"(synthetic(?:-[a-z]+)*)(?:@(\d+))?(?::(\d+))?", data)
    name, distance, count = match.groups() if match else (data, None, None)
    if name + ("@DISTANCE" if distance else "") not in SYNTHETIC:
        raise ValueError(
            f"data: expected a folder, a zip or one of {', '.join(SYNTHETIC)}, with or without :COUNT, got {data!r}"
        )
    count = int(count or (8 if name == "synthetic-abdomen" else 320))
    if count < 1:
        raise ValueError(f"data: expected a COUNT of at least 1, got {data!r}")
    if size < 16:
        raise ValueError(f"size: expected at least 16 for a synthetic set, got {size}")
    quarter = max(1, count // 4)
    # The splits are far apart in the seeds' range, so that a larger COUNT never reuses another split's images.
    ranges = {"train": (0, count), "validation": (10**6, quarter), "test": (2 * 10**6, quarter)}
    if split is not None and split not in ranges:
        raise ValueError(f"split: expected one of {sorted(ranges)}, got {split!r}")
    images, masks, items = [], [], []
    for part in [split] if split else ranges:
        first, n = ranges[part]
        for seed in range(first, first + n):
            item = {"name": f"{name.replace('-', '_')}_{seed}", "split": part}
            if name == "synthetic-abdomen":
                volume, labels, (z, y, x) = synthetic_abdomen(seed, size)
                images.append(np.repeat(window(volume)[..., None], 3, axis=-1))
                masks.append(labels)
                spacing = {"spacing_x": x, "spacing_y": y, "spacing_z": z}
                for i in range(len(volume)):
                    items.append(
                        {
                            "name": f"{item['name']}_{i:03d}",
                            "split": part,
                            "volume": item["name"],
                            "slice": i,
                            **spacing,
                        }
                    )
                continue
            if name == "synthetic-long-range":
                image, mask = synthetic_long_range(seed, size, int(distance))
            elif name == "synthetic-ultrasound":
                image, mask = synthetic_ultrasound(seed, size)
                item["label"] = "lesion" if mask.any() else "normal"
            else:
                image, mask = synthetic_polyps(seed, size)
            images.append(image[None])
            masks.append(mask[None])
            items.append(item)
    return SegmentationData(np.concatenate(images), np.concatenate(masks), pd.DataFrame(items))
