"""Losses by name: the paper's, weighted cross-entropy and Dice over a whole batch, and others of MONAI."""

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
    """

    def __init__(self, ce: float, dice: float, num_classes: int):
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes: expected at least 1, got {num_classes}")
        self.ce, self.dice, self.num_classes = ce, dice, num_classes

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
        if self.num_classes == 1:
            p, g = logits.sigmoid(), mask.to(logits.dtype)
            ce = F.binary_cross_entropy_with_logits(logits, g, reduction="sum")
        else:
            p, index = logits.softmax(1), mask[:, 0].long()
            g = torch.zeros_like(p).scatter_(1, index[:, None], 1)
            ce = F.cross_entropy(logits, index, reduction="sum")
        axes = [0, *range(2, p.ndim)]
        dice = 1 - (2 * (p * g).sum(axes) + SMOOTH) / (p.square().sum(axes) + g.sum(axes) + SMOOTH)
        return self.ce * ce / mask.numel() + self.dice * dice.mean()


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


def _focal(num_classes: int) -> nn.Module:
    """MONAI's focal loss (arXiv 1708.02002), gamma 2: of softmax, or of the sigmoid where there is one channel."""
    from monai.losses import FocalLoss

    return FocalLoss(gamma=2.0, to_onehot_y=num_classes > 1, use_softmax=num_classes > 1)


def _tversky(num_classes: int) -> nn.Module:
    """MONAI's Tversky loss (arXiv 1706.05721) over a whole batch: a missed pixel costs 0.7, one too many 0.3."""
    from monai.losses import TverskyLoss

    several = num_classes > 1
    return TverskyLoss(sigmoid=not several, softmax=several, to_onehot_y=several, alpha=0.3, beta=0.7, batch=True)


LOSSES: dict[str, Callable[[int], nn.Module]] = {  # from the number of output channels to the loss
    "binary": partial(CrossEntropyDice, 0.5, 1.0),
    "synapse": partial(CrossEntropyDice, 0.5, 0.5),
    "acdc": partial(CrossEntropyDice, 0.2, 0.8),
    "acdc_before_october_2025": partial(CrossEntropyDice, 0.3, 0.7),
    "focal": _focal,
    "tversky": _tversky,
}


def make_loss(name: str, num_classes: int) -> nn.Module:
    """A loss of the table `LOSSES`. Raises ValueError for an unknown name."""
    if name not in LOSSES:
        raise ValueError(f"loss: expected one of {', '.join(LOSSES)}, got {name!r}")
    return LOSSES[name](num_classes)
