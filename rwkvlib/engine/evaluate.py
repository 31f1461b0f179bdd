"""Scores of a model on a data set, case by case: a case is a volume where there are volumes, else an image."""

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn as nn
from scipy.ndimage import zoom
from torch import Tensor
from tqdm import tqdm

from ..analysis.statistics import NO_UNITS, default_unit
from ..data.dataset import SegmentationData, case_rows
from ..data.files import read_labels, read_volume, suffix_of, whole_labels
from ..data.pixels import Size, pair
from ..files import walk
from .metrics import SCORES, check_protocol, score
from .predict import batches, inference_copy, predict, predict_unchecked, to_labels
from .record import write_cases

Predicted = tuple[SegmentationData, np.ndarray, int]  # with labels of its masks' shape, and how many classes there are
Each = Callable[[SegmentationData, np.ndarray, list[dict]], None]
COLUMNS = ("name", "class", *SCORES, "truth", "predicted", "hd95_unit")


@lru_cache(maxsize=64)
def cubic_matrix(old: int, new: int) -> Tensor:
    """The (new, old) matrix that scipy.ndimage.zoom(order=3) multiplies an axis by: spline interpolation is linear, so
    a stack of slices is resized by two matrix products."""
    return torch.from_numpy(zoom(np.eye(old), (new / old, 1), order=3)).float()


@lru_cache(maxsize=64)
def nearest_rows(old: int, new: int) -> Tensor:
    """The `new` places of an axis of `old` pixels that scipy.ndimage.zoom(order=0) takes."""
    return torch.from_numpy(zoom(np.arange(old), new / old, order=0))


