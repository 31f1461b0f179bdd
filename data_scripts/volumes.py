"""Volumes (NIfTI, HDF5, npz) as slices: items with the columns volume, slice and, where known, spacing in mm."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from rwkvlib.data.files import Volume, read_volume, whole_labels

from .entry import BadItem, Item


def read_nifti(file: Path, *, axial: bool = True) -> tuple[np.ndarray, tuple[float, float, float]]:
    """A NIfTI file as (D, H, W), and its spacing (z, y, x) in mm.

    Args:
        axial: turn the volume as radiologists look at it: slices from the feet to the head, in each the patient's
            front at the top and right side at the left. False keeps the order of the file, as for the short-axis
            slices of the heart, which stand askew to the body.
    """
    volume = _read(file, axial)
    return volume.values, volume.spacing


def read_pair(
    file: Path, label_file: Path, *, axial: bool = True
) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """An image and its label as (D, H, W), the label in whole numbers, and the spacing (z, y, x) in mm.

    Raises: BadItem where the two differ in shape or do not lie at the same place in the scanner, by more than a tenth
    of a voxel's side, and for labels more than 1e-3 away from whole numbers; and as `read_nifti`.
    """
    image, label = _read(file, axial), _read(label_file, axial)
    shapes = [tuple(v.image.shape[:3]) for v in (image, label)]
    if shapes[0] == shapes[1]:
        last = np.array((*shapes[0], 1)[:3]) - 1
        corners = np.array([(*(corner * last), 1) for corner in np.ndindex(2, 2, 2)])
        apart = np.linalg.norm((corners @ (image.affine - label.affine).T)[:, :3], axis=1).max()
        if not apart <= 0.1 * min(image.spacing):
            raise BadItem(
                f"{label_file.name} lies elsewhere than {file.name}, by up to {apart:.4g} mm: the image's affine is "
                f"{_shown(image.affine)}, the label's {_shown(label.affine)}; write the label with the image's affine"
            )
    return image.values, labels_of(label.values, label_file), image.spacing


def _read(file: Path, axial: bool) -> Volume:
    try:
        return read_volume(file, as_stored=not axial)
    except FileNotFoundError:
        raise BadItem(f"no file {file.name}") from None
    except ImportError:
        raise
    except ValueError as error:
        raise BadItem(f"{file.name}: {error}") from error
    except Exception as error:  # nibabel, gzip and zlib have each their own
        raise BadItem(f"{file.name} does not decode: {error}") from error


def _shown(affine: np.ndarray) -> list[list[float]]:
    return [[round(float(x), 4) for x in row] for row in affine[:3]]


def labels_of(values: np.ndarray, file: Path) -> np.ndarray:
    """As `whole_labels`, with BadItem that names the file."""
    try:
        return whole_labels(values)
    except ValueError as error:
        raise BadItem(f"{file.name}: {error}") from error


def read_arrays(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """The arrays ``image`` and ``label`` of an .npz or .h5 file, (D, H, W); a single slice becomes D = 1."""
    try:
        if file.suffix == ".npz":
            with np.load(file) as content:
                arrays = content["image"], content["label"]
        else:
            try:
                import h5py
            except ImportError as error:
                raise ImportError(f"h5py: needed to read {file.name}; pip install h5py") from error
            with h5py.File(file) as content:
                arrays = content["image"][:], content["label"][:]
    except FileNotFoundError:
        raise BadItem(f"no file {file.name}") from None
    except ImportError:
        raise
    except KeyError as error:
        raise BadItem(f"{file.name}: expected arrays 'image' and 'label': {error}") from error
    except Exception as error:  # h5py, zipfile and zlib have each their own
        raise BadItem(f"{file.name} does not decode: {error}") from error
    image, label = (a[None] if a.ndim == 2 else a for a in arrays)
    if image.ndim != 3:
        raise BadItem(f"{file.name}: expected 2 or 3 dimensions, got shape {image.shape}")
    return image, labels_of(label, file)


def slices(
    name: str,
    image: np.ndarray,
    label: np.ndarray,
    to_bytes: Callable[[np.ndarray], np.ndarray],
    classes: int,
    spacing: tuple[float, float, float] | None = None,
    first: int = 0,
    **columns,
) -> Iterator[Item]:
    """The slices of one volume as items NAME_slice_000, ...

    Args:
        image, label: (D, H, W), of any real dtype; labels are whole numbers of 0 to `classes`.
        to_bytes: from the scanner's values to uint8.
        spacing: (z, y, x) in mm, None where the file does not say.
        first: number of the first slice.
    """
    if image.shape != label.shape:
        raise BadItem(f"{name}: the image is {image.shape}, the label {label.shape}")
    if not np.isfinite(image).all():
        raise BadItem(f"{name}: the image has values that are not finite")
    found = np.unique(label)
    if not np.isin(found, np.arange(classes + 1)).all():
        raise BadItem(f"{name}: expected labels 0 to {classes}, got {found.tolist()[:20]}")
    if spacing is not None:
        columns |= dict(zip(("spacing_z", "spacing_y", "spacing_x"), (round(s, 4) for s in spacing), strict=True))
    pixels, labels = to_bytes(image), label.astype(np.uint8)
    for i in range(len(pixels)):
        place = {"volume": name, "slice": first + i}
        yield Item(f"{name}_slice_{first + i:03d}", pixels[i], labels[i], {**place, **columns})
