"""What paper.py and published.py, the two operators of PyTorch, share."""

import warnings
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

library = torch.library.Library("rwkvlib", "FRAGMENT")


def operator(name: str) -> Callable[[Callable], torch._ops.OpOverload]:
    """Makes a function on tensors an operator of PyTorch, as torch.library.custom_op does. But an operator of that kind
    imports torch.compile's machinery at its first call, which takes seconds, and checks more at each call."""

    def register(function: Callable) -> torch._ops.OpOverload:
        schema = torch.library.infer_schema(function, mutates_args=(), op_name=name)
        library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
        library.impl(name, function, "CompositeExplicitAutograd")
        return getattr(torch.ops.rwkvlib, name).default

    return register


def accumulation_dtype(*tensors: Tensor) -> torch.dtype:
    """The dtype of the sums: float64 where one of the tensors is, else float32."""
    return torch.float64 if any(x.dtype == torch.float64 for x in tensors) else torch.float32


def prepared(dtype: torch.dtype, io_dtype: torch.dtype, w: Tensor, u: Tensor, *others: Tensor) -> list[Tensor]:
    """Contiguous tensors: w and u in the first dtype, the others in the second."""
    return [x.to(dtype).contiguous() for x in (w, u)] + [x.to(io_dtype).contiguous() for x in others]


def as_inputs(grads: Iterable[Tensor], inputs: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """Each gradient in the dtype of its input, contiguous."""
    return tuple(grad.to(x.dtype).contiguous() for grad, x in zip(grads, inputs, strict=True))


def vjp(
    function: Callable, tensors: Iterable[Tensor], dtype: torch.dtype, cotangents: Tensor | tuple[Tensor, ...]
) -> list[Tensor]:
    """The gradients of plain operations in `dtype` by PyTorch, which can differentiate them again."""
    _, pull = torch.func.vjp(function, *(x.to(dtype) for x in tensors))
    return [grad.to(x.dtype) for grad, x in zip(pull(cotangents), tensors, strict=True)]


_warned: set[str] = set()


def warn_once(message: str) -> None:
    """Warns of it once a process: every layer of a model would say it again."""
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, RuntimeWarning, stacklevel=3)
