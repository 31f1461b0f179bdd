"""Convolution with normalisation and activation, and the tokens' view of a feature map."""

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor


class ConvNormAct(nn.Module):
    """Convolution, BatchNorm (eps 1e-6) and activation, the last two optional.

    Padding ``ceil((kernel_size - stride) / 2)``: resolution H / stride for an odd kernel and an even H.
    """

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        norm: bool = True,
        act: type[nn.Module] = nn.Identity,
    ):
        super().__init__()
        padding = -((stride - kernel_size) // 2)  # the ceiling, in integers
        self.conv = nn.Conv2d(dim_in, dim_out, kernel_size, stride, padding, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(dim_out, eps=1e-6) if norm else nn.Identity()
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim_in, H, W) to (B, dim_out, H / stride, W / stride)."""
        return self.act(self.norm(self.conv(x)))


class LayerNorm2d(nn.Module):
    """LayerNorm over the channels of each pixel of a (B, C, H, W) map, eps 1e-6."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def tokens_from_map(x: Tensor) -> Tensor:
    """(B, C, ...) to (B, T, C), row-major; a view where the memory format is channels_last."""
    return x.flatten(2).transpose(1, 2)


def map_from_tokens(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(B, T, C) to (B, C, ...): the inverse of `tokens_from_map`, a view (channels_last strides)."""
    return x.transpose(1, 2).unflatten(2, shape)


def resize(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bilinear, align_corners=False; untouched where the size is right already."""
    return x if x.shape[2:] == size else F.interpolate(x, size=size, mode="bilinear", align_corners=False)
