"""Released checkpoints: both generations of the published code, dead keys known by rule, nothing loaded silently."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn as nn
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..wkv import VARIANTS
from .config import ModelConfig
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


# What training scripts put the weights under, and what wrappers put before every name: DataParallel, torch.compile,
# Lightning and the classes of training scripts.
WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "module",
    "network",
    "state_dict_ema",
    "ema_state_dict",
    "ema",
)
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")


@dataclass(frozen=True)
class LoadReport:
    """What `load_official` did."""

    loaded: tuple[str, ...]
    ignored: dict[str, tuple[str, ...]]  # rule: keys
    missing: tuple[str, ...]  # left as initialised: a decoder's, for an encoder-only file, or a new head
    variant: str  # of the operator; "" for a network without one
    notes: tuple[str, ...] = ()  # how the weights were found in the file, and what became of the head

    def __str__(self) -> str:
        variant = f"; operator variant set to {self.variant!r}" if self.variant else ""
        lines = [f"loaded {len(self.loaded)} tensors{variant}", *self.notes]
        for rule, keys in self.ignored.items():
            lines.append(f"ignored {len(keys)} {'' if rule.startswith('outside') else 'as dead: '}{rule}")
        if self.missing:
            lines.append(f"left {len(self.missing)} as initialised: {', '.join(_parts(self.missing))}")
        return "\n".join(lines)


def _parts(keys: tuple[str, ...]) -> list[str]:
    return sorted({key.split(".")[0] for key in keys})


def read_weights(path: str | Path) -> tuple[dict, dict[str, str]]:
    """What a file of weights holds, told by its content: safetensors and their metadata, or what ``torch.save`` wrote
    of tensors and plain values. Nothing else is unpickled: a file from the internet must not run code.

    Raises: FileNotFoundError; ValueError that names the file and says what it is.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {str(path)!r}")
    with open(path, "rb") as file:
        begin = file.read(512)
    if len(begin) > 8 and begin[8:9] == b"{":  # the header's length, and the header
        try:
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
        except SafetensorError as error:
            raise ValueError(f"{str(path)!r} is damaged or no safetensors file: {error}") from error
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds, some of which advise to switch the safety off
        raise ValueError(f"{str(path)!r} {_what_it_is(path, begin, error)}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{str(path)!r} holds no weights by name, but one {type(found).__name__}")
    return found, {}


def _what_it_is(path: Path, begin: bytes, error: Exception) -> str:
    """Of a file that does not load: what is wrong with it, and what to do."""
    if not begin:
        return "is empty"
    if begin.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the file itself: fetch it by `git lfs pull`"
    if begin.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "is a web page, not the file itself: download it anew, signed in where the site asks for it"
    try:
        objects = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # not of the format, or cut short
        objects = re.findall(r"GLOBAL ([\w.]+)", str(error))
    remedy = "save the weights alone where it was made: torch.save(model.state_dict(), PATH)"
    if any(name.startswith("torch.nn.modules.") for name in objects):
        return f"is a whole pickled model, which is not loaded, as that can run code; {remedy}"
    if objects:
        names = ", ".join(sorted(objects)[:3])
        return f"holds other objects beside tensors ({names}), which are not loaded, as that can run code; {remedy}"
    if begin[:2] in (b"PK", b"\x80\x02"):
        return "is damaged or cut short: download or copy it anew"
    return "is no file of weights: expected one of torch.save or safetensors"


def read_state(source: str | Path | dict) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors by the model's names, and notes on what was taken off to find them."""
    notes, state = [], source
    if isinstance(source, (str, Path)):
        try:
            state, _ = read_weights(source)
        except (ValueError, FileNotFoundError) as error:
            raise type(error)(f"path_or_state_dict: {error}") from None
    if not isinstance(state, dict):
        raise TypeError(f"path_or_state_dict: expected a path or a dict of tensors, got {type(state).__name__}")
    while wrapper := next((w for w in WRAPPERS if isinstance(state.get(w), dict)), None):
        state = state[wrapper]
        notes.append(f"taken from the entry {wrapper!r}")
    bad = [key for key, value in state.items() if not isinstance(value, Tensor)]
    if bad or not state:
        raise TypeError(f"path_or_state_dict: expected tensors by name, got {bad[:3] or 'nothing'}")
    return state, notes


