"""The Bi-WKV operator: one definition, several backends, one PyTorch operator around them.

Arguments are checked and a backend is chosen in `bi_wkv`; the backends know nothing of each other:
oracle.py (the definition), scan.py (the recurrence as the book derives it), tree.py (plain tensor operations, any
device), numba_cpu.py (the fast one on a CPU), cuda.py and bi_wkv.cu (the fast one on a CUDA device).
"""

import importlib.util
import math
import warnings

import torch
from torch import Tensor

from . import cuda, oracle, scan, tree

VARIANTS = ("paper", "published")
BACKENDS = ("auto", "oracle", "scan", "tree", "numba", "cuda")


def _check(w: Tensor, u: Tensor, k: Tensor, v: Tensor, variant: str, backend: str) -> None:
    if variant not in VARIANTS:
        raise ValueError(f"variant: expected one of {', '.join(VARIANTS)}, got {variant!r}")
    if backend not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")
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


def _choose(variant: str, backend: str, device: torch.device) -> str:
    if backend == "auto":
        if device.type == "cuda":
            return backend  # `_resolve` says, out of sight of torch.compile, which must not trace a compilation
        numba = variant == "paper" and device.type == "cpu" and importlib.util.find_spec("numba") is not None
        return "numba" if numba else "tree"
    if backend in ("scan", "numba") and variant == "published":
        raise ValueError(f"backend: variant 'published' has the backends oracle, tree and cuda, got {backend!r}")
    if backend == "cuda" and device.type != cuda.DEVICE_TYPE:
        raise ValueError(f"backend: 'cuda' runs on CUDA tensors, got tensors on {device}")
    if backend == "numba":
        if device.type != "cpu":
            raise ValueError(f"backend: 'numba' runs on CPU tensors, got tensors on {device}")
        if importlib.util.find_spec("numba") is None:
            raise ValueError("backend: 'numba' needs the package numba, which is missing: pip install numba")
    return backend


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
    _check(w, u, k, v, variant, backend)
    backend = _choose(variant, backend, k.device)
    # The book's backends are standard operations, which PyTorch differentiates by itself, in every way. The other ones
    # are operators of our own, of which it knows the first derivative, backward: elsewhere, and in a graph for ONNX,
    # the tree's operations stand in for them.
    if backend == "oracle":
        plain = oracle.published_oracle if variant == "published" else oracle.bi_wkv_oracle
    elif backend == "scan":
        plain = scan.bi_wkv_scan
    elif torch.onnx.is_in_onnx_export() or _transformed():
        plain = tree.published if variant == "published" else _tree_output
    else:
        plain = None
    if plain is not None:
        dtype = _accumulation_dtype(w, u, k)
        return plain(*(x.to(dtype) for x in (w, u, k, v))).to(v.dtype)
    if variant == "published":
        return _published(w, u, k, v, backend)
    # Only the gradients need the logarithm of the denominator, which costs a kernel as much time as the output does.
    recorded = torch.is_grad_enabled() and any(x.requires_grad for x in (w, u, k, v))
    if k.device.type == cuda.DEVICE_TYPE and backend in ("auto", "cuda") and _unobserved(w, u, k, v):
        return _Direct.apply(w, u, k, v, backend) if recorded else _forward(w, u, k, v, backend, False)[0]
    return _bi_wkv(w, u, k, v, backend, recorded)[0]


