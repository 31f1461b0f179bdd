"""GLSP, the global-local spatial perception block: Spatial Mix over the whole map, then a depthwise convolution.

RWKV-UNet, arXiv 2501.08458 (version 1 calls it IR-RWKV): an inverted residual block whose wide middle also attends.
"""

from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from .conv import DIMS, ConvNormAct, LayerNorm2d, Size, map_from_tokens, per_axis, tokens_from_map
from .mixing import DropPath, SpatialMix

NORMS = {
    "none": lambda dim, spatial_dims: nn.Identity(),
    "bn": lambda dim, spatial_dims: DIMS[spatial_dims].batchnorm(dim, eps=1e-6),
    "ln": lambda dim, spatial_dims: LayerNorm2d(dim),
}


class SqueezeExcite(nn.Module):
    """Channel gates from the map's mean (Hu et al., arXiv 1709.01507), at full width: no reduction."""

    def __init__(self, dim: int, *, spatial_dims: int = 2):
        super().__init__()
        self.conv_reduce = DIMS[spatial_dims].conv(dim, dim, 1)
        self.conv_expand = DIMS[spatial_dims].conv(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.conv_reduce(x.mean(tuple(range(2, x.ndim)), keepdim=True))
        return x * torch.sigmoid(self.conv_expand(nn.functional.silu(gate)))


class GLSP(nn.Module):
    """One block, (B, dim_in, H, W) to (B, dim_out, H / stride, W / stride); of volumes with three axes in their place.

    1. normalise, expand to ``int(dim_in * expansion)`` channels;
    2. with attention: ``h + LayerNorm(SpatialMix(h))`` on the tokens (the global branch);
    3. depthwise convolution (the local branch), with a residual where the shapes allow;
    4. project to dim_out, with a residual around everything where the shapes allow.

    Args:
        norm: "none", "bn" or "ln", what step 1 normalises with.
        squeeze_excite: channel gates after step 3's convolution (the stem's).
        kernel_size, stride: of all axes, or one for each.
        skip: False leaves out the residuals of steps 3 and 4.
        drop_path: probability of dropping a residual branch while training.
        mix: keyword arguments of `SpatialMix`.
    """

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        expansion: float,
        *,
        kernel_size: Size = 5,
        stride: Size = 1,
        norm: str = "bn",
        attention: bool = False,
        squeeze_excite: bool = False,
        skip: bool = True,
        drop_path: float = 0.0,
        mix: dict | None = None,
        spatial_dims: int = 2,
    ):
        super().__init__()
        dim = int(dim_in * expansion)
        dims: dict[str, Any] = dict(spatial_dims=spatial_dims)
        self.has_skip = skip and dim_in == dim_out and set(per_axis(stride, spatial_dims)) == {1}
        self.norm = NORMS[norm](dim_in, **dims)
        self.conv = ConvNormAct(dim_in, dim, act=nn.ReLU, **dims)
        self.att = SpatialMix(dim, **(mix or {})) if attention else None
        self.ln1 = nn.LayerNorm(dim) if attention else nn.Identity()
        self.conv_local = ConvNormAct(dim, dim, kernel_size, stride=stride, groups=dim, act=nn.SiLU, **dims)
        self.se = SqueezeExcite(dim, **dims) if squeeze_excite else nn.Identity()
        self.proj = ConvNormAct(dim, dim_out, norm=False, **dims)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(self.norm(x))
        if self.att is not None:
            shape, tokens = h.shape[2:], tokens_from_map(h)
            tokens = tokens + self.drop_path(self.ln1(self.att(tokens, shape)))
            h = map_from_tokens(tokens, shape)
        local = self.se(self.conv_local(h))
        h = self.proj(h + local if self.has_skip else local)
        return x + self.drop_path(h) if self.has_skip else h
