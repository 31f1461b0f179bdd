"""Prediction for images of any size.

MONAI is imported where it is needed: this module comes with ``import rwkvlib``. Files are for predict_files.py; the
names of what has moved stay importable from here.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..data.files import IMAGES, VOLUMES, Picture, read_picture
from ..data.pixels import MEAN, STD, batches, normalise
from ..models.folding import fold_batchnorm

__all__ = [
    "IMAGES",
    "MEAN",
    "STD",
    "VOLUMES",
    "Picture",
    "batches",
    "fold_batchnorm",
    "normalise",
    "predict",
    "read_picture",
    "to_labels",
]


@torch.inference_mode()
def predict(
    model: nn.Module,
    image: Tensor,
    *,
    size: int | None = None,
    flips: bool = False,
    window: int | None = None,
    overlap: float = 0.5,
) -> Tensor:
    """Logits for images of any height and width: padded at the right and bottom as the model needs, then cropped.

    Args:
        model: of `build_model`; used in eval mode, and left in the mode it was in.
        image: (B, C, H, W) in [0, 1].
        size: height and width in pixels that the network sees: the image is resized to it (bilinear, antialiased), the
            logits back to the image's (bilinear). None: the image as it is.
        flips: the mean logits of the image, its two mirror images and its half turn, each turned back.
        window: side in pixels of the windows that larger images are taken in, one after the other, their logits
            weighted by a Gaussian (MONAI's sliding_window_inference); None takes the image whole.
        overlap: of neighbouring windows, a share of their side.

    Returns:
        (B, num_classes, H, W) logits, on the image's device.

    Raises:
        ValueError, TypeError: not such a tensor; no such window.
    """
    if not isinstance(image, Tensor) or not image.is_floating_point():
        raise TypeError(f"image: expected a floating-point tensor, got {getattr(image, 'dtype', type(image).__name__)}")
    if image.ndim != 4 or 0 in image.shape:
        raise ValueError(f"image: expected shape (B, C, H, W), got {tuple(image.shape)}")
    if size is not None and size < 1:
        raise ValueError(f"size: expected at least 1, got {size}")
    divisor = getattr(model, "divisor", 16)  # 16: `create_model`'s halve the image four times
    if window is not None and window < divisor:
        raise ValueError(f"window: expected at least {divisor} pixels, got {window}")
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap: expected a share from 0 to below 1, got {overlap}")
    x, own = image.to(next(model.parameters()).device), tuple(image.shape[2:])
    resized = size is not None and own != (size, size)
    if resized:
        x = F.interpolate(x, (size, size), mode="bilinear", antialias=True)
    x = normalise(x)
    training = model.training
    model.eval()
    try:
        parts = []
        for axes in ((), (2,), (3,), (2, 3)) if flips else ((),):
            parts.append(_whole_or_windows(model, x.flip(axes), divisor, window, overlap).flip(axes))
    finally:
        model.train(training)
    logits = torch.stack(parts).mean(0) if flips else parts[0]
    if resized:
        logits = F.interpolate(logits.contiguous(memory_format=torch.channels_last), own, mode="bilinear")
    return logits.to(image.device)


def _whole_or_windows(model: nn.Module, x: Tensor, divisor: int, window: int | None, overlap: float) -> Tensor:
    def padded(x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        # Repeating the edge, since mirroring needs an image larger than what it adds.
        return model(F.pad(x, (0, -width % divisor, 0, -height % divisor), mode="replicate"))[..., :height, :width]

    if window is None:
        return padded(x)
    from monai.inferers import sliding_window_inference

    return sliding_window_inference(x, (window, window), 4, padded, overlap, mode="gaussian", padding_mode="replicate")


def to_labels(logits: Tensor) -> Tensor:
    """(B, num_classes, H, W) logits to (B, H, W) uint8 class indices; one channel is a mask where it is above 0."""
    if logits.shape[1] == 1:
        return (logits[:, 0] > 0).byte()
    return logits.contiguous(memory_format=torch.channels_last).argmax(1).byte()  # a fifth of the time on a CPU


def __getattr__(name: str) -> Any:
    """What moved to predict_files.py, which imports this module."""
    if name not in ("COLOURS", "find_files", "overlay", "predict_files"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import predict_files as place

    return getattr(place, name)
