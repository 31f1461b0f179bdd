"""Theoretical receptive field: from how far away an output can depend on the input at all."""

import math
from collections.abc import Callable

import torch
from torch import Tensor


@torch.no_grad()
def receptive_field_radius(f: Callable[[Tensor], Tensor], size: int, *, channels: int = 3, stride: int = 16) -> float:
    """The largest Chebyshev distance, in pixels, between an input pixel and an output pixel that depends on it.

    Found by poisoning: one input pixel is NaN, and whatever is computed from it becomes NaN, whichever the weights
    and activations are. The window of an output pixel has at most ``2 * radius + 1`` pixels a side. Its place varies
    with the pixel where there are strides, so that all positions within one stride are tried.

    Args:
        f: a network in eval mode, (B, channels, H, W) to (B, C, H, W). (Statistics over a batch see all of it.)
        size: height and width of the input that is tried.
        stride: of the network's coarsest map in pixels, or a multiple of it.

    Returns:
        The radius; ``math.inf`` where the window touches the border of the input: it is the whole image, or the size
        is too small to tell.

    Raises:
        ValueError: `size` is less than `stride`, or some output is NaN whatever the input.
    """
    if size < stride:
        raise ValueError(f"size: expected at least the stride {stride}, got {size}")
    x = torch.zeros(1, channels, size, size)
    if f(x).isnan().any():
        raise ValueError("f: expected finite outputs for an input of zeros, got NaN")
    radius = 0
    for position in range((size - stride) // 2, (size - stride) // 2 + stride):
        x.zero_()
        x[..., position, position] = math.nan
        reached = f(x)[0].isnan().any(0).nonzero()
        if len(reached) and (reached.min() == 0 or reached.max() == size - 1):
            return math.inf
        if len(reached):
            radius = max(radius, int((reached - position).abs().max()))
    return radius
