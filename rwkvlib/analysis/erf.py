"""Effective receptive field: how much an output pixel depends on every input pixel (Luo et al., arXiv 1701.04128)."""

from collections.abc import Callable

import torch
from torch import Tensor


def receptive_contribution(f: Callable[[Tensor], Tensor], x: Tensor, pixel: tuple[int, int] | None = None) -> Tensor:
    """The absolute gradient of one output pixel with respect to every input pixel.

    Args:
        f: maps (B, C, H, W) to (B, C', H', W').
        x: (B, C, H, W) inputs, over which the result is averaged.
        pixel: row and column of the output; by default its centre.

    Returns:
        (H, W): the mean over the batch of the sum over input channels of ``|d (sum of output channels) / d x|``.
    """
    x = x.detach().clone().requires_grad_()
    y = f(x)
    row, column = pixel if pixel is not None else (y.shape[2] // 2, y.shape[3] // 2)
    (gradient,) = torch.autograd.grad(y[:, :, row, column].sum(), x)
    return gradient.abs().sum(1).mean(0)


def effective_receptive_field(contribution: Tensor, share: float = 0.95) -> float:
    """The side, as a share of the map's, of the smallest square that holds as many pixels as are needed, the largest
    first, for `share` of the total contribution.

    ``share ** 0.5`` says that the whole image counts evenly; small values that a few pixels do.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share: expected a number in (0, 1], got {share}")
    values = contribution.flatten().double().sort(descending=True).values
    needed = int((values.cumsum(0) < share * values.sum()).sum()) + 1
    return (needed / values.numel()) ** 0.5