def _unobserved(*tensors: Tensor) -> bool:
    """Whether nobody looks on who has to see an operator: no compiler, tracer, transform, mode or tensor subclass."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    if torch._C._len_torch_dispatch_stack() or torch._C._functorch.peek_interpreter_stack() is not None:
        return False
    return all(type(x) in (Tensor, torch.nn.Parameter) for x in tensors)


@torch.compiler.assume_constant_result  # torch.compile guards both by itself
def _transformed() -> bool:
    """Whether forward-mode AD or a transform of torch.func that differentiates is under way."""
    if torch.autograd.forward_ad._current_level >= 0:  # of torch.func.jvp as well
        return True
    transforms = torch._C._functorch.get_interpreter_stack() or ()  # torch.func has no public way to ask
    kinds = torch._C._functorch.TransformType
    return any(transform.key() in (kinds.Grad, kinds.Jvp) for transform in transforms)


def _tree_output(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return tree.forward(w, u, k, v)[0]


def _resolve(backend: str, k: Tensor, dtype: torch.dtype) -> str:
    """The backend for "auto" on a CUDA device, where the kernel may be missing; `dtype` is that of the sums."""
    if backend == "auto":
        try:
            cuda.kernels(k.device, cuda.io_dtype(k, dtype))
        except cuda.KernelUnavailable as e:
            _warn_once(f"Bi-WKV runs on {k.device} by plain PyTorch operations, which is slower: {e}")
            return "tree"
        return "cuda"
    return backend


def _backend_module(backend: str):
    if backend == "numba":
        from . import numba_cpu  # a second to import, so only where it is used

        return numba_cpu
    return tree


def _accumulation_dtype(*tensors: Tensor) -> torch.dtype:
    return torch.float64 if any(x.dtype == torch.float64 for x in tensors) else torch.float32


@torch.library.custom_op("rwkvlib::bi_wkv", mutates_args=())
def _bi_wkv(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, backend: str, with_logden: bool = True
) -> tuple[Tensor, Tensor]:
    """(y in the dtype of v, log of the denominator in the accumulation dtype, or an empty tensor)."""
    return _forward(w, u, k, v, backend, with_logden)


def _forward(w: Tensor, u: Tensor, k: Tensor, v: Tensor, backend: str, with_logden: bool) -> tuple[Tensor, Tensor]:
    dtype = _accumulation_dtype(w, u, k)
    backend = _resolve(backend, k, dtype)
    if backend == "cuda":  # reads and writes half precision by itself
        y, logden = cuda.forward(*_prepared(dtype, cuda.io_dtype(k, dtype), w, u, k, v), with_logden)
    else:
        y, logden = _backend_module(backend).forward(*_prepared(dtype, dtype, w, u, k, v))
    return y.to(v.dtype), logden if with_logden else y.new_empty(0, dtype=dtype)


def _prepared(dtype: torch.dtype, io_dtype: torch.dtype, w: Tensor, u: Tensor, *others: Tensor) -> list[Tensor]:
    return [_as(x, dtype) for x in (w, u)] + [_as(x, io_dtype) for x in others]


def _as(x: Tensor, dtype: torch.dtype) -> Tensor:
    x = x if x.dtype == dtype else x.to(dtype)  # asking is quicker than a call that does nothing
    return x if x.is_contiguous() else x.contiguous()


@_bi_wkv.register_fake
def _(w, u, k, v, backend, with_logden=True):
    # Contiguous whatever the strides of k: all backends return it so.
    return v.new_empty(v.shape), k.new_empty(k.shape if with_logden else 0, dtype=_accumulation_dtype(w, u, k))


@torch.library.custom_op("rwkvlib::bi_wkv_backward", mutates_args=())
def _bi_wkv_backward(
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
    return _gradients(w, u, k, v, y, logden, gy, glogden, backend)


def _gradients(w, u, k, v, y, logden, gy, glogden, backend) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtype = logden.dtype
    backend = _resolve(backend, k, dtype)
    if backend == "cuda":
        inputs = _prepared(dtype, cuda.io_dtype(k, dtype), w, u, k, v, y, gy)
        glogden = None if glogden is None else glogden.contiguous()
        grads = cuda.backward(*inputs[:5], logden, inputs[5], glogden)
    else:
        g = gy.to(dtype)
        g_times_y = g * y.to(dtype)
        inputs = (w, u, k, v, logden, g, g_times_y if glogden is None else g_times_y - glogden)
        grads = _backend_module(backend).backward(*_prepared(dtype, dtype, *inputs))
    return tuple(_as(grad, x.dtype) for grad, x in zip(grads, (w, u, k, v), strict=True))


@_bi_wkv_backward.register_fake
def _(w, u, k, v, y, logden, gy, glogden, backend):
    return tuple(x.new_empty(x.shape) for x in (w, u, k, v))


def _setup_context(ctx, inputs, output):
    w, u, k, v, ctx.backend, _ = inputs
    ctx.save_for_backward(w, u, k, v, *output)
    ctx.set_materialize_grads(False)  # the logarithm's gradient is hardly ever there: no memory for its zeros


def _backward(ctx, gy, glogden, gradients=_bi_wkv_backward):
    if gy is None:
        if glogden is None:
            return None, None, None, None, None, None
        gy = torch.zeros_like(ctx.saved_tensors[4])
    if torch.is_grad_enabled():  # create_graph: these gradients will be differentiated again
        *tensors, _, logden = ctx.saved_tensors
        glogden = torch.zeros_like(logden) if glogden is None else glogden
        return *_vjp(tree.forward, tensors, logden.dtype, (gy.to(logden.dtype), glogden)), None, None
    return *gradients(*ctx.saved_tensors, gy, glogden, ctx.backend), None, None


class _Direct(torch.autograd.Function):
    """y of `_bi_wkv` without PyTorch's dispatcher, which takes the host longer than all of the kernels' launches."""

    @staticmethod
    def forward(ctx, w, u, k, v, backend):
        y, logden = _forward(w, u, k, v, backend, True)
        _setup_context(ctx, (w, u, k, v, backend, True), (y, logden))
        return y

    @staticmethod
    def backward(ctx, gy):
        return _backward(ctx, gy, None, _gradients)[:5]


def _vjp(function, tensors: list[Tensor], dtype: torch.dtype, cotangents: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    """The gradients of plain operations by PyTorch, which can differentiate them again."""
    _, vjp = torch.func.vjp(function, *(x.to(dtype) for x in tensors))
    return [grad.to(x.dtype) for grad, x in zip(vjp(cotangents), tensors, strict=True)]


_bi_wkv.register_autograd(_backward, setup_context=_setup_context)


@torch.library.custom_op("rwkvlib::bi_wkv_published", mutates_args=())
def _published(w: Tensor, u: Tensor, k: Tensor, v: Tensor, backend: str) -> Tensor:
    T, L = k.shape[1], math.ceil(k.shape[1] / 32)
    if T > 1024 or (w.numel() and w.device.type != "cuda" and w.abs().max().item() * L > 0.5):
        _warn_once(
            "variant 'published' is held to its reference for T <= 1024 and |w| ceil(T / 32) <= 0.5 only; beyond, its "
            "denominator can cross zero and the output is not to be trusted"
        )
    dtype = _accumulation_dtype(w, u, k)
    inputs = _prepared(dtype, dtype, w, u, k, v)
    if _resolve(backend, inputs[2], dtype) == "cuda":
        return cuda.published_forward(*inputs)[0].to(v.dtype)
    return tree.published(*inputs).to(v.dtype)


@_published.register_fake
def _(w, u, k, v, backend):
    return v.new_empty(v.shape)


@torch.library.custom_op("rwkvlib::bi_wkv_published_backward", mutates_args=())
def _published_backward(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, gy: Tensor, backend: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtype = _accumulation_dtype(w, u, k)
    inputs = _prepared(dtype, dtype, w, u, k, v, gy)
    if _resolve(backend, inputs[2], dtype) == "cuda":
        grads = cuda.published_backward(*inputs)
    else:
        _, vjp = torch.func.vjp(tree.published, *inputs[:4])
        grads = vjp(inputs[4])
    return tuple(grad.to(x.dtype).contiguous() for grad, x in zip(grads, (w, u, k, v), strict=True))


@_published_backward.register_fake
def _(w, u, k, v, gy, backend):
    return tuple(x.new_empty(x.shape) for x in (w, u, k, v))


def _published_setup_context(ctx, inputs, output):
    *tensors, ctx.backend = inputs
    ctx.save_for_backward(*tensors)


def _published_autograd(ctx, gy):
    # The true derivative of that forward; computed anew, so that only the inputs are kept in between.
    tensors = ctx.saved_tensors
    if torch.is_grad_enabled():
        dtype = _accumulation_dtype(*tensors)
        return *_vjp(tree.published, tensors, dtype, gy.to(dtype)), None
    return *_published_backward(*tensors, gy, ctx.backend), None


_published.register_autograd(_published_autograd, setup_context=_published_setup_context)

_warned: set[str] = set()


def _warn_once(message: str) -> None:
    if message not in _warned:  # once a process: every layer of a model would say it again
        _warned.add(message)
        warnings.warn(message, RuntimeWarning, stacklevel=3)
