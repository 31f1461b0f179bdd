"""Reading raw trees: finding files, decoding images and masks, with every trouble named."""

import re
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from rwkvlib.data.files import IMAGES as SUFFIXES
from rwkvlib.data.files import open_picture, picture_pixels
from rwkvlib.files import walk_folders

from .entry import BadItem, Case, Item


def folders(raw: Path, name: str) -> list[Path]:
    """The folders called `name`, at `raw` or anywhere below it, each once though links lead to it, too."""
    found = {p.resolve(): p for p, _ in walk_folders(raw) if p.name == name}
    return sorted(found.values())


def folder(raw: Path, name: str) -> Path:
    """The one folder called `name`, at `raw` or anywhere below it. Raises FileNotFoundError for none or several."""
    found = folders(raw, name)
    if len(found) != 1:
        what = f"{len(found)} of them: {[str(p) for p in found]}" if found else "none"
        raise FileNotFoundError(f"raw: expected one folder {name!r} in {str(raw)!r}, found {what}")
    return found[0]


def files(where: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
    """The files directly in a folder with one of these suffixes, 2 before 10, hidden ones left out."""
    found = [p for p in where.iterdir() if p.name.lower().endswith(suffixes) and not p.name.startswith(".")]
    return sorted(found, key=lambda p: [int(x) if x.isdigit() else x for x in re.split(r"(\d+)", p.name)])


def item_name(stem: str) -> str:
    """A file's stem as an item's name: white space becomes underscores."""
    return re.sub(r"\s+", "_", stem.strip())


def open_image(file: Path) -> Image.Image:
    """A decoded image, upright. Raises BadItem for what is truncated, or is no image."""
    try:
        return open_picture(file)
    except FileNotFoundError:
        raise BadItem(f"no file {file.name}") from None
    except UnidentifiedImageError:
        raise BadItem(f"{file.name} is not an image") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadItem(f"{file.name} does not decode: {error}") from error


def binary(values: np.ndarray) -> np.ndarray:
    """Foreground of a grey mask: above 127, as JPEG leaves no pure 0 and 255; of one of only 0 and 1: the 1."""
    return values > (127 if values.max(initial=0) > 1 else 0)


def read_mask(file: Path, foreground: Callable[[np.ndarray], np.ndarray] = binary) -> np.ndarray:
    """A mask file as (H, W) uint8 of 0 and 1. Colours count by their brightest channel; transparency is ignored."""
    image = open_image(file)
    if image.mode not in ("L", "1", "I", "F") and not image.mode.startswith("I;16"):
        image = image.convert("RGB")
    values = np.asarray(image)
    return foreground(values.max(axis=2) if values.ndim == 3 else values).astype(np.uint8)


def image_case(
    image: Path,
    masks: list[Path],
    *,
    name: str | None = None,
    read: Callable[[Path], np.ndarray] = read_mask,
    hu: tuple[float, float] | None = None,
    may_be_empty: bool = False,
    unite: bool = False,
    **columns,
) -> Case:
    """A 2-D image and its mask of class indices; to `unite` says that it may have several, and the mask is their union.
    `hu` is the window of `picture_pixels`."""
    name = name or item_name(image.stem)

    def load() -> Iterator[Item]:
        if not masks:
            raise BadItem(f"{image.name} has no mask")
        if len(masks) > 1 and not unite:
            raise BadItem(f"{image.name} has several masks: {', '.join(m.name for m in masks)}")
        picture = open_image(image)
        mask = None
        for file in masks:
            part = read(file)
            if part.shape != picture.size[::-1]:
                raise BadItem(f"{image.name} is {picture.size}, its mask {file.name} {part.shape[::-1]}")
            mask = part if mask is None else mask | part
        if not may_be_empty and not mask.any():
            raise BadItem(f"the mask {masks[0].name} is empty")
        try:
            pixels = picture_pixels(picture, hu)
        except ValueError as error:
            raise BadItem(f"{image.name}: {error}") from error
        # The bytes of a turned JPEG would lie otherwise than its mask.
        as_it_is = picture.format == "JPEG" and picture.mode in ("RGB", "L") and not picture.info["turned"]
        yield Item(name, pixels, mask, columns, image if as_it_is else None)

    return Case(name, load)


def by_stem(found: list[Path], ending: str = "") -> dict[str, list[Path]]:
    """Files by the stem of the image that they belong to, in lower case and without the masks' `ending`."""
    masks: dict[str, list[Path]] = {}
    for file in found:
        stem = unicodedata.normalize("NFC", file.stem).lower()
        if stem.endswith(ending):
            masks.setdefault(stem.removesuffix(ending), []).append(file)
    return masks


def masks_of(image: Path, masks: dict[str, list[Path]]) -> list[Path]:
    """Of an image, in the table that `by_stem` makes."""
    return masks.get(unicodedata.normalize("NFC", image.stem).lower(), [])


def paired(images: Path, masks: Path) -> Iterator[Case]:
    """The images of one folder, each with the mask of the same stem in another."""
    table = by_stem(files(masks))
    for image in files(images):
        yield image_case(image, masks_of(image, table))
