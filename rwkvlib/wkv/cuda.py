"""Bi-WKV on a CUDA device: bi_wkv.cu, compiled at first use by NVRTC (optional: ``pip install "rwkvlib[cuda]"``).

No CUDA toolkit, no compiler and no header is needed, and nothing is compiled at import. What was compiled is kept in
`cache_folder`, by the hash of the source and options, the architecture and NVRTC's version.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import re
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from ..files import write_file

LANES, SEGMENTS, TOKENS = 32, 8, 8  # see bi_wkv.cu; a block has LANES * SEGMENTS threads
IO_TYPES = {torch.float32: "float", torch.float64: "double", torch.float16: "Half", torch.bfloat16: "BFloat16"}


class KernelUnavailable(RuntimeError):
    """Why there is no CUDA kernel here, and what helps."""


def cache_folder() -> Path:
    """Where compiled kernels are kept: beside torch.hub's folder, so TORCH_HOME and XDG_CACHE_HOME move it."""
    return Path(torch.hub.get_dir()).parent / "rwkvlib"


def source() -> str:
    """The text of bi_wkv.cu."""
    return Path(__file__).with_name("bi_wkv.cu").read_text(encoding="utf8")


def macros(dtype: torch.dtype) -> dict[str, str]:
    """The macros that bi_wkv.cu is compiled with for k and v of that dtype."""
    real = "double" if dtype == torch.float64 else "float"
    sizes = dict(LANES=LANES, SEGMENTS=SEGMENTS, TOKENS=TOKENS)
    return dict(IO=IO_TYPES[dtype], REAL=real, **{name: str(size) for name, size in sizes.items()})


def remedy() -> str:
    """What installs the packages that the kernel needs, for this PyTorch."""
    major = (torch.version.cuda or "13").split(".")[0]
    return f"for the CUDA kernel: pip install 'cuda-core[cu{major}]'; python -m rwkvlib doctor checks it"


def nvrtc_version() -> str:
    """The version of the NVRTC library, which this loads.

    Raises:
        KernelUnavailable: cuda-core, cuda-bindings or NVRTC is missing.
    """
    try:
        import cuda.core  # noqa: F401  (0.1 s: only where a kernel is asked for)
        from cuda.bindings import nvrtc

        error, major, minor = nvrtc.nvrtcVersion()
    except ImportError as e:
        raise KernelUnavailable(f"the packages cuda-core and cuda-bindings are needed ({e}); {remedy()}") from e
    except Exception as e:  # what is raised where the library is not found differs from version to version
        raise KernelUnavailable(f"NVRTC cannot be loaded ({str(e).splitlines()[0]}); {remedy()}") from e
    if int(error) != 0:
        raise KernelUnavailable(f"NVRTC does not tell its version ({error}); {remedy()}")
    return f"{major}.{minor}"


def compile_kernels(dtype: torch.dtype, arch: str, log: object | None = None) -> bytes:
    """Compiles bi_wkv.cu for k and v of `dtype` and an architecture such as "sm_90", by NVRTC; needs no GPU.

    Args:
        log: an object with a method write, which is given the compiler's report on registers and memory.

    Returns:
        The cubin.

    Raises:
        KernelUnavailable: a package is missing, or the compiler refuses (an architecture that it does not know).
    """
    version = nvrtc_version()
    from cuda.core import Program, ProgramOptions

    options = ProgramOptions(
        name="bi_wkv.cu",
        arch=arch,
        std="c++17",
        use_fast_math=True,
        ptxas_options=["-v"] if log else None,
        define_macro=list(macros(dtype).items()),
    )
    try:
        return bytes(Program(source(), "c++", options).compile("cubin", logs=log).code)
    except Exception as e:
        raise KernelUnavailable(
            f"NVRTC {version} does not compile bi_wkv.cu for {arch}: {e}\nA newer NVRTC may; {remedy()}"
        ) from e


