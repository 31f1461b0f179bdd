"""What the project's own networks are built from."""

import difflib
from dataclasses import dataclass, fields, replace
from typing import Literal

Norm = Literal["none", "bn", "ln"]  # a name of `rwkvlib.layers.glsp.NORMS`
Four = tuple[int, int, int, int]


@dataclass(frozen=True)
class ModelConfig:
    """What a model is built from. The first three fields tell T, S and B apart; the others are what is ablated.

    Fields of four values hold one for each stage; lists, as YAML gives them, become tuples.

    Raises: ValueError that begins with the field's name.
    """

    depths: tuple[int, int, int, int]
    dims: tuple[int, int, int, int]
    expansions: tuple[float, float, float, float]
    in_channels: int = 3
    num_classes: int = 1
    attention: bool = True  # False: in no stage, whatever `attention_stages` says
    ccm: bool = True
    q_shift: bool = True
    learn_decay: bool = True
    kernel_size: int = 5
    decoder_kernel: int = 9
    drop_path: float = 0.05
    variant: str = "paper"
    backend: str = "auto"
    stem_dim: int = 24  # channels at full resolution, in the stem and after the decoder
    attention_stages: tuple[bool, bool, bool, bool] = (False, False, True, True)  # in all their blocks but the first
    norms: tuple[Norm, Norm, Norm, Norm] = ("bn", "bn", "ln", "ln")  # what a stage's blocks normalise with
    # What makes a network light; the defaults are the paper's network.
    stem_stride: int = 1  # 1, 2 or 4; above 1 the stem is one convolution, and the logits are enlarged by it
    first_expansion: float = 2.0  # of a stage's first block, times the stage's expansion
    kernel_sizes: Four | None = None  # of the depthwise convolutions by stage; None: kernel_size in all
    attention_groups: int = 1  # of channels that share one Spatial Mix
    ccm_dim: int | None = None  # channels that each skip has within the CCM; None: those of stage 1
    skips: Literal["concatenate", "add"] = "concatenate"  # how the decoder takes them
    decoder_dims: Four | None = None  # channels after each step; None: those of stages 3, 2, 1 and stem
    upsample: Literal["bilinear", "shuffle"] = "bilinear"  # how logits are enlarged: shuffle gives each pixel its own
    deep_supervision: bool = False  # while it trains, logits at every step of the decoder

    def __post_init__(self):
        def check(name: str, right: bool, expected: str) -> None:
            if not right:
                raise ValueError(f"{name}: expected {expected}, got {getattr(self, name)!r}")

        for f in fields(self):
            if isinstance(getattr(self, f.name), list):
                object.__setattr__(self, f.name, tuple(getattr(self, f.name)))
        given = [name for name in ("kernel_sizes", "decoder_dims") if getattr(self, name) is not None]
        for name in ("depths", "dims", "expansions", "attention_stages", "norms", *given):
            value = getattr(self, name)
            check(name, isinstance(value, tuple) and len(value) == 4, "four values, one for each stage")
        for name in ("depths", "dims", *given):
            check(name, all(type(x) is int and x >= 1 for x in getattr(self, name)), "integers of at least 1")
        check("expansions", all(x > 0 for x in self.expansions), "numbers above 0")
        check("attention_stages", all(isinstance(x, bool) for x in self.attention_stages), "true or false")
        check("norms", set(self.norms) <= {"none", "bn", "ln"}, "bn, ln or none")
        for name in ("in_channels", "num_classes", "stem_dim", "attention_groups"):
            check(name, getattr(self, name) >= 1, "at least 1")
        for name in ("kernel_size", "decoder_kernel"):
            check(name, getattr(self, name) % 2 == 1, "an odd size")
        check("kernel_sizes", all(x % 2 == 1 for x in self.kernels), "odd sizes")
        check("stem_stride", self.stem_stride in (1, 2, 4), "1, 2 or 4")
        check("kernel_size", self.kernel_size >= self.stem_stride, "at least stem_stride, so that no pixel is left out")
        check("first_expansion", self.first_expansion > 0, "a number above 0")
        check("ccm_dim", self.ccm_dim is None or self.ccm_dim >= 1, "at least 1")
        check("skips", self.skips in ("concatenate", "add"), "concatenate or add")
        check("upsample", self.upsample in ("bilinear", "shuffle"), "bilinear or shuffle")
        added = self.skips == "concatenate" or self.decoder_widths[:3] == self.dims[2::-1]
        check("decoder_dims", added, f"{self.dims[2::-1]} first where skips are added")
        stages = zip(self.depths, self.dims, self.expansions, self.attention_stages, strict=True)
        middle = [int(dim * expansion) for depth, dim, expansion, attends in stages if attends and depth > 1]
        whole = not self.attention or all(n % self.attention_groups == 0 for n in middle)
        check("attention_groups", whole, f"a divisor of {middle}, dims times expansions where attention is")

    @property
    def divisor(self) -> int:
        """What height and width must be multiples of: the stem divides them by its stride, each stage by 2."""
        return self.stem_stride * 2 ** len(self.dims)

    @property
    def kernels(self) -> Four:
        """The sizes of the depthwise convolutions, by stage."""
        return self.kernel_sizes or (self.kernel_size,) * 4

    @property
    def decoder_widths(self) -> Four:
        """The channels after each step of the decoder."""
        return self.decoder_dims or (*self.dims[2::-1], self.stem_dim)


CONFIGS = {  # the paper's
    "t": ModelConfig(depths=(2, 2, 4, 2), dims=(32, 48, 96, 160), expansions=(2, 2.5, 3, 3.5)),
    "s": ModelConfig(depths=(3, 3, 6, 3), dims=(32, 64, 128, 192), expansions=(2, 2.5, 3, 4)),
    "b": ModelConfig(depths=(3, 3, 6, 3), dims=(48, 72, 144, 240), expansions=(2, 2.5, 4, 4)),
}

SMALL_CONFIGS = {  # the project's own, with the operator at strides 8 and 16; experiments/small searches around them
    "n": ModelConfig(
        depths=(1, 2, 3, 1),
        dims=(32, 48, 64, 96),
        expansions=(2, 2, 2, 2),
        stem_dim=16,
        stem_stride=2,
        attention_stages=(False, True, True, False),
        ccm_dim=16,
        decoder_kernel=7,
    ),
    "p": ModelConfig(
        depths=(1, 2, 2, 1),
        dims=(12, 20, 28, 36),
        expansions=(2, 2, 2, 1.5),
        stem_dim=8,
        stem_stride=2,
        attention_stages=(False, True, True, False),
        attention_groups=4,
        ccm_dim=4,
        decoder_kernel=7,
    ),
}


def override(config: ModelConfig, overrides: dict) -> ModelConfig:
    """The config with some fields replaced. Raises TypeError for an unknown name, with those that are near."""
    known = ModelConfig.__dataclass_fields__
    for name in sorted(set(overrides) - set(known)):
        near = difflib.get_close_matches(name, known)
        shown = f"near ones: {', '.join(near)}" if near else f"known: {', '.join(sorted(known))}"
        raise TypeError(f"overrides: unknown field {name!r}; {shown}")
    return replace(config, **overrides)
