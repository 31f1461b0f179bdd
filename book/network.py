"""The network that runs in a page: runtime, weights and pictures as scripts, which a page loads when the reader asks.

A page that was opened as a file may fetch nothing, but it may load scripts; so everything is a script that holds text:
compressed, in base64. `book/_static/network.js` unpacks and runs it, in a Worker of one thread.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import logging
import shutil
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
from PIL import Image
from torch import Tensor

from rwkvlib import load_pretrained, predict
from rwkvlib.data import synthetic_polyps, synthetic_ultrasound
from rwkvlib.data.pixels import normalise
from rwkvlib.engine.predict_files import overlay
from rwkvlib.files import write_file
from rwkvlib.layers import SpatialMix

from .inputs import ROOT, digest

SIZE = 128  # pixels: what the networks were trained at
NETWORKS = {"rwkv_unet_p_synthetic": "pico", "rwkv_unet_t_synthetic": "T"}
CONTROLS = ("decay", "bonus", "operator")
LICENCE = b"/* onnxruntime-web, Copyright (c) Microsoft Corporation, MIT License */\n"
INPUTS = ("rwkvlib", "book/network.py", "book/assets", "requirements.lock")


class Controlled(nn.Module):
    """A network whose decays and bonuses are multiplied by numbers, and the global branches of its blocks too: an
    ``operator`` of 0 takes Spatial Mix out. The image is in [0, 1]; the numbers are tensors without dimensions."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        mixes = [name for name, part in model.named_modules() if isinstance(part, SpatialMix)]
        self.branches = tuple(f"{name.removesuffix('att')}ln1." for name in mixes)  # x + ln1(att(x)) in a block

    def forward(self, image: Tensor, decay: Tensor, bonus: Tensor, operator: Tensor) -> Tensor:
        changed = {}
        for name, value in self.model.named_parameters():
            if name.endswith(".spatial_decay"):
                changed[name] = value * decay
            elif name.endswith(".spatial_first"):
                changed[name] = value * bonus
            elif name.startswith(self.branches):
                changed[name] = value * operator
        return torch.func.functional_call(self.model, changed, (normalise(image),))


def pictures() -> list[dict]:
    """Returns the pictures that a page offers: name, what they show, image (H, W, 3) uint8, mask (H, W) uint8 or
    None."""
    found = []
    for seed, says in ((90_001, "two lumps on a wall"), (90_003, "one lump"), (90_016, "a small lump")):
        image, mask = synthetic_polyps(seed, SIZE)
        found.append(dict(name=f"polyp {len(found) + 1}", alt=f"A generated picture: {says}.", image=image, mask=mask))
    image, mask = synthetic_ultrasound(7, SIZE)
    image = np.repeat(image[..., None], 3, 2) if image.ndim == 2 else image
    found.append(dict(name="ultrasound", alt="A generated ultrasound image: nothing of this kind was in training."))
    found[-1] |= dict(image=image, mask=(mask > 0).astype(np.uint8))
    return found


def onnx(name: str) -> bytes:
    """Returns shipped weights as an ONNX file for one picture, with the inputs image, decay, bonus and operator."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells which operators of torchvision it does without
    model = Controlled(load_pretrained(name)[0].eval())
    example = (torch.zeros(1, 3, SIZE, SIZE), *(torch.tensor(x) for x in (1.5, 0.5, 0.7)))
    with warnings.catch_warnings(), torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")  # of the exporter about itself
        program = torch.onnx.export(
            model,
            example,
            input_names=["image", *CONTROLS],
            output_names=["logits"],
            dynamo=True,
            optimize=False,
            verbose=False,
        )
        for node in program.model.graph.all_nodes():
            node.metadata_props.clear()
        program.save(Path(folder, "model.onnx"), external_data=False)
        return Path(folder, "model.onnx").read_bytes()


def packed(content: bytes) -> str:
    """Returns bytes as text: gzip, then base64."""
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()


def png(image: np.ndarray) -> bytes:
    """Returns an image, uint8, as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def script(**values) -> bytes:
    """Returns a script that adds to what a page knows of its networks."""
    return f"Object.assign((self.rwkvNetwork ??= {{}}), {json.dumps(values)});\n".encode()


def make_network(root: Path = ROOT) -> Path:
    """Writes _build/network/network: the runtime, one script for each network, the pictures, and what they look like
    with their masks; returns the folder above it, which the pages' static files take in."""
    ort, folder, stamp = (root / "_build" / name for name in ("ort", "network/network", "network.stamp"))
    key = digest(root, INPUTS)
    if folder.is_dir() and stamp.is_file() and stamp.read_text() == key:
        return folder.parent
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    runtime = {path.suffix[1:]: packed(path.read_bytes()) for path in (ort / "ort.mjs", ort / "ort.wasm")}
    write_file(folder / "runtime.js", LICENCE + script(runtime=runtime))
    sizes = {}
    for name in NETWORKS:
        file = folder / f"{name}.js"
        write_file(file, script(**{name: packed(onnx(name))}))
        sizes[name] = file.stat().st_size
    shown = pictures()
    uris = [
        {key: picture[key] for key in ("name", "alt")}
        | {key: f"data:image/png;base64,{base64.b64encode(png(value)).decode()}" for key, value in images.items()}
        for picture in shown
        for images in [{"image": picture["image"], "mask": 255 * picture["mask"]}]
    ]
    about = [dict(name=name, label=NETWORKS[name], bytes=size) for name, size in sizes.items()]
    runtime_bytes = (folder / "runtime.js").stat().st_size
    write_file(folder / "pictures.js", script(size=SIZE, pictures=uris, networks=about, runtimeBytes=runtime_bytes))
    write_file(folder / "stored.png", png(stored(shown)))
    stamp.write_text(key)
    return folder.parent


def stored(shown: list[dict]) -> np.ndarray:
    """Returns one picture for where nothing can run: the pictures above, the first network's masks on them below."""
    model = load_pretrained(next(iter(NETWORKS)))[0]
    columns = []
    for picture in shown:
        image = torch.from_numpy(picture["image"]).permute(2, 0, 1)[None] / 255
        mask = (predict(model, image)[0, 0] > 0).numpy()
        columns.append(np.concatenate([picture["image"], overlay(picture["image"], mask.astype(np.uint8))]))
    return np.concatenate([np.pad(c, ((2, 2), (2, 2), (0, 0)), constant_values=255) for c in columns], 1)