def _published_labels(
    model: nn.Module, image: Tensor, size: Size, flips: bool, labelled: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """As the published test: cubic splines to the network's size, the labels back by nearest neighbour; the logits.
    `labelled` are options of `to_labels`."""
    (height, width), seen = image.shape[2:], pair(size)
    rows, columns = (cubic_matrix(*n).to(image.device) for n in zip((height, width), seen, strict=True))
    logits = predict_unchecked(model, rows @ image @ columns.T, flips=flips)
    labels = to_labels(logits, **labelled).cpu()
    labels = labels[:, nearest_rows(seen[0], height)][:, :, nearest_rows(seen[1], width)]
    return labels, logits


def _spacing(items: pd.DataFrame, axes: str) -> list[float] | None:
    """Of a case, along `axes`, in mm; None where the table does not say."""
    columns = [f"spacing_{axis}" for axis in axes]
    if not set(columns) <= set(items) or items[columns].isna().any(axis=None):
        return None
    numbers = items[columns].apply(pd.to_numeric, errors="coerce")
    for column in columns:
        for name, text, number in zip(items["name"], items[column], numbers[column], strict=True):
            if not 0 < number < np.inf:
                raise ValueError(f"items: expected {column} of {str(name)!r} to be in mm and above 0, got {text!r}")
    spread = numbers.max() - numbers.min()
    if (spread > 1e-3 * numbers.max()).any():  # less is rounding
        differing = {c: sorted(set(numbers[c])) for c in columns if spread[c] > 0}
        raise ValueError(f"items: expected one spacing for the slices of {items['volume'].iloc[0]!r}, got {differing}")
    return [float(s) for s in numbers.iloc[0]]


def _is_volume(items: pd.DataFrame) -> bool:
    return "volume" in items and items["volume"].notna().all()


def case_unit(items: pd.DataFrame) -> str:
    """The unit of a case's strict HD95: "mm" where its items have the spacing, else "pixel"."""
    return "mm" if _spacing(items, "zyx" if _is_volume(items) else "yx") else "pixel"


def check_cases(items: pd.DataFrame, *, protocol: str = "strict", unit: str | None = None) -> None:
    """Finds in a data set's items, before anything is scored, what would spoil the scores or their intervals.

    Args:
        items: of the split that will be scored.
        unit: column that will be resampled, see `rwkvlib.analysis.statistics.summarise`; None takes its default.

    Raises: ValueError for volumes with missing slices; a unit that is no column, is missing for an item or differs
        within a case; by the strict protocol, spacing for some cases only, as their mean would mix mm and pixels.
    """
    unit = default_unit(items) if unit is None else unit
    cases = [items.iloc[places] for places in case_rows(items)]
    names = [case["volume" if _is_volume(case) else "name"].iloc[0] for case in cases]
    if unit in NO_UNITS or unit not in items:
        known = [c for c in items if c not in (*NO_UNITS, "split")]
        raise ValueError(f"unit: expected one of {known}, got {unit!r}")
    if missing := [str(n) for n in items["name"][items[unit].isna()]]:
        raise ValueError(
            f"unit: {len(missing)} of {len(items)} items have no {unit!r}: {', '.join(missing[:5])}"
            f"{', ...' * (len(missing) > 5)}; fill them in, or take --unit name"
        )
    if differing := [n for n, case in zip(names, cases, strict=True) if unit != "name" and case[unit].nunique() > 1]:
        raise ValueError(f"unit: expected one {unit!r} for each case, got several for {differing[0]!r}")
    if check_protocol(protocol) == "strict":
        units = [case_unit(case) for case in cases]
        _check_units(dict(zip(names, units, strict=True)))


def _check_units(units: dict[str, str]) -> None:
    """Raises ValueError where some cases have their HD95 in mm and others in pixels."""
    if len(set(units.values())) > 1:
        without = [str(name) for name, unit in units.items() if unit == "pixel"]
        raise ValueError(
            f"items: expected the spacing of all cases or of none, as a mean cannot mix mm and pixels; {len(without)} "
            f"of {len(units)} have none: {', '.join(without[:5])}{', ...' * (len(without) > 5)}; fill in spacing_x, "
            "spacing_y (and spacing_z), or take these columns out of items.csv, for HD95 in pixels"
        )


def _check_masks(part: SegmentationData, classes: int, ignore_index: int | None) -> None:
    """Raises ValueError that names the item with a label that is no class of the model."""
    for name, mask in zip(part.items["name"], part.masks, strict=True):
        if ignore_index is not None:
            mask = mask[mask != ignore_index]
        if mask.max(initial=0) >= classes:
            found = np.unique(mask)
            shown = ", ".join(map(str, found[:10])) + ", ..." * (len(found) > 10)
            remedy = "write 1 where it has 255" if set(found) <= {0, 255} else "correct the mask or take another model"
            raise ValueError(
                f"mask: item {str(name)!r} has the values {shown}, expected class indices 0 to {classes - 1}, as the "
                f"model has; {remedy}"
            )


def evaluate(
    model: nn.Module,
    data: SegmentationData | Iterable[SegmentationData],
    *,
    protocol: str = "strict",
    size: Size | None = None,
    resize: str = "squash",
    window: Size | None = None,
    batch_size: int = 16,
    hd95: bool = True,
    flips: bool = False,
    ignore_index: int | None = None,
    overlapping: bool = False,
    threshold: float = 0.5,
    progress: bool = False,
    unfinished: str | Path | None = None,
    each: Each | None = None,
) -> pd.DataFrame:
    """Scores of every case and class, as `rwkvlib.engine.metrics` defines them, by an `inference_copy` of the model.

    Args:
        model: with one output channel for a binary mask, or one for each class and the background.
        data: with the column ``volume`` in its items, cases are volumes: their slices, in the order of the column
            ``slice``. Several data sets, as of `iter_cases`, are scored one after the other.
        protocol: "strict": undefined scores are NaN, HD95 is in mm where the items have spacing_x, spacing_y (and
            spacing_z), else in pixels. "published": the published code's rules, HD95 in pixels.
        size: height and width in pixels that the network sees, or one number for both, if other than the data's. Images
            are resized to it, and predictions back, by bilinear interpolation ("published" where images are squashed:
            cubic splines, labels back by nearest neighbour).
        resize, window: as of `predict`.
        hd95: False leaves the column out, and with it most of the time.
        flips: average over mirror images, see `predict`.
        ignore_index: a value of the masks, whose pixels count for nothing.
        overlapping: each channel is a class by itself, and masks hold sums as `rwkvlib.data.dataset` says.
        threshold: of a binary mask's probability.
        unfinished: a CSV file for the cases that are scored already, where something goes wrong before the last one.
        each: is called with each case, as a data set of its slices in order, its labels (N, H, W) and its rows.

    Returns:
        A table with the columns name (of the image or volume), class, dice, iou, hd95, sensitivity, specificity, truth
        and predicted (pixels), hd95_unit ("mm" or "pixel"), and those of the items that are the same for all slices
        of a case: patient, sequence, group and so on.

    Raises:
        ValueError: an unknown protocol, volumes with missing slices, labels that are no class of the model, spacing
            for some cases only; the message names the item.
    """
    labelled = dict(threshold=threshold, overlapping=overlapping)
    seen: dict[str, Any] = dict(size=size, resize=resize, window=window, flips=flips)
    protocol = check_protocol(protocol)
    how: dict[str, Any] = dict(protocol=protocol, batch_size=batch_size, ignore_index=ignore_index)
    found = _predicted(model, data, labelled=labelled, **how, **seen)
    return _table(_scored(found, protocol, hd95, each, ignore_index, overlapping), hd95, progress, unfinished)


def _table(
    cases: Iterable[list[dict]], hd95: bool = True, progress: bool = False, unfinished: str | Path | None = None
) -> pd.DataFrame:
    rows: list[dict] = []
    try:
        for found in tqdm(cases, unit="case", disable=not progress):
            rows += found
    except BaseException as error:  # an interrupt as well
        if unfinished is not None and rows:
            write_cases(unfinished, pd.DataFrame(rows))
            scored = len({row["name"] for row in rows})
            error.add_note(f"{scored} cases were scored before; their scores are in {str(unfinished)!r}")
        raise
    table = pd.DataFrame(rows, columns=None if rows else list(COLUMNS))
    return table if hd95 else table.drop(columns=["hd95", "hd95_unit"])


def _predicted(
    model: nn.Module,
    data: SegmentationData | Iterable[SegmentationData],
    *,
    protocol: str,
    batch_size: int,
    labelled: dict[str, Any],
    ignore_index: int | None,
    **options: Any,
) -> Iterator[Predicted]:
    """The labels of each part of the data; `labelled` are options of `to_labels`, the others of `predict`."""
    size, overlapping = options["size"], labelled["overlapping"]
    splines = protocol == "published" and size is not None and options["resize"] == "squash" and not options["window"]
    parts = [data] if isinstance(data, SegmentationData) else data
    model = inference_copy(model)
    device = next(model.parameters()).device
    channels = 1
    for part in parts:
        case_rows(part.items)  # whose errors need no prediction
        of_batches: list[np.ndarray] = []
        for batch in batches(part.images, batch_size):
            batch = batch.to(device)
            if splines and tuple(batch.shape[2:]) != pair(size):
                found, logits = _published_labels(model, batch, size, options["flips"], labelled)
            else:
                logits = predict(model, batch, **options)
                found = to_labels(logits, **labelled).cpu()
            channels = logits.shape[1]
            if not of_batches:
                _check_masks(part, 2**channels if overlapping else max(2, channels), ignore_index)
            of_batches.append(found.numpy())
        classes = channels if overlapping else max(2, channels)
        yield part, np.concatenate(of_batches) if of_batches else part.masks, classes


def _scored(
    parts: Iterable[Predicted],
    protocol: str,
    hd95: bool,
    each: Each | None,
    ignore_index: int | None = None,
    overlapping: bool = False,
) -> Iterator[list[dict]]:
    """The rows of `evaluate`'s table, case by case."""
    units: dict[str, str] = {}
    for part, labels, classes in parts:
        for places in case_rows(part.items):
            items = part.items.iloc[places]
            is_volume = _is_volume(items)
            name = items["volume" if is_volume else "name"].iloc[0]
            case = slice(None) if is_volume else 0
            spacing = _spacing(items, "zyx" if is_volume else "yx") if protocol == "strict" else None
            units[name] = "mm" if spacing else "pixel"
            if hd95:
                _check_units(units)
            truth, found = part.masks[places], labels[places]
            how: dict[str, Any] = dict(protocol=protocol, spacing=spacing, hd95=hd95, ignore_index=ignore_index)
            if overlapping:
                pairs = ((found[case] >> bit & 1, truth[case] >> bit & 1) for bit in range(classes))
                scores = [score(*pair, 2, **how)[0] | {"class": i} for i, pair in enumerate(pairs, 1)]
            else:
                scores = score(found[case], truth[case], classes, **how)
            shared = {c: items[c].iloc[0] for c in items if c not in COLUMNS and items[c].nunique(dropna=False) == 1}
            rows = [{"name": name, **row, "hd95_unit": units[name], **shared} for row in scores]
            if each is not None:
                each(SegmentationData(part.images[places], truth, items), found, rows)
            yield rows


def evaluate_masks(
    folder: str | Path,
    data: Iterable[SegmentationData],
    classes: int,
    *,
    protocol: str = "strict",
    progress: bool = False,
    unfinished: str | Path | None = None,
    each: Each | None = None,
) -> pd.DataFrame:
    """The table of `evaluate` for masks that were made elsewhere: a picture for each item, as ``NAME.png``, or a NIfTI
    file for each volume, as ``VOLUME.nii.gz``, in the volume's own orientation.

    Args:
        data: cases at their own size, as of `iter_cases`.
        classes: of the data set, the background included.

    Raises: ValueError for masks that are missing, too many, of another size or with other values than class indices
        (of two classes 255 is 1, too); the message names the file.
    """
    files = {file.relative_to(folder).as_posix(): file for file in walk(folder) if suffix_of(file.name)}
    by_name: dict[str, list[Path]] = {}
    for name, file in files.items():
        by_name.setdefault(name[: -len(suffix_of(name) or "")], []).append(file)
    if twice := [name for name, found in by_name.items() if len(found) > 1]:
        raise ValueError(f"masks: expected one file for each name in {str(folder)!r}, got several for {_some(twice)}")
    used: set[str] = set()

    def read(part: SegmentationData) -> np.ndarray:
        items = part.items
        whole = str(items["volume"].iloc[0]) if _is_volume(items) else None
        names = [whole] if whole in by_name else [str(name) for name in items["name"]]
        if missing := [name for name in names if name not in by_name]:
            raise ValueError(f"masks: no file in {str(folder)!r} for {_some(missing)}")
        used.update(names)
        if whole in by_name:
            found = whole_labels(read_volume(by_name[whole][0]).values)[np.argsort(np.argsort(items["slice"]))]
        else:
            found = np.stack([read_labels(by_name[name][0]) for name in names])
        if found.shape != part.masks.shape:
            got, expected = (" x ".join(map(str, x)) for x in (found.shape, part.masks.shape))
            raise ValueError(f"masks: expected {expected} for {_some(names)}, as the data have, got {got}")
        if classes == 2 and set(np.unique(found)) <= {0, 255}:
            found = found > 0
        if found.max(initial=0) >= classes:
            raise ValueError(
                f"masks: expected class indices 0 to {classes - 1} for {_some(names)}, got {_some(np.unique(found))}"
            )
        return found.astype(np.uint8)

    def predicted() -> Iterator[Predicted]:
        for part in data:
            _check_masks(part, classes, None)
            yield part, read(part), classes
        if extra := sorted(set(by_name) - used):
            raise ValueError(
                f"masks: {len(extra)} files in {str(folder)!r} are of no item: {_some(extra)}; take them out"
            )

    scored = _scored(predicted(), check_protocol(protocol), True, each)
    return _table(scored, progress=progress, unfinished=unfinished)


def _some(names: Iterable) -> str:
    shown = [str(name) for name in names]
    return ", ".join(shown[:5]) + f" and {len(shown) - 5} more" * (len(shown) > 5)
