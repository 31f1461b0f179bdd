"""The paper's losses: weighted cross-entropy and Dice over a whole batch."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

# Weights of cross-entropy and Dice. With one output channel cross-entropy is the binary one, softmax the sigmoid.
LOSSES = {
    "binary": (0.5, 1.0),
    "synapse": (0.5, 0.5),
    "acdc": (0.2, 0.8),
    "acdc_before_october_2025": (0.3, 0.7),
}
SMOOTH = 1e-5


class CrossEntropyDice(nn.Module):
    """``ce * cross-entropy + dice * mean over classes of (1 - (2 sum pg + s) / (sum p^2 + sum g^2 + s))``.

    The sums run over all pixels of the whole batch, p is the softmax (one channel: the sigmoid), g the one-hot truth,
    s = 1e-5; the background is a class. Equal to MONAI's DiceCELoss(squared_pred=True, batch=True, smooth_nr=1e-5,
    smooth_dr=1e-5), with labels checked. Several processes give it the global batch, see `parallel.Gather`. Source: the
    paper's published code, after TransUNet (arXiv 2102.04306).
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


def make_loss(name: str, num_classes: int) -> CrossEntropyDice:
    """A loss of the table `LOSSES`; see `CrossEntropyDice`. Raises ValueError for an unknown name."""
    if name not in LOSSES:
        raise ValueError(f"loss: expected one of {', '.join(LOSSES)}, got {name!r}")
    return CrossEntropyDice(*LOSSES[name], num_classes)
