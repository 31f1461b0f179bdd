"""Volumes (NIfTI, HDF5, npz) as slices: items with the columns volume, slice and, where known, spacing in mm."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from .entry import BadItem, Item


def read_nifti(file: Path, *, axial: bool = True) -> tuple[np.ndarray, tuple[float, float, float]]:
    """A NIfTI file as (D, H, W), and its spacing (z, y, x) in mm.

    Args:
        axial: turn the volume as radiologists look at it: slices from the feet to the head, in each the patient's
            front at the top and right side at the left. False keeps the order of the file, as for the short-axis
            slices of the heart, which stand askew to the body.
    """
    import nibabel

    try:
        image = nibabel.load(file)
        if axial:
            image = nibabel.as_closest_canonical(image)  # axes to the patient's right, front and head
        values = np.asarray(image.dataobj)
    except FileNotFoundError:
        raise BadItem(f"no file {file.name}") from None
    except Exception as error:  # nibabel, gzip and zlib have each their own
        raise BadItem(f"{file.name} does not decode: {error}") from error
    if values.ndim != 3:
        raise BadItem(f"{file.name}: expected 3 dimensions, got shape {values.shape}")
    x, y, z = (float(s) for s in image.header.get_zooms()[:3])
    values = values.transpose(2, 1, 0)
    return (values[:, ::-1, ::-1] if axial else values), (z, y, x)


def read_arrays(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """The arrays ``image`` and ``label`` of an .npz or .h5 file, (D, H, W); a single slice becomes D = 1."""
    try:
        if file.suffix == ".npz":
            with np.load(file) as content:
                arrays = content["image"], content["label"]
        else:
            import h5py

            with h5py.File(file) as content:
                arrays = content["image"][:], content["label"][:]
    except FileNotFoundError:
        raise BadItem(f"no file {file.name}") from None
    except KeyError as error:
        raise BadItem(f"{file.name}: expected arrays 'image' and 'label': {error}") from error
    except Exception as error:  # h5py, zipfile and zlib have each their own
        raise BadItem(f"{file.name} does not decode: {error}") from error
    image, label = (a[None] if a.ndim == 2 else a for a in arrays)
    if image.ndim != 3:
        raise BadItem(f"{file.name}: expected 2 or 3 dimensions, got shape {image.shape}")
    return image, label


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
