"""Bi-WKV on a CUDA device: bi_wkv.cu, compiled at first use by NVRTC (optional: ``pip install "rwkvlib[cuda]"``).

No CUDA toolkit, no compiler and no header is needed, and nothing is compiled at import. What was compiled is kept in
`cache_folder`, by the hash of the source and options, the architecture and NVRTC's version.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import os
import re
import tempfile
import threading
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

# See bi_wkv.cu. A block has LANES channels and up to SEGMENTS segments, or half the channels and up to WHOLE times the
# segments, where these hold all tokens.
LANES, SEGMENTS, TOKENS, WHOLE = 16, 16, 16, 4
IO_TYPES = {torch.float32: "float", torch.float64: "double", torch.float16: "Half", torch.bfloat16: "BFloat16"}


DEVICE_TYPE = "cuda"  # the tests put "cpu" here, and kernels that they have compiled for it


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
    threads = max(LANES * SEGMENTS, half_lanes() * most_segments(dtype))
    return dict(IO=IO_TYPES[dtype], REAL=real, TOKENS=str(tokens(dtype)), THREADS=str(threads))


def half_lanes() -> int:
    """Channels of a block that holds more than SEGMENTS segments."""
    return max(1, LANES // 2)


def tokens(dtype: torch.dtype) -> int:
    """Tokens of a segment for k and v of that dtype: doubles, which are for tests, take twice the registers."""
    return max(1, TOKENS // 2) if dtype == torch.float64 else TOKENS


def most_segments(dtype: torch.dtype) -> int:
    """Segments of the largest block, for k and v of that dtype."""
    return max(1, WHOLE // 2 if dtype == torch.float64 else WHOLE) * SEGMENTS


def remedy() -> str:
    """What installs the packages that the kernel needs, for this PyTorch."""
    major = (torch.version.cuda or "13").split(".")[0]
    return f"for the CUDA kernel: pip install 'cuda-core[cu{major}]'"


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
    """Compile bi_wkv.cu for k and v of `dtype` and an architecture such as "sm_90", by NVRTC; needs no GPU.

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
        handle, temporary = tempfile.mkstemp(prefix=name, suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(cubin).hexdigest().encode() + b"\n" + cubin)
            os.replace(temporary, path)  # whoever writes the same entry at the same time: one whole file stays
        finally:
            Path(temporary).unlink(missing_ok=True)
    except OSError as e:
        warnings.warn(f"the compiled kernel cannot be kept ({e}); every process compiles it anew", stacklevel=2)
    return cubin


_thread = threading.local()  # .devices: those whose context this thread has made current before


@contextlib.contextmanager
def _current(device: torch.device) -> Iterator[None]:
    """Makes the device current for PyTorch and for the driver."""
    from cuda.core import Device

    with torch.cuda.device(device):
        # A thread in which PyTorch has called nothing of CUDA yet has no context, and the driver makes none.
        Device(device.index).set_current()
        _thread.devices = {device.index, *getattr(_thread, "devices", ())}
        yield


class Launcher:
    """The kernels of a cubin, loaded on one device.

    In a network, whose tensors are small, the device waits for Python. So what a launch needs is kept from call to
    call, and a call hands over all its launches at once.
    """

    def __init__(self, device: torch.device, cubin: bytes, names: Iterable[str]):
        from cuda.core import LaunchConfig, ObjectCode, Stream, launch

        self.device, self._launch = device, launch
        self._config = functools.lru_cache(1024)(lambda blocks, block: LaunchConfig(grid=blocks, block=block))
        self._stream = functools.lru_cache(64)(Stream.from_handle)
        with _current(device):
            self.module = ObjectCode.from_cubin(cubin)
            self.functions = {name: self.module.get_kernel(name) for name in names}

    def launch(self, *launches: tuple) -> None:
        """Run kernels on PyTorch's current stream, one after the other.

        Each is (name, blocks, threads of a block, arguments ...); every argument takes 8 bytes: a pointer, which may be
        null, or an integer.
        """
        index = self.device.index
        if torch.cuda.current_device() == index and index in getattr(_thread, "devices", ()):
            self._run(launches)
        else:
            with _current(self.device):
                self._run(launches)

    def _run(self, launches: Iterable[tuple]) -> None:
        stream = self._stream(torch.cuda.current_stream(self.device).cuda_stream)
        for name, blocks, block, *arguments in launches:
            values = [x.data_ptr() if isinstance(x, Tensor) else x or 0 for x in arguments]
            self._launch(stream, self._config(blocks, block), self.functions[name], *values)


