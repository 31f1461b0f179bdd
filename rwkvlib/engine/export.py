"""Models as files that run without PyTorch."""

import copy
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..data.files import read_picture
from ..data.pixels import batches, normalise, scale
from ..files import replacing
from ..models.folding import fold
from ..models.registry import divisor_of, divisors_of
from .predict import to_labels, to_probabilities
from .predict_files import find_files

OLDEST_OPSET = 18
LARGEST = 1024
# What `compare` may find: for float32 of the logits; else of the probabilities, and of the labels' share.
BOUNDS: dict[str, dict[str, float]] = {
    "float32": {"logits": 1e-4},
    "float16": {"probabilities": 0.02, "labels": 0.005},
    "int8": {"labels": 0.05},
}


class _FromImage(nn.Module):
    """The model with `normalise` before it: what is forgotten most easily where the file is used."""

    def __init__(self, model: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(self, image: Tensor) -> Tensor:
        return self.model(normalise(image).to(self.dtype)).float()


def _with_biases(model: nn.Module) -> nn.Module:
    """A copy whose 3-D convolutions have a bias, 0 where they had none: the exporter gives those one of a shape that
    onnxruntime refuses (onnxscript's conv3d, of two numbers a channel)."""
    model = copy.deepcopy(model)
    for part in model.modules():
        if isinstance(part, nn.Conv3d) and part.bias is None:
            part.bias = nn.Parameter(part.weight.new_zeros(part.out_channels))
    return model


def export_onnx(
    model: nn.Module,
    path: str | Path,
    size: int | tuple[int, ...] | None,
    *,
    channels: int | None = None,
    opset_version: int | None = None,
    half: bool = False,
    largest: int = LARGEST,
    about: dict[str, Any] | None = None,
) -> Path:
    """Writes a model as an ONNX file of standard operators, whole or not at all.

    Its input ``image`` is (B, channels, height, width) float32 in [0, 1], for any B; its output ``logits`` is
    (B, num_classes, height, width) float32, both with the depth before them for volumes. For a fixed size the
    operator's sums over the tokens are written out as a tree, in O(T C); for any size as a scan by doubling, in
    O(T C log T), which takes longer.

    The file's metadata say what it is: rwkvlib (the version), dtype, num_classes, size, divisor, largest, mean and std
    (which the file applies by itself), and `about`; all as JSON.

    Args:
        model: of `create_model`, in eval mode, float32, on the CPU.
        size: of the image in pixels, (height, width), or of the volume in voxels, (depth, height, width), or one number
            for all: multiples of the model's divisor. None: any such height and width up to `largest`; not for volumes.
        channels: of the image; None: the model's own, 3 where it does not say.
        opset_version: of ONNX's operators, for a runtime that does not know the newest; 18 at least, as PyTorch's
            exporter writes no older one. None: its choice.
        half: weights and maps in float16, half the file; the sums over the tokens stay in float32.
        largest: height and width in pixels of the largest image, where `size` is None.
        about: further metadata, such as the names of the classes.

    Raises:
        ValueError: a model in training mode, elsewhere or of another dtype, such a size, other channels than the
            model's, an opset that the exporter does not write; without a size, the operator's variant "published" and
            networks that the exporter does not write for any size. ImportError: onnx or onnxscript is missing.
    """
    divisors = divisors_of(model)
    if size is None and len(divisors) == 3:
        raise ValueError("size: expected (depth, height, width) or one number for a model of volumes, got None")
    sides = (largest,) * 2 if size is None else (size,) * len(divisors) if isinstance(size, int) else size
    if model.training:
        raise ValueError("model: expected a model in eval mode, got one in training mode; model.eval()")
    if other := sorted({str(p.dtype) for p in model.parameters() if p.dtype != torch.float32}):
        raise ValueError(
            f"model: expected float32, got {', '.join(other)}; model.float(), and half=True for a file in float16"
        )
    if other := sorted({str(p.device) for p in model.parameters() if p.device.type != "cpu"}):
        raise ValueError(f"model: expected a model on the CPU, got one on {', '.join(other)}; model.cpu()")
    right = [isinstance(n, int) and n >= d and n % d == 0 for n, d in zip(sides, divisors, strict=False)]
    if not all(right) or len(sides) != len(divisors):
        shown = " x ".join(map(str, divisors)) if len(set(divisors)) > 1 else divisors[0]
        name, given = ("largest", largest) if size is None else ("size", size)
        raise ValueError(
            f"{name}: expected multiples of {shown}, got {given}" + f"; {len(divisors)} of them" * all(right)
        )
    config = getattr(model, "config", None)
    own = getattr(config, "in_channels", None)
    channels = own or 3 if channels is None else channels
    if own and channels != own:
        raise ValueError(f"channels: expected {own}, as the model takes, got {channels}")
    if opset_version is not None and opset_version < OLDEST_OPSET:
        raise ValueError(f"opset_version: expected at least {OLDEST_OPSET}, got {opset_version}")
    if size is None and (variant := getattr(config, "variant", "paper")) != "paper":
        raise ValueError(
            f"size: expected a number or (height, width) for a model of variant {variant!r}, got None; its "
            "chunks are written out for one number of tokens"
        )
    path, batch = Path(path), torch.export.Dim("batch", min=1)
    shapes = {0: batch}
    if size is None:
        # Unlike numbers: PyTorch takes sizes that are equal, or 1, for constants.
        sides = tuple(factor * d for factor, d in zip((3, 2), divisors, strict=True))
        named = [d * torch.export.Dim(n, max=largest // d) for n, d in zip(("rows", "columns"), divisors, strict=True)]
        shapes |= {2: named[0], 3: named[1]}
    if half:  # folded before it is rounded
        model = fold(copy.deepcopy(model)).half()
    if len(divisors) == 3:
        model = _with_biases(model)
    example = torch.zeros(2, channels, *sides)  # of 2: PyTorch takes a batch of 1 for a constant
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter about itself
        try:
            program = torch.onnx.export(
                _FromImage(model, torch.float16 if half else torch.float32),
                (example,),
                input_names=["image"],
                output_names=["logits"],
                dynamic_shapes=(shapes,),
                opset_version=opset_version,
                dynamo=True,
                optimize=False,  # takes minutes, and onnxruntime does it when it loads the file
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            if size is not None:
                raise
            raise ValueError("size: the exporter cannot write this network for any size; give one") from error
    written = program.model.opset_imports[""]
    if opset_version not in (None, written):  # where it cannot convert, the exporter only logs that
        raise ValueError(
            f"opset_version: expected one that the exporter can write, such as {written}, got {opset_version}"
        )
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # where each line of code lies on this machine: twice the weights' size
    from .. import __version__

    mean, std = (list(x) for x in scale(channels))
    facts: dict[str, Any] = dict(
        rwkvlib=__version__, dtype="float16" if half else "float32", divisor=divisor_of(model), mean=mean, std=std
    )
    facts |= dict(size=None if size is None else list(sides), largest=largest if size is None else None)
    facts["num_classes"] = program.model.graph.outputs[0].shape[1]
    program.model.metadata_props.update({key: json.dumps(value) for key, value in (facts | (about or {})).items()})
    with replacing(path) as temporary:
        program.save(temporary, external_data=False)
    return path


def quantise(source: str | Path, path: str | Path, images: Iterable[Tensor]) -> Path:
    """Writes a float32 file of `export_onnx` with convolutions and matrix products in int8, whole or not at all, by
    onnxruntime's static quantisation: symmetric, one scale for each channel of the weights, and for the maps the range
    that they have on `images`. The sums over the tokens stay in float32.

    Args:
        images: (B, channels, height, width) in [0, 1] of sizes that the file takes, like those it will be used on.

    Raises: ValueError: no images. ImportError: onnxruntime is missing.
    """
    import onnx
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.images = iter(images)
            self.count = 0

        def get_next(self):
            image = next(self.images, None)
            self.count += image is not None
            return None if image is None else {"image": image.numpy()}

    reader, path = Reader(), Path(path)
    with replacing(path) as temporary, tempfile.TemporaryDirectory() as folder:
        folded, made = Path(folder, "folded.onnx"), Path(folder, "int8.onnx")
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(folded)  # BatchNorm and transposed weights as constants
        onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        logging.disable(logging.WARNING)  # that the file should be folded first, as it is
        try:
            quantize_static(
                str(folded),
                str(made),
                reader,
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                op_types_to_quantize=["Conv", "MatMul", "Gemm"],
            )
        except ValueError as error:
            if reader.count:
                raise
            raise ValueError("images: expected at least one to calibrate with, got none") from error
        finally:
            logging.disable(logging.NOTSET)
        file = onnx.load(made)
        onnx.helper.set_model_props(file, metadata(source) | {"dtype": json.dumps("int8")})
        onnx.save(file, temporary)
    return path


def metadata(path: str | Path) -> dict[str, str]:
    """What a file of `export_onnx` says of itself, each value as JSON."""
    import onnx

    return {entry.key: entry.value for entry in onnx.load(path, load_external_data=False).metadata_props}


@torch.no_grad()
def compare(path: str | Path, model: nn.Module, images: Iterable[Tensor]) -> dict[str, float]:
    """The largest difference between an ONNX file by onnxruntime and its model by PyTorch, over images as `quantise`
    takes them: of the logits, of the probabilities, and the largest share of an image's labels."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = dict(logits=0.0, probabilities=0.0, labels=0.0)
    for image in images:
        pair = torch.from_numpy(session.run(["logits"], {"image": image.numpy()})[0]), model(normalise(image))
        for name, (a, b) in dict(
            logits=pair,
            probabilities=[to_probabilities(x) for x in pair],
            labels=[to_labels(x) for x in pair],
        ).items():
            apart = (a != b).float().mean() if name == "labels" else (a - b).abs().max()
            found[name] = max(found[name], apart.item())
    return found


def sample_images(model: nn.Module, size: tuple[int, int], folder: str | Path | None = None) -> list[Tensor]:
    """Images (1, channels, height, width) in [0, 1] to calibrate and compare with: a folder's pictures, and its volumes
    slice by slice, resized; without one a smooth random pattern.

    Raises: ValueError, FileNotFoundError: as `rwkvlib.engine.predict_files.find_files`, a file that cannot be read, a
        model of other channels than 1 or 3, which pictures do not have.
    """
    channels = getattr(getattr(model, "config", None), "in_channels", 3)
    if folder is None:
        noise = torch.rand(1, channels, 5, 7, generator=torch.Generator().manual_seed(0))
        return [F.interpolate(noise, size, mode="bilinear")]
    if channels not in (1, 3):
        raise ValueError(f"calibrate: expected a model of 1 or 3 channels, as pictures have, got {channels}")
    found = []
    for file in find_files([folder], Path(os.devnull)):
        for image in batches(read_picture(file).pixels, 1):
            image = image.mean(1, keepdim=True) if channels == 1 else image
            found.append(F.interpolate(image, size, mode="bilinear", antialias=True))
    return found
