"""The encoder: a stem and four stages of GLSP blocks, each of which halves the resolution."""

import torch.nn as nn
from torch import Tensor

from ..layers import GLSP, ConvNormAct, LayerNorm2d
from .config import CONFIGS as CONFIGS  # its old place
from .config import ModelConfig
from .config import override as override

Config = ModelConfig  # its old name


def check_image(x: Tensor, config: ModelConfig) -> None:
    """Raises ValueError unless x is (B, in_channels, H, W) with H and W positive multiples of the config's divisor."""
    if x.ndim != 4 or x.shape[1] != config.in_channels:
        raise ValueError(f"x: expected shape (B, {config.in_channels}, H, W), got {tuple(x.shape)}")
    if any(n % config.divisor or n == 0 for n in x.shape[2:]):
        raise ValueError(
            f"x: expected height and width divisible by {config.divisor}, got {x.shape[2]} x {x.shape[3]}; "
            "rwkvlib.predict pads images of any size"
        )


class Encoder(nn.Module):
    """Images (B, C, H, W) to the outputs of stem and stages: strides 1, 2, 4, 8, 16, times ``config.stem_stride``.

    One-channel images are repeated to three, as the paper does. With `num_classes` a classification head follows
    (LayerNorm, global average, linear) and the output is (B, num_classes).
    """

    def __init__(self, config: ModelConfig, *, num_classes: int | None = None):
        super().__init__()
        c = config
        self.config, self.divisor = c, c.divisor
        mix = dict(use_q_shift=c.q_shift, learn_decay=c.learn_decay, variant=c.variant, backend=c.backend)
        mix["groups"] = c.attention_groups
        rates = [c.drop_path * i / (sum(c.depths) - 1) for i in range(sum(c.depths))]
        stem_in = 3 if c.in_channels == 1 else c.in_channels
        stem: nn.Module
        if c.stem_stride == 1:
            stem = GLSP(stem_in, c.stem_dim, 1, kernel_size=c.kernel_size, norm="none", squeeze_excite=True, skip=False)
        else:  # of GLSP's three channels at the image's resolution too little would be left
            stem = ConvNormAct(stem_in, c.stem_dim, c.kernel_size, stride=c.stem_stride, act=nn.SiLU)
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
                        stride=2 if first else 1,
                        norm=c.norms[stage - 1],
                        attention=c.attention and c.attention_stages[stage - 1] and not first,
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
        check_image(x, self.config)
        if self.config.in_channels == 1:
            x = x.repeat(1, 3, 1, 1)
        maps = []
        for stage in (self.stage0, self.stage1, self.stage2, self.stage3, self.stage4):
            x = stage(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        maps = self.features(x)
        return maps if self.head is None or self.norm is None else self.head(self.norm(maps[-1]).mean((2, 3)))


def init_weights(module: nn.Module) -> None:
    """Linear layers: truncated normal, std 0.02, zero bias. Everything else keeps PyTorch's default."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
