"""What the tests of the operator share."""

import dataclasses
import math
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rwkvlib.wkv import cuda
from rwkvlib.wkv.backends import TABLE

GOLDEN = Path(__file__).parents[1] / "reference" / "bi_wkv_T49_T196.npz"
# The operator as models use it.
PATHS = [("paper", "numba"), ("paper", "tree"), ("paper", "cuda"), ("published", "tree"), ("published", "cuda")]
WIDE = 240.0  # stands for k uniform in +-240; any other k is the standard deviation of a normal one

_compiled = {}


def change_backend(patch: pytest.MonkeyPatch, name: str, **fields) -> None:
    """Gives the row of that backend other fields."""
    patch.setitem(TABLE, name, dataclasses.replace(TABLE[name], **fields))


def use_host_kernels(patch: pytest.MonkeyPatch, folder: Path, compiler: str, block: tuple[int, int, int]) -> None:
    """Let backend "cuda" run on CPU tensors, by bi_wkv.cu compiled for the CPU with blocks of that size."""
    from tests.wkv.host_kernels import HostKernels, compile_host

    for name, value in zip(("LANES", "SEGMENTS", "TOKENS"), block, strict=True):
        patch.setattr(cuda, name, value)

    def kernels(device: torch.device, dtype: torch.dtype) -> HostKernels:
        if (block, dtype) not in _compiled:
            name = "_".join([str(dtype).removeprefix("torch."), *map(str, block)]) + ".so"
            _compiled[block, dtype] = HostKernels(compile_host(folder, compiler, dtype, output=name))
        return _compiled[block, dtype]

    patch.setattr(cuda, "kernels", kernels)
    change_backend(patch, "cuda", device="cpu")


@pytest.fixture(autouse=True)
def cuda_on_a_cpu(request, monkeypatch, tmp_path_factory):
    """Tests of backend "cuda" run here without a GPU; small blocks, so that even short sequences have many chunks."""
    if "cuda" in getattr(getattr(request.node, "callspec", None), "params", {}).values():
        compiler = request.getfixturevalue("require_tool")("g++")
        folder = tmp_path_factory.getbasetemp() / "kernels"
        folder.mkdir(exist_ok=True)
        use_host_kernels(monkeypatch, folder, compiler, (2, 3, 5))


def make_inputs(B: int, T: int, C: int, w: float, k: float = 1.0, dtype=torch.float64, seed: int = 0) -> list[Tensor]:
    """w, u, k, v. Every channel has a decay of its own, between w / 2 and w; u and v are N(0, 1)."""
    g = torch.Generator().manual_seed(seed)
    u, logits, v = (torch.randn(shape, generator=g) for shape in ((C,), (B, T, C), (B, T, C)))
    logits = logits.uniform_(-WIDE, WIDE, generator=g) if k == WIDE else k * logits
    return [x.to(dtype) for x in (w * torch.linspace(1, 0.5, C), u, logits, v)]  # rounded to float32 in any dtype


def published_decay(T: int, share: float = 1.0) -> float:
    """The share of the largest decay for which variant "published" is held to its reference."""
    return share * 0.5 / math.ceil(T / 32)


def by_channel(function: Callable, w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The function for one batch item and channel at a time: a (T, T) table in memory, not a (B, T, T, C) one."""

    def one(b: int, c: slice) -> Tensor:
        return function(w[c], u[c], k[b : b + 1, :, c], v[b : b + 1, :, c])

    B, _, C = k.shape
    return torch.cat([torch.cat([one(b, slice(c, c + 1)) for c in range(C)], dim=2) for b in range(B)])


def gradients(function: Callable, tensors: Iterable[Tensor], gy: Tensor) -> list[Tensor]:
    """Of `function(*tensors)` against the upstream gradient gy."""
    tensors = [x.detach().requires_grad_() for x in tensors]
    return list(torch.autograd.grad(function(*tensors), tensors, gy, allow_unused=True, materialize_grads=True))


def golden(T: int) -> dict[str, Tensor]:
    """The stored arrays for that T; k, v and what depends on them as (1, T, C)."""
    with np.load(GOLDEN) as file:
        found = {key.removesuffix(f"_{T}"): torch.from_numpy(file[key]) for key in file if key.endswith(f"_{T}")}
    return {name: x[None] if x.ndim == 2 else x for name, x in found.items()}


def assert_near(actual: Tensor, expected: Tensor, tolerance: float, what: str = "") -> None:
    """The largest absolute error, where `expected` is larger than 1 relative to its largest element."""
    assert actual.isfinite().all(), f"{what}: not finite"
    error = (actual.double() - expected.double()).abs().max().item()
    allowed = tolerance * max(1.0, expected.abs().max().item())
    assert error <= allowed, f"{what}: largest error {error:.2e}, allowed {allowed:.2e}"