class Kernels(Launcher):
    """The kernels of bi_wkv.cu on one device, for one dtype of k and v."""

    def __init__(self, device: torch.device, dtype: torch.dtype):
        if torch.version.hip:
            raise KernelUnavailable("bi_wkv.cu is for NVIDIA's GPUs; this PyTorch is built for AMD's")
        cubin = compiled(dtype, "sm_{}{}".format(*torch.cuda.get_device_capability(device)))
        # The names are read from the source, not listed here a second time.
        super().__init__(device, cubin, re.findall(r"^KERNEL (\w+)\(", source(), re.MULTILINE))


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


def io_dtype(k: Tensor, dtype: torch.dtype) -> torch.dtype:
    """The dtype in which the kernels read k and v where they sum in `dtype`; double sums are for tests."""
    return k.dtype if k.dtype in IO_TYPES and dtype != torch.float64 else dtype


def _chunks(T: int, dtype: torch.dtype = torch.float32) -> tuple[int, tuple[int, int]]:
    """The number of chunks, and a block's channels and segments: as equal as possible, so that few threads idle."""
    segments = math.ceil(T / tokens(dtype))
    if SEGMENTS < segments <= most_segments(dtype):
        return 1, (half_lanes(), segments)
    chunks = math.ceil(segments / SEGMENTS)
    segments = math.ceil(segments / chunks)
    return math.ceil(T / (segments * tokens(dtype))), (LANES, segments)


def _carries(
    which: str, w: Tensor, inputs: list, states: Tensor, sizes: tuple, chunks: int, block: tuple
) -> list[tuple]:
    """The launches that put into `states` what comes into every chunk from either side."""
    (B, T, C), (lanes, segments) = sizes, block
    summaries = (f"{which}_summaries", B * chunks * math.ceil(C / lanes), block, w, *inputs, states, T, C, chunks)
    length = segments * tokens(inputs[0].dtype)
    blocks = B * math.ceil(C / LANES)
    return [summaries, (f"{which}_carries", blocks, (LANES, SEGMENTS), w, states, C, chunks, length)]


def _published_carries(which: str, w: Tensor, inputs: list, states: Tensor, sizes: tuple, length: int) -> list[tuple]:
    """The same for variant "published", where a segment is a chunk."""
    B, T, C = sizes
    segments, tiles, block = math.ceil(T / length), math.ceil(C / LANES), (LANES, SEGMENTS)
    blocks = B * math.ceil(segments / SEGMENTS) * tiles
    summaries = (f"published_{which}_summaries", blocks, block, w, *inputs, states, T, C, segments, length)
    return [summaries, (f"{which}_carries", B * tiles, block, w, states, C, segments, length)]


def _states(w: Tensor, B: int, chunks: int, C: int, numbers: int, rows: int = 0) -> tuple[Tensor, Tensor]:
    """Memory for every chunk's state on either side, of so many numbers each, and for `rows` times the gradients of w
    and u: in one piece, as each takes the host as long as a launch."""
    size = B * chunks * 2 * numbers * C
    memory = w.new_empty(size + rows * 2 * C)
    return memory[:size], memory[size:]


