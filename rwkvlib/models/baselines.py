"""Other networks under the same recipes, from MONAI: what the paper's model is compared with."""

from collections.abc import Callable
from typing import Any

import torch.nn as nn
from torch import Tensor

from .config import Size, divided_by
from .encoder import check_input
from .lite0 import CHANNELS, Lite0


class Baseline(nn.Module):
    """A network of MONAI: images (B, in_channels, H, W) to logits (B, num_classes, H, W), or volumes with D before H.

    Raises: ValueError for another number of axes, and where a side is not a multiple of ``divisor``.
    """

    def __init__(self, net: nn.Module, divisor: Size, spatial_dims: int = 2):
        super().__init__()
        self.net, self.divisor, self.spatial_dims = net, divisor, spatial_dims

    def forward(self, x: Tensor) -> Tensor:
        check_input(x, None, self.divisor, self.spatial_dims)
        y = self.net(x)
        return y[0] if isinstance(y, list) else y  # BasicUNetPlusPlus gives a list of its supervised outputs


def dyn_unet_options(filters: tuple[int, ...]) -> dict[str, Any]:
    """nnU-Net's plain network: 3x3 convolutions, a strided one between stages, at most 512 channels. Six stages, as
    nnU-Net plans for 128 pixels; for 256 it takes seven: ``filters=[32, 64, 128, 256, 512, 512, 512]``."""
    strides = [1] + [2] * (len(filters) - 1)
    return dict(kernel_size=[3] * len(filters), strides=strides, upsample_kernel_size=strides[1:], filters=filters)


def from_monai(kind: str, divisor: int) -> Callable[..., Baseline]:
    """The builder of a network by its class in MONAI, whose arguments it takes.

    Args:
        divisor: of a network without ``strides`` or ``blocks_down``, which say it by themselves.
    """

    def build(*, in_channels: int, num_classes: int, **fields: Any) -> Baseline:
        import monai.networks.nets  # here, as it takes seconds

        if kind == "DynUNet":
            fields = dyn_unet_options(fields["filters"]) | fields
        fields = dict(spatial_dims=2, in_channels=in_channels, out_channels=num_classes) | fields
        dims = fields["spatial_dims"]
        net = getattr(monai.networks.nets, kind)(**fields)
        if kind == "BasicUNetPlusPlus":  # without deep supervision these have no gradient
            for unused in ("final_conv_0_1", "final_conv_0_2", "final_conv_0_3"):
                setattr(net, unused, nn.Identity())
        strides = fields.get("strides", [2] * (len(fields.get("blocks_down", ())) - 1))
        return Baseline(net, divided_by(strides, dims) if strides else divisor, dims)

    return build


def lite0_unet(*, in_channels: int, num_classes: int, pretrained: bool, **fields: Any) -> Baseline:
    """MONAI's FlexibleUNet over EfficientNet-Lite0, with ImageNet's weights where `pretrained`.

    Raises: ImportError without the extra ``teacher``; ValueError unless `in_channels` is 3.
    """
    from monai.networks.nets.flexible_unet import FLEXUNET_BACKBONE, FlexibleUNet

    if in_channels != 3:
        raise ValueError(f"in_channels: expected 3, as EfficientNet-Lite0 takes, got {in_channels}")
    FLEXUNET_BACKBONE.register_dict["efficientnet-lite0"] = dict(
        type=lambda spatial_dims, in_channels, pretrained: Lite0(pretrained),
        feature_number=len(CHANNELS),
        feature_channel=CHANNELS,
        parameter=dict.fromkeys(("spatial_dims", "in_channels", "pretrained")),
    )
    return Baseline(FlexibleUNet(3, num_classes, "efficientnet-lite0", pretrained, **fields), Lite0.divisor)


def __getattr__(name: str) -> Any:
    """What moved to registry.py, which imports this module."""
    if name not in ("BASELINES", "build_model"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import registry

    return getattr(registry, name)
