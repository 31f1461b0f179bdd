"""Models as files that run without PyTorch."""

import warnings
from pathlib import Path

import torch
import torch.nn as nn
from torch import Tensor

from ..data.pixels import normalise
from ..files import replacing
from ..models.registry import divisors_of

OLDEST_OPSET = 18


class _FromImage(nn.Module):
    """The model with `normalise` before it: what is forgotten most easily where the file is used."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model(normalise(image))


def export_onnx(
    model: nn.Module,
    path: str | Path,
    size: int | tuple[int, ...],
    *,
    channels: int | None = None,
    opset_version: int | None = None,
) -> Path:
    """Writes a model as an ONNX file of standard operators, whole or not at all.

    Its input ``image`` is (B, channels, height, width) float32 in [0, 1], for any B; its output ``logits`` is
    (B, num_classes, height, width), both with the depth before them for volumes. The size is fixed: the operator's sums
    over the tokens are written out for it.

    Args:
        model: of `create_model`, in eval mode, float32, on the CPU.
        size: of the image in pixels, (height, width), or of the volume in voxels, (depth, height, width), or one number
            for all: multiples of the model's divisor.
        channels: of the image; None: the model's own, 3 where it does not say.
        opset_version: of ONNX's operators, for a runtime that does not know the newest; 18 at least, as PyTorch's
            exporter writes no older one. None: its choice.

    Raises:
        ValueError: a model in training mode, elsewhere or of another dtype, such a size, other channels than the
            model's, an opset that the exporter does not write. ImportError: onnx or onnxscript is missing.
    """
    divisors = divisors_of(model)
    sides = (size,) * len(divisors) if isinstance(size, int) else size
    if model.training:
        raise ValueError("model: expected a model in eval mode, got one in training mode; model.eval()")
    if other := sorted({str(p.dtype) for p in model.parameters() if p.dtype != torch.float32}):
        raise ValueError(
            f"model: expected float32, got {', '.join(other)}; model.float(), and convert the ONNX file, as with "
            "onnxconverter_common.float16"
        )
    if other := sorted({str(p.device) for p in model.parameters() if p.device.type != "cpu"}):
        raise ValueError(f"model: expected a model on the CPU, got one on {', '.join(other)}; model.cpu()")
    right = [isinstance(n, int) and n >= d and n % d == 0 for n, d in zip(sides, divisors, strict=False)]
    if not all(right) or len(sides) != len(divisors):
        shown = " x ".join(map(str, divisors)) if len(set(divisors)) > 1 else divisors[0]
        raise ValueError(f"size: expected multiples of {shown}, got {size}" + f"; {len(divisors)} of them" * all(right))
    own = getattr(getattr(model, "config", None), "in_channels", None)
    channels = own or 3 if channels is None else channels
    if own and channels != own:
        raise ValueError(f"channels: expected {own}, as the model takes, got {channels}")
    if opset_version is not None and opset_version < OLDEST_OPSET:
        raise ValueError(f"opset_version: expected at least {OLDEST_OPSET}, got {opset_version}")
    path = Path(path)
    example = torch.zeros(2, channels, *sides)  # of 2: PyTorch takes a batch of 1 for a constant
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter about itself
        program = torch.onnx.export(
            _FromImage(model),
            (example,),
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            opset_version=opset_version,
            dynamo=True,
            optimize=False,  # takes minutes, and onnxruntime does it when it loads the file
            verbose=False,
        )
    written = program.model.opset_imports[""]
    if opset_version not in (None, written):  # where it cannot convert, the exporter only logs that
        raise ValueError(
            f"opset_version: expected one that the exporter can write, such as {written}, got {opset_version}"
        )
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # where each line of code lies on this machine: twice the weights' size
    with replacing(path) as temporary:
        program.save(temporary, external_data=False)
    return path
