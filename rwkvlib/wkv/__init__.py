"""The Bi-WKV operator: one definition, several backends, one PyTorch operator for each variant.

`bi_wkv` checks its arguments and calls the operator of the variant (paper.py, published.py), which takes a backend from
the table in backends.py: oracle.py (the definition), scan.py (the recurrence as the book derives it), tree.py (plain
tensor operations, any device), numba_cpu.py (the fast one on a CPU), cuda.py and bi_wkv.cu (the fast one on a CUDA
device). The backends know nothing of each other.
"""

import torch
from torch import Tensor

from . import backends
from .backends import TABLE, VARIANTS
from .operators import accumulation_dtype
from .paper import bi_wkv as _bi_wkv
from .published import bi_wkv_published as _published

__all__ = ["BACKENDS", "VARIANTS", "bi_wkv"]

BACKENDS = ("auto", *TABLE)


def _check(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> None:
    for name, x in dict(w=w, u=u, k=k, v=v).items():
        if not isinstance(x, Tensor):
            raise TypeError(f"{name}: expected a torch.Tensor, got {type(x).__name__}")
        if not x.is_floating_point():
            raise TypeError(f"{name}: expected a floating-point tensor, got {x.dtype}")
    for name, x in dict(w=w, u=u, v=v).items():
        if x.device != k.device:
            raise ValueError(f"{name}: expected the device of k, {k.device}, got {x.device}")
    if k.ndim != 3:
        raise ValueError(f"k: expected shape (B, T, C), got {tuple(k.shape)}")
    if v.shape != k.shape:
        raise ValueError(f"v: expected the shape of k, {tuple(k.shape)}, got {tuple(v.shape)}")
    if v.dtype != k.dtype:
        raise TypeError(f"v: expected the dtype of k, {k.dtype}, got {v.dtype}")
    if k.shape[1] == 0:
        raise ValueError(f"k: expected at least one token (T >= 1), got shape {tuple(k.shape)}")
    if k.shape[2] == 0:
        raise ValueError(f"k: expected at least one channel (C >= 1), got shape {tuple(k.shape)}")
    for name, x in dict(w=w, u=u).items():
        if x.shape != k.shape[2:]:
            raise ValueError(f"{name}: expected shape (C,) = ({k.shape[2]},), got {tuple(x.shape)}")


def bi_wkv(w: Tensor, u: Tensor, k: Tensor, v: Tensor, *, variant: str = "paper", backend: str = "auto") -> Tensor:
    r"""Bi-WKV: for every token and channel an average of v over all tokens, in time linear in their number.

    .. math:: y_t = \frac{\sum_{i \ne t} e^{k_i - (|t-i|-1) w} v_i + e^{u + k_t} v_t}
                         {\sum_{i \ne t} e^{k_i - (|t-i|-1) w} + e^{u + k_t}}

    Vision-RWKV (arXiv 2403.02308), Eq. 5, with its decay over T already divided out.

    Args:
        w: (C,) decay per token of distance; any sign (the model passes ``spatial_decay / T``).
        u: (C,) bonus of the token itself (the model passes ``spatial_first / T``).
        k: (B, T, C) logits; float64, float32, bfloat16 or float16. Sums are in float32 at least. -inf takes the token
            out of every average, its own included (padding): its output is the others' average, its gradients are 0.
            A channel in which all tokens are taken out is 0 / 0, NaN.
        v: (B, T, C) values, of the dtype of k.
        variant: "paper", the equation; "published", what the published CUDA kernel computes instead, for use with
            weights trained on it (`rwkvlib.wkv.oracle.published_weights`).
        backend: "auto" takes numba on a CPU where it is installed, cuda on a CUDA device where the kernel can be had
            (compiled at its first use, and kept on disk), else tree, on a CUDA device after one warning. By name:
            "oracle" (O(T^2)), "scan" (token by token), "tree" (plain PyTorch, any device), "numba" (CPU), "cuda".

    Returns:
        (B, T, C), the dtype of v.

    Differentiation: backward by the backend itself. Forward-mode AD (dual numbers, torch.func.jvp), the transforms of
    torch.func that differentiate (grad, jacrev, hessian, per-sample gradients) and second derivatives (create_graph)
    are plain PyTorch operations with every backend, those of "tree" in the place of numba and cuda: the same values,
    more time and memory.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape, device or name.
        rwkvlib.wkv.cuda.KernelUnavailable: backend "cuda" where the kernel cannot be had; says why, and what helps.

    Warns once for variant "published" where ``T > 1024`` or, which is not looked at on a CUDA device as that would
    wait for it, ``|w| ceil(T / 32) > 0.5``: outside of what it was trained in, its denominator can cross zero.
    """
    _check(w, u, k, v)
    backends.check(backend, variant, k.device)
    if backend != "auto" and TABLE[backend].plain:
        plain = TABLE[backend].forward[variant]
    elif torch.onnx.is_in_onnx_export() or _transformed():
        # Of an operator of our own PyTorch knows the first derivative, backward, and no more.
        plain = backends.STAND_IN[variant]
    else:
        plain = None
    if plain is not None:
        dtype = accumulation_dtype(w, u, k)
        return plain(*(x.to(dtype) for x in (w, u, k, v))).to(v.dtype)
    if variant == "published":
        return _published(w, u, k, v, backend)
    # Only the gradients need the logarithm of the denominator, which costs a kernel as much time as the output does.
    recorded = torch.is_grad_enabled() and any(x.requires_grad for x in (w, u, k, v))
    return _bi_wkv(w, u, k, v, backend, recorded)[0]


def _transformed() -> bool:
    """Whether forward-mode AD or a transform of torch.func that differentiates is under way."""
    if torch.autograd.forward_ad._current_level >= 0:  # of torch.func.jvp as well
        return True
    transforms = torch._C._functorch.get_interpreter_stack() or ()  # torch.func has no public way to ask
    kinds = torch._C._functorch.TransformType
    return any(transform.key() in (kinds.Grad, kinds.Jvp) for transform in transforms)


# What torch.compiler.assume_constant_result does, but for importing the compiler, which takes seconds. torch.compile
# guards both states by itself.
_transformed._dynamo_marked_constant = True  # type: ignore[attr-defined]  # PyTorch's own mark
