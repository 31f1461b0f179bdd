"""The large-kernel decoder's block."""

import torch.nn as nn
from torch import Tensor

from .conv import ConvNormAct, resize


class DecoderBlock(nn.Module):
    """Pointwise, large depthwise and pointwise convolution, then bilinear upsampling by 2 (arXiv 2501.08458).

    (B, dim_in, H, W) to (B, dim_out, 2H, 2W).
    """

    def __init__(self, dim_in: int, dim_out: int, *, kernel_size: int = 9):
        super().__init__()
        self.conv = ConvNormAct(dim_in, dim_in, act=nn.ReLU)
        self.conv_local = ConvNormAct(dim_in, dim_in, kernel_size, groups=dim_in, act=nn.SiLU)
        self.proj = ConvNormAct(dim_in, dim_out, act=nn.ReLU)

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(self.conv_local(self.conv(x)))
        return resize(x, tuple(2 * n for n in x.shape[2:]))
