"""All networks by name: a new one is a row of the table."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch.nn as nn

from ..layers.conv import per_axis
from .baselines import from_monai, lite0_unet
from .config import CONFIGS, SMALL_CONFIGS, ModelConfig, Size, override
from .encoder import Encoder
from .unet import RWKVUNet

WIDTHS = (32, 64, 128, 256, 512)
CLASSES = {"segmentation": 1, "classification": 1000}  # by default: a binary mask's logit, ImageNet


@dataclass(frozen=True)
class Entry:
    """A row of the table.

    The project's own networks are built from their `ModelConfig`; baselines from keyword arguments, in_channels,
    num_classes and what `config` holds: options where MONAI has no default or another one than is usual.
    """

    build: Callable[..., nn.Module]
    config: ModelConfig | dict[str, Any]
    divisor: Size  # of height and width; of a model with other sizes than the config's its attribute `divisor`
    task: Literal["segmentation", "classification"] = "segmentation"
    volumes: bool = True  # whether it takes spatial_dims=3

    @property
    def is_baseline(self) -> bool:
        """Whether it is a network of MONAI, not the project's own."""
        return not isinstance(self.config, ModelConfig)


def _classifier(config: ModelConfig) -> Encoder:
    return Encoder(config, num_classes=config.num_classes)


def _monai(kind: str, divisor: int, volumes: bool = False, **config: Any) -> Entry:
    return Entry(from_monai(kind, divisor), config, divisor, volumes=volumes)


def _unet(*channels: int, **options: Any) -> Entry:
    return _monai("UNet", 16, True, channels=channels, strides=(2,) * 4, num_res_units=2, **options)


MODELS: dict[str, Entry] = {
    **{f"rwkv_unet_{size}": Entry(RWKVUNet, c, c.divisor) for size, c in (CONFIGS | SMALL_CONFIGS).items()},
    **{f"rwkv_encoder_{size}": Entry(_classifier, c, c.divisor, "classification") for size, c in CONFIGS.items()},
    "unet": _unet(*WIDTHS),  # with InstanceNorm, as are the narrower ones without ``norm="batch"``
    "unet_batchnorm": _unet(*WIDTHS, norm="batch"),
    "unet_narrow": _unet(8, 16, 32, 64, 128),
    "unet_n": _unet(12, 24, 48, 96, 192),  # with the latency of rwkv_unet_n
    "unet_p": _unet(3, 6, 11, 22, 44),  # with the parameters of rwkv_unet_p
    "attention_unet": _monai("AttentionUnet", 16, channels=WIDTHS, strides=(2,) * 4),
    "basic_unet_plus_plus": _monai("BasicUNetPlusPlus", 16),
    "swin_unetr": _monai("SwinUNETR", 32),  # by its patches and four stages
    "lite0_unet": Entry(lite0_unet, dict(pretrained=True), 32, volumes=False),
    "dyn_unet": _monai("DynUNet", 32, filters=(*WIDTHS, 512)),
    "segresnet": _monai("SegResNet", 8, True, init_filters=16, blocks_down=(1, 2, 2, 4)),  # arXiv 1810.11654 has 32
}
BASELINES = {name: entry for name, entry in MODELS.items() if entry.is_baseline}


def model_names(task: str | None = None) -> list[str]:
    """The names that `create_model` knows, of all networks or of those for "segmentation" or "classification"."""
    return [name for name, entry in MODELS.items() if task in (None, entry.task)]


def create_model(name: str, in_channels: int = 3, num_classes: int | None = None, **overrides: Any) -> nn.Module:
    """A randomly initialised model; ``lite0_unet`` alone starts from ImageNet's weights, unless ``pretrained=False``.

    Its attribute ``divisor`` says what the height and width of images must be multiples of. ``spatial_dims=3`` makes
    the same network for volumes (B, C, D, H, W): the project's own, those of the names unet..., and segresnet.

    Args:
        name: ``rwkv_unet_t``, ``_s`` or ``_b``, or the light ``_n`` or ``_p``, for segmentation; ``rwkv_encoder_t``,
            ``_s`` or ``_b`` for classification; or a network of MONAI for segmentation: unet, unet_batchnorm, the
            narrower unet_narrow, unet_n, unet_p, attention_unet, basic_unet_plus_plus, swin_unetr, dyn_unet,
            segresnet, lite0_unet (its extra is ``teacher``).
        in_channels: of the images; 1 is repeated to 3 by the project's own networks.
        num_classes: output channels; by default 1 for segmentation (a binary mask's logit) and 1000 for
            classification.
        overrides: fields of `ModelConfig`: attention, ccm, q_shift, learn_decay, kernel_size, decoder_kernel,
            drop_path, variant, backend, the sizes depths, dims, expansions, stem_dim, by stage attention_stages and
            norms, and what makes it light: stem_stride, first_expansion, kernel_sizes, attention_groups, ccm_dim,
            skips, decoder_dims, upsample, deep_supervision; for volumes spatial_dims, strides and order. Of MONAI's
            networks: MONAI's arguments, such as ``norm="batch"``.

    Raises:
        ValueError: unknown name, spatial_dims that the network does not have, a value outside its range. TypeError:
        unknown override. ImportError: no such extra.
    """
    if name not in MODELS:
        raise ValueError(f"name: expected one of {', '.join(MODELS)}, got {name!r}")
    entry = MODELS[name]
    sizes = dict(in_channels=in_channels, num_classes=CLASSES[entry.task] if num_classes is None else num_classes)
    for field, value in sizes.items():
        if value < 1:
            raise ValueError(f"{field}: expected at least 1, got {value}")
    if (dims := overrides.get("spatial_dims", 2)) not in ((2, 3) if entry.volumes else (2,)):
        able = ", ".join(other for other, row in MODELS.items() if row.volumes and row.task == entry.task)
        expected = "2 for images or 3 for volumes" if entry.volumes else f"2 for {name}"
        raise ValueError(f"spatial_dims: expected {expected}, got {dims!r}; networks that have 3: {able}")
    if isinstance(entry.config, ModelConfig):
        return entry.build(override(entry.config, overrides | sizes))
    return entry.build(**entry.config | sizes | overrides)


build_model = create_model  # its name where it built MONAI's networks too


def spatial_dims_of(model: nn.Module) -> int:
    """The number of a model's spatial axes: its attribute ``spatial_dims``, which all of the table have; 2 where it has
    none. Wrappers such as nn.DataParallel are looked into."""
    return getattr(getattr(model, "module", model), "spatial_dims", 2)


def divisors_of(model: nn.Module) -> tuple[int, ...]:
    """What each side of a model's images or volumes must be a multiple of: its attribute ``divisor``, which all of the
    table have; 1 where it has none. Wrappers such as nn.DataParallel are looked into."""
    return per_axis(getattr(getattr(model, "module", model), "divisor", 1), spatial_dims_of(model))


def divisor_of(model: nn.Module) -> int:
    """The least common multiple of `divisors_of`: what one size for all sides must be a multiple of."""
    return math.lcm(*divisors_of(model))


def model_for_weights(name: str, overrides: dict[str, Any]) -> nn.Module:
    """The model that a checkpoint's weights go into, which does without others of its own."""
    options = BASELINES[name].config if name in BASELINES else None
    if isinstance(options, dict) and "pretrained" in options:
        overrides = overrides | {"pretrained": False}
    return create_model(name, **overrides)
