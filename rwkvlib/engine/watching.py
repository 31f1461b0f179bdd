"""What a run shows of itself while it goes on: curves, and predictions for the same few images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn as nn
from PIL import Image

from ..data.dataset import FileData, SegmentationData
from ..data.files import save_png
from ..data.pixels import Size
from ..files import replacing
from .predict import predict_unchecked, to_labels
from .predict_files import overlay, shown

COUNT = 8  # images of a sheet
GAP = 2  # pixels between them
LARGEST = 512  # pixels of the longer side of images that differ in size
SHARE = 0.02  # of a run's time that pictures may take; the last ones are always drawn


def write_curves(log: Sequence[dict], score: str, path: str | Path) -> None:
    """Draws loss and, where it is there, score of each validation against the step: a PNG, whole or not at all."""
    from matplotlib.figure import Figure  # without pyplot, which would change a notebook's state

    scored = [row for row in log if row.get(score) is not None and np.isfinite(row[score])]
    figure = Figure(figsize=(6, 2.4 * (1 + bool(scored))), layout="constrained")
    axes = figure.subplots(1 + bool(scored), 1, sharex=True, squeeze=False)[:, 0]
    for ax, name, rows in zip(axes, ("loss", score), (log, scored), strict=False):
        ax.plot([row["step"] for row in rows], [row[name] for row in rows], marker="." if len(rows) < 50 else "")
        ax.set_ylabel(name if name == "loss" else f"{name} on validation")
        ax.grid(alpha=0.3)
    if scored:
        best = max(scored, key=lambda row: row[score])
        axes[1].annotate(f"{best[score]:.3f}", (best["step"], best[score]))
    axes[-1].set_xlabel("step")
    with replacing(path) as file:
        figure.savefig(file, dpi=100)


def all_or_nothing(scores: pd.DataFrame, pixels: int) -> str | None:
    """What is wrong where a table of `evaluate` has nothing marked in any image, or every one of its pixels."""
    marked = set(scores["predicted"])
    if not (scores["truth"] > 0).any() or not (marked == {0} or marked == {pixels}):
        return None
    return (
        f"the network marks {'nothing' if marked == {0} else 'every pixel'} in all of the {scores['name'].nunique()} "
        "images; usual early on, else look at the masks' values, at num_classes and lr"
    )


def _small(tile: np.ndarray) -> np.ndarray:
    picture = Image.fromarray(tile)
    picture.thumbnail((LARGEST, LARGEST))
    return np.asarray(picture)


def write_samples(
    model: nn.Module,
    data: SegmentationData | FileData,
    path: str | Path,
    window: Size | None = None,
    overlapping: bool = False,
) -> None:
    """Draws a sheet of up to eight images, evenly spaced in the set and so the same each time: as they are, with the
    truth, with the prediction, by windows of `predict` where one is given. A PNG, whole or not at all."""
    chosen = np.unique(np.linspace(0, len(data) - 1, COUNT).round().astype(int))
    columns = []
    for i in chosen.tolist():
        image, mask = data.arrays(i)
        batch = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
        found = to_labels(predict_unchecked(model, batch, window=window), overlapping=overlapping)[0].cpu().numpy()
        rgb = shown(image)
        tiles = [rgb, overlay(rgb, mask), overlay(rgb, found)]
        if isinstance(data, FileData) and data.size is None:
            tiles = [_small(tile) for tile in tiles]
        columns.append(np.concatenate([np.pad(t, ((0, GAP), (0, GAP), (0, 0)), constant_values=255) for t in tiles]))
    height = max(len(column) for column in columns)
    columns = [np.pad(c, ((0, height - len(c)), (0, 0), (0, 0)), constant_values=255) for c in columns]
    with replacing(path) as file:
        save_png(np.concatenate(columns, 1)[None, :-GAP, :-GAP], file)