def compiled(dtype: torch.dtype, arch: str) -> bytes:
    """As `compile_kernels`, from the cache where it holds a whole entry, else into it."""
    text = repr((source(), sorted(macros(dtype).items())))
    name = f"bi_wkv-{hashlib.sha256(text.encode()).hexdigest()[:16]}-{arch}-nvrtc{nvrtc_version()}.cubin"
    path = cache_folder() / name
    try:
        checksum, cubin = path.read_bytes().split(b"\n", 1)
        if hashlib.sha256(cubin).hexdigest().encode() == checksum:
            return cubin
    except (OSError, ValueError):  # no entry, none that may be read, or a cut one
        pass
    cubin = compile_kernels(dtype, arch)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, hashlib.sha256(cubin).hexdigest().encode() + b"\n" + cubin)
    except OSError as e:
        warnings.warn(f"the compiled kernel cannot be kept ({e}); every process compiles it anew", stacklevel=2)
    return cubin


class _TorchStream:
    """PyTorch's current stream of a device, as cuda-core takes streams of others."""

    def __init__(self, device: torch.device):
        self.handle = torch.cuda.current_stream(device).cuda_stream

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.handle


@contextlib.contextmanager
def _current(device: torch.device) -> Iterator[None]:
    """Makes the device current for PyTorch and for the driver."""
    from cuda.core import Device

    with torch.cuda.device(device):
        # A thread in which PyTorch has called nothing of CUDA yet has no context, and the driver makes none.
        Device(device.index).set_current()
        yield


class Kernels:
    """The kernels of bi_wkv.cu on one device, for one dtype of k and v."""

    def __init__(self, device: torch.device, dtype: torch.dtype):
        if torch.version.hip:
            raise KernelUnavailable("bi_wkv.cu is for NVIDIA's GPUs; this PyTorch is built for AMD's")
        cubin = compiled(dtype, "sm_{}{}".format(*torch.cuda.get_device_capability(device)))
        from cuda.core import ObjectCode

        self.device = device
        with _current(device):
            self.module = ObjectCode.from_cubin(cubin)
            # The names are read from the source, not listed here a second time.
            names = re.findall(r"^KERNEL (\w+)\(", source(), re.MULTILINE)
            self.functions = {name: self.module.get_kernel(name) for name in names}

    def launch(self, name: str, blocks: int, *arguments: Tensor | int | None) -> None:
        """Runs a kernel on PyTorch's current stream. Every argument takes 8 bytes: a pointer, which may be null, or an
        integer."""
        from cuda.core import LaunchConfig, launch

        values = [x.data_ptr() if isinstance(x, Tensor) else x or 0 for x in arguments]
        with _current(self.device):
            config = LaunchConfig(grid=blocks, block=(LANES, SEGMENTS))
            launch(_TorchStream(self.device), config, self.functions[name], *values)


_found: dict[tuple[torch.device, torch.dtype], Kernels | KernelUnavailable] = {}
_lock = threading.Lock()


def kernels(device: torch.device, dtype: torch.dtype) -> Kernels:
    """The kernels for that device and dtype of k and v, made at the first call and kept.

    Raises:
        KernelUnavailable: there are none here; the message says why, and what helps.
    """
    with _lock:
        if (device, dtype) not in _found:
            try:
                _found[device, dtype] = Kernels(device, dtype)
            except KernelUnavailable as e:
                _found[device, dtype] = e
        found = _found[device, dtype]
    if isinstance(found, KernelUnavailable):
        raise found
    return found


def unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why there are no kernels for that device and dtype of k and v, and what helps; None where there are."""
    try:
        kernels(device, dtype)
    except KernelUnavailable as e:
        return str(e)
    return None


def io_dtype(k: Tensor, dtype: torch.dtype) -> torch.dtype:
    """The dtype in which the kernels read k and v where they sum in `dtype`; double sums are for tests."""
    return k.dtype if k.dtype in IO_TYPES and dtype != torch.float64 else dtype


def _chunks(T: int) -> tuple[int, int]:
    """The number of chunks, and the length of their segments: as equal as possible, so that few threads idle."""
    chunks = math.ceil(T / (SEGMENTS * TOKENS))
    length = math.ceil(T / (SEGMENTS * chunks))
    return math.ceil(T / (SEGMENTS * length)), length


def _carries(which: str, run: Kernels, w: Tensor, inputs: list, sizes: tuple, chunks: int, length: int) -> Tensor:
    """What comes into every chunk from either side: a state of 3 (forward) or 5 (backward) numbers for each."""
    B, T, C = sizes
    blocks = math.ceil(C / LANES)
    states = w.new_empty(B, chunks, 2, 3 if which.endswith("forward") else 5, C)
    segment_is_chunk = which.startswith("published")
    rows = math.ceil(chunks / SEGMENTS) if segment_is_chunk else chunks
    run.launch(f"{which}_summaries", B * rows * blocks, w, *inputs, states, T, C, chunks, length)
    tokens = length if segment_is_chunk else length * SEGMENTS
    run.launch(f"{which.removeprefix('published_')}_carries", B * blocks, w, states, C, chunks, tokens)
    return states


def _sum_rows(run: Kernels, partial: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of w and u from those of the blocks, (rows, 2, C)."""
    rows, _, C = partial.shape
    dw, du = partial.new_empty(C), partial.new_empty(C)
    run.launch("sum_rows", math.ceil(2 * C / LANES), partial, dw, du, rows, C)
    return dw, du


