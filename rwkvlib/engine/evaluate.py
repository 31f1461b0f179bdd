"""Scores of a model on a data set, case by case: a case is a volume where there are volumes, else an image."""

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import pandas as pd
import torch
import torch.nn as nn
from scipy.ndimage import zoom
from torch import Tensor
from tqdm import tqdm

from ..data.dataset import SegmentationData, case_rows
from .metrics import SCORES, check_protocol, score
from .predict import batches, predict, to_labels

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


def _paper_labels(model: nn.Module, image: Tensor, size: int, flips: bool) -> tuple[Tensor, int]:
    """As the published test: cubic splines to the network's size, the labels back by nearest neighbour."""
    height, width = image.shape[2:]
    rows, columns = (cubic_matrix(n, size).to(image.device) for n in (height, width))
    logits = predict(model, rows @ image @ columns.T, flips=flips)
    labels = to_labels(logits).cpu()
    labels = labels[:, nearest_rows(size, height)][:, :, nearest_rows(size, width)]
    return labels, logits.shape[1]


def _spacing(items: pd.DataFrame, axes: str) -> list[float] | None:
    """Of a case, along `axes`, in mm; None where the table does not say."""
    columns = [f"spacing_{axis}" for axis in axes]
    if not set(columns) <= set(items) or items[columns].isna().any(axis=None):
        return None
    if (items[columns].nunique() > 1).any():
        raise ValueError(f"items: expected one spacing for the slices of {items['volume'].iloc[0]!r}")
    return [float(s) for s in items[columns].iloc[0]]


def evaluate(
    model: nn.Module,
    data: SegmentationData | Iterable[SegmentationData],
    *,
    protocol: str = "strict",
    size: int | None = None,
    batch_size: int = 16,
    hd95: bool = True,
    flips: bool = False,
    progress: bool = False,
) -> pd.DataFrame:
    """Scores of every case and class, as `rwkvlib.engine.metrics` defines them.

    Args:
        model: with one output channel for a binary mask, or one for each class and the background.
        data: with the column ``volume`` in its items, cases are volumes: their slices, in the order of the column
            ``slice``. Several data sets, as of `iter_cases`, are scored one after the other.
        protocol: "strict": undefined scores are NaN, HD95 is in mm where the items have spacing_x, spacing_y (and
            spacing_z), else in pixels. "paper": the published rules, HD95 in pixels.
        size: height and width in pixels that the network sees, if other than the data's. Images are resized to it, and
            predictions back, by bilinear interpolation ("paper": cubic splines, labels back by nearest neighbour).
        hd95: False leaves the column out, and with it most of the time.
        flips: average over mirror images, see `predict`.

    Returns:
        A table with the columns name (of the image or volume), class, dice, iou, hd95, sensitivity, specificity, truth
        and predicted (pixels), hd95_unit ("mm" or "pixel"), and those of the items that are the same for all slices
        of a case: patient, sequence, group and so on.

    Raises:
        ValueError: an unknown protocol, volumes with missing slices, labels that are no class of the model.
    """
    check_protocol(protocol)
    parts = [data] if isinstance(data, SegmentationData) else data
    device = next(model.parameters()).device
    rows = []
    bar = tqdm(unit="case", disable=not progress)
    for part in parts:
        cases, labels = case_rows(part.items), []
        for batch in batches(part.images, batch_size):
            batch = batch.to(device)
            if protocol == "paper" and size is not None and tuple(batch.shape[2:]) != (size, size):
                found, channels = _paper_labels(model, batch, size, flips)
            else:
                logits = predict(model, batch, size=size, flips=flips)
                found, channels = to_labels(logits).cpu(), logits.shape[1]
            labels.append(found.numpy())
        labels = np.concatenate(labels) if labels else part.masks
        for places in cases:
            items = part.items.iloc[places]
            is_volume = "volume" in items and items["volume"].notna().all()
            case = slice(None) if is_volume else 0
            spacing = _spacing(items, "zyx" if is_volume else "yx") if protocol == "strict" else None
            scores = score(
                labels[places][case],
                part.masks[places][case],
                max(2, channels),
                protocol=protocol,
                spacing=spacing,
                hd95=hd95,
            )
            shared = {c: items[c].iloc[0] for c in items if c not in COLUMNS and items[c].nunique(dropna=False) == 1}
            name = items["volume" if is_volume else "name"].iloc[0]
            unit = {"hd95_unit": "mm" if spacing else "pixel"}
            rows += [{"name": name, **row, **unit, **shared} for row in scores]
            bar.update()
    bar.close()
    table = pd.DataFrame(rows, columns=None if rows else list(COLUMNS))
    return table if hd95 else table.drop(columns=["hd95", "hd95_unit"])
