"""Prediction for images of any size.

MONAI is imported where it is needed: this module comes with ``import rwkvlib``. Files are for predict_files.py; the
names of what has moved stay importable from here.
"""

from __future__ import annotations

import contextlib
import copy
import math
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..data.files import IMAGES, VOLUMES, Picture, read_picture
from ..data.pixels import MEAN, STD, batches, normalise
from ..models.folding import fold, fold_batchnorm, foldable
from ..models.registry import divisor_of

__all__ = [
    "IMAGES",
    "MEAN",
    "STD",
    "VOLUMES",
    "Averaged",
    "Picture",
    "batches",
    "fold_batchnorm",
    "normalise",
    "predict",
    "read_picture",
    "to_labels",
    "to_probabilities",
]


def inference_copy(model: nn.Module) -> nn.Module:
    """The model as `predict_files` and `evaluate` run it, and as the book's latencies are measured.

    It is a copy in eval mode, BatchNorm folded (`fold_batchnorm`), weights channels last. The outputs are equal to
    1e-5, and the model stays as it is. One without a BatchNorm to fold comes back itself: a copy has nothing to gain.

    For many images: ``fast = inference_copy(model)`` once, then ``predict(fast, image)``.
    """
    if not any(foldable(module) for module in model.modules()):
        return model
    return fold(copy.deepcopy(model).eval()).to(memory_format=torch.channels_last)


_lock = threading.Lock()
# The threads that are inside `eval_mode`, by model, and the modes to restore after the last of them.
_inside: dict[nn.Module, tuple[int, dict[nn.Module, bool]]] = {}