def forward(w: Tensor, u: Tensor, k: Tensor, v: Tensor, with_logden: bool = True) -> tuple[Tensor, Tensor | None]:
    """Bi-WKV, and the logarithm of its denominator in the dtype of w or None; both (B, T, C), for CUDA tensors.

    w and u are float32 or float64, k and v of any of `IO_TYPES`; all are contiguous.
    """
    B, T, C = k.shape
    run = kernels(k.device, k.dtype)
    y, logden = torch.empty_like(v), torch.empty_like(k, dtype=w.dtype) if with_logden else None
    if B:
        chunks, length = _chunks(T)
        states = _carries("forward", run, w, [k, v], (B, T, C), chunks, length) if chunks > 1 else None
        blocks = B * chunks * math.ceil(C / LANES)
        run.launch("forward", blocks, w, u, k, v, states, y, logden, T, C, chunks, length)
    return y, logden


def backward(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, y: Tensor, logden: Tensor, g: Tensor, glogden: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of w, u, k, v from those of y and of logden (None: zero), all contiguous."""
    B, T, C = k.shape
    run = kernels(k.device, k.dtype)
    dk, dv = torch.empty_like(k), torch.empty_like(v)
    if not B:
        return torch.zeros_like(w), torch.zeros_like(u), dk, dv
    chunks, length = _chunks(T)
    outputs = [y, logden, g, glogden]
    states = _carries("backward", run, w, outputs, (B, T, C), chunks, length) if chunks > 1 else None
    partial = w.new_empty(B * chunks, 2, C)
    blocks = B * chunks * math.ceil(C / LANES)
    run.launch("backward", blocks, w, u, k, v, *outputs, states, dk, dv, partial, T, C, chunks, length)
    return *_sum_rows(run, partial), dk, dv


def _published(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`published_forward`, the logarithm of the denominator's absolute value, and its sign."""
    B, T, C = k.shape
    run = kernels(k.device, k.dtype)
    y, logden, sign = (torch.empty_like(k) for _ in range(3))
    if B:
        length = math.ceil(T / 32)  # the published kernel's chunk
        segments = math.ceil(T / length)
        states = _carries("published_forward", run, w, [k, v], (B, T, C), segments, length)
        blocks = B * math.ceil(segments / SEGMENTS) * math.ceil(C / LANES)
        run.launch("published_forward", blocks, w, u, k, v, states, y, logden, sign, T, C, segments, length)
    return y, logden, sign


def published_forward(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What the published kernel computes. All of one dtype, float32 or float64, and contiguous."""
    return _published(w, u, k, v)[0]


def published_backward(w: Tensor, u: Tensor, k: Tensor, v: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The derivative of that: gradients of w, u, k, v. The forward pass is run anew, so that only inputs are kept."""
    B, T, C = k.shape
    run = kernels(k.device, k.dtype)
    dk, dv = torch.empty_like(k), torch.empty_like(v)
    if not B:
        return torch.zeros_like(w), torch.zeros_like(u), dk, dv
    y, logden, sign = _published(w, u, k, v)
    length = math.ceil(T / 32)
    segments = math.ceil(T / length)
    rows = math.ceil(segments / SEGMENTS)
    outputs = [y, logden, g, sign]
    states = _carries("published_backward", run, w, outputs, (B, T, C), segments, length)
    partial = w.new_empty(B * rows, 2, C)
    blocks = B * rows * math.ceil(C / LANES)
    run.launch("published_backward", blocks, w, u, k, v, *outputs, states, dk, dv, partial, T, C, segments, length)
    return *_sum_rows(run, partial), dk, dv
