"""Pixels to tensors, and to the scale that the models are trained with."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

Size = int | tuple[int, int]  # of an image in pixels: (height, width), or one number for both
# Of ImageNet, as for the published encoders.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def pair(size: Size) -> tuple[int, int]:
    """A size as (height, width)."""
    if isinstance(size, int):
        return size, size
    height, width = size
    return height, width


def place_of(own: tuple[int, int], size: Size, resize: str = "squash") -> tuple[slice, slice]:
    """The rows and columns of an image of `size` in which one of height and width `own` lies when it is resized: all of
    them by "squash", which takes no notice of its shape; by "letterbox", which keeps that, the largest middle part.

    Raises: ValueError for another `resize`.
    """
    height, width = pair(size)
    if resize == "squash":
        return slice(0, height), slice(0, width)
    if resize != "letterbox":
        raise ValueError(f"resize: expected squash or letterbox, got {resize!r}")
    factor = min(height / own[0], width / own[1])
    rows, columns = (max(1, round(n * factor)) for n in own)
    top, left = (height - rows) // 2, (width - columns) // 2
    return slice(top, top + rows), slice(left, left + columns)


def scale(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of what the models are trained with: ImageNet's for three channels, else 0.5 and 0.25
    for all of them."""
    return (MEAN, STD) if channels == 3 else ((0.5,), (0.25,))


def normalise(image: Tensor) -> Tensor:
    """(B, C, H, W) or (B, C, D, H, W) in [0, 1] to the scale that the models are trained with, see `scale`."""
    shape = (1, -1, *[1] * (image.ndim - 2))
    mean, std = (image.new_tensor(x).view(shape) for x in scale(image.shape[1]))
    return (image - mean) / std


def batches(pixels: np.ndarray, batch_size: int) -> Iterator[Tensor]:
    """(N, H, W, C) uint8 as tensors (B, C, H, W) in [0, 1]."""
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    for i in range(0, len(pixels), batch_size):
        yield torch.from_numpy(np.array(pixels[i : i + batch_size])).permute(0, 3, 1, 2).float() / 255
