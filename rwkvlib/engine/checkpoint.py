"""Weights as safetensors, with what is needed to use them (model name, overrides, image size) in the file's header."""

import json
import os
from importlib import resources
from pathlib import Path

import torch
import torch.nn as nn
from safetensors import safe_open
from safetensors.torch import save_file

from ..models import create_model


def save_checkpoint(path: str | Path, model: nn.Module, meta: dict, *, dtype: torch.dtype | None = None) -> None:
    """Writes weights and metadata, under a temporary name first so that no half file is ever left.

    Args:
        meta: ``model`` (a name for `create_model`), ``overrides`` and ``size`` (pixels); any more that JSON can hold.
        dtype: of the stored floating-point tensors; None keeps the model's.
    """
    path = Path(path)
    tensors = {
        name: (x.to(dtype) if dtype is not None and x.is_floating_point() else x).cpu().contiguous()
        for name, x in model.state_dict().items()
    }
    temporary = path.with_suffix(".tmp")
    save_file(tensors, temporary, metadata={"rwkvlib": json.dumps(meta)})
    os.replace(temporary, path)


def load_checkpoint(path: str | Path) -> tuple[nn.Module, dict]:
    """The model, in float32 and eval mode, and the metadata of a file of `save_checkpoint`.

    Raises: FileNotFoundError; ValueError where the file is no such checkpoint; RuntimeError where a key is missing.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"path: no file {str(path)!r}")
    with safe_open(path, framework="pt") as file:
        meta = (file.metadata() or {}).get("rwkvlib")
        if meta is None:
            raise ValueError(f"path: {str(path)!r} has no rwkvlib metadata; released checkpoints are for load_official")
        state = {name: file.get_tensor(name) for name in file.keys()}
    meta = json.loads(meta)
    model = create_model(meta["model"], **meta["overrides"])
    model.load_state_dict({name: x.float() if x.is_floating_point() else x for name, x in state.items()})
    return model.eval(), meta


def load_pretrained(name: str) -> tuple[nn.Module, dict]:
    """The model and metadata of weights that come with the library: ``rwkv_unet_t_synthetic`` (see its card)."""
    folder = resources.files("rwkvlib") / "weights"
    known = sorted(f.name.removesuffix(".safetensors") for f in folder.iterdir() if f.name.endswith(".safetensors"))
    if name not in known:
        raise ValueError(f"name: expected one of {known}, got {name!r}")
    with resources.as_file(folder / f"{name}.safetensors") as path:
        return load_checkpoint(path)
