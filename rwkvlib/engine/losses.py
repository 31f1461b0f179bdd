"""The paper's losses: weighted cross-entropy and Dice, over a batch that may be spread over several processes."""

from collections.abc import Callable

import torch
import torch.distributed as dist
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


class SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes; for `make_loss`'s `reduce` under DistributedDataParallel.

    Every process then computes the same loss L of the same sums S = s_1 + ... + s_P, while the gradient of its own
    part is dL/dS ds_p/dw. One process would have the sum of these over p; DistributedDataParallel takes their *mean*.
    Hence the factor P in the backward pass, and no communication there.
    """

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return grad * dist.get_world_size()


class CrossEntropyDice(nn.Module):
    """``ce * cross-entropy + dice * mean over classes of (1 - (2 sum pg + s) / (sum p^2 + sum g^2 + s))``.

    The sums run over all pixels of the whole batch, p is the softmax (one channel: the sigmoid), g the one-hot truth,
    s = 1e-5; the background is a class. Equal to MONAI's DiceCELoss(squared_pred=True, batch=True, smooth_nr=1e-5,
    smooth_dr=1e-5), which cannot sum over processes before it divides. Source: the paper's published code, after
    TransUNet (arXiv 2102.04306).

    Args:
        reduce: sums a tensor over all processes, differentiably: ``SumOverProcesses.apply`` under
            DistributedDataParallel. It is given the per-class sums, and sum and count of the cross-entropy, so that
            every process has the loss of the global batch, unequal shares included. None: this process's batch.
    """

    def __init__(self, ce: float, dice: float, num_classes: int, reduce: Callable[[Tensor], Tensor] | None = None):
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes: expected at least 1, got {num_classes}")
        self.ce, self.dice, self.num_classes, self.reduce = ce, dice, num_classes, reduce

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
        pixels = ce.new_tensor(mask.numel())
        sums = torch.cat([(p * g).sum(axes), p.square().sum(axes), g.sum(axes), torch.stack([ce, pixels])])
        if self.reduce is not None:
            sums = self.reduce(sums)
        intersection, p2, g2 = sums[:-2].unflatten(0, (3, -1))
        dice = 1 - (2 * intersection + SMOOTH) / (p2 + g2 + SMOOTH)
        return self.ce * sums[-2] / sums[-1] + self.dice * dice.mean()


def make_loss(name: str, num_classes: int, reduce: Callable[[Tensor], Tensor] | None = None) -> CrossEntropyDice:
    """A loss of the table `LOSSES`; see `CrossEntropyDice`. Raises ValueError for an unknown name."""
    if name not in LOSSES:
        raise ValueError(f"loss: expected one of {', '.join(LOSSES)}, got {name!r}")
    return CrossEntropyDice(*LOSSES[name], num_classes, reduce)
