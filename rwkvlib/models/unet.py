"""RWKV-UNet: the encoder, the cross-channel mix of its skips, the large-kernel decoder."""

import torch
import torch.nn as nn
from torch import Tensor

from ..layers import CrossChannelMix, DecoderBlock
from .config import ModelConfig
from .encoder import Encoder, init_weights


class RWKVUNet(nn.Module):
    """Images (B, in_channels, H, W) to logits (B, num_classes, H, W); H and W divisible by 16.

    RWKV-UNet, arXiv 2501.08458. With ``config.ccm`` off the skips go to the decoder as they are.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config, self.divisor = config, config.divisor
        d = config.dims
        self.encoder = Encoder(config)
        self.ccm = (
            CrossChannelMix([d[2], d[1], d[0]], d[0], drop_path=config.drop_path, use_q_shift=config.q_shift)
            if config.ccm
            else None
        )
        k = config.decoder_kernel
        self.decoder1 = DecoderBlock(d[3], d[2], kernel_size=k)
        self.decoder2 = DecoderBlock(2 * d[2], d[1], kernel_size=k)
        self.decoder3 = DecoderBlock(2 * d[1], d[0], kernel_size=k)
        self.decoder4 = DecoderBlock(2 * d[0], config.stem_dim, kernel_size=k)
        self.final_conv = nn.Conv2d(config.stem_dim, config.num_classes, 1)
        if self.ccm is not None:
            self.ccm.apply(init_weights)

    def forward(self, x: Tensor) -> Tensor:
        _, s1, s2, s3, s4 = self.encoder(x)
        skips = [s3, s2, s1] if self.ccm is None else self.ccm([s3, s2, s1])
        y = self.decoder1(s4)
        y = self.decoder2(torch.cat([y, skips[0]], dim=1))
        y = self.decoder3(torch.cat([y, skips[1]], dim=1))
        y = self.decoder4(torch.cat([y, skips[2]], dim=1))
        return self.final_conv(y)
