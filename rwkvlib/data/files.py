"""Reading and writing pictures and volumes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
VOLUMES = (".nii", ".nii.gz")


@dataclass
class Picture:
    """An image or volume that was read: (N, H, W, 3) uint8, and what writes (N, H, W) uint8 labels in its format."""

    pixels: np.ndarray
    save: Callable[[np.ndarray, Path], None]


def _bytes(values: np.ndarray, hu: tuple[float, float] | None) -> np.ndarray:
    """Of a scanner's values uint8: Hounsfield units by their window; those without a unit from their 0.5th to their
    99.5th percentile, as magnetic resonance is prepared for training."""
    from .window import stretch, window

    if not np.isfinite(values).all():
        raise ValueError("values that are not finite")
    return stretch(values) if hu is None else window(values, *hu)


def read_picture(file: Path, hu: tuple[float, float] | None = None, as_stored: bool = False) -> Picture:
    """Reads an image or a NIfTI volume; see `predict_files`. Raises ValueError, with the file's name, for any other."""
    try:
        return (_read_volume if file.name.lower().endswith(VOLUMES) else _read_image)(file, hu, as_stored)
    except ImportError:
        raise
    except Exception as error:  # Pillow, nibabel, gzip and zlib have each their own
        raise ValueError(f"{file.name}: {error or type(error).__name__}") from error


def _read_image(file: Path, hu: tuple[float, float] | None, as_stored: bool) -> Picture:
    from PIL import Image

    with Image.open(file) as image:
        if getattr(image, "n_frames", 1) > 1:
            raise ValueError(f"expected one image, got {image.n_frames} in one file")
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):  # more than 8 bits
            pixels = _bytes(np.asarray(image), hu)[..., None].repeat(3, axis=-1)
        else:
            pixels = np.asarray(image.convert("RGB"))

    def save(labels: np.ndarray, path: Path) -> None:
        Image.fromarray(labels[0]).save(path, format="PNG")

    return Picture(pixels[None], save)


def _read_volume(file: Path, hu: tuple[float, float] | None, as_stored: bool) -> Picture:
    try:
        import nibabel
    except ImportError as error:
        raise ImportError(f"nibabel: needed to read {file.name}; pip install nibabel") from error
    image = nibabel.load(file)
    if len(image.shape) != 3:
        raise ValueError(f"expected 3 dimensions, got shape {image.shape}")
    turned = image if as_stored else nibabel.as_closest_canonical(image)  # axes to the right, front and head
    values = np.asarray(turned.dataobj).transpose(2, 1, 0)
    back = slice(None) if as_stored else slice(None, None, -1)
    pixels = _bytes(values[:, back, back], hu)

    def save(labels: np.ndarray, path: Path) -> None:
        found = labels[:, back, back].transpose(2, 1, 0)
        if not as_stored:
            codes = nibabel.orientations
            way = codes.ornt_transform(codes.axcodes2ornt("RAS"), codes.io_orientation(image.affine))
            found = codes.apply_orientation(found, way)
        header = image.header.copy()
        header.set_data_dtype(np.uint8)
        header.set_slope_inter(1, 0)
        nibabel.save(type(image)(np.ascontiguousarray(found), image.affine, header), path)

    return Picture(pixels[..., None].repeat(3, axis=-1), save)
