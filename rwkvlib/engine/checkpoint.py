"""Weights as safetensors, with what is needed to use them (model name, overrides, image size) in the file's header;
and the checkpoints of a run, from which it goes on."""

import hashlib
import io
import json
import os
import shutil
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from safetensors.torch import load, save

from ..files import write_file, write_through
from ..models import Encoder, LoadReport, RWKVUNet, create_model, load_official
from ..models.official import read_state, read_weights, without_prefixes
from ..models.registry import BASELINES, model_for_weights
from ..provenance import to_json
from .released import NAMES, RELEASED, released_file, released_name


def _weights(model: nn.Module, meta: dict, dtype: torch.dtype | None = None) -> bytes:
    # Copies: MONAI's DynUNet holds its blocks under two names each, and safetensors takes no shared memory.
    tensors = {
        name: (x.to(dtype) if dtype is not None and x.is_floating_point() else x)
        .cpu()
        .clone(memory_format=torch.contiguous_format)
        for name, x in model.state_dict().items()
    }
    return save(tensors, metadata={"rwkvlib": to_json(meta)})


def save_checkpoint(path: str | Path, model: nn.Module, meta: dict, *, dtype: torch.dtype | None = None) -> None:
    """Writes weights and metadata, whole or not at all.

    Args:
        meta: ``model`` (a name for `create_model`), ``overrides`` and ``size`` (pixels); any more that JSON can hold.
        dtype: of the stored floating-point tensors; None keeps the model's.
    """
    write_file(Path(path), _weights(model, meta, dtype))


# Short names of weights that come with the library; weights/README.md is their card.
SHIPPED = {"synthetic": "rwkv_unet_t_synthetic", "synthetic_p": "rwkv_unet_p_synthetic"}
SHIPPED |= {"teacher": "rwkv_encoder_t_teacher"}


def checkpoint_file(path: str | Path, model: nn.Module | None = None) -> Path:
    """The file of weights that a path means: itself, the chosen weights of a run's folder, or of a name in `SHIPPED` or
    in `rwkvlib.engine.released`, whose short names need the model that takes the weights.

    Raises: FileNotFoundError: neither; or as `released_file`.
    """
    if str(path) in SHIPPED:
        return _shipped(SHIPPED[str(path)])
    if str(path) in (*NAMES, *RELEASED):
        return released_file(released_name(str(path), model))
    path = Path(path).expanduser()
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"no file {str(file)!r}" + f" in the run's folder {str(path)!r}" * path.is_dir())
    return file


def _read(path: str | Path) -> tuple[dict[str, torch.Tensor], dict]:
    """The tensors and the metadata of a file of `save_checkpoint`."""
    try:
        state, metadata = read_weights(checkpoint_file(path))
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"path: {error}") from None
    if "rwkvlib" not in metadata:
        raise ValueError(
            f"path: {str(path)!r} holds weights without rwkvlib metadata, which says what model they are of; "
            "train takes such files as pretrained=, load_official into a model that you create"
        )
    return state, json.loads(metadata["rwkvlib"])


def load_checkpoint(path: str | Path) -> tuple[nn.Module, dict]:
    """The model, in float32 and eval mode, and the metadata of a file of `save_checkpoint`; of a run's folder, those of
    its ``model.safetensors``; of a name in `RELEASED`, what the authors released.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged, no such checkpoint, or lacks weights of its model.
    """
    if str(path) in RELEASED:
        entry = RELEASED[str(path)]
        overrides: dict[str, Any] = {"num_classes": entry.num_classes, "variant": "published"}
        model = create_model(entry.model, **overrides)
        report = load_official(model, released_file(str(path)))
        return model, dict(model=entry.model, overrides=overrides, size=224, report=str(report))
    state, meta = _read(path)
    model = model_for_weights(meta["model"], meta["overrides"])
    try:
        model.load_state_dict({name: x.float() if x.is_floating_point() else x for name, x in state.items()})
    except RuntimeError as error:
        raise ValueError(f"path: {str(path)!r} does not fit the {meta['model']} that it names: {error}") from error
    return model.eval(), meta


def seen(meta: dict) -> dict[str, Any]:
    """The options of `predict` by which a checkpoint's network sees whole images as it did in validation."""
    return dict(size=meta["size"], resize=meta.get("resize", "squash"), window=meta.get("crop"))


def reading(meta: dict) -> dict[str, Any]:
    """How `load_data` reads a data set for a checkpoint's network."""
    overrides = meta["overrides"]
    count, overlapping = overrides.get("num_classes") or 1, meta.get("overlapping", False)
    return dict(
        classes=count + 1 if overlapping else max(2, count),
        in_channels=overrides.get("in_channels", 3),
        ignore_index=meta.get("ignore_index"),
        overlapping=overlapping,
    )


