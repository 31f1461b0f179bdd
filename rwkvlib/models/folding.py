"""A network for prediction alone: fewer passes over memory, the same outputs."""

import copy

import torch.nn as nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..layers import ConvNormAct
from ..layers.conv import DIMS


def foldable(module: nn.Module) -> bool:
    """Whether it holds a convolution with a BatchNorm behind it."""
    return isinstance(module, ConvNormAct) and isinstance(module.norm, tuple(dims.batchnorm for dims in DIMS.values()))


def fold(model: nn.Module) -> nn.Module:
    """Folds a model's BatchNorms into the convolutions before them, in place; it must be in eval mode."""
    for module in model.modules():
        if foldable(module):
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)
            module.norm = nn.Identity().eval()
    return model


def fold_batchnorm(model: nn.Module) -> nn.Module:
    """A copy of a model in eval mode whose BatchNorms are folded into the convolutions before them: same outputs,
    fewer passes over memory, no training any more. Raises ValueError for a model in training mode."""
    if model.training:
        raise ValueError("model: expected a model in eval mode, got one in training mode")
    return fold(copy.deepcopy(model))
