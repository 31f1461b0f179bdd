"""What the project's own networks are built from."""

from dataclasses import dataclass, fields, replace
from typing import Literal

Norm = Literal["none", "bn", "ln"]  # a name of `rwkvlib.layers.glsp.NORMS`


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

    def __post_init__(self):
        def check(name: str, right: bool, expected: str) -> None:
            if not right:
                raise ValueError(f"{name}: expected {expected}, got {getattr(self, name)!r}")

        for f in fields(self):
            if isinstance(getattr(self, f.name), list):
                object.__setattr__(self, f.name, tuple(getattr(self, f.name)))
        for name in ("depths", "dims", "expansions", "attention_stages", "norms"):
            value = getattr(self, name)
            check(name, isinstance(value, tuple) and len(value) == 4, "four values, one for each stage")
        for name in ("depths", "dims"):
            check(name, all(type(x) is int and x >= 1 for x in getattr(self, name)), "integers of at least 1")
        check("expansions", all(x > 0 for x in self.expansions), "numbers above 0")
        check("attention_stages", all(isinstance(x, bool) for x in self.attention_stages), "true or false")
        check("norms", set(self.norms) <= {"none", "bn", "ln"}, "bn, ln or none")
        for name in ("in_channels", "num_classes", "stem_dim"):
            check(name, getattr(self, name) >= 1, "at least 1")
        for name in ("kernel_size", "decoder_kernel"):
            check(name, getattr(self, name) % 2 == 1, "an odd size")

    @property
    def divisor(self) -> int:
        """What height and width must be multiples of: each stage halves them."""
        return 2 ** len(self.dims)


CONFIGS = {
    "t": ModelConfig(depths=(2, 2, 4, 2), dims=(32, 48, 96, 160), expansions=(2, 2.5, 3, 3.5)),
    "s": ModelConfig(depths=(3, 3, 6, 3), dims=(32, 64, 128, 192), expansions=(2, 2.5, 3, 4)),
    "b": ModelConfig(depths=(3, 3, 6, 3), dims=(48, 72, 144, 240), expansions=(2, 2.5, 4, 4)),
}


def override(config: ModelConfig, overrides: dict) -> ModelConfig:
    """The config with some fields replaced. Raises TypeError that lists the fields where a name is unknown."""
    known = ModelConfig.__dataclass_fields__
    if unknown := set(overrides) - set(known):
        raise TypeError(f"overrides: expected fields of {sorted(known)}, got {sorted(unknown)}")
    return replace(config, **overrides)
