"""Pixels to tensors, and to the scale that the models are trained with."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

# Of ImageNet, as for the published encoders.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def scale(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of what the models are trained with: ImageNet's for three channels, else 0.5 and 0.25
    for all of them."""
    return (MEAN, STD) if channels == 3 else ((0.5,), (0.25,))


def normalise(image: Tensor) -> Tensor:
    """(B, C, H, W) in [0, 1] to the scale that the models are trained with, see `scale`."""
    mean, std = (image.new_tensor(x).view(1, -1, 1, 1) for x in scale(image.shape[1]))
    return (image - mean) / std


def batches(pixels: np.ndarray, batch_size: int) -> Iterator[Tensor]:
    """(N, H, W, C) uint8 as tensors (B, C, H, W) in [0, 1]."""
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    for i in range(0, len(pixels), batch_size):
        yield torch.from_numpy(np.array(pixels[i : i + batch_size])).permute(0, 3, 1, 2).float() / 255
