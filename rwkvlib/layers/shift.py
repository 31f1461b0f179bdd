"""Q-Shift: every token looks one pixel to its left, right, up and down, at no cost in parameters."""

import torch
import torch.nn.functional as F
from torch import Tensor


def q_shift(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Shifts four quarters of the channels by one pixel each (Vision-RWKV, arXiv 2403.02308, Eq. 2-4).

    Quarter 1 takes its left neighbour, quarter 2 its right, quarter 3 its upper, quarter 4 its lower one; what has no
    neighbour becomes 0. The channels beyond ``4 * (C // 4)`` stay.

    Args: ``x`` (B, height * width, C), tokens in row-major order; ``shape`` (height, width). Returns the shape of x.
    Raises: ValueError where shape is another or the number of tokens is not height * width.
    """
    B, T, C = x.shape
    if len(shape) != 2:
        raise ValueError(f"shape: expected (height, width), got {tuple(shape)}")
    height, width = shape
    if T != height * width:
        raise ValueError(f"x: expected height * width = {height} * {width} = {height * width} tokens, got {T}")
    x = x.view(B, height, width, C)
    q = C // 4
    shifted = [
        F.pad(x[:, :, :-1, :q], (0, 0, 1, 0)),
        F.pad(x[:, :, 1:, q : 2 * q], (0, 0, 0, 1)),
        F.pad(x[:, :-1, :, 2 * q : 3 * q], (0, 0, 0, 0, 1, 0)),
        F.pad(x[:, 1:, :, 3 * q : 4 * q], (0, 0, 0, 0, 0, 1)),
        x[..., 4 * q :],
    ]
    return torch.cat(shifted, dim=-1).view(B, T, C)
