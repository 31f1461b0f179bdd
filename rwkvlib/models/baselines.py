"""Other networks under the same recipes, from MONAI: what the paper's model is compared with."""

from typing import Any

import torch.nn as nn
from torch import Tensor

from . import create_model, model_names

WIDTHS = (32, 64, 128, 256, 512)


def _dyn_unet(filters: tuple[int, ...] = (*WIDTHS, 512)) -> dict[str, Any]:
    """nnU-Net's plain network: 3x3 convolutions, a strided one between stages, at most 512 channels. Six stages, as
    nnU-Net plans for 128 pixels; for 256 it takes seven: ``filters=[32, 64, 128, 256, 512, 512, 512]``."""
    strides = [1] + [2] * (len(filters) - 1)
    return dict(kernel_size=[3] * len(filters), strides=strides, upsample_kernel_size=strides[1:], filters=filters)


# MONAI's class, and its options where MONAI has no default or another one than is usual.
BASELINES: dict[str, tuple[str, dict[str, Any]]] = {
    "unet": ("UNet", dict(channels=WIDTHS, strides=(2,) * 4, num_res_units=2)),  # with InstanceNorm
    "unet_batchnorm": ("UNet", dict(channels=WIDTHS, strides=(2,) * 4, num_res_units=2, norm="batch")),
    "attention_unet": ("AttentionUnet", dict(channels=WIDTHS, strides=(2,) * 4)),
    "basic_unet_plus_plus": ("BasicUNetPlusPlus", {}),
    "swin_unetr": ("SwinUNETR", {}),
    "dyn_unet": ("DynUNet", _dyn_unet()),
}


class Baseline(nn.Module):
    """A network of MONAI: images (B, in_channels, H, W) to logits (B, num_classes, H, W).

    Raises: ValueError where H or W is not a multiple of ``divisor``.
    """

    def __init__(self, net: nn.Module, divisor: int):
        super().__init__()
        self.net, self.divisor = net, divisor

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] % self.divisor or x.shape[3] % self.divisor:
            raise ValueError(
                f"x: expected height and width divisible by {self.divisor}, got {x.shape[2]} x {x.shape[3]}"
            )
        y = self.net(x)
        return y[0] if isinstance(y, list) else y  # BasicUNetPlusPlus gives a list of its supervised outputs


def build_model(name: str, in_channels: int = 3, num_classes: int | None = None, **overrides: Any) -> nn.Module:
    """A model of `create_model`, or one of MONAI's: unet, unet_batchnorm, attention_unet, basic_unet_plus_plus,
    swin_unetr, dyn_unet.

    Args: as of `create_model`; the `overrides` of MONAI's networks are MONAI's arguments.
    Raises: ValueError for an unknown name, TypeError for an unknown override.
    """
    if name not in BASELINES:
        if name not in model_names():
            raise ValueError(f"model: expected one of {', '.join([*model_names(), *BASELINES])}, got {name!r}")
        return create_model(name, in_channels, num_classes, **overrides)
    import monai.networks.nets  # here, as it takes seconds

    kind, options = BASELINES[name]
    if name == "dyn_unet" and "filters" in overrides:
        options = _dyn_unet(overrides["filters"])
    fields = dict(spatial_dims=2, in_channels=in_channels, out_channels=num_classes or 1, **options) | overrides
    net = getattr(monai.networks.nets, kind)(**fields)
    if name == "basic_unet_plus_plus":  # without deep supervision these have no gradient
        for unused in ("final_conv_0_1", "final_conv_0_2", "final_conv_0_3"):
            setattr(net, unused, nn.Identity())
    # How often the deepest feature map is halved: SwinUNETR by its patches and four stages.
    halvings = {"swin_unetr": 5, "basic_unet_plus_plus": 4}.get(name) or fields["strides"].count(2)
    return Baseline(net, 2**halvings)
