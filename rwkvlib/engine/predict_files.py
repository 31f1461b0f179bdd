"""Masks for files of any number: which, where to, and how."""

from __future__ import annotations

import errno
import os
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch.nn as nn

from ..data.files import ARRAYS, IMAGES, VOLUMES, is_result, read_picture, save_png, suffix_of
from ..data.pixels import batches
from ..files import exists, expand, identity, replacing, walk
from .predict import inference_copy, predict, to_labels, to_probabilities

# Of the classes 1, 2, ...: Okabe and Ito's, which the colour-blind can tell apart.
COLOURS = np.array(
    [(230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167)]
)


def overlay(pixels: np.ndarray, labels: np.ndarray, alpha: float = 0.5, contour: bool = False) -> np.ndarray:
    """(H, W, 3) uint8 with the classes other than 0 of (H, W) labels above it.

    Args:
        alpha: opacity, from 0 to 1.
        contour: the classes' outlines in the place of their areas.
    """
    colour = COLOURS[(labels.astype(int) - 1) % len(COLOURS)]
    shown, edge = labels > 0, np.zeros(labels.shape, bool)
    if contour:
        framed, (height, width) = np.pad(labels, 1), labels.shape
        for y, x in ((0, 1), (2, 1), (1, 0), (1, 2)):
            edge |= framed[y : y + height, x : x + width] != labels
        shown &= edge
    return np.where(shown[..., None], (1 - alpha) * pixels + alpha * colour, pixels).astype(np.uint8)


def _beside(result: Path, ending: str, image_suffix: str, volume_suffix: str = "") -> Path:
    is_image = result.name.endswith(".png")
    stem = result.name.removesuffix(".png").removesuffix(".nii.gz")
    return result.with_name(stem + ending + (image_suffix if is_image else volume_suffix))


def shown(pixels: np.ndarray) -> np.ndarray:
    """(..., H, W, C) pixels as (..., H, W, 3): the first three channels of three or more, else the first alone."""
    return pixels[..., :3] if pixels.shape[-1] >= 3 else np.repeat(pixels[..., :1], 3, -1)


def _overlays(result: Path) -> Path:
    """Where the overlays of a result go: an image's file, a volume's folder."""
    return _beside(result, "_overlay", ".png")


def _probabilities(result: Path) -> Path:
    """Where the probabilities of a result go."""
    return _beside(result, "_probabilities", ".tif", ".nii.gz")


def _targets(result: Path, with_overlay: bool, probabilities: bool) -> list[Path]:
    """All that is written for a result."""
    return [result] + [_overlays(result)] * with_overlay + [_probabilities(result)] * probabilities


def find_files(
    paths: Iterable[str | Path], out: Path, with_overlay: bool = False, probabilities: bool = False
) -> dict[Path, Path]:
    """The result, relative to `out`, of each image and volume: of files, and of folders with all that is below them.

    Links are followed. What begins with a dot and ``__MACOSX`` is left out; so are results: what lies in `out`, where
    that is below the folder, and what says that prediction wrote it, where `out` is the folder or above it.

    Raises:
        FileNotFoundError: a path that is not there, a folder without images.
        ValueError: a file of another kind, two files with one result; a result where an overlay goes, `with_overlay`,
            or where `probabilities` go.
    """
    return _find(paths, out, with_overlay, probabilities)[0]


def _find(
    paths: Iterable[str | Path], out: Path, with_overlay: bool, probabilities: bool
) -> tuple[dict[Path, Path], list[str]]:
    """As `find_files`, and what was left out of the folders, in words."""
    found: dict[Path, Path] = {}
    left: Counter[str] = Counter()
    known = ", ".join(IMAGES + VOLUMES + ARRAYS)
    for path in map(expand, [paths] if isinstance(paths, str | Path) else paths):
        if path.is_dir():
            files = _in_folder(path, out, left)
            if not files:
                beside = f", but {'; '.join(_told(left))}" if left else ""
                raise FileNotFoundError(f"path: no image ({known}) in {str(path)!r}{beside}")
        elif path.is_file():
            files = [path]
        else:
            raise FileNotFoundError(f"path: no file or folder {str(path)!r}")
        for file in files:
            suffix = suffix_of(file.name)
            if suffix is None:
                raise ValueError(f"path: expected one of {known}, got {file.name!r}")
            kind = ".nii.gz" if suffix in VOLUMES else ".png"
            stem = file.name[: -len(suffix)]
            found[file] = (file.parent.relative_to(path) if path.is_dir() else Path()) / (stem + kind)
    results = list(found.values())
    if with_overlay:
        overlays = {_overlays(result) for result in results}
        results += [result for result in results if result in overlays or result.parent in overlays]
    if probabilities:
        results += [_probabilities(result) for result in found.values()]
    if twice := sorted({str(r) for r, n in Counter(results).items() if n > 1}):
        raise ValueError(f"path: several files would be written to {', '.join(twice)}; give them other folders")
    return found, _told(left)


def _in_folder(folder: Path, out: Path, left: Counter) -> list[Path]:
    here, there = folder.resolve(), out.resolve()
    below, overlap = here in there.parents, here == there or there in here.parents
    files = []
    for file in walk(folder):
        if below and there in (real := file.parent.resolve(), *real.parents):
            continue
        if suffix_of(file.name) is None:
            left[file.suffix.lower() or "none"] += 1
        elif overlap and is_result(file):
            left[RESULTS] += 1
        elif file.is_file():  # no broken link
            files.append(file)
        else:
            left["broken links"] += 1
    return files


RESULTS = "results of an earlier run"