def _sum_rows(partial: Tensor, rows: int, C: int) -> tuple[Tensor, Tensor, tuple]:
    """The gradients of w and u, and the launch that adds them up from those of the blocks, (rows, 2, C)."""
    dw, du = partial.new_empty(C), partial.new_empty(C)
    return dw, du, ("sum_rows", math.ceil(2 * C / LANES), (LANES, SEGMENTS), partial, dw, du, rows, C)


def forward(w: Tensor, u: Tensor, k: Tensor, v: Tensor, with_logden: bool = True) -> tuple[Tensor, Tensor | None]:
    """Bi-WKV, and the logarithm of its denominator in the dtype of w or None; both (B, T, C), for CUDA tensors.

    w and u are float32 or float64, k and v of any of `IO_TYPES`; all are contiguous.
    """
    B, T, C = k.shape
    y, logden = torch.empty_like(v), torch.empty_like(k, dtype=w.dtype) if with_logden else None
    run = kernels(k.device, k.dtype)
    if B:
        chunks, block = _chunks(T, k.dtype)
        states, launches = None, []
        if chunks > 1:
            states, _ = _states(w, B, chunks, C, 3)
            launches = _carries("forward", w, [k, v], states, (B, T, C), chunks, block)
        blocks = B * chunks * math.ceil(C / block[0])
        run.launch(*launches, ("forward", blocks, block, w, u, k, v, states, y, logden, T, C, chunks))
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
    chunks, block = _chunks(T, k.dtype)
    several = chunks > 1
    states, partial = _states(w, B, chunks if several else 0, C, 5, B * chunks)
    outputs = [y, logden, g, glogden]
    launches = _carries("backward", w, outputs, states, (B, T, C), chunks, block) if several else []
    dw, du, sum_rows = _sum_rows(partial, B * chunks, C)
    blocks = B * chunks * math.ceil(C / block[0])
    arguments = (w, u, k, v, *outputs, states if several else None, dk, dv, partial, T, C, chunks)
    run.launch(*launches, ("backward", blocks, block, *arguments), sum_rows)
    return dw, du, dk, dv


def published_forward(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the published kernel computes, the logarithm of the denominator's absolute value, and its sign.

    All of one dtype, float32 or float64, and contiguous.
    """
    B, T, C = k.shape
    run = kernels(k.device, k.dtype)
    y, logden, sign = (torch.empty_like(k) for _ in range(3))
    if B:
        length = math.ceil(T / 32)  # the published kernel's chunk
        segments = math.ceil(T / length)
        states, _ = _states(w, B, segments, C, 3)
        launches = _published_carries("forward", w, [k, v], states, (B, T, C), length)
        blocks, block = B * math.ceil(segments / SEGMENTS) * math.ceil(C / LANES), (LANES, SEGMENTS)
        arguments = (w, u, k, v, states, y, logden, sign, T, C, segments, length)
        run.launch(*launches, ("published_forward", blocks, block, *arguments))
    return y, logden, sign


def published_backward(w: Tensor, u: Tensor, k: Tensor, v: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The derivative of that: gradients of w, u, k, v. The forward pass is run anew, so that only inputs are kept."""
    B, T, C = k.shape
    run = kernels(k.device, k.dtype)
    dk, dv = torch.empty_like(k), torch.empty_like(v)
    if not B:
        return torch.zeros_like(w), torch.zeros_like(u), dk, dv
    y, logden, sign = published_forward(w, u, k, v)
    length = math.ceil(T / 32)
    segments = math.ceil(T / length)
    rows = B * math.ceil(segments / SEGMENTS)
    outputs = [y, logden, g, sign]
    states, partial = _states(w, B, segments, C, 5, rows)
    launches = _published_carries("backward", w, outputs, states, (B, T, C), length)
    dw, du, sum_rows = _sum_rows(partial, rows, C)
    arguments = (w, u, k, v, *outputs, states, dk, dv, partial, T, C, segments, length)
    blocks, block = rows * math.ceil(C / LANES), (LANES, SEGMENTS)
    run.launch(*launches, ("published_backward", blocks, block, *arguments), sum_rows)
    return dw, du, dk, dv
