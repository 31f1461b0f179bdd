"""Scores for every image, by MONAI's metrics."""

import numpy as np
import pandas as pd
import torch
import torch.nn as nn
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_iou
from torch.utils.data import DataLoader, Dataset

from .predict import normalise


def _one_hot(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """(B, 1, H, W) class indices to (B, classes, H, W), background left out."""
    return torch.cat([labels == c for c in range(1, classes + 1)], dim=1).float()


@torch.inference_mode()
def evaluate(model: nn.Module, data: Dataset, *, batch_size: int = 16, hd95: bool = True) -> pd.DataFrame:
    """Scores of every image and class.

    Args:
        model: with one output channel for a binary mask (threshold 0.5), or one for each class and the background.
        hd95: also the 95th percentile of the surface distances, in pixels (the larger of the two directed ones).

    Returns:
        A table with columns name, class, dice, iou and hd95. A class that is neither in the mask nor in the prediction
        scores dice and iou 1; hd95 is NaN where one of the two is empty: there is no distance to an empty mask.
    """
    model.eval()
    device = next(model.parameters()).device
    rows = []
    for batch in DataLoader(data, batch_size=batch_size):
        logits = model(normalise(batch["image"].to(device))).cpu()
        binary = logits.shape[1] == 1
        labels = (logits > 0).long() if binary else logits.argmax(1, keepdim=True)
        classes = 1 if binary else logits.shape[1] - 1
        p, t = _one_hot(labels, classes), _one_hot(batch["mask"].long(), classes)
        both_empty = (p + t).sum((2, 3)) == 0
        scores = {
            "dice": compute_dice(p, t, include_background=True, ignore_empty=False).masked_fill(both_empty, 1.0),
            "iou": compute_iou(p, t, include_background=True, ignore_empty=False).masked_fill(both_empty, 1.0),
        }
        if hd95:
            one_empty = (p.sum((2, 3)) == 0) | (t.sum((2, 3)) == 0)
            distance = torch.full(one_empty.shape, np.nan)
            # Item by item, as MONAI warns about every empty mask that it is given.
            for b, c in (~one_empty).nonzero().tolist():
                pair = (x[b : b + 1, c : c + 1] for x in (p, t))
                distance[b, c] = compute_hausdorff_distance(*pair, include_background=True, percentile=95).item()
            scores["hd95"] = distance
        for b, name in enumerate(batch["name"]):
            for c in range(classes):
                rows.append({"name": name, "class": c + 1, **{key: x[b, c].item() for key, x in scores.items()}})
    return pd.DataFrame(rows)