def load_encoder(model: nn.Module, path: str | Path, variant: str | None = None) -> LoadReport:
    """Pretrained weights into a model of `create_model`: a file of this library's training or a released one.

    Args:
        path: ``.safetensors`` of `save_checkpoint`, a run's folder, "synthetic" or "teacher" for weights that come with
            the library, "imagenet", "authors_synapse" or "authors_acdc" for those that the authors released of the
            model's size (see `rwkvlib.engine.released`), or what `load_official` reads. Of an encoder, or of a
            whole network; where that has another number of classes than `model`, its head stays as initialised, and
            where it takes another number of channels, its first layer; the report names them. Other networks than
            RWKV-UNet take weights of the same network only, by this library where classes or channels differ.
        variant: of the operator; None: the one that the file's weights were trained with.

    Returns: what was loaded, what was left out and why, what stays as initialised.

    Raises:
        ValueError: a key or a shape does not fit, or the file holds no weights; nothing is loaded then.
        FileNotFoundError, TypeError: no such file, no path.
        ImportError, OSError: released weights could not be fetched; the message says what to put where.
    """
    file = checkpoint_file(path, model)
    state, metadata = read_weights(file)
    meta = json.loads(metadata.get("rwkvlib", "{}"))
    if not isinstance(model, (RWKVUNet, Encoder)):
        return _load_other(model, state, str(file), meta)
    if meta.get("model") in BASELINES:
        raise ValueError(f"{str(file)!r} holds weights of {meta['model']!r}, which is another network")
    # Weights that do not say so are taken for released ones, which are of RGB images.
    trained = meta["overrides"].get("variant", "paper") if meta else "published"
    theirs = meta["overrides"].get("in_channels", 3) if meta else 3
    if _stem_channels(theirs) == _stem_channels(model.config.in_channels):
        return load_official(model, state, variant=variant or trained, new_head=True)
    own = {key.removeprefix("encoder."): x for key, x in model.state_dict().items()}
    notes: list[str] = []
    state, _ = without_prefixes(read_state(state)[0], notes)
    names = {key: key.removeprefix("encoder.") for key in state}
    state |= {key: own[name] for key, name in names.items() if name.startswith("stage0.") and name in own}
    report = load_official(model, state, variant=variant or trained, new_head=True)
    new = tuple(key for key in report.loaded if key.removeprefix("encoder.").startswith("stage0."))
    notes += [f"the first layer is a new one, as the file's is for {theirs} channels: {', '.join(new)}"]
    loaded = tuple(key for key in report.loaded if key not in new)
    return replace(report, loaded=loaded, missing=(*new, *report.missing), notes=(*notes, *report.notes))


def _stem_channels(channels: int) -> int:
    """Those that an RWKV-UNet's first layer has: one is repeated to three."""
    return 3 if channels == 1 else channels


def _load_other(model: nn.Module, source: dict, file: str, meta: dict) -> LoadReport:
    """Into a network that is no RWKV-UNet, whose names only a file of the same network has."""
    state, notes = read_state(source)
    state, _ = without_prefixes(state, notes)
    wanted = model.state_dict()
    names = dict(zip(without_prefixes(wanted, [])[0], wanted, strict=True))
    wrong = [key for key in names if getattr(state.get(key), "shape", None) != wanted[names[key]].shape]
    left: set[str] = set()
    if wrong and len(state) == len(wanted) and meta:
        for part, field, unit, default in (
            ("head", "num_classes", "classes", 1),
            ("first layer", "in_channels", "channels", 3),
        ):
            if left.issuperset(wrong):
                break
            count = meta["overrides"].get(field) or default
            keys = {key for key in names if names[key] in _going_by(meta, field, count)}
            if keys.intersection(wrong):
                left |= keys
                shown = ", ".join(names[key] for key in names if key in keys)
                notes.append(f"the {part} is a new one, as the file's is for {count} {unit}: {shown}")
        wrong = [key for key in wrong if key not in left]
    if wrong or len(state) != len(wanted):
        raise ValueError(
            f"{file!r} does not fit the model: expected weights of the same network and the same overrides"
            + f", got those of {meta.get('model')!r}" * bool(meta)
            + (f"; {names[wrong[0]]!r} is missing or of another shape" if wrong else "")
            + "; a head for other classes is told from the metadata, which the file lacks" * (not meta)
        )
    model.load_state_dict({name: wanted[name] if key in left else state[key] for key, name in names.items()})
    loaded, missing = ([names[key] for key in names if (key in left) == new] for new in (False, True))
    return LoadReport(tuple(loaded), {}, tuple(missing), "", tuple(notes))


def _going_by(meta: dict, field: str, count: int) -> set[str]:
    """The tensors of a file's network whose shapes go by the number of classes or of channels."""
    these, others = (
        model_for_weights(meta["model"], meta["overrides"] | {field: n}).state_dict() for n in (count, count + 1)
    )
    return {name for name, x in these.items() if others[name].shape != x.shape}


def load_pretrained(name: str) -> tuple[nn.Module, dict]:
    """The model and metadata of weights that come with the library, ``rwkv_unet_t_synthetic`` and
    ``rwkv_unet_p_synthetic`` (see their cards), or that the authors released, such as ``authors_synapse_b`` (a name in
    `rwkvlib.engine.released.RELEASED`)."""
    known = [file for file in SHIPPED.values() if file.startswith("rwkv_unet_")]  # an encoder alone has no head
    if name not in (*known, *RELEASED):
        raise ValueError(f"name: expected one of {[*known, *RELEASED]}, got {name!r}")
    return load_checkpoint(name if name in RELEASED else _shipped(name))


def _shipped(name: str) -> Path:
    # A package in a zip, whose files are none of the system's, is no case: torch does not run from one either.
    return Path(str(resources.files("rwkvlib") / "weights" / f"{name}.safetensors"))


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
