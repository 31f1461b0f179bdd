"""Prediction for images of any size."""

import copy

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..layers import ConvNormAct

# Of ImageNet, as for the published encoders.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalise(image: Tensor) -> Tensor:
    """(B, C, H, W) in [0, 1] to the scale that the models are trained with: ImageNet's for three channels, else
    mean 0.5 and standard deviation 0.25 for every channel."""
    rgb = image.shape[1] == 3
    mean, std = (image.new_tensor(x).view(1, -1, 1, 1) for x in ((MEAN, STD) if rgb else ((0.5,), (0.25,))))
    return (image - mean) / std


def fold_batchnorm(model: nn.Module) -> nn.Module:
    """A copy of a model in eval mode whose BatchNorms are folded into the convolutions before them: same outputs,
    fewer passes over memory, no training any more. Raises ValueError for a model in training mode."""
    if model.training:
        raise ValueError("model: expected a model in eval mode, got one in training mode")
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, ConvNormAct) and isinstance(module.norm, nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)
            module.norm = nn.Identity()
    return model


@torch.inference_mode()
def predict(model: nn.Module, image: Tensor) -> Tensor:
    """Logits for images of any height and width: padded at the right and bottom to multiples of 16, then cropped.

    Args:
        model: of `create_model`; used in eval mode, and left in the mode it was in.
        image: (B, C, H, W) in [0, 1].

    Returns:
        (B, num_classes, H, W) logits, on the image's device.

    Raises:
        ValueError, TypeError: not such a tensor.
    """
    if not isinstance(image, Tensor) or not image.is_floating_point():
        raise TypeError(f"image: expected a floating-point tensor, got {getattr(image, 'dtype', type(image).__name__)}")
    if image.ndim != 4 or 0 in image.shape:
        raise ValueError(f"image: expected shape (B, C, H, W), got {tuple(image.shape)}")
    height, width = image.shape[2:]
    # Repeating the edge, since mirroring needs an image larger than what it adds.
    padded = F.pad(normalise(image), (0, -width % 16, 0, -height % 16), mode="replicate")
    training = model.training
    model.eval()
    try:
        logits = model(padded.to(next(model.parameters()).device))
    finally:
        model.train(training)
    return logits[..., :height, :width].to(image.device)
