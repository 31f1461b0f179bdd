"""CCM, the cross-channel mix: the three skip connections are brought to one size and mixed before they go on."""

import torch
import torch.nn as nn
from torch import Tensor

from .conv import DIMS, map_from_tokens, resize, tokens_from_map
from .mixing import ChannelMix, DropPath


class CrossChannelMix(nn.Module):
    """Mixes the outputs of the encoder's stages 3, 2, 1, in that order (RWKV-UNet, arXiv 2501.08458).

    Each map is resized to the last one's resolution and projected to ``dim`` channels; their concatenation goes
    through a residual Channel Mix; each third is projected and resized back to its own width and resolution.
    """

    def __init__(
        self, dims: list[int], dim: int, *, drop_path: float = 0.05, use_q_shift: bool = True, spatial_dims: int = 2
    ):
        super().__init__()
        conv = DIMS[spatial_dims].conv
        self.projections = nn.ModuleList(conv(d, dim, 1) for d in dims)
        self.channel = ChannelMix(dim * len(dims), use_q_shift=use_q_shift)
        self.ln1 = nn.LayerNorm(dim * len(dims))
        self.drop_path = DropPath(drop_path)
        self.final_projections = nn.ModuleList(conv(dim, d, 1) for d in dims)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps of shape (B, dims[i], H_i, W_i) or (B, dims[i], D_i, H_i, W_i), to the same shapes."""
        shape = maps[-1].shape[2:]
        projected = [p(resize(x, shape)) for p, x in zip(self.projections, maps, strict=True)]
        z = tokens_from_map(torch.cat(projected, dim=1))
        z = z + self.drop_path(self.ln1(self.channel(z, shape)))
        parts = map_from_tokens(z, shape).chunk(len(maps), dim=1)
        return [resize(p(z), x.shape[2:]) for p, z, x in zip(self.final_projections, parts, maps, strict=True)]
