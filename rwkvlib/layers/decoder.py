"""The large-kernel decoder's block."""

from typing import Any

import torch.nn as nn
from torch import Tensor

from .conv import ConvNormAct, Size, per_axis, resize


class DecoderBlock(nn.Module):
    """Pointwise, large depthwise and pointwise convolution, then bilinear upsampling by 2 (arXiv 2501.08458).

    (B, dim_in, H, W) to (B, dim_out, 2H, 2W). Volumes: trilinear; `scale` in the place of 2, by axis.
    """

    def __init__(self, dim_in: int, dim_out: int, *, kernel_size: Size = 9, scale: Size = 2, spatial_dims: int = 2):
        super().__init__()
        dims: dict[str, Any] = dict(spatial_dims=spatial_dims)
        self.scale = per_axis(scale, spatial_dims)
        self.conv = ConvNormAct(dim_in, dim_in, act=nn.ReLU, **dims)
        self.conv_local = ConvNormAct(dim_in, dim_in, kernel_size, groups=dim_in, act=nn.SiLU, **dims)
        self.proj = ConvNormAct(dim_in, dim_out, act=nn.ReLU, **dims)

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(self.conv_local(self.conv(x)))
        return resize(x, tuple(s * n for s, n in zip(self.scale, x.shape[2:], strict=True)))
