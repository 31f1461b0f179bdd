"""Masks for files of any number: which, where to, and how."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch.nn as nn

from ..data.files import IMAGES, VOLUMES, read_picture
from ..data.pixels import batches
from ..files import replacing
from .predict import predict, to_labels

# Of the classes 1, 2, ...: Okabe and Ito's, which the colour-blind can tell apart.
COLOURS = np.array(
    [(230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167)]
)


def overlay(pixels: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 with the classes other than 0 of (H, W) labels half transparent above it."""
    colour = COLOURS[(labels.astype(int) - 1) % len(COLOURS)]
    return np.where(labels[..., None] > 0, (pixels.astype(int) + colour) // 2, pixels).astype(np.uint8)


def _overlays(result: Path) -> Path:
    """Where the overlays of a result go: an image's file, a volume's folder."""
    image = result.name.endswith(".png")
    return result.with_name(result.name.removesuffix(".png").removesuffix(".nii.gz") + "_overlay" + ".png" * image)


def find_files(paths: Iterable[str | Path], out: Path, with_overlay: bool = False) -> dict[Path, Path]:
    """The result, relative to `out`, of each image and volume: of files, and of folders with all that is below them.

    Raises:
        FileNotFoundError: a path that is not there, a folder without images.
        ValueError: a file of another kind, two files with one result; `with_overlay`, a result where an overlay goes.
    """
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        if path.is_dir():
            files = [f for f in sorted(path.rglob("*")) if f.is_file() and f.name.lower().endswith(IMAGES + VOLUMES)]
            # Results of an earlier run may lie within the folder; a name with a dot may be half a file.
            files = [f for f in files if not f.name.startswith(".") and out.resolve() not in f.resolve().parents]
            if not files:
                raise FileNotFoundError(f"path: no image ({', '.join(IMAGES + VOLUMES)}) in {str(path)!r}")
        elif path.is_file():
            files = [path]
        else:
            raise FileNotFoundError(f"path: no file or folder {str(path)!r}")
        for file in files:
            suffix = next((s for s in (*VOLUMES[::-1], *IMAGES) if file.name.lower().endswith(s)), None)
            if suffix is None:
                raise ValueError(f"path: expected one of {', '.join(IMAGES + VOLUMES)}, got {file.name!r}")
            kind = ".nii.gz" if suffix in VOLUMES else ".png"
            stem = file.name[: -len(suffix)]
            found[file] = (file.parent.relative_to(path) if path.is_dir() else Path()) / (stem + kind)
    results = list(found.values())
    if with_overlay:
        overlays = {_overlays(result) for result in results}
        results += [result for result in results if result in overlays or result.parent in overlays]
    if twice := sorted({str(r) for r in results if results.count(r) > 1}):
        raise ValueError(f"path: several files would be written to {', '.join(twice)}; give them other folders")
    return found


def predict_files(
    model: nn.Module,
    paths: Iterable[str | Path],
    out: str | Path,
    *,
    with_overlay: bool = False,
    hu: tuple[float, float] | None = None,
    as_stored: bool = False,
    batch_size: int = 8,
    progress: bool = True,
    **options,
) -> list[Path]:
    """Writes a mask for every image and volume among the files and folders `paths`.

    Images become ``NAME.png``: 0 and 255 where the model has one output channel, else class indices. NIfTI volumes
    become ``NAME.nii.gz`` of class indices on the volume's own grid, with its affine.

    Args:
        with_overlay: also ``NAME_overlay.png``, or ``NAME_overlay/000.png``, ... of slices with a class in them.
        hu: the window in Hounsfield units of volumes and of images with more than 8 bits, [-125, 275] for Synapse;
            None takes each from its 0.5th to its 99.5th percentile.
        as_stored: slices of volumes as the file has them; else as radiologists see them (as data_scripts prepares CT).
        batch_size: slices at a time.
        options: of `predict`.

    Returns: the masks written.

    Raises:
        FileNotFoundError, ValueError: as `find_files`, before anything is written; ValueError at the end, with the
            names and reasons, where files could not be read: the others' masks are there. ImportError: no nibabel.
    """
    from PIL import Image
    from tqdm import tqdm

    out = Path(out)
    files, written, errors = find_files(paths, out, with_overlay), [], []
    for file, result in tqdm(files.items(), unit="file", disable=not progress):
        try:
            picture = read_picture(file, hu, as_stored)
        except ValueError as error:
            errors.append(str(error))
            continue
        parts, binary = [], False
        for batch in batches(picture.pixels, batch_size):
            logits = predict(model, batch, **options)
            parts.append(to_labels(logits).numpy())
            binary = logits.shape[1] == 1
        labels = np.concatenate(parts)
        target = out / result
        target.parent.mkdir(parents=True, exist_ok=True)
        is_image = target.name.endswith(".png")
        with replacing(target) as path:
            picture.save(labels * (255 if binary and is_image else 1), path)
        written.append(target)
        if with_overlay:
            shown_at = out / _overlays(result)
            for i in [0] if is_image else np.flatnonzero(labels.any((1, 2))):
                path = shown_at if is_image else shown_at / f"{i:03d}.png"
                path.parent.mkdir(exist_ok=True)
                with replacing(path) as temporary:
                    Image.fromarray(overlay(picture.pixels[i], labels[i])).save(temporary, format="PNG")
    if errors:
        raise ValueError(f"path: {len(errors)} of {len(files)} files could not be read: {'; '.join(errors)}")
    return written
