"""Convolution with normalisation and activation, and the tokens' view of a feature map; of images and of volumes.

What is said of H and W, of pixels and of bilinear holds in volumes for D, H and W, for voxels and for trilinear.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor


class Dims(NamedTuple):
    """What the networks for images and those for volumes call differently."""

    conv: type[nn.Conv2d] | type[nn.Conv3d]
    batchnorm: type[nn.BatchNorm2d] | type[nn.BatchNorm3d]
    mode: str  # of F.interpolate
    memory_format: torch.memory_format
    axes: tuple[str, ...]


DIMS = {  # by the number of spatial axes
    2: Dims(nn.Conv2d, nn.BatchNorm2d, "bilinear", torch.channels_last, ("height", "width")),
    3: Dims(nn.Conv3d, nn.BatchNorm3d, "trilinear", torch.channels_last_3d, ("depth", "height", "width")),
}
Size = int | Sequence[int]  # one number for all spatial axes, or one for each


def per_axis(size: Size, spatial_dims: int) -> tuple[int, ...]:
    """One number for each spatial axis."""
    return (size,) * spatial_dims if isinstance(size, int) else tuple(size)


class ConvNormAct(nn.Module):
    """Convolution, BatchNorm (eps 1e-6) and activation, the last two optional.

    Padding ``ceil((kernel_size - stride) / 2)``: resolution H / stride for an odd kernel and an even H.

    Args: ``kernel_size``, ``stride`` of all axes, or one for each.
    """

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        kernel_size: Size = 1,
        *,
        stride: Size = 1,
        groups: int = 1,
        norm: bool = True,
        act: type[nn.Module] = nn.Identity,
        spatial_dims: int = 2,
    ):
        super().__init__()
        make, (kernel, strides) = DIMS[spatial_dims], (per_axis(n, spatial_dims) for n in (kernel_size, stride))
        padding = [-((s - k) // 2) for s, k in zip(strides, kernel, strict=True)]  # the ceiling, in integers
        self.conv = make.conv(dim_in, dim_out, kernel, strides, padding, groups=groups, bias=False)  # type: ignore[arg-type]
        self.norm = make.batchnorm(dim_out, eps=1e-6) if norm else nn.Identity()
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim_in, H, W) to (B, dim_out, H / stride, W / stride)."""
        return self.act(self.norm(self.conv(x)))


class LayerNorm2d(nn.Module):
    """LayerNorm over the channels of each pixel of a (B, C, H, W) map, or voxel of (B, C, D, H, W), eps 1e-6."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


def tokens_from_map(x: Tensor) -> Tensor:
    """(B, C, ...) to (B, T, C), row-major; a view where the memory format is channels_last."""
    return x.flatten(2).transpose(1, 2)


def map_from_tokens(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(B, T, C) to (B, C, ...): the inverse of `tokens_from_map`, a view (channels_last strides)."""
    return x.transpose(1, 2).unflatten(2, shape)


def resize(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bilinear or trilinear, align_corners=False; untouched where the size is right already."""
    if x.shape[2:] == size:
        return x
    return F.interpolate(x, size=size, mode=DIMS[len(size)].mode, align_corners=False)