@contextlib.contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Within, all modules of the model are in eval mode; afterwards each is in the mode that it was in.

    A model that is wholly in eval mode already is left alone. Several threads may be inside with one model: the first
    switches, the last restores. (Not while another thread trains it: the mode is the model's, not the thread's.)
    """
    with _lock:
        threads, modes = _inside.get(model, (0, {}))
        if not threads and any(module.training for module in model.modules()):
            modes = {module: module.training for module in model.modules()}
            model.eval()
        _inside[model] = threads + 1, modes
    try:
        yield
    finally:
        with _lock:
            threads, modes = _inside.pop(model)
            if threads > 1:
                _inside[model] = threads - 1, modes
            else:
                for module, mode in modes.items():  # parents first: train() sets the modules below as well
                    if module.training != mode:
                        module.train(mode)


def _unwrapped(model: nn.Module) -> nn.Module:
    """The model inside nn.DataParallel and its like, which knows its channels."""
    return getattr(model, "module", model)


MARGIN = 0.01  # that values may lie outside [0, 1]: resizing with sharper filters than bilinear overshoots


def _check_image(model: nn.Module, image: Tensor) -> None:
    if not isinstance(image, Tensor) or not image.is_floating_point():
        raise TypeError(
            f"image: expected a floating-point tensor, got {getattr(image, 'dtype', type(image).__name__)}; "
            "of 8-bit pixels (H, W, C): torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255"
        )
    shape = tuple(image.shape)
    if image.ndim != 4 or 0 in shape:
        batch = "; of one image: image[None]" if image.ndim == 3 else ""
        raise ValueError(f"image: expected shape (B, C, H, W), got {shape}{batch}")
    channels = getattr(getattr(_unwrapped(model), "config", None), "in_channels", None)
    wrong = shape[1] != channels if channels else shape[1] > 4 and shape[3] in (1, 3, 4)
    if wrong:
        turned = shape[3] in ((channels,) if channels else (1, 3, 4))
        order = "; in the order (B, H, W, C): image.permute(0, 3, 1, 2)" if turned else ""
        raise ValueError(f"image: expected shape (B, {channels or 'C'}, H, W), got {shape}{order}")
    low, high = (x.item() for x in image.aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):  # aminmax hands NaN on
        raise ValueError("image: expected finite values, got NaN or infinity")
    if low < -MARGIN or high > 1 + MARGIN:
        raise ValueError(
            f"image: expected values in [0, 1], got {low:g} to {high:g}; divide 8-bit values by 255, and leave the "
            "normalisation to predict"
        )


class Averaged(nn.Module):
    """Several models as one: its logits are those of the mean of their probabilities.

    Raises: ValueError for none, and for models that take images of different channels.
    """

    def __init__(self, models: Sequence[nn.Module]):
        super().__init__()
        configs = [getattr(model, "config", None) for model in models]
        if len(channels := {getattr(config, "in_channels", None) for config in configs}) != 1:
            raise ValueError(f"models: expected some of the same in_channels, got {sorted(channels, key=str)}")
        self.models, self.config = nn.ModuleList(models), configs[0]
        self.divisor = math.lcm(*map(divisor_of, models))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W), normalised, to (B, num_classes, H, W)."""
        logits = torch.stack([model(x) for model in self.models])
        if logits.shape[2] == 1:
            return F.logsigmoid(logits).logsumexp(0) - F.logsigmoid(-logits).logsumexp(0)
        return logits.log_softmax(2).logsumexp(0)


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
        model: of `create_model`, on any device, of any floating-point dtype; used in eval mode, with every module left
            in the mode it was in, see `eval_mode`. For many images see `inference_copy`.
        image: (B, C, H, W) in [0, 1], of any floating-point dtype.
        size: height and width in pixels that the network sees: the image is resized to it (bilinear, antialiased), the
            logits back to the image's (bilinear). None: the image as it is.
        flips: the mean logits of the image, its two mirror images and its half turn, each turned back.
        window: side in pixels of the windows that larger images are taken in, one after the other, their logits
            weighted by a Gaussian (MONAI's sliding_window_inference); None takes the image whole.
        overlap: of neighbouring windows, a share of their side.

    Returns:
        (B, num_classes, H, W) logits without gradient, of the model's dtype, on the image's device.

    Raises:
        ValueError, TypeError: not such a tensor, values outside [0, 1] by more than 0.01 or not finite; no such window.
    """
    _check_image(model, image)
    return predict_unchecked(model, image, size=size, flips=flips, window=window, overlap=overlap)


@torch.no_grad()
def predict_unchecked(
    model: nn.Module,
    image: Tensor,
    *,
    size: int | None = None,
    flips: bool = False,
    window: int | None = None,
    overlap: float = 0.5,
) -> Tensor:
    """`predict` for images whose values may lie outside [0, 1]: the published protocol's cubic splines overshoot."""
    if size is not None and size < 1:
        raise ValueError(f"size: expected at least 1, got {size}")
    divisor = divisor_of(model)
    if window is not None and window < divisor:
        raise ValueError(f"window: expected at least {divisor} pixels, got {window}")
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap: expected a share from 0 to below 1, got {overlap}")
    like = next((p for p in model.parameters() if p.is_floating_point()), image)
    # Resized and normalised in float32 at least, whatever the model's dtype is.
    x, own = image.to(like.device, torch.promote_types(like.dtype, torch.float32)), tuple(image.shape[2:])
    seen = own if size is None else (size, size)
    if seen != own:
        x = F.interpolate(x, seen, mode="bilinear", antialias=True)
    x = normalise(x).to(like.dtype)
    with eval_mode(model):
        parts = []
        for axes in ((), (2,), (3,), (2, 3)) if flips else ((),):
            parts.append(_whole_or_windows(model, x.flip(axes), divisor, window, overlap).flip(axes))
    logits = torch.stack(parts).mean(0) if flips else parts[0]
    if seen != own:
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


def to_probabilities(logits: Tensor) -> Tensor:
    """(B, num_classes, H, W) logits to probabilities: one channel's sigmoid, else the softmax over the classes."""
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)


def to_labels(logits: Tensor, threshold: float = 0.5) -> Tensor:
    """(B, num_classes, H, W) logits to (B, H, W) uint8 class indices; one channel is a mask where its probability is
    above the threshold. Raises ValueError for one outside of (0, 1), and for another than 0.5 with several channels."""
    if not 0 < threshold < 1:
        raise ValueError(f"threshold: expected a probability between 0 and 1, got {threshold}")
    if logits.shape[1] == 1:
        return (logits[:, 0] > math.log(threshold / (1 - threshold))).byte()
    if threshold != 0.5:
        raise ValueError(f"threshold: expected a model with one output channel, got one with {logits.shape[1]}")
    return logits.contiguous(memory_format=torch.channels_last).argmax(1).byte()  # a fifth of the time on a CPU


def __getattr__(name: str) -> Any:
    """What moved to predict_files.py, which imports this module."""
    if name not in ("COLOURS", "find_files", "overlay", "predict_files"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import predict_files as place

    return getattr(place, name)
