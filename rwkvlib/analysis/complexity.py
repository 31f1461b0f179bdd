"""Parameters and multiply-accumulate operations."""

import torch
import torch.nn as nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(module: nn.Module) -> int:
    """The number of parameters, learned or fixed; buffers (BatchNorm's statistics) are not counted."""
    return sum(p.numel() for p in module.parameters())


def count_macs(model: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiply-accumulate operations of the convolutions and linear layers for an input of this shape (B, C, H, W), or
    (B, C, D, H, W).

    Computed from shapes alone (on the meta device). Elementwise operations and the Bi-WKV operator are not counted;
    Vision-RWKV counts the operator as 13 T C operations (arXiv 2403.02308, Eq. 8).
    """
    training = model.training
    state = {name: x.to("meta") for name, x in [*model.named_parameters(), *model.named_buffers()]}
    model.eval()
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            torch.func.functional_call(model, state, (torch.empty(shape, device="meta"),))
    finally:
        model.train(training)
    return counter.get_total_flops() // 2
