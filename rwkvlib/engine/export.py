"""Models as files that run without PyTorch."""

import warnings
from pathlib import Path

import torch
import torch.nn as nn
from torch import Tensor

from ..data.pixels import normalise
from ..files import replacing


class _FromImage(nn.Module):
    """The model with `normalise` before it: what is forgotten most easily where the file is used."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model(normalise(image))


def export_onnx(model: nn.Module, path: str | Path, size: int, *, channels: int = 3) -> Path:
    """Writes a model as an ONNX file of standard operators, whole or not at all.

    Its input ``image`` is (B, channels, size, size) float32 in [0, 1], for any B; its output ``logits`` is
    (B, num_classes, size, size). The size is fixed: the operator's sums over the tokens are written out for it.

    Args:
        model: of `build_model`, in eval mode, on the CPU.
        size: height and width in pixels, a multiple of the model's divisor.

    Raises:
        ValueError: a model in training mode, or such a size. ImportError: onnx or onnxscript is missing.
    """
    divisor = getattr(model, "divisor", 16)  # 16: `create_model`'s halve the image four times
    if model.training:
        raise ValueError("model: expected a model in eval mode, got one in training mode")
    if size < divisor or size % divisor:
        raise ValueError(f"size: expected a multiple of {divisor}, got {size}")
    path = Path(path)
    example = torch.zeros(2, channels, size, size)  # of 2: PyTorch takes a batch of 1 for a constant
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter about itself
        program = torch.onnx.export(
            _FromImage(model),
            (example,),
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            dynamo=True,
            optimize=False,  # takes minutes, and onnxruntime does it when it loads the file
            verbose=False,
        )
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # where each line of code lies on this machine: twice the weights' size
    with replacing(path) as temporary:
        program.save(temporary, external_data=False)
    return path
