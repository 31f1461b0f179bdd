"""Losses by name: the paper's, weighted cross-entropy and Dice over a whole batch, and others of MONAI."""

import inspect
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

SMOOTH = 1e-5
NEAREST = "nearest-exact"  # PyTorch's "nearest" takes pixels above and left of the nearest ones


class CrossEntropyDice(nn.Module):
    """``ce * cross-entropy + dice * mean over classes of (1 - (2 sum pg + s) / (sum p^2 + sum g^2 + s))``.

    The sums run over all pixels of the whole batch, p is the softmax (one channel: the sigmoid), g the one-hot truth,
    s = 1e-5; the background is a class. Equal to MONAI's DiceCELoss(squared_pred=True, batch=True, smooth_nr=1e-5,
    smooth_dr=1e-5), with labels checked. Several processes give it the global batch, see `parallel.Gather`. Source: the
    paper's published code, after TransUNet (arXiv 2102.04306).

    Args:
        ce, dice: the two weights. With one output channel cross-entropy is the binary one, softmax the sigmoid.
        class_weights: of the classes, the background's first: cross-entropy is then the mean over pixels that are
            weighted by their class, Dice that over classes (of one channel, which has one Dice, it is as it was).
    """

    def __init__(self, ce: float, dice: float, num_classes: int, class_weights: Sequence[float] | None = None):
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes: expected at least 1, got {num_classes}")
        if class_weights is not None and len(class_weights) != max(2, num_classes):
            raise ValueError(f"class_weights: expected {max(2, num_classes)} numbers, got {len(class_weights)}")
        self.ce, self.dice, self.num_classes, self.class_weights = ce, dice, num_classes, class_weights

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The loss of (B, num_classes, ...) logits and (B, 1, ...) class indices, of any dtype.

        Raises: ValueError for other shapes, and for indices that are no class.
        """
        if logits.shape[1] != self.num_classes:
            raise ValueError(f"logits: expected {self.num_classes} channels, got shape {tuple(logits.shape)}")
        if mask.shape != logits[:, :1].shape:
            raise ValueError(f"mask: expected shape {tuple(logits[:, :1].shape)}, got {tuple(mask.shape)}")
        classes = max(2, self.num_classes)
        low, high = mask.aminmax()
        if low < 0 or high >= classes:
            raise ValueError(f"mask: expected class indices 0 to {classes - 1}, got {low.item():g} to {high.item():g}")
        weights = None if self.class_weights is None else logits.new_tensor(self.class_weights)
        by_pixel = None if weights is None else weights[mask.long()]
        pixels = mask.numel() if by_pixel is None else by_pixel.sum().clamp(min=SMOOTH)
        if self.num_classes == 1:
            p, g = logits.sigmoid(), mask.to(logits.dtype)
            ce = F.binary_cross_entropy_with_logits(logits, g, weight=by_pixel, reduction="sum")
        else:
            p, index = logits.softmax(1), mask[:, 0].long()
            g = torch.zeros_like(p).scatter_(1, index[:, None], 1)
            ce = F.cross_entropy(logits, index, weight=weights, reduction="sum")
        axes = [0, *range(2, p.ndim)]
        dice = 1 - (2 * (p * g).sum(axes) + SMOOTH) / (p.square().sum(axes) + g.sum(axes) + SMOOTH)
        weighted = dice.mean() if weights is None or self.num_classes == 1 else (dice * weights).sum() / weights.sum()
        return self.ce * ce / pixels + self.dice * weighted


class DeepSupervision(nn.Module):
    """The weighted sum of a loss over the outputs of a network that returns several of them while it trains, the one
    at full size first. The mask is resized to each (nearest neighbour). A single output has the loss itself.

    Equal to MONAI's DeepSupervisionLoss, without further weights for up to five outputs. Source: deeply supervised
    nets, arXiv 1409.5185.

    Args:
        weights: of the outputs, the first one first; None: 1, 1/2, 1/4 and so on.
    """

    def __init__(self, loss: nn.Module, weights: Sequence[float] | None = None):
        super().__init__()
        self.loss, self.weights = loss, weights

    def forward(self, outputs: Tensor | Sequence[Tensor], mask: Tensor) -> Tensor:
        """The loss of logits (B, num_classes, ...), or several of them, and (B, 1, ...) class indices.

        Raises: ValueError for another number of outputs than of weights.
        """
        if isinstance(outputs, Tensor):
            return self.loss(outputs, mask)
        weights = [0.5**i for i in range(len(outputs))] if self.weights is None else self.weights
        if len(weights) != len(outputs):
            raise ValueError(f"outputs: expected {len(weights)}, one for each weight, got {len(outputs)}")
        total = outputs[0].new_zeros(())
        for weight, logits in zip(weights, outputs, strict=True):
            total = total + weight * self.loss(logits, F.interpolate(mask.float(), logits.shape[2:], mode=NEAREST))
        return total


class Ignoring(nn.Module):
    """A loss of the pixels whose mask is not `ignore_index`, given to it in one row: it must be a sum or mean over all
    pixels of the batch, or a ratio of such, as those of the table are. 0 where no pixel is left."""

    def __init__(self, loss: nn.Module, ignore_index: int):
        super().__init__()
        self.loss, self.ignore_index = loss, ignore_index

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The loss of (B, num_classes, ...) logits and (B, 1, ...) class indices."""
        counted = mask[:, 0] != self.ignore_index
        if not counted.any():
            return logits.sum() * 0
        return self.loss(logits.movedim(1, -1)[counted].T[None], mask[:, 0][counted][None, None])


