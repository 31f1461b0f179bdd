"""Variant "published", what the published kernel computes, as an operator of PyTorch: rwkvlib::bi_wkv_published."""

import math

import torch
from torch import Tensor

from . import tree
from .backends import choose
from .operators import accumulation_dtype, as_inputs, library, operator, prepared, vjp, warn_once


@operator("bi_wkv_published")
def bi_wkv_published(w: Tensor, u: Tensor, k: Tensor, v: Tensor, backend: str) -> Tensor:
    """y in the dtype of v."""
    T, L = k.shape[1], math.ceil(k.shape[1] / 32)
    if T > 1024 or (w.numel() and w.device.type != "cuda" and w.abs().max().item() * L > 0.5):
        warn_once(
            "variant 'published' is held to its reference for T <= 1024 and |w| ceil(T / 32) <= 0.5 only; beyond, its "
            "denominator can cross zero and the output is not to be trusted"
        )
    dtype = accumulation_dtype(w, u, k)
    inputs = prepared(dtype, dtype, w, u, k, v)
    return choose(backend, "published", inputs[2], dtype).forward["published"](*inputs).to(v.dtype)


@torch.library.register_fake(bi_wkv_published, lib=library)
def _(w, u, k, v, backend):
    return v.new_empty(v.shape)


@operator("bi_wkv_published_backward")
def bi_wkv_published_backward(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, gy: Tensor, backend: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of w, u, k, v."""
    dtype = accumulation_dtype(w, u, k)
    inputs = prepared(dtype, dtype, w, u, k, v, gy)
    grads = choose(backend, "published", inputs[2], dtype).backward["published"](*inputs)
    return as_inputs(grads, (w, u, k, v))


@torch.library.register_fake(bi_wkv_published_backward, lib=library)
def _(w, u, k, v, gy, backend):
    return tuple(x.new_empty(x.shape) for x in (w, u, k, v))


def _setup_context(ctx, inputs, output):
    *tensors, ctx.backend = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx, gy):
    # The true derivative of that forward; computed anew, so that only the inputs are kept in between.
    tensors = ctx.saved_tensors
    if torch.is_grad_enabled():  # create_graph
        dtype = accumulation_dtype(*tensors)
        return *vjp(tree.published, tensors, dtype, gy.to(dtype)), None
    return *bi_wkv_published_backward(*tensors, gy, ctx.backend), None


torch.library.register_autograd(bi_wkv_published, _backward, setup_context=_setup_context, lib=library)
