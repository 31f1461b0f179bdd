"""What the project's own networks are built from."""

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from ..layers.conv import DIMS, per_axis

Norm = Literal["none", "bn", "ln"]  # a name of `rwkvlib.layers.glsp.NORMS`
Four = tuple[int, int, int, int]
Size = int | tuple[int, ...]  # of all spatial axes, or one for each: (height, width), or (depth, height, width)
FourSizes = tuple[Size, Size, Size, Size]
AXES = {n: " and ".join([", ".join(dims.axes[:-1]), dims.axes[-1]]) for n, dims in DIMS.items()}


def divided_by(strides: Sequence[Size], spatial_dims: int) -> Size:
    """What strides one after the other divide the axes by: one number where it is the same for all."""
    by_axis = zip(*(per_axis(stride, spatial_dims) for stride in strides), strict=True)
    divisors = tuple(math.prod(axis) for axis in by_axis)
    return divisors[0] if len(set(divisors)) == 1 else divisors


def _frozen(value: Any) -> Any:
    """Lists, and those in them, as tuples."""
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else value


@dataclass(frozen=True)
class ModelConfig:
    """What a model is built from. The first three fields tell T, S and B apart; the others are what is ablated.

    Fields of four values hold one for each stage; lists, as YAML gives them, become tuples. Sizes of kernels and
    strides are one number for all axes, or one for each: ``kernel_size=(1, 5, 5)`` is flat, and with
    ``strides=((1, 2, 2), (1, 2, 2), 2, 2)`` a volume of few slices keeps them all in stages 1 and 2.

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
    kernel_size: Size = 5
    decoder_kernel: Size = 9
    drop_path: float = 0.05
    variant: str = "paper"
    backend: str = "auto"
    stem_dim: int = 24  # channels at full resolution, in the stem and after the decoder
    attention_stages: tuple[bool, bool, bool, bool] = (False, False, True, True)  # in all their blocks but the first
    norms: tuple[Norm, Norm, Norm, Norm] = ("bn", "bn", "ln", "ln")  # what a stage's blocks normalise with
    # What makes a network light; the defaults are the paper's network.
    stem_stride: Size = 1  # 1, 2 or 4; above 1 the stem is one convolution, and the logits are enlarged by it
    first_expansion: float = 2.0  # of a stage's first block, times the stage's expansion
    kernel_sizes: FourSizes | None = None  # of the depthwise convolutions by stage; None: kernel_size in all
    attention_groups: int = 1  # of channels that share one Spatial Mix
    ccm_dim: int | None = None  # channels that each skip has within the CCM; None: those of stage 1
    skips: Literal["concatenate", "add"] = "concatenate"  # how the decoder takes them
    decoder_dims: Four | None = None  # channels after each step; None: those of stages 3, 2, 1 and stem
    upsample: Literal["bilinear", "shuffle"] = "bilinear"  # how logits are enlarged: shuffle gives each pixel its own
    deep_supervision: bool = False  # while it trains, logits at every step of the decoder
    spatial_dims: Literal[2, 3] = 2  # 3: volumes (B, C, D, H, W), whose "bilinear" is trilinear
    strides: FourSizes = (2, 2, 2, 2)  # 1, 2 or 4, of the stages, by which the decoder enlarges again
    order: Literal["rows", "axes"] = "rows"  # of the tokens, see `SpatialMix`

    def __post_init__(self):
        def check(name: str, right: bool, expected: str) -> None:
            if not right:
                raise ValueError(f"{name}: expected {expected}, got {getattr(self, name)!r}")

        def check_sizes(name: str, sizes: Sequence[Size], right: Callable[[int], bool], expected: str) -> None:
            check(name, all(isinstance(size, (int, tuple)) for size in sizes), expected)
            check(name, all(type(n) is int and right(n) for size in sizes for n in per_axis(size, 1)), expected)
            by_axis = all(len(per_axis(size, dims)) == dims for size in sizes)
            check(name, by_axis, f"one size, or {dims} for {AXES[dims]}")

        for f in fields(self):
            object.__setattr__(self, f.name, _frozen(getattr(self, f.name)))
        check("spatial_dims", self.spatial_dims in AXES, "2 for images or 3 for volumes")
        dims = self.spatial_dims
        widths = ["dims", *(["decoder_dims"] if self.decoder_dims is not None else [])]
        given = ["kernel_sizes"] if self.kernel_sizes is not None else []
        for name in ("depths", "expansions", "attention_stages", "norms", "strides", *widths, *given):
            value = getattr(self, name)
            check(name, isinstance(value, tuple) and len(value) == 4, "four values, one for each stage")
        for name in ("depths", *widths):
            check(name, all(type(x) is int and x >= 1 for x in getattr(self, name)), "integers of at least 1")
        check("expansions", all(x > 0 for x in self.expansions), "numbers above 0")
        check("attention_stages", all(isinstance(x, bool) for x in self.attention_stages), "true or false")
        check("norms", set(self.norms) <= {"none", "bn", "ln"}, "bn, ln or none")
        for name in ("in_channels", "num_classes", "stem_dim", "attention_groups"):
            check(name, getattr(self, name) >= 1, "at least 1")
        for name in ("kernel_size", "decoder_kernel"):
            check_sizes(name, [getattr(self, name)], lambda n: n >= 1 and n % 2 == 1, "an odd size")
        check_sizes("kernel_sizes", self.kernels, lambda n: n >= 1 and n % 2 == 1, "odd sizes")
        check_sizes("stem_stride", [self.stem_stride], lambda n: n in (1, 2, 4), "1, 2 or 4")
        check_sizes("strides", self.strides, lambda n: n in (1, 2, 4), "1, 2 or 4")

        def covers(kernel: Size, stride: Size) -> bool:
            return all(k >= s for k, s in zip(per_axis(kernel, dims), per_axis(stride, dims), strict=True))

        why = "so that no pixel is left out"
        check("kernel_size", covers(self.kernel_size, self.stem_stride), f"at least stem_stride, {why}")
        name = "kernel_sizes" if self.kernel_sizes else "kernel_size"
        check(name, all(map(covers, self.kernels, self.strides)), f"at least strides, {self.strides}, {why}")
        check("order", self.order in ("rows", "axes"), "rows or axes")
        check("first_expansion", self.first_expansion > 0, "a number above 0")
        check("ccm_dim", self.ccm_dim is None or self.ccm_dim >= 1, "at least 1")
        check("skips", self.skips in ("concatenate", "add"), "concatenate or add")
        check("upsample", self.upsample in ("bilinear", "shuffle"), "bilinear or shuffle")
        shuffles = dims == 2 and isinstance(self.stem_stride, int)
        check("upsample", self.upsample == "bilinear" or shuffles, "bilinear for volumes and a stem_stride by axis")
        added = self.skips == "concatenate" or self.decoder_widths[:3] == self.dims[2::-1]
        check("decoder_dims", added, f"{self.dims[2::-1]} first where skips are added")
        stages = zip(self.depths, self.dims, self.expansions, self.attention_stages, strict=True)
        middle = [int(dim * expansion) for depth, dim, expansion, attends in stages if attends and depth > 1]
        whole = not self.attention or all(n % self.attention_groups == 0 for n in middle)
        check("attention_groups", whole, f"a divisor of {middle}, dims times expansions where attention is")

    @property
    def divisor(self) -> Size:
        """What the sides must be multiples of, as stem and stages divide them by their strides; by axis where the axes
        differ."""
        return divided_by([self.stem_stride, *self.strides], self.spatial_dims)

    @property
    def shuffled(self) -> int:
        """What shuffling enlarges the logits by, 1 where they are not shuffled."""
        return self.stem_stride if self.upsample == "shuffle" and isinstance(self.stem_stride, int) else 1

    @property
    def kernels(self) -> FourSizes:
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
