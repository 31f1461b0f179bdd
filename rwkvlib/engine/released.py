"""The weights that the authors released: fetched on request from their public folders, and kept with their hash."""

import json
import os
import shutil
import sys
from dataclasses import dataclass
from hashlib import sha256
from operator import attrgetter
from pathlib import Path

import torch.nn as nn
from filelock import FileLock  # a requirement of torch

from ..files import write_file, write_through
from ..models.config import CONFIGS, ModelConfig
from ..models.official import read_weights
from ..wkv.cuda import cache_folder

TERMS = """\
{0.file}: weights of the authors of RWKV-UNet (arXiv 2501.08458), from {0.folder}
Their repository, https://github.com/juntaoJianggavin/RWKV-UNet, has the MIT licence (see its LICENSE, which asks for
a citation too); none is stated for the weights alone, and {0.data}, which they were trained on, has its own terms."""


@dataclass(frozen=True)
class Released:
    """A file of a public folder, and the model whose weights it holds, trained on `data` at 224 pixels."""

    folder: str
    file: str
    data: str
    model: str
    num_classes: int


_ENCODERS, _NETWORKS = "1odF_NK5wYRkE0C3w9eoLUQEVbxefj66e", "19y_8Mzmw5u6Bg-iVfmh6-vRCBDdy149_"
_ROWS = {  # the published README has the folders and the name Synapse_base.pth; its logs are named like the others
    "imagenet": (_ENCODERS, "net{}.pth", "ImageNet", "rwkv_encoder_", 1000),
    "authors_synapse": (_NETWORKS, "Synapse_{}.pth", "Synapse", "rwkv_unet_", 9),
    "authors_acdc": (_NETWORKS, "ACDC_{}.pth", "ACDC", "rwkv_unet_", 4),
}
NAMES = tuple(_ROWS)  # of the size of the model that takes the weights
RELEASED = {
    f"{name}_{s}": Released(f"https://drive.google.com/drive/folders/{id}", file.format(word), data, model + s, classes)
    for name, (id, file, data, model, classes) in _ROWS.items()
    for s, word in zip("tsb", "TSB" if id == _ENCODERS else ("tiny", "small", "base"), strict=True)
}


def weights_folder() -> Path:
    """Where fetched weights are kept: the variable RWKVLIB_WEIGHTS, or beside the compiled kernels."""
    return Path(os.environ.get("RWKVLIB_WEIGHTS") or cache_folder() / "weights").expanduser()


def released_name(name: str, model: nn.Module | None) -> str:
    """The name in `RELEASED` that one of `NAMES` has for a model of T, S or B, else a ValueError; others stay."""
    if name not in NAMES:
        return name
    sizes, own = attrgetter("depths", "dims", "expansions"), getattr(model, "config", None)
    for size, config in CONFIGS.items():
        if isinstance(own, ModelConfig) and sizes(own) == sizes(config) and own.spatial_dims == 2:
            return f"{name}_{size}"
    expected = (
        f"{name}_t, {name}_s, {name}_b, or a model of RWKV-UNet with the depths, dims and expansions of T, S or B, and "
        "spatial_dims=2"
    )
    raise ValueError(f"{name}: expected {expected}, got {type(model).__name__}")


def released_file(name: str) -> Path:
    """The file of a name in `RELEASED`, fetched where `weights_folder` has none. Its SHA-256 is written beside it at
    first use, and must stay the same; nobody publishes one.

    Raises: ImportError: no extra ``weights``. OSError: no connection, or no such file in the authors' folder; nothing
    is kept then. ValueError: the file has changed, or holds no weights.
    """
    file = weights_folder() / RELEASED[name].file
    record = file.with_name(f"{file.name}.json")
    if not (file.is_file() and record.is_file()):
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_name(f".{file.name}.lock")):  # one process of several fetches
            if not file.is_file():
                _fetch(name, file)
            if not record.is_file():
                read_weights(file)  # put there by hand, it may be a web page
                about = {"sha256": sha256(file.read_bytes()).hexdigest(), "folder": RELEASED[name].folder}
                write_file(record, json.dumps(about, indent=1) + "\n")
    expected, found = json.loads(record.read_text())["sha256"], sha256(file.read_bytes()).hexdigest()
    if found != expected:
        remedy = f"delete it, and it is fetched again, or delete {record.name!r}, and it is taken as it is"
        raise ValueError(f"{name}: {str(file)!r} has changed: expected SHA-256 {expected}, got {found}; {remedy}")
    return file


def _fetch(name: str, file: Path) -> None:
    """One file of the authors' folder, whole or not at all."""
    entry = RELEASED[name]
    by_hand = f"by hand: get {file.name} from {entry.folder}, put it at {str(file)!r} or name it in place of {name}"
    try:
        import gdown
        import requests
    except ImportError as error:
        raise ImportError(f'{name}: fetching it needs gdown: pip install "rwkvlib[weights]"; {by_hand}') from error
    print(TERMS.format(entry), file=sys.stderr)
    part = file.with_name(f".{file.name}.part") / file.name
    try:
        part.parent.mkdir(exist_ok=True)  # it is there after a process that was killed
        there = gdown.download_folder(entry.folder, skip_download=True, quiet=True, timeout=60)
        ids = {Path(item.path).name: item.id for item in there if not isinstance(item, str)}
        if not (found := [each for each in ids if each.lower() == file.name.lower()]):
            raise FileNotFoundError(f"{name}: expected {file.name} in {entry.folder}, got {sorted(ids)}; {by_hand}")
        gdown.download(id=ids[found[0]], output=str(part), timeout=60)
        read_weights(part)
        write_through(part)
        os.replace(part, file)
    except (gdown.exceptions.DownloadError, requests.RequestException, ValueError) as error:
        reason = (str(error).replace(repr(str(part)), "what came").strip() or type(error).__name__).splitlines()[0]
        raise ConnectionError(f"{name}: could not be fetched ({reason}); {by_hand}") from error
    finally:
        shutil.rmtree(part.parent, ignore_errors=True)