def without_prefixes(state: dict[str, Tensor], notes: list[str]) -> tuple[dict[str, Tensor], dict[str, tuple]]:
    """The tensors without the wrappers' prefixes, none of which begins a name of this library's models; and those
    beside them, such as the weights of a loss in Lightning's files."""
    beside = {}
    while prefix := next((p for p in PREFIXES if 2 * sum(key.startswith(p) for key in state) > len(state)), None):
        others = tuple(key for key in state if not key.startswith(prefix))
        if prefix == "module.":  # also of some names only, where a part was wrapped
            state = {key.removeprefix(prefix): value for key, value in state.items()}
        else:
            state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            if others:
                beside[f"outside of {prefix!r}: {', '.join(others[:3])}{' ...' * (len(others) > 3)}"] = others
        notes.append(f"without the prefix {prefix!r}")
    return {key.replace("._orig_mod.", "."): value for key, value in state.items()}, beside


def load_official(
    model: nn.Module,
    path_or_state_dict: str | Path | dict[str, Tensor],
    *,
    variant: str = "published",
    new_head: bool = False,
) -> LoadReport:
    """Loads a released RWKV-UNet checkpoint into a model of `create_model`, and leaves that in eval mode.

    Both generations are understood: with and without the keys that the published modules create but never use; and
    encoder-only files, which leave CCM and decoder as they are. So is what training scripts put around the weights:
    ``{"state_dict": ...}`` and its likes, and the prefixes of DataParallel, torch.compile and Lightning.

    Args:
        model: a U-Net or an encoder of the same size.
        path_or_state_dict: a file of torch.save (read with ``weights_only=True``) or safetensors, or a dict of tensors.
        variant: what the model's operator, and its config, are set to: released weights were trained with "published".
        new_head: where the file has no head of a U-Net (``final_conv``), or one for another number of classes, the
            model's stays as initialised, and the report says so. False: that is an error.

    Returns:
        A `LoadReport` of the loaded, the dead and the missing keys; print it.

    Raises:
        ValueError: a key that no rule explains, a shape that does not fit, or a missing one; a file that holds no
            weights, or more than weights. Nothing is loaded then.
        TypeError, FileNotFoundError: not a checkpoint.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant: expected one of {', '.join(VARIANTS)}, got {variant!r}")
    if not isinstance(model, (RWKVUNet, Encoder)):
        raise TypeError(f"model: expected a model of rwkvlib.create_model, got {type(model).__name__}")
    state, notes = read_state(path_or_state_dict)
    state, beside = without_prefixes(state, notes)
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

    loaded: dict[str, Tensor] = {}
    ignored: dict[str, list[str]] = {}
    unexplained: list[str] = []
    left: tuple[str, ...] = ()
    if new_head and not encoder_only and not prefix:
        here, there = wanted["final_conv.weight"].shape, getattr(state.get("final_conv.weight"), "shape", None)
        if there is None or (there[0] != here[0] and there[1:] == here[1:]):
            left = tuple(key for key in wanted if key.startswith(("final_conv.", "side_heads.")))
            state = {key: value for key, value in state.items() if key not in left}
            scale = here[0] // model.config.num_classes  # channels of a class, where logits are shuffled
            what = "the file has none" if there is None else f"the file's is for {there[0] // scale} classes"
            notes.append(f"the head (final_conv) is a new one for {here[0] // scale} classes: {what}")
    foreign = next((k for k, x in state.items() if {x.ndim, wanted[k].ndim if k in wanted else 0} == {4, 5}), None)
    if foreign:
        here, there = wanted[foreign].ndim - 2, state[foreign].ndim - 2
        raise ValueError(
            f"path_or_state_dict: expected weights of a network with spatial_dims={here}, got those of one with "
            f"spatial_dims={there} ({foreign} has shape {tuple(state[foreign].shape)}); a network for volumes starts "
            "from weights of its own kind, or from none"
        )
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
    explained = [key for key in missing if key in left or (encoder_only and not key.startswith("encoder."))]
    unexplained += [f"{key} is missing" for key in missing if key not in explained]
    if unexplained:
        more = f" and {len(unexplained) - 5} more" if len(unexplained) > 5 else ""
        raise ValueError(f"path_or_state_dict does not fit the model: {'; '.join(unexplained[:5])}{more}")
    model.load_state_dict({key.removeprefix(prefix): loaded.get(key, value) for key, value in wanted.items()})
    for module in model.modules():
        if hasattr(module, "variant"):
            module.variant = variant
        if isinstance(getattr(module, "config", None), ModelConfig):
            module.config = replace(module.config, variant=variant)
    model.eval()
    unused = {rule: tuple(keys) for rule, keys in ignored.items()} | beside
    return LoadReport(tuple(loaded), unused, missing, variant, tuple(notes))