def _told(left: Counter) -> list[str]:
    kinds = {kind: n for kind, n in left.items() if kind.startswith(".") or kind == "none"}
    words = [f"{n} {kind}" for kind, n in left.items() if kind not in kinds]
    if kinds:
        listed = ", ".join(f"{kind} {n}" for kind, n in sorted(kinds.items()))
        words.insert(0, f"{sum(kinds.values())} files of other kinds ({listed})")
    return words


def _check_targets(
    files: dict[Path, Path], out: Path, with_overlay: bool, probabilities: bool, overwrite: bool
) -> None:
    """Raises ValueError where an input would be written onto, FileExistsError where another file would be."""
    inputs = {identity(file): file for file in files}
    folders = {file.parent.resolve() for file in files}
    there = []
    for result in files.values():
        for target in _targets(result, with_overlay, probabilities):
            path = out / target
            if (found := identity(path)) in inputs or path.resolve() in folders:
                name = inputs.get(found, path)
                raise ValueError(f"out: the input {str(name)!r} would be written onto; choose another folder")
            if os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir())):
                there.append(path)
    if there and not overwrite:
        raise exists(there)


def predict_files(
    model: nn.Module,
    paths: Iterable[str | Path],
    out: str | Path,
    *,
    with_overlay: bool = False,
    probabilities: bool = False,
    threshold: float = 0.5,
    alpha: float = 0.5,
    contour: bool = False,
    hu: tuple[float, float] | None = None,
    as_stored: bool = False,
    channels: int | None = None,
    overlapping: bool = False,
    batch_size: int = 8,
    progress: bool = True,
    overwrite: bool = False,
    **options,
) -> list[Path]:
    """Writes a mask for every image and volume among the files and folders `paths`.

    Images become ``NAME.png``: 0 and 255 where the model has one output channel, else class indices. NIfTI volumes
    become ``NAME.nii.gz`` of class indices on the volume's own grid, with its affine. An input is never written onto,
    and nothing that is there, a result of an earlier run neither, unless `overwrite` says so.

    Args:
        out: folder; it may be one of `paths`, above or below it: see `find_files` for which results are no input.
        with_overlay: also ``NAME_overlay.png``, or ``NAME_overlay/000.png``, ... of slices with a class in them.
        probabilities: also ``NAME_probabilities.tif`` or ``.nii.gz``, float32: a page of the TIFF file, or a place on
            the volume's fourth axis, for each output channel.
        threshold: of a binary mask's probability; 0.5 of models with several output channels.
        alpha, contour: of `overlay`.
        hu: the window in Hounsfield units of volumes and of images with more than 8 bits, [-125, 275] for Synapse;
            None takes each from its 0.5th to its 99.5th percentile.
        as_stored: slices of volumes as the file has them; else as radiologists see them (as data_scripts prepares CT).
        channels: of the images; None: the model's own, 3 where it does not say.
        overlapping: labels are; masks hold the sums of ``2 ** (class - 1)`` over a pixel's classes then.
        batch_size: slices at a time.
        progress: a bar, and a line that says what was left out of the folders.
        overwrite: replace what `out` holds under the results' names.
        options: of `predict`.

    Returns: the masks written.

    Raises:
        FileNotFoundError, ValueError: as `find_files`, or an input would be written onto, before anything is written;
            ValueError at the end, with the names and reasons, where files could not be read or their results' names
            are too long: the others' masks are there. FileExistsError: a result is there. ImportError: no nibabel.
    """
    from tqdm import tqdm

    taken = getattr(getattr(model, "config", None), "in_channels", 3) if channels is None else channels
    out, model = expand(out), inference_copy(model)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha: expected an opacity from 0 to 1, got {alpha}")
    files, left = _find(paths, out, with_overlay, probabilities)
    _check_targets(files, out, with_overlay, probabilities, overwrite)
    if left and progress:
        tqdm.write(f"left out: {'; '.join(left)}", file=sys.stderr)
    written, errors = [], []
    for file, result in tqdm(files.items(), unit="file", disable=not progress):
        try:
            picture = read_picture(file, hu, as_stored, taken)
        except ValueError as error:
            errors.append(str(error))
            continue
        parts, shares, binary = [], [], False
        for batch in batches(picture.pixels, batch_size):
            logits = predict(model, batch, **options)
            parts.append(to_labels(logits, threshold, overlapping).numpy())
            if probabilities:
                shares.append(to_probabilities(logits, overlapping).movedim(1, -1).float().numpy())
            binary = logits.shape[1] == 1 and not overlapping
        labels = np.concatenate(parts)
        target = out / result
        is_image = target.name.endswith(".png")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(target) as path:
                picture.save(labels * (255 if binary and is_image else 1), path)
            written.append(target)
            if probabilities:
                with replacing(out / _probabilities(result)) as path:
                    found = np.concatenate(shares)
                    picture.save(found[..., 0] if binary else found, path)
            if with_overlay:
                _write_overlays(shown(picture.pixels), labels, out / _overlays(result), is_image, alpha, contour)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            errors.append(f"{file.name}: the name of its result is too long")
    if errors:
        raise ValueError(f"path: {len(errors)} of {len(files)} files could not be read: {'; '.join(errors)}")
    return written


def _write_overlays(
    pixels: np.ndarray, labels: np.ndarray, place: Path, is_image: bool, alpha: float, contour: bool
) -> None:
    if not is_image:
        place.mkdir(exist_ok=True)
        for old in filter(is_result, place.glob("*.png")):  # of a run that found more
            old.unlink()
    for i in [0] if is_image else np.flatnonzero(labels.any((1, 2))):
        with replacing(place if is_image else place / f"{i:03d}.png") as temporary:
            save_png(overlay(pixels[i], labels[i], alpha, contour)[None], temporary)
