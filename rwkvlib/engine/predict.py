"""Prediction for images and volumes of any size.

MONAI is imported where it is needed: this module comes with ``import rwkvlib``. Files are for predict_files.py; the
names of what has moved stay importable from here.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..data.files import IMAGES, VOLUMES, Picture, read_picture
from ..data.pixels import MEAN, STD, batches, normalise, pair, place_of
from ..layers.conv import DIMS, Size, per_axis
from ..models.folding import fold, fold_batchnorm, foldable
from ..models.registry import divisors_of, spatial_dims_of

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
    return fold(copy.deepcopy(model).eval()).to(memory_format=DIMS[spatial_dims_of(model)].memory_format)


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


# By the model's axes and the tensor's: what may have been meant.
_HINTS = {
    (2, 3): "; of one image: image[None]",
    (2, 5): "; a volume is for a network with spatial_dims=3, its slices are for this one as a batch of images",
    (3, 4): "; of one volume: image[None]; images (B, C, H, W) are for a network with spatial_dims=2",
}
MARGIN = 0.01  # that values may lie outside [0, 1]: resizing with sharper filters than bilinear overshoots


def _check_image(model: nn.Module, image: Tensor) -> None:
    if not isinstance(image, Tensor) or not image.is_floating_point():
        raise TypeError(
            f"image: expected a floating-point tensor, got {getattr(image, 'dtype', type(image).__name__)}; "
            "of 8-bit pixels (H, W, C): torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255"
        )
    shape, dims = tuple(image.shape), spatial_dims_of(model)
    sides = ", ".join("DHW"[-dims:])
    if image.ndim != 2 + dims or 0 in shape:
        raise ValueError(f"image: expected shape (B, C, {sides}), got {shape}{_HINTS.get((dims, image.ndim), '')}")
    channels = getattr(getattr(_unwrapped(model), "config", None), "in_channels", None)
    wrong = shape[1] != channels if channels else shape[1] > 4 and shape[-1] in (1, 3, 4)
    if wrong:
        turned = shape[-1] in ((channels,) if channels else (1, 3, 4))
        numbers = ", ".join(map(str, range(1, 1 + dims)))
        order = f"; in the order (B, {sides}, C): image.permute(0, {1 + dims}, {numbers})" if turned else ""
        raise ValueError(f"image: expected shape (B, {channels or 'C'}, {sides}), got {shape}{order}")
    least = tuple(max(2, n // 2) for n in divisors_of(model))
    if dims == 3 and any(n < m for n, m in zip(shape[2:], least, strict=True)):
        raise ValueError(
            f"image: expected a volume of at least {' x '.join(map(str, least))} voxels, got "
            f"{' x '.join(map(str, shape[2:]))}: padding would make more of it than there is; thin volumes are for a "
            "network with strides of 1 along the depth, such as strides=((1, 2, 2), (1, 2, 2), 2, 2), single "
            "slices for one with spatial_dims=2"
        )
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

    Raises: ValueError for none, and for models that take images of different channels, or some images, some volumes.
    """

    def __init__(self, models: Sequence[nn.Module]):
        super().__init__()
        configs = [getattr(model, "config", None) for model in models]
        if len(channels := {getattr(config, "in_channels", None) for config in configs}) != 1:
            raise ValueError(f"models: expected some of the same in_channels, got {sorted(channels, key=str)}")
        if len({spatial_dims_of(model) for model in models}) != 1:
            raise ValueError("models: expected all for images or all for volumes, got both")
        self.models, self.config = nn.ModuleList(models), configs[0]
        sides = zip(*map(divisors_of, models), strict=True)
        self.divisor, self.spatial_dims = tuple(math.lcm(*n) for n in sides), spatial_dims_of(models[0])

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
    size: int | tuple[int, int] | None = None,
    resize: str = "squash",
    flips: bool = False,
    window: Size | None = None,
    overlap: float = 0.5,
) -> Tensor:
    """Logits for images of any height and width: padded at the right and bottom as the model needs, then cropped.

    Volumes, of a model with ``spatial_dims=3``, are padded at the end of each axis, by less than they measure.

    Args:
        model: of `create_model`, on any device, of any floating-point dtype; used in eval mode, with every module left
            in the mode it was in, see `eval_mode`. For many images see `inference_copy`.
        image: (B, C, H, W) in [0, 1], of any floating-point dtype; of a model for volumes (B, C, D, H, W).
        size: height and width in pixels that the network sees, or one number for both: the image is resized to it
            (bilinear, antialiased), the logits back to the image's (bilinear). None: the image as it is. Not for
            volumes, which are resampled by their spacing before.
        resize: "squash", or "letterbox": the image keeps its shape, is seen in the middle of black, and cut out of it.
        flips: the mean logits of the image, its two mirror images and its half turn, each turned back; of a volume's
            eight mirror images.
        window: side in pixels, or (height, width), or (depth, height, width) in voxels, of the windows that larger
            images are taken in, one after the other, their logits weighted by a Gaussian (MONAI's
            sliding_window_inference); None takes the image whole.
        overlap: of neighbouring windows, a share of their side.

    Returns:
        (B, num_classes, H, W), or (B, num_classes, D, H, W), logits without gradient, of the model's dtype, on the
        image's device.

    Raises:
        ValueError, TypeError: not such a tensor, values outside [0, 1] by more than 0.01 or not finite; no such window.
    """
    _check_image(model, image)
    return predict_unchecked(model, image, size=size, resize=resize, flips=flips, window=window, overlap=overlap)


