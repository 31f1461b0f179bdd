"""The backends of Bi-WKV, one row each, and the choice among them. A new one is a row here and a file of its own."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from . import cuda, oracle, scan, tree
from .operators import warn_once

VARIANTS = ("paper", "published")


@dataclass(frozen=True)
class Backend:
    """What a backend computes, where, and by which functions; all tensors that they are given are contiguous.

    Attributes:
        forward: for each variant that it has, a function of w, u (C,) and k, v (B, T, C) that returns y. Of variant
            "paper", unless `plain`: a function of (w, u, k, v, with_logden) that returns y and the logarithm of its
            denominator, in the dtype of w, or None.
        backward: for each variant, what returns the gradients of w, u, k, v: "paper", of (w, u, k, v, y, logden, g,
            glogden), where g and glogden are the gradients of y and logden, the latter None for zero; "published", of
            (w, u, k, v, g). Empty for plain PyTorch operations, which PyTorch differentiates by itself.
        device: the type of device that it runs on; None: any.
        unavailable: a function of a device and a dtype of k and v that says why the backend cannot be had there, or
            None. Asked by "auto" alone; by name, forward and backward raise an error that says so.
        silent: "auto" passes over it without a warning where it cannot be had.
        io_dtype: a function of k and the dtype of the sums: the dtype in which k, v, y and g are given. w, u, logden
            and glogden have that of the sums, float64 or float32, and so has everything of variant "published".
    """

    forward: dict[str, Callable]
    backward: dict[str, Callable]
    device: str | None = None
    unavailable: Callable[[torch.device, torch.dtype], str | None] = lambda device, dtype: None
    silent: bool = False
    io_dtype: Callable[[Tensor, torch.dtype], torch.dtype] = lambda k, dtype: dtype

    @property
    def plain(self) -> bool:
        """Whether it is plain PyTorch operations, which PyTorch differentiates by itself, in every way."""
        return not self.backward

    def runs_on(self, device: torch.device) -> bool:
        """Whether that is its type of device."""
        return self.device in (None, device.type)


def _no_numba(device: torch.device, dtype: torch.dtype) -> str | None:
    return None if importlib.util.find_spec("numba") else "needs the package numba, which is missing: pip install numba"


def _numba(name: str) -> Callable:
    """A function of numba_cpu.py, which takes a second to import, so that it is imported only where it is used."""

    def call(w, *others):
        if why := _no_numba(w.device, w.dtype):
            raise ValueError(f"backend: 'numba' {why}")
        from . import numba_cpu

        return getattr(numba_cpu, name)(w, *others)

    return call


# From the definition to the fastest: "auto" takes the last row that has the variant, runs on the device of k and can be
# had. The order is that of tests and messages, too.
TABLE = {
    "oracle": Backend(
        forward={"paper": oracle.bi_wkv_oracle, "published": oracle.published_oracle},
        backward={},
    ),
    "scan": Backend(
        forward={"paper": scan.bi_wkv_scan},
        backward={},
    ),
    "tree": Backend(
        forward={"paper": tree.forward, "published": tree.published},
        backward={"paper": tree.backward, "published": tree.published_backward},
    ),
    "numba": Backend(
        forward={"paper": _numba("forward")},
        backward={"paper": _numba("backward")},
        device="cpu",
        unavailable=_no_numba,
        silent=True,
    ),
    "cuda": Backend(
        forward={"paper": cuda.forward, "published": cuda.published_forward},
        backward={"paper": cuda.backward, "published": cuda.published_backward},
        device="cuda",
        unavailable=cuda.unavailable,
        io_dtype=cuda.io_dtype,  # it reads half precision by itself
    ),
}
# Stands in for backends with a backward of their own in forward mode, under torch.func and in a graph for ONNX.
STAND_IN = {"paper": tree.bi_wkv_tree, "published": tree.published}


def check(backend: str, variant: str, device: torch.device) -> None:
    """Refuses a name that is none, and a backend that has not this variant or runs on other devices.

    Raises:
        ValueError: says what was expected.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant: expected one of {', '.join(VARIANTS)}, got {variant!r}")
    if backend == "auto":
        return
    if backend not in TABLE:
        raise ValueError(f"backend: expected one of auto, {', '.join(TABLE)}, got {backend!r}")
    row = TABLE[backend]
    if variant not in row.forward:
        *names, last = [name for name, other in TABLE.items() if variant in other.forward]
        raise ValueError(
            f"backend: variant {variant!r} has the backends {', '.join(names)} and {last}, got {backend!r}"
        )
    if row.device and not row.runs_on(device):
        raise ValueError(f"backend: {backend!r} runs on {row.device.upper()} tensors, got tensors on {device}")


def choose(backend: str, variant: str, k: Tensor, dtype: torch.dtype) -> Backend:
    """The row of that name, or what "auto" takes for k and sums in `dtype`, with a warning where a kernel is missing.

    Called inside of the operators alone, out of sight of torch.compile, which must not trace a compilation.
    """
    if backend != "auto":
        return TABLE[backend]
    for name, row in reversed(TABLE.items()):
        if variant not in row.forward or not row.runs_on(k.device):
            continue
        why = row.unavailable(k.device, row.io_dtype(k, dtype))
        if why is None:
            break
        if not row.silent:
            warn_once(f"Bi-WKV runs on {k.device} without backend {name!r}, more slowly: {why}")
    return row
