"""The encoder as a part for other people's decoders."""

from pathlib import Path

import torch.nn as nn
from torch import Tensor

from ..models import Encoder, RWKVUNet, create_model
from .checkpoint import load_encoder


class Features(nn.Module):
    """An encoder with the interface of segmentation_models_pytorch's: normalised images (B, in_channels, H, W), with H
    and W divisible by ``output_stride``, to a list of maps, the images first, then those at strides 2, 4, 8, 16 and, of
    networks whose stem has a stride of 2, 32.

    Attributes:
        out_channels, strides: of the maps, the images' included.
        output_stride: of the last map.
        depth: how often the resolution is halved.
    """

    def __init__(self, encoder: Encoder):
        super().__init__()
        c = encoder.config
        self.encoder = encoder
        # At stride 1 the images stand in the place of the stem's map.
        self.skipped = 1 if c.stem_stride == 1 else 0
        self.out_channels = (c.in_channels, *(c.stem_dim, *c.dims)[self.skipped :])
        self.strides = (1, *(c.stem_stride * 2**i for i in range(self.skipped, 5)))
        self.output_stride = self.divisor = c.divisor
        self.depth = len(self.out_channels) - 1

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x, *self.encoder.features(x)[self.skipped :]]


def features(name: str, pretrained: str | Path | None = None, in_channels: int = 3, **overrides) -> Features:
    """The encoder of a network, for decoders that take a list of maps, such as segmentation_models_pytorch's.

    Images are normalised by whoever trains: `rwkvlib.normalise` gives the scale of the pretrained weights.

    Args:
        name: rwkv_unet_t, _s, _b, _n or _p.
        pretrained: as `rwkvlib.engine.checkpoint.load_encoder` takes it: "teacher", "imagenet", a file or a run.
        in_channels: of the images.
        overrides: fields of `rwkvlib.models.config.ModelConfig`.

    Raises: ValueError: another name; a stem of stride 4, which leaves out the map at stride 2; as `create_model` and
        `load_encoder`.
    """
    model = create_model(name, in_channels=in_channels, **overrides)
    if not isinstance(model, RWKVUNet):
        raise ValueError(f"name: expected rwkv_unet_t, _s, _b, _n or _p, got {name!r}")
    c = model.config
    if c.spatial_dims != 2 or c.stem_stride not in (1, 2) or c.strides != (2, 2, 2, 2):
        raise ValueError("overrides: expected a network for images with a stem_stride of 1 or 2 and the usual strides")
    if pretrained is not None:
        load_encoder(model, pretrained)
    return Features(model.encoder)
