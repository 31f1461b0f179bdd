"""Models by name: sizes are rows of a table over one builder."""

import torch.nn as nn

from .encoder import CONFIGS, Config, Encoder, override
from .official import LoadReport, load_official
from .unet import RWKVUNet

__all__ = ["CONFIGS", "Config", "Encoder", "LoadReport", "RWKVUNet", "create_model", "load_official", "model_names"]


def model_names() -> list[str]:
    """The names that `create_model` knows."""
    return [f"rwkv_{kind}_{size}" for kind in ("unet", "encoder") for size in CONFIGS]


def create_model(name: str, in_channels: int = 3, num_classes: int | None = None, **overrides) -> nn.Module:
    """A randomly initialised model.

    Args:
        name: ``rwkv_unet_t``, ``_s`` or ``_b`` for segmentation; ``rwkv_encoder_t``, ``_s`` or ``_b`` for
            classification.
        in_channels: of the images; 1 is repeated to 3.
        num_classes: output channels; by default 1 for a U-Net (a binary mask's logit) and 1000 for an encoder.
        overrides: fields of `Config`: attention, ccm, q_shift, learn_decay, kernel_size, decoder_kernel, drop_path,
            variant, backend, or the sizes depths, dims, expansions.

    Raises:
        ValueError: unknown name, a count below 1 or an even kernel. TypeError: unknown override.
    """
    if name not in model_names():
        raise ValueError(f"name: expected one of {', '.join(model_names())}, got {name!r}")
    _, kind, size = name.split("_")
    if num_classes is None:
        num_classes = 1 if kind == "unet" else 1000
    config = override(CONFIGS[size], dict(overrides, in_channels=in_channels, num_classes=num_classes))
    for field in ("in_channels", "num_classes"):
        if getattr(config, field) < 1:
            raise ValueError(f"{field}: expected at least 1, got {getattr(config, field)}")
    for field in ("kernel_size", "decoder_kernel"):
        if getattr(config, field) % 2 == 0:
            raise ValueError(f"{field}: expected an odd size, got {getattr(config, field)}")
    return RWKVUNet(config) if kind == "unet" else Encoder(config, num_classes=num_classes)
