"""The encoder: a stem at full resolution and four stages of GLSP blocks, each of which halves it."""

from dataclasses import dataclass, replace

import torch.nn as nn
from torch import Tensor

from ..layers import GLSP, LayerNorm2d


@dataclass(frozen=True)
class Config:
    """What a model is built from. The first three fields tell T, S and B apart; the others are what is ablated."""

    depths: tuple[int, int, int, int]
    dims: tuple[int, int, int, int]
    expansions: tuple[float, float, float, float]
    in_channels: int = 3
    num_classes: int = 1
    attention: bool = True
    ccm: bool = True
    q_shift: bool = True
    learn_decay: bool = True
    kernel_size: int = 5
    decoder_kernel: int = 9
    drop_path: float = 0.05
    variant: str = "paper"
    backend: str = "auto"


CONFIGS = {
    "t": Config(depths=(2, 2, 4, 2), dims=(32, 48, 96, 160), expansions=(2, 2.5, 3, 3.5)),
    "s": Config(depths=(3, 3, 6, 3), dims=(32, 64, 128, 192), expansions=(2, 2.5, 3, 4)),
    "b": Config(depths=(3, 3, 6, 3), dims=(48, 72, 144, 240), expansions=(2, 2.5, 4, 4)),
}
STEM = 24  # channels at full resolution, in the stem and after the decoder


def check_image(x: Tensor, in_channels: int) -> None:
    """Raises ValueError unless x is (B, in_channels, H, W) with H and W positive multiples of 16."""
    if x.ndim != 4 or x.shape[1] != in_channels:
        raise ValueError(f"x: expected shape (B, {in_channels}, H, W), got {tuple(x.shape)}")
    if x.shape[2] % 16 or x.shape[3] % 16 or x.shape[2] == 0 or x.shape[3] == 0:
        raise ValueError(
            f"x: expected height and width divisible by 16, got {x.shape[2]} x {x.shape[3]}; "
            "rwkvlib.predict pads images of any size"
        )


class Encoder(nn.Module):
    """Images (B, C, H, W) to the outputs of stem and stages: strides 1, 2, 4, 8, 16.

    One-channel images are repeated to three, as the paper does. With `num_classes` a classification head follows
    (LayerNorm, global average, linear) and the output is (B, num_classes).
    """

    def __init__(self, config: Config, *, num_classes: int | None = None):
        super().__init__()
        c = config
        self.config = c
        mix = dict(use_q_shift=c.q_shift, learn_decay=c.learn_decay, variant=c.variant, backend=c.backend)
        rates = [c.drop_path * i / (sum(c.depths) - 1) for i in range(sum(c.depths))]
        stem_in = 3 if c.in_channels == 1 else c.in_channels
        stem = GLSP(stem_in, STEM, 1, kernel_size=c.kernel_size, norm="none", squeeze_excite=True, skip=False)
        self.stage0 = nn.Sequential(stem)
        dim_in = STEM
        for stage, (depth, dim, expansion) in enumerate(zip(c.depths, c.dims, c.expansions, strict=True), start=1):
            blocks = []
            for i in range(depth):
                first = i == 0
                blocks.append(
                    GLSP(
                        dim_in if first else dim,
                        dim,
                        expansion * 2 if first else expansion,
                        kernel_size=c.kernel_size,
                        stride=2 if first else 1,
                        norm="bn" if stage <= 2 else "ln",
                        attention=c.attention and stage >= 3 and not first,
                        skip=not first,
                        drop_path=rates.pop(0),
                        mix=mix,
                    )
                )
            setattr(self, f"stage{stage}", nn.Sequential(*blocks))
            dim_in = dim
        self.norm = LayerNorm2d(dim_in) if num_classes is not None else None
        self.head = nn.Linear(dim_in, num_classes) if num_classes is not None else None
        self.apply(init_weights)

    def features(self, x: Tensor) -> list[Tensor]:
        """The outputs of stage 0 (the stem) to stage 4."""
        check_image(x, self.config.in_channels)
        if self.config.in_channels == 1:
            x = x.repeat(1, 3, 1, 1)
        maps = []
        for stage in (self.stage0, self.stage1, self.stage2, self.stage3, self.stage4):
            x = stage(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        maps = self.features(x)
        return maps if self.head is None else self.head(self.norm(maps[-1]).mean((2, 3)))


def init_weights(module: nn.Module) -> None:
    """Linear layers: truncated normal, std 0.02, zero bias. Everything else keeps PyTorch's default."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def override(config: Config, overrides: dict) -> Config:
    """The config with some fields replaced. Raises TypeError that lists the fields where a name is unknown."""
    unknown = set(overrides) - set(Config.__dataclass_fields__)
    if unknown:
        raise TypeError(f"overrides: expected fields of {sorted(Config.__dataclass_fields__)}, got {sorted(unknown)}")
    return replace(config, **overrides)
