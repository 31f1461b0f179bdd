"""RWKV-UNet: the encoder, the cross-channel mix of its skips, the large-kernel decoder."""

from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..layers import CrossChannelMix, DecoderBlock
from ..layers.conv import DIMS, resize
from .config import ModelConfig
from .encoder import Encoder, init_weights


class RWKVUNet(nn.Module):
    """Images (B, in_channels, H, W) to logits (B, num_classes, H, W); H and W divisible by ``divisor``, the paper's 16.

    RWKV-UNet, arXiv 2501.08458. With ``config.ccm`` off the skips go to the decoder as they are. With
    ``config.deep_supervision`` the output in training mode is a list: these logits, then those of the decoder's steps
    3, 2, 1, at strides 2, 4, 8 times the stem's. With ``config.spatial_dims`` 3 it is the same network for volumes
    (B, in_channels, D, H, W), each convolution with a third axis; its strides may differ from axis to axis.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config, self.divisor, self.spatial_dims = config, config.divisor, config.spatial_dims
        d, conv = config.dims, DIMS[config.spatial_dims].conv
        dims: dict[str, Any] = dict(spatial_dims=config.spatial_dims)
        self.encoder = Encoder(config)
        self.ccm = (
            CrossChannelMix(
                [d[2], d[1], d[0]],
                config.ccm_dim or d[0],
                drop_path=config.drop_path,
                use_q_shift=config.q_shift,
                **dims,
            )
            if config.ccm
            else None
        )
        w, r = config.decoder_widths, config.strides
        dims["kernel_size"] = config.decoder_kernel
        self.concatenates = config.skips == "concatenate"
        s = d[2::-1] if self.concatenates else (0, 0, 0)
        self.decoder1 = DecoderBlock(d[3], w[0], scale=r[3], **dims)
        self.decoder2 = DecoderBlock(w[0] + s[0], w[1], scale=r[2], **dims)
        self.decoder3 = DecoderBlock(w[1] + s[1], w[2], scale=r[1], **dims)
        self.decoder4 = DecoderBlock(w[2] + s[2], w[3], scale=r[0], **dims)
        self.shuffled = config.shuffled
        self.final_conv = conv(w[3], config.num_classes * self.shuffled**2, 1)
        if config.deep_supervision:
            self.side_heads = nn.ModuleList(conv(n, config.num_classes, 1) for n in w[2::-1])
        if self.ccm is not None:
            self.ccm.apply(init_weights)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        _, s1, s2, s3, s4 = self.encoder(x)
        skips = [s3, s2, s1] if self.ccm is None else self.ccm([s3, s2, s1])
        y1 = self.decoder1(s4)
        y2 = self.decoder2(self.join(y1, skips[0]))
        y3 = self.decoder3(self.join(y2, skips[1]))
        y4 = self.decoder4(self.join(y3, skips[2]))
        logits = self.final_conv(y4)
        if self.shuffled > 1:
            logits = F.pixel_shuffle(logits, self.shuffled)
        logits = resize(logits, tuple(x.shape[2:]))
        if not (self.training and self.config.deep_supervision):
            return logits
        return [logits, *(head(y) for head, y in zip(self.side_heads, (y3, y2, y1), strict=True))]

    def join(self, y: Tensor, skip: Tensor) -> Tensor:
        """The input of a step of the decoder: what came from below, and the skip of the same shape but for channels."""
        return torch.cat([y, skip], dim=1) if self.concatenates else y + skip
