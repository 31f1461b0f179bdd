"""The encoder: a stem and four stages of GLSP blocks, each of which halves the resolution."""

from typing import Any

import torch.nn as nn
from torch import Tensor

from ..layers import GLSP, ConvNormAct, LayerNorm2d
from ..layers.conv import per_axis
from .config import AXES, ModelConfig, Size
from .config import CONFIGS as CONFIGS  # its old place
from .config import override as override

Config = ModelConfig  # its old name


def check_image(x: Tensor, config: ModelConfig) -> None:
    """Raises ValueError unless x is (B, in_channels, H, W), or (B, in_channels, D, H, W) for volumes, with sides that
    are positive multiples of the config's divisor."""
    check_input(x, config.in_channels, config.divisor, config.spatial_dims)


def check_input(x: Tensor, in_channels: int | None, divisor: Size, spatial_dims: int) -> None:
    """`check_image` by its parts; of any number of channels where `in_channels` is None."""
    if x.ndim != 2 + spatial_dims or x.shape[1] != (in_channels or x.shape[1]):
        expected = ", ".join(["B", str(in_channels or "C"), *"DHW"[-spatial_dims:]])
        other = {4: "images are for spatial_dims=2", 5: "volumes are for spatial_dims=3"}.get(x.ndim, "")
        hint = f"; {other}" if other and x.ndim != 2 + spatial_dims else ""
        raise ValueError(f"x: expected shape ({expected}), got {tuple(x.shape)}{hint}")
    sides, by = tuple(x.shape[2:]), per_axis(divisor, spatial_dims)
    if any(n % d or n == 0 for n, d in zip(sides, by, strict=True)):
        wanted, got = (" x ".join(map(str, per_axis(n, 1))) for n in (divisor, sides))
        raise ValueError(
            f"x: expected {AXES[spatial_dims]} divisible by {wanted}, got {got}; "
            f"rwkvlib.predict pads {'images' if spatial_dims == 2 else 'volumes'} of any size"
        )


class Encoder(nn.Module):
    """Images (B, C, H, W) to the outputs of stem and stages: strides 1, 2, 4, 8, 16, times ``config.stem_stride``;
    volumes (B, C, D, H, W) where ``config.spatial_dims`` is 3.

    One-channel images are repeated to three, as the paper does. With `num_classes` a classification head follows
    (LayerNorm, global average, linear) and the output is (B, num_classes).
    """

    def __init__(self, config: ModelConfig, *, num_classes: int | None = None):
        super().__init__()
        c = config
        self.config, self.divisor, self.spatial_dims = c, c.divisor, c.spatial_dims
        mix = dict(use_q_shift=c.q_shift, learn_decay=c.learn_decay, variant=c.variant, backend=c.backend)
        mix |= dict(groups=c.attention_groups, order=c.order)
        dims: dict[str, Any] = dict(spatial_dims=c.spatial_dims)
        rates = [c.drop_path * i / (sum(c.depths) - 1) for i in range(sum(c.depths))]
        stem_in = 3 if c.in_channels == 1 else c.in_channels
        stem: nn.Module
        if set(per_axis(c.stem_stride, c.spatial_dims)) == {1}:
            plain: dict[str, Any] = dict(norm="none", squeeze_excite=True, skip=False)
            stem = GLSP(stem_in, c.stem_dim, 1, kernel_size=c.kernel_size, **plain, **dims)
        else:  # of GLSP's three channels at the image's resolution too little would be left
            stem = ConvNormAct(stem_in, c.stem_dim, c.kernel_size, stride=c.stem_stride, act=nn.SiLU, **dims)
        self.stage0 = nn.Sequential(stem)
        dim_in = c.stem_dim
        for stage, (depth, dim, expansion) in enumerate(zip(c.depths, c.dims, c.expansions, strict=True), start=1):
            blocks = []
            for i in range(depth):
                first = i == 0
                blocks.append(
                    GLSP(
                        dim_in if first else dim,
                        dim,
                        expansion * c.first_expansion if first else expansion,
                        kernel_size=c.kernels[stage - 1],
                        stride=c.strides[stage - 1] if first else 1,
                        norm=c.norms[stage - 1],
                        attention=c.attention and c.attention_stages[stage - 1] and not first,
                        skip=not first,
                        drop_path=rates.pop(0),
                        mix=mix,
                        **dims,
                    )
                )
            setattr(self, f"stage{stage}", nn.Sequential(*blocks))
            dim_in = dim
        self.norm = LayerNorm2d(dim_in) if num_classes is not None else None
        self.head = nn.Linear(dim_in, num_classes) if num_classes is not None else None
        self.apply(init_weights)

    def features(self, x: Tensor) -> list[Tensor]:
        """The outputs of stage 0 (the stem) to stage 4."""
        check_image(x, self.config)
        if self.config.in_channels == 1:
            x = x.repeat(1, 3, *[1] * self.spatial_dims)
        maps = []
        for stage in (self.stage0, self.stage1, self.stage2, self.stage3, self.stage4):
            x = stage(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        maps = self.features(x)
        if self.head is None or self.norm is None:
            return maps
        return self.head(self.norm(maps[-1]).mean(tuple(range(2, x.ndim))))


def init_weights(module: nn.Module) -> None:
    """Linear layers: truncated normal, std 0.02, zero bias. Everything else keeps PyTorch's default."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
