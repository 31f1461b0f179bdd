"""Weights as safetensors, with what is needed to use them (model name, overrides, image size) in the file's header;
and the checkpoints of a run, from which it goes on."""

import hashlib
import io
import json
import os
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save

from ..files import write_file, write_through
from ..models import LoadReport, load_official
from ..models.baselines import build_model


def _weights(model: nn.Module, meta: dict, dtype: torch.dtype | None = None) -> bytes:
    # Copies: MONAI's DynUNet holds its blocks under two names each, and safetensors takes no shared memory.
    tensors = {
        name: (x.to(dtype) if dtype is not None and x.is_floating_point() else x)
        .cpu()
        .clone(memory_format=torch.contiguous_format)
        for name, x in model.state_dict().items()
    }
    return save(tensors, metadata={"rwkvlib": json.dumps(meta)})


def save_checkpoint(path: str | Path, model: nn.Module, meta: dict, *, dtype: torch.dtype | None = None) -> None:
    """Writes weights and metadata, whole or not at all.

    Args:
        meta: ``model`` (a name for `build_model`), ``overrides`` and ``size`` (pixels); any more that JSON can hold.
        dtype: of the stored floating-point tensors; None keeps the model's.
    """
    write_file(Path(path), _weights(model, meta, dtype))


def _read(path: str | Path) -> tuple[dict[str, torch.Tensor], dict]:
    """The tensors and the metadata of a file of `save_checkpoint`."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"path: no file {str(path)!r}")
    try:
        with safe_open(path, framework="pt") as file:
            meta = (file.metadata() or {}).get("rwkvlib")
            state = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"path: {str(path)!r} is damaged or no safetensors file: {error}") from error
    if meta is None:
        raise ValueError(f"path: {str(path)!r} has no rwkvlib metadata; released checkpoints are for load_official")
    return state, json.loads(meta)


def load_checkpoint(path: str | Path) -> tuple[nn.Module, dict]:
    """The model, in float32 and eval mode, and the metadata of a file of `save_checkpoint`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged or no such checkpoint.
        RuntimeError: a key is missing.
    """
    state, meta = _read(path)
    model = build_model(meta["model"], **meta["overrides"])
    model.load_state_dict({name: x.float() if x.is_floating_point() else x for name, x in state.items()})
    return model.eval(), meta


def load_encoder(model: nn.Module, path: str | Path, variant: str | None = None) -> LoadReport:
    """Pretrained weights into a model of `create_model`: a file of this library's training or a released one.

    Args:
        path: ``.safetensors`` of `save_checkpoint`, or what `load_official` reads. Of an encoder, or of a whole U-Net
            with as many classes.
        variant: of the operator; None: the one that the file's weights were trained with.

    Returns: what was loaded, what was left out and why, what stays as initialised.
    Raises: ValueError where a key or a shape does not fit; nothing is loaded then. FileNotFoundError, TypeError.
    """
    if Path(path).suffix == ".safetensors":
        state, meta = _read(path)
        return load_official(model, state, variant=variant or meta["overrides"].get("variant", "paper"))
    return load_official(model, path, variant=variant or "published")


def load_pretrained(name: str) -> tuple[nn.Module, dict]:
    """The model and metadata of weights that come with the library: ``rwkv_unet_t_synthetic`` (see its card)."""
    folder = resources.files("rwkvlib") / "weights"
    known = sorted(f.name.removesuffix(".safetensors") for f in folder.iterdir() if f.name.endswith(".safetensors"))
    if name not in known:
        raise ValueError(f"name: expected one of {known}, got {name!r}")
    with resources.as_file(folder / f"{name}.safetensors") as path:
        return load_checkpoint(path)


def states(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first: folders of weights, the state to go on from, and their hashes."""
    return sorted((run / "checkpoints").glob("step_*"))


def save_state(run: Path, step: int, model: nn.Module, meta: dict, state: dict[str, Any]) -> Path:
    """Writes one checkpoint of a run, whole or not at all, and keeps the one before it; older ones go.

    Raises: OSError, where the disk is full for example; the earlier checkpoints are kept then.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    files = {"weights.safetensors": _weights(model, meta), "state.pt": buffer.getvalue()}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    files["sha256.json"] = json.dumps(hashes).encode()
    folder = run / "checkpoints" / f"step_{step:08d}"
    temporary = folder.parent / ".tmp"
    shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
    try:
        temporary.mkdir(parents=True)
        for name, content in files.items():
            write_through(temporary / name, content)
        if folder.exists():  # after resume=previous
            shutil.rmtree(folder)
        os.rename(temporary, folder)
    except OSError as error:
        kept = [str(path) for path in states(run)] or "none"
        message = f"could not write the checkpoint, the earlier ones are kept ({kept}): {error.strerror}"
        raise OSError(error.errno, message, str(folder)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for old in states(run)[:-2]:
        shutil.rmtree(old)
    return folder


def load_state(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The weights and the state of a checkpoint of `save_state`. Raises ValueError that names a damaged file."""
    contents = {}
    try:
        for name, expected in json.loads((folder / "sha256.json").read_bytes()).items():
            contents[name] = (folder / name).read_bytes()
            if hashlib.sha256(contents[name]).hexdigest() != expected:
                raise ValueError(f"{name} differs from its hash: it is cut short or damaged")
    except (OSError, ValueError) as error:
        others = [path for path in states(folder.parent.parent) if path < folder]
        hint = f"; resume=previous goes on from {str(others[-1])!r}" if others else ""
        raise ValueError(f"resume: the checkpoint {str(folder)!r} is damaged: {error}{hint}") from error
    # Tensors and plain values only: a checkpoint must not run code.
    state = torch.load(io.BytesIO(contents["state.pt"]), map_location="cpu", weights_only=True)
    return load(contents["weights.safetensors"]), state
