"""Q-Shift: every token looks one pixel to its left, right, up and down, at no cost in parameters."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .conv import DIMS


def q_shift(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Shifts four quarters of the channels by one pixel each (Vision-RWKV, arXiv 2403.02308, Eq. 2-4).

    Quarter 1 takes its left neighbour, quarter 2 its right, quarter 3 its upper, quarter 4 its lower one; what has no
    neighbour becomes 0. The channels beyond ``4 * (C // 4)`` stay. In a volume there are six such groups, the last two
    with the neighbours in the slices before and behind.

    Args: ``x`` (B, T, C), tokens in row-major order; ``shape`` (height, width) or (depth, height, width). Returns the
    shape of x. Raises: ValueError where shape is another or T not its product.
    """
    B, T, C = x.shape
    if len(shape) not in DIMS:
        raise ValueError(f"shape: expected (height, width) or (depth, height, width), got {tuple(shape)}")
    if T != math.prod(shape):
        names, sizes = (" * ".join(map(str, each)) for each in (DIMS[len(shape)].axes, shape))
        raise ValueError(f"x: expected {names} = {sizes} = {math.prod(shape)} tokens, got {T}")
    n = 2 * len(shape)
    *groups, rest = x.view(B, *shape, C).split([C // n] * n + [C % n], dim=-1)
    shifted = []
    for i, axis in enumerate(range(len(shape), 0, -1)):  # of x, the width first
        before, after = groups[2 * i : 2 * i + 2]
        kept, others = shape[axis - 1] - 1, (0, 0) * (i + 1)  # F.pad counts from the channels, which get no zeros
        shifted.append(F.pad(before.narrow(axis, 0, kept), (*others, 1, 0)))
        shifted.append(F.pad(after.narrow(axis, 1, kept), (*others, 0, 1)))
    return torch.cat([*shifted, rest], dim=-1).view(B, T, C)