class Overlapping(nn.Module):
    """The mean over classes, weighted where `weights` are given, of a loss for one channel."""

    def __init__(self, loss: nn.Module, num_classes: int, weights: Sequence[float] | None = None):
        super().__init__()
        self.loss, self.weights = loss, weights or (1.0,) * num_classes

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The loss of (B, num_classes, ...) logits and (B, 1, ...) sums of ``2 ** (class - 1)``."""
        bits, total = mask.long(), logits.new_zeros(())
        for bit, weight in enumerate(self.weights):
            total = total + weight * self.loss(logits[:, bit : bit + 1], (bits >> bit & 1).to(logits.dtype))
        return total / sum(self.weights)


def _focal(num_classes: int, class_weights: Sequence[float] | None = None) -> nn.Module:
    """MONAI's focal loss (arXiv 1708.02002), gamma 2: of softmax, or of the sigmoid where there is one channel, whose
    weights are alpha and 1 - alpha."""
    from monai.losses import FocalLoss

    several = num_classes > 1
    if class_weights is None:
        return FocalLoss(gamma=2.0, to_onehot_y=several, use_softmax=several)
    if several:
        return FocalLoss(gamma=2.0, to_onehot_y=True, use_softmax=True, weight=class_weights)
    return FocalLoss(gamma=2.0, alpha=class_weights[1] / sum(class_weights))


def _tversky(num_classes: int) -> nn.Module:
    """MONAI's Tversky loss (arXiv 1706.05721) over a whole batch: a missed pixel costs 0.7, one too many 0.3."""
    from monai.losses import TverskyLoss

    several = num_classes > 1
    return TverskyLoss(sigmoid=not several, softmax=several, to_onehot_y=several, alpha=0.3, beta=0.7, batch=True)


# From the number of output channels to the loss; those that can be weighted take class_weights as well.
LOSSES: dict[str, Callable[..., nn.Module]] = {
    "binary": partial(CrossEntropyDice, 0.5, 1.0),
    "synapse": partial(CrossEntropyDice, 0.5, 0.5),
    "acdc": partial(CrossEntropyDice, 0.2, 0.8),
    "acdc_before_october_2025": partial(CrossEntropyDice, 0.3, 0.7),
    "focal": _focal,
    "tversky": _tversky,
}


def make_loss(
    name: str,
    num_classes: int,
    *,
    class_weights: Sequence[float] | None = None,
    ignore_index: int | None = None,
    overlapping: bool = False,
) -> nn.Module:
    """A loss of the table `LOSSES`.

    Args:
        class_weights: of the classes, the background's first; of `overlapping` ones, which have none, the first's.
        ignore_index: of the mask, whose pixels count for nothing.
        overlapping: see `Overlapping`.

    Raises: ValueError for an unknown name, or weights that a loss does not take.
    """
    if name not in LOSSES:
        raise ValueError(f"loss: expected one of {', '.join(LOSSES)}, got {name!r}")
    build = LOSSES[name]
    if overlapping:
        return Overlapping(build(1), num_classes, class_weights)
    if class_weights is None:
        loss = build(num_classes)
    else:
        able = [other for other, row in LOSSES.items() if "class_weights" in inspect.signature(row).parameters]
        if name not in able:
            raise ValueError(f"class_weights: the loss {name!r} takes none; those that do: {', '.join(able)}")
        loss = build(num_classes, class_weights=class_weights)
    return loss if ignore_index is None else Ignoring(loss, ignore_index)
