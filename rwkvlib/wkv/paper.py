"""Variant "paper", the equation, as an operator of PyTorch: rwkvlib::bi_wkv, its shapes and its gradients."""

import torch
from torch import Tensor

from . import tree
from .backends import choose
from .operators import accumulation_dtype, as_inputs, library, operator, prepared, vjp


@operator("bi_wkv")
def bi_wkv(w: Tensor, u: Tensor, k: Tensor, v: Tensor, backend: str, with_logden: bool = True) -> tuple[Tensor, Tensor]:
    """(y in the dtype of v, log of the denominator in the accumulation dtype, or an empty tensor)."""
    dtype = accumulation_dtype(w, u, k)
    row = choose(backend, "paper", k, dtype)
    y, logden = row.forward["paper"](*prepared(dtype, row.io_dtype(k, dtype), w, u, k, v), with_logden)
    return y.to(v.dtype), y.new_empty(0, dtype=dtype) if logden is None else logden


@torch.library.register_fake(bi_wkv, lib=library)
def _(w, u, k, v, backend, with_logden=True):
    # Contiguous whatever the strides of k: all backends return it so.
    return v.new_empty(v.shape), k.new_empty(k.shape if with_logden else 0, dtype=accumulation_dtype(w, u, k))


@operator("bi_wkv_backward")
def bi_wkv_backward(
    w: Tensor,
    u: Tensor,
    k: Tensor,
    v: Tensor,
    y: Tensor,
    logden: Tensor,
    gy: Tensor,
    glogden: Tensor | None,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of w, u, k, v from those of the two outputs; glogden: None for zero."""
    dtype = logden.dtype
    row = choose(backend, "paper", k, dtype)
    *inputs, g = prepared(dtype, row.io_dtype(k, dtype), w, u, k, v, y, gy)
    glogden = None if glogden is None else glogden.contiguous()
    return as_inputs(row.backward["paper"](*inputs, logden.contiguous(), g, glogden), (w, u, k, v))


@torch.library.register_fake(bi_wkv_backward, lib=library)
def _(w, u, k, v, y, logden, gy, glogden, backend):
    return tuple(x.new_empty(x.shape) for x in (w, u, k, v))


def _setup_context(ctx, inputs, output):
    w, u, k, v, ctx.backend, _ = inputs
    ctx.save_for_backward(w, u, k, v, *output)
    ctx.set_materialize_grads(False)  # the logarithm's gradient is hardly ever there: no memory for its zeros


def _backward(ctx, gy, glogden):
    if gy is None:
        if glogden is None:
            return None, None, None, None, None, None
        gy = torch.zeros_like(ctx.saved_tensors[4])
    if torch.is_grad_enabled():  # create_graph: these gradients will be differentiated again
        *tensors, _, logden = ctx.saved_tensors
        glogden = torch.zeros_like(logden) if glogden is None else glogden
        return *vjp(tree.forward, tensors, logden.dtype, (gy.to(logden.dtype), glogden)), None, None
    return *bi_wkv_backward(*ctx.saved_tensors, gy, glogden, ctx.backend), None, None


torch.library.register_autograd(bi_wkv, _backward, setup_context=_setup_context, lib=library)
