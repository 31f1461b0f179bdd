"""The threshold of a binary mask's probability, chosen on validation images and kept with the weights."""

import json
from pathlib import Path

import numpy as np
import torch.nn as nn
from safetensors.torch import save

from ..data.dataset import SegmentationData, case_rows
from ..data.pixels import batches
from ..files import write_file
from ..models.official import read_weights
from ..provenance import to_json
from .checkpoint import checkpoint_file
from .predict import inference_copy, predict, to_labels

THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(1, 20))


def dice_by_threshold(
    model: nn.Module,
    data: SegmentationData,
    thresholds: tuple[float, ...] = THRESHOLDS,
    *,
    batch_size: int = 16,
    flips: bool = False,
) -> dict[float, float]:
    """The mean Dice over the cases (strict: without those where nothing is there nor found) at each threshold.

    Raises: ValueError: a model with several output channels; as `rwkvlib.engine.predict.predict`.
    """
    model = inference_copy(model)
    device = next(model.parameters()).device
    places = np.concatenate([np.full(len(rows), i) for i, rows in enumerate(case_rows(data.items))])
    order = np.concatenate(case_rows(data.items))
    counts = np.zeros((3, len(thresholds), len(order)))
    done = 0
    for batch in batches(data.images, batch_size):
        logits = predict(model, batch.to(device), flips=flips)
        if logits.shape[1] != 1:
            raise ValueError(f"model: expected one with one output channel, got one with {logits.shape[1]}")
        here = slice(done, done + len(batch))
        truth = data.masks[here] > 0
        for i, threshold in enumerate(thresholds):
            marked = to_labels(logits, threshold).cpu().numpy() > 0
            counts[:, i, here] = [x.sum((1, 2)) for x in (marked & truth, marked, truth)]
        done += len(batch)
    both, marked_all, there = (np.stack([np.bincount(places, x[order]) for x in part]) for part in counts)
    with np.errstate(invalid="ignore"):
        dice = 2 * both / (marked_all + there)
    return {t: float(np.nanmean(row)) for t, row in zip(thresholds, dice, strict=True) if np.isfinite(row).any()}


def store_threshold(source: str | Path, path: str | Path, threshold: float) -> None:
    """Writes a checkpoint again, whole or not at all, with a threshold that the commands predict and evaluate take;
    weights and dtypes stay. Raises: ValueError, FileNotFoundError: `source` is no file of this library's."""
    state, metadata = read_weights(checkpoint_file(source))
    if "rwkvlib" not in metadata:
        raise ValueError(f"path: expected a checkpoint of this library, got {str(source)!r}, which has no metadata")
    meta = json.loads(metadata["rwkvlib"]) | {"threshold": threshold}
    write_file(path, save(state, metadata={"rwkvlib": to_json(meta)}))
