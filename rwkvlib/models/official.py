"""Released checkpoints: both generations of the published code, dead keys known by rule, nothing loaded silently."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn as nn
from torch import Tensor

from ..wkv import VARIANTS
from .encoder import Encoder
from .unet import RWKVUNet

# Parameters that the published modules create and never use, by the rule that says why.
DEAD_RULES = {
    "ln2, in every block": r"ln2\.(weight|bias)$",
    "Spatial Mix of a block without attention": r"^encoder\.stage([012]\.\d+|[34]\.0)\.att\.",
    "ln1 of a block without attention": r"^encoder\.stage([012]\.\d+|[34]\.0)\.ln1\.",
    "ln1 of a decoder block": r"^decoder\d\.ln1\.",
    "the classification norm and head, in segmentation": r"^encoder\.(norm|head)\.",
}


@dataclass(frozen=True)
class LoadReport:
    """What `load_official` did."""

    loaded: tuple[str, ...]
    ignored: dict[str, tuple[str, ...]]  # rule: keys
    missing: tuple[str, ...]  # left as initialised; only ever a decoder's, for an encoder-only file
    variant: str

    def __str__(self) -> str:
        lines = [f"loaded {len(self.loaded)} tensors; operator variant set to {self.variant!r}"]
        lines += [f"ignored {len(keys)} as dead: {rule}" for rule, keys in self.ignored.items()]
        if self.missing:
            lines.append(f"left {len(self.missing)} as initialised: {', '.join(_parts(self.missing))}")
        return "\n".join(lines)


def _parts(keys: tuple[str, ...]) -> list[str]:
    return sorted({key.split(".")[0] for key in keys})


def _read(source: str | Path | dict) -> dict[str, Tensor]:
    if isinstance(source, (str, Path)):
        if not Path(source).is_file():
            raise FileNotFoundError(f"path_or_state_dict: no file {str(source)!r}")
        # Tensors only: a pickle from the internet must not run code.
        source = torch.load(source, map_location="cpu", weights_only=True)
    if not isinstance(source, dict):
        raise TypeError(f"path_or_state_dict: expected a path or a dict of tensors, got {type(source).__name__}")
    for wrapper in ("state_dict", "model", "state_dict_ema"):
        if isinstance(source.get(wrapper), dict):
            source = source[wrapper]
            break
    bad = [key for key, value in source.items() if not isinstance(value, Tensor)]
    if bad or not source:
        raise TypeError(f"path_or_state_dict: expected tensors by name, got {bad[:3] or 'nothing'}")
    return {key.removeprefix("module."): value for key, value in source.items()}  # DataParallel's prefix


def load_official(
    model: nn.Module, path_or_state_dict: str | Path | dict[str, Tensor], *, variant: str = "published"
) -> LoadReport:
    """Loads a released RWKV-UNet checkpoint into a model of `create_model`, and leaves that in eval mode.

    Both generations are understood: with and without the keys that the published modules create but never use; and
    encoder-only files, which leave CCM and decoder as they are.

    Args:
        model: a U-Net or an encoder of the same size.
        path_or_state_dict: a file (read with ``weights_only=True``) or a dict of tensors.
        variant: what the model's operator, and its config, are set to: released weights were trained with "published".

    Returns:
        A `LoadReport` of the loaded, the dead and the missing keys; print it.

    Raises:
        ValueError: a key that no rule explains, a shape that does not fit, or a missing one; nothing is loaded then.
        TypeError, FileNotFoundError: not a checkpoint.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant: expected one of {', '.join(VARIANTS)}, got {variant!r}")
    if not isinstance(model, (RWKVUNet, Encoder)):
        raise TypeError(f"model: expected a model of rwkvlib.create_model, got {type(model).__name__}")
    state = _read(path_or_state_dict)
    parts = _parts(tuple(state))
    if len(state) > 1 and len(parts) == 1 and parts[0] != "encoder":
        raise ValueError(
            f"path_or_state_dict: every key begins with {parts[0] + '.'!r}, as none of a released checkpoint does; "
            "remove that, and give the dict of tensors"
        )
    prefix = "" if isinstance(model, RWKVUNet) else "encoder."
    wanted = {prefix + key: value for key, value in model.state_dict().items()}
    encoder_only = not any(key.startswith(("encoder.", "decoder", "ccm.", "final_conv.")) for key in state)
    if encoder_only:
        state = {"encoder." + key: value for key, value in state.items()}

    loaded, ignored, unexplained = {}, {}, []
    for key, value in state.items():
        if key in wanted:
            if value.shape != wanted[key].shape:
                unexplained.append(f"{key} has shape {tuple(value.shape)}, expected {tuple(wanted[key].shape)}")
            loaded[key] = value
            continue
        if prefix and not key.startswith("encoder."):
            ignored.setdefault("CCM and decoder, in classification", []).append(key)
            continue
        rule = next((rule for rule, pattern in DEAD_RULES.items() if re.search(pattern, key)), None)
        if rule is None:
            unexplained.append(f"{key} is not a key of this model")
        else:
            ignored.setdefault(rule, []).append(key)
    # A missing key is explained only where a whole part is absent: encoder-only files have no CCM and no decoder.
    missing = tuple(key for key in wanted if key not in loaded)
    unexplained += [f"{key} is missing" for key in missing if not encoder_only or key.startswith("encoder.")]
    if unexplained:
        more = f" and {len(unexplained) - 5} more" if len(unexplained) > 5 else ""
        raise ValueError(f"path_or_state_dict does not fit the model: {'; '.join(unexplained[:5])}{more}")
    model.load_state_dict({key.removeprefix(prefix): loaded.get(key, value) for key, value in wanted.items()})
    for module in model.modules():
        if hasattr(module, "variant"):
            module.variant = variant
        if isinstance(module, (RWKVUNet, Encoder)):
            module.config = replace(module.config, variant=variant)
    model.eval()
    return LoadReport(tuple(loaded), {rule: tuple(keys) for rule, keys in ignored.items()}, missing, variant)