@torch.no_grad()
def predict_unchecked(
    model: nn.Module,
    image: Tensor,
    *,
    size: int | tuple[int, int] | None = None,
    resize: str = "squash",
    flips: bool = False,
    window: Size | None = None,
    overlap: float = 0.5,
) -> Tensor:
    """`predict` for images whose values may lie outside [0, 1]: the published protocol's cubic splines overshoot."""
    if size is not None and min(pair(size)) < 1:
        raise ValueError(f"size: expected at least 1, got {size}")
    divisors = divisors_of(model)
    dims = len(divisors)
    if size is not None and dims == 3:
        raise ValueError(f"size: expected None for volumes, got {size}; resample them by their spacing before")
    if window is not None:
        windows = per_axis(window, dims)
        if len(windows) != dims or any(n < d for n, d in zip(windows, divisors, strict=True)):
            least = divisors[0] if len(set(divisors)) == 1 else divisors
            raise ValueError(f"window: expected at least {least} pixels, got {window}")
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap: expected a share from 0 to below 1, got {overlap}")
    like = next((p for p in model.parameters() if p.is_floating_point()), image)
    # Resized and normalised in float32 at least, whatever the model's dtype is.
    x, own = image.to(like.device, torch.promote_types(like.dtype, torch.float32)), tuple(image.shape[2:])
    seen = inner = own
    if size is not None:
        seen = pair(size)
        rows, columns = place_of(own, seen, resize)
        inner = rows.stop - rows.start, columns.stop - columns.start
    if inner != own:
        x = F.interpolate(x, inner, mode="bilinear", antialias=True)
    if inner != seen:
        x = F.pad(x, (columns.start, seen[1] - columns.stop, rows.start, seen[0] - rows.stop))
    x = normalise(x).to(like.dtype)
    with eval_mode(model):
        parts = []
        for number in range(dims + 1 if flips else 1):
            for axes in itertools.combinations(range(2, 2 + dims), number):
                parts.append(_whole_or_windows(model, x.flip(axes), divisors, window, overlap).flip(axes))
    logits = torch.stack(parts).mean(0) if flips else parts[0]
    if inner != seen:
        logits = logits[..., rows, columns]
    if inner != own:
        logits = F.interpolate(logits.contiguous(memory_format=torch.channels_last), own, mode="bilinear")
    return logits.to(image.device)


def _whole_or_windows(
    model: nn.Module, x: Tensor, divisors: tuple[int, ...], window: Size | None, overlap: float
) -> Tensor:
    def padded(x: Tensor) -> Tensor:
        sides, added = x.shape[2:], []
        for n, d in zip(reversed(sides), reversed(divisors), strict=True):  # F.pad begins with the last axis
            added += [0, -n % d]
        # Repeating the edge, since mirroring needs an image larger than what it adds.
        return model(F.pad(x, added, mode="replicate"))[(..., *map(slice, sides))]

    if window is None:
        return padded(x)
    from monai.inferers import sliding_window_inference

    windows = per_axis(window, len(divisors))
    return sliding_window_inference(x, windows, 4, padded, overlap, mode="gaussian", padding_mode="replicate")


def to_probabilities(logits: Tensor, overlapping: bool = False) -> Tensor:
    """(B, num_classes, H, W) logits to probabilities: the sigmoid of one channel, and of each of `overlapping` labels,
    else the softmax over the classes."""
    return logits.sigmoid() if logits.shape[1] == 1 or overlapping else logits.softmax(1)


def to_labels(logits: Tensor, threshold: float = 0.5, overlapping: bool = False) -> Tensor:
    """(B, num_classes, H, W) logits to (B, H, W) uint8 class indices; one channel is a mask where its probability is
    above the threshold. Of `overlapping` labels the sums of ``2 ** (class - 1)`` over the channels above it. The same
    for volumes. Raises ValueError for one outside of (0, 1), and for another than 0.5 with several classes."""
    if not 0 < threshold < 1:
        raise ValueError(f"threshold: expected a probability between 0 and 1, got {threshold}")
    marked = logits > math.log(threshold / (1 - threshold))
    if overlapping:
        bits = 2 ** torch.arange(logits.shape[1], device=logits.device, dtype=torch.uint8)
        return (marked * bits.view(-1, *[1] * (logits.ndim - 2))).sum(1, dtype=torch.uint8)
    if logits.shape[1] == 1:
        return marked[:, 0].byte()
    if threshold != 0.5:
        raise ValueError(f"threshold: expected a model with one output channel, got one with {logits.shape[1]}")
    memory_format = DIMS[logits.ndim - 2].memory_format
    return logits.contiguous(memory_format=memory_format).argmax(1).byte()  # a fifth of the time on a CPU


def __getattr__(name: str) -> Any:
    """What moved to predict_files.py, which imports this module."""
    if name not in ("COLOURS", "find_files", "overlay", "predict_files"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import predict_files as place

    return getattr(place, name)
