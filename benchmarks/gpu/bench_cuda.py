"""The CUDA operator and whole models on one GPU: times as ratios within this run, peak memory, first use.

The operator stands beside the time that its memory traffic takes at the card's copy bandwidth (the bound), plain
PyTorch (tree), a textbook kernel and PyTorch's FlashAttention. Fits in ten minutes: what --budget-seconds cuts is
listed. Writes results/bench/wkv_cuda.json, anew after each part.
"""

import argparse
import functools
import gc
import math
import operator
import os
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from rwkvlib import bi_wkv, create_model
from rwkvlib.models import CONFIGS
from rwkvlib.provenance import provenance, write_result
from rwkvlib.wkv import cuda

ROOT = Path(__file__).parents[2]
TEXTBOOK = Path(__file__).with_name("textbook_wkv.cu")
TEXTBOOK_LANES = 32  # small blocks: where B = 1 there are few threads, and so they spread over the multiprocessors
COPY_BYTES = 2**29
FLUSH_BYTES = 2**28  # several times the L2 cache of any card
FLUSHES = 12
TASKS = ("forward", "both")
CONTENDERS = ("cuda", "tree", "textbook", "flash")
TS = (196, 784, 1024, 4096, 16384, 65536)
BATCHES = {196: 24, 784: 24, 1024: 24, 4096: 4}  # beside B = 1, which every T has
HEAD = 64  # channels of an attention head
MODEL_SIZES = (256, 224, 512)
MODEL_BATCH = {64: 2, 224: 24, 256: 24, 512: 8}  # halved where memory does not do; 64: of rehearsals
COMPILE_SECONDS = 60.0  # expected of the first torch.compile, for the budget; then what the longest has taken
TUNE_CASES = ((24, 784, 576), (1, 16384, 768), (24, 196, 960))
TUNE_SETTINGS = [(segments, tokens) for segments in (4, 8, 16) for tokens in (4, 8, 12, 16)]
PARTS = ("operator", "first_use", "models")

BOUNDS = {
    "forward": "B T C (3 s) / copy_bytes_per_s: k, v read, y written; s is the size of an element of k",
    "both": "B T C (9 s + 8) / copy_bytes_per_s: forward, and its logarithm of the denominator (float32) written; "
    "then k, v, y, g and that logarithm read, dk, dv written",
}


# ------------------------------------------------------------------------------------------------ measuring


class Clock:
    """Times and peak memory of functions that run on a CUDA device; the tests give one for the CPU."""

    def __init__(self, device: torch.device, seconds: float = 0.4, rounds: tuple[int, int] = (3, 50)):
        self.seconds, self.rounds = seconds, rounds  # a measurement ends after these seconds, within these rounds
        self.flushed = torch.zeros(FLUSH_BYTES // 4, device=device)

    def once(self, function: Callable) -> tuple[float, float]:
        """Seconds of one call on the device, and those in which the host was kept busy by it."""
        # Out of L2 goes what is there. It is written several times, so that the device is still busy while the host
        # puts the call in its queue, or short kernels would be timed by the host; and read last, so that nothing has
        # to be written back at the expense of the call.
        for _ in range(FLUSHES):
            self.flushed.zero_()
        self.flushed.sum()
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        before = time.perf_counter()
        function()
        host = time.perf_counter() - before
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000, host

    def time(self, functions: dict[str, Callable]) -> tuple[dict[str, float], dict[str, float]]:
        """Medians of both numbers of `once`; one round after another, so that a disturbance meets all functions."""
        times = {name: [] for name in functions}
        for function in functions.values():  # warms up
            self.once(function)
        start, least, most = time.perf_counter(), *self.rounds
        for i in range(most):
            if i >= least and time.perf_counter() - start > self.seconds:
                break
            for name, function in functions.items():
                times[name].append(self.once(function))
        device, host = (
            {name: statistics.median(pair[which] for pair in pairs) for name, pairs in times.items()}
            for which in (0, 1)
        )
        return device, host

    def peak(self, function: Callable) -> int:
        """Bytes that a call takes at most, beside what is allocated already."""
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before


class CpuClock(Clock):
    """One call of each function, by the host's clock: for rehearsals without a device."""

    def __init__(self):
        self.seconds, self.rounds = 0.0, (1, 1)

    def once(self, function: Callable) -> tuple[float, float]:
        start = time.perf_counter()
        function()
        seconds = time.perf_counter() - start
        return seconds, seconds

    def peak(self, function: Callable) -> int:
        function()
        return 1


class Report:
    """What has been measured, in a file after every part, and the budget of time."""

    def __init__(self, out: Path, budget_seconds: float, command: str):
        self.out, self.budget_seconds, self.start = out, budget_seconds, time.perf_counter()
        self.result = dict(
            provenance=provenance(0, command),
            unit="seconds, median; peak_bytes beside the inputs; ratios of times",
            bound_formula=BOUNDS,
            device={},
            operator=[],
            first_use={},
            models=[],
            goals=[],
            not_run=[],
        )

    def seconds(self) -> float:
        return time.perf_counter() - self.start

    def may_run(self, what: str, needs: float = 0) -> bool:
        """Whether the budget has this many seconds left; where it has not, that is noted."""
        if self.seconds() + needs < self.budget_seconds:
            return True
        self.cut(what, f"the budget of {self.budget_seconds:g} s")
        return False

    def cut(self, what: str, why: str) -> None:
        self.result["not_run"].append(dict(what=what, why=why))

    def write(self) -> Path:
        self.result["goals"] = judge(self.result)
        self.result["seconds_in_all"] = self.seconds()
        return write_result(self.out, self.result)


def reason(error: BaseException, warned: Iterable[warnings.WarningMessage] = ()) -> str:
    """An error in one line, with the warnings that explain it."""
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory"
    lines = [str(error), *(str(w.message) for w in warned)]
    return "; ".join([type(error).__name__, *dict.fromkeys(line.split("\n")[0] for line in lines)])


def free() -> None:
    """Gives back what nobody holds any more: a failed call's tensors hang on frames and cycles."""
    gc.collect()
    torch.cuda.empty_cache()


def copy_bandwidth(clock: Clock, device: torch.device, size: int = COPY_BYTES) -> float:
    """Bytes per second, read and written, of copying one buffer into another."""
    source = torch.randn(size // 4, device=device)
    target = torch.empty_like(source)
    seconds, _ = clock.time({"copy": lambda: target.copy_(source)})
    return 2 * size / seconds["copy"]


# ------------------------------------------------------------------------------------------------ the textbook kernel


class TextbookKernels:
    """The kernels of textbook_wkv.cu on a device, compiled and launched as rwkvlib.wkv.cuda does with its own."""

    def __init__(self, device: torch.device):
        cubin = compile_textbook("sm_{}{}".format(*torch.cuda.get_device_capability(device)))
        from cuda.core import ObjectCode

        self.device = device
        with cuda._current(device):
            self.module = ObjectCode.from_cubin(cubin)
            names = ("textbook_forward", "textbook_backward")
            self.functions = {name: self.module.get_kernel(name) for name in names}

    def launch(self, name: str, blocks: int, *arguments: Tensor | int) -> None:
        from cuda.core import LaunchConfig, launch

        values = [x.data_ptr() if isinstance(x, Tensor) else x for x in arguments]
        with cuda._current(self.device):
            config = LaunchConfig(grid=blocks, block=TEXTBOOK_LANES)
            launch(cuda._TorchStream(self.device), config, self.functions[name], *values)


def textbook_macros() -> dict[str, str]:
    return dict(REAL="float", LANES=str(TEXTBOOK_LANES))


def compile_textbook(arch: str) -> bytes:
    """Compiles textbook_wkv.cu by NVRTC, with the options of bi_wkv.cu; needs no GPU."""
    cuda.nvrtc_version()  # says what is missing
    from cuda.core import Program, ProgramOptions

    options = ProgramOptions(
        name=TEXTBOOK.name,
        arch=arch,
        std="c++17",
        use_fast_math=True,
        define_macro=list(textbook_macros().items()),
    )
    return bytes(Program(TEXTBOOK.read_text(encoding="utf8"), "c++", options).compile("cubin").code)


@functools.cache
def textbook_kernels(device: torch.device) -> TextbookKernels:
    return TextbookKernels(device)


def textbook_forward(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """y and the logarithm of its denominator."""
    y, logden = torch.empty_like(k), torch.empty_like(k)
    blocks = math.ceil(k.shape[0] * k.shape[2] / TEXTBOOK_LANES)
    textbook_kernels(k.device).launch("textbook_forward", blocks, w, u, k, v, y, logden, *k.shape)
    return y, logden


def textbook_both(w: Tensor, u: Tensor, k: Tensor, v: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of w, u, k, v from that of y, after a forward pass."""
    (B, _, C), (y, logden) = k.shape, textbook_forward(w, u, k, v)
    dw, du, dk, dv = k.new_empty(B, C), k.new_empty(B, C), torch.empty_like(k), torch.empty_like(k)
    blocks, tensors = math.ceil(B * C / TEXTBOOK_LANES), (w, u, k, v, y, logden, g, dw, du, dk, dv)
    textbook_kernels(k.device).launch("textbook_backward", blocks, *tensors, *k.shape)
    return dw.sum(0), du.sum(0), dk, dv


# ------------------------------------------------------------------------------------------------ the operator


@dataclass(frozen=True)
class Case:
    B: int
    T: int
    C: int
    dtype: str = "float32"

    def __str__(self) -> str:
        return f"({self.B}, {self.T}, {self.C}) {self.dtype}"


GOAL_CASES = (Case(24, 784, 576), Case(1, 784, 576), Case(1, 16384, 768))


def widths() -> list[int]:
    """The channels of the attention blocks of all models; those of the goals first, as the budget cuts at the end."""
    found = {round(c.dims[stage] * c.expansions[stage]) for c in CONFIGS.values() for stage in (2, 3)}
    return sorted(found, key=lambda C: (C not in {case.C for case in GOAL_CASES}, -C))


def operator_cases() -> list[Case]:
    """The most important first."""
    half = [Case(case.B, case.T, case.C, "bfloat16") for case in GOAL_CASES]
    rest = [Case(1, T, C) for C in widths() for T in TS]
    rest += [Case(B, T, C) for T, B in BATCHES.items() for C in widths()]
    return list(dict.fromkeys([*GOAL_CASES, *half, *rest, Case(24, 196, 960, "bfloat16")]))


def inputs(case: Case, device: torch.device) -> tuple[list[Tensor], Tensor]:
    """w, u, k, v as at the start of a training run that has learned some decay, and a gradient of y."""
    dtype, shape = getattr(torch, case.dtype), (case.B, case.T, case.C)
    generator = torch.Generator(device).manual_seed(0)
    randn = functools.partial(torch.randn, generator=generator, device=device)
    x = [randn(case.C) * 3 / case.T, randn(case.C) / case.T, randn(shape, dtype=dtype), randn(shape, dtype=dtype)]
    return [tensor.requires_grad_() for tensor in x], randn(shape, dtype=dtype)


def flash_width(C: int) -> int:
    """C rounded to whole heads, which attention needs."""
    return max(1, round(C / HEAD)) * HEAD


def flash(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return F.scaled_dot_product_attention(q, k, v)


def contenders(case: Case, device: torch.device) -> dict[str, dict[str, Callable]]:
    """For each task, what is timed against each other."""
    x, g = inputs(case, device)
    plain = [tensor.detach() for tensor in x]
    shape = (case.B, flash_width(case.C) // HEAD, case.T, HEAD)
    *qkv, flash_g = (torch.randn(shape, dtype=torch.bfloat16, device=device) for _ in range(4))
    recorded = [tensor.detach().requires_grad_() for tensor in qkv]
    functions = {task: {} for task in TASKS}
    for backend in ("cuda", "tree"):
        run = functools.partial(bi_wkv, backend=backend)
        functions["forward"][backend] = functools.partial(run, *plain)
        functions["both"][backend] = lambda run=run: torch.autograd.grad(run(*x), x, g)
    if case.dtype == "float32":
        functions["forward"]["textbook"] = lambda: textbook_forward(*plain)
        functions["both"]["textbook"] = lambda: textbook_both(*plain, g)
    functions["forward"]["flash"] = lambda: flash(*qkv)
    functions["both"]["flash"] = lambda: torch.autograd.grad(flash(*recorded), recorded, flash_g)
    return functions


def usable(functions: dict[str, Callable], task: str, clock: Clock, skipped: dict[str, str]) -> dict[str, Callable]:
    """Those of the functions that run here; why the others do not goes into `skipped`."""
    found = {}
    for name, function in functions.items():
        with warnings.catch_warnings(record=True) as warned:  # PyTorch says so why it refuses FlashAttention
            warnings.simplefilter("always")
            try:
                clock.once(function)
                found[name] = function
            except Exception as e:  # cuda-core has errors of its own, besides RuntimeError
                why = f"{task}: {reason(e, warned)}"
                skipped[name] = f"{skipped[name]}; {why}" if name in skipped else why
        if name not in found:
            free()
    return found


def bound_seconds(case: Case, bandwidth: float) -> dict[str, float]:
    """The time that moving the operator's inputs and outputs takes; see BOUNDS."""
    size, elements = getattr(torch, case.dtype).itemsize, case.B * case.T * case.C
    return dict(forward=3 * size * elements / bandwidth, both=(9 * size + 8) * elements / bandwidth)


def quotient(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a / b


def ratios(seconds: dict[str, float | None], bound: float) -> dict[str, float | None]:
    """Of one task: how far the kernel is from its bound, and how much slower the others are than the kernel."""
    found = {"cuda / bound": quotient(seconds["cuda"], bound)}
    return found | {f"{name} / cuda": quotient(seconds[name], seconds["cuda"]) for name in CONTENDERS[1:]}


def measure_case(case: Case, clock: Clock, bandwidth: float, device: torch.device) -> dict:
    """One entry of "operator". A contender that does not run has null, and its reason in "skipped"."""
    skipped = {} if case.dtype == "float32" else {"textbook": "float32 only"}
    seconds, host, peaks = {}, {}, {}
    for task, functions in contenders(case, device).items():
        functions = usable(functions, task, clock, skipped)
        nothing = dict.fromkeys(CONTENDERS)
        times, host_times = clock.time(functions)
        seconds[task], host[task] = nothing | times, nothing | host_times
        peaks[task] = nothing | {name: clock.peak(function) for name, function in functions.items()}
    bounds = bound_seconds(case, bandwidth)
    return dict(
        B=case.B,
        T=case.T,
        C=case.C,
        dtype=case.dtype,
        seconds=seconds,
        bound_seconds=bounds,
        peak_bytes=peaks,
        ratios={task: ratios(seconds[task], bounds[task]) for task in TASKS},
        host_seconds=host,
        flash_C=flash_width(case.C),
        skipped=skipped,
    )


def shown(value: float | None) -> str:
    return f"{'-':>10}" if value is None else f"{value:10.2f}"


def operator_part(report: Report, clock: Clock, device: torch.device, cases: Iterable[Case]) -> None:
    bandwidth = copy_bandwidth(clock, device)
    report.result["device"]["copy_bytes_per_s"] = bandwidth
    print(f"copying moves {bandwidth / 1e12:.2f} TB/s\n")
    columns = ["cuda / bound", *(f"{name} / cuda" for name in CONTENDERS[1:])]
    print(f"{'':34}{'cuda us':>10}" + "".join(f"{column:>17}" for column in columns))
    for case in cases:
        if not report.may_run(f"operator {case}"):
            continue
        entry = measure_case(case, clock, bandwidth, device)
        report.result["operator"].append(entry)
        report.write()
        free()
        for task in TASKS:
            us = entry["seconds"][task]["cuda"]
            line = f"{case!s:26}{task:8}{shown(None if us is None else 1e6 * us)}"
            print(line + "".join(f"{shown(entry['ratios'][task][column]):>17}" for column in columns))


# ------------------------------------------------------------------------------------------------ first use

FIRST_CALL = """
import sys, time
import torch, rwkvlib
device, backend = sys.argv[1:]
x = [torch.zeros(shape, device=device) for shape in ((64,), (64,), (1, 64, 64), (1, 64, 64))]
x[0].cpu()
start = time.perf_counter()
rwkvlib.bi_wkv(*x, backend=backend).cpu()  # waits for the device
print(time.perf_counter() - start)
"""


def first_call(folder: str, device: str = "cuda", backend: str = "cuda") -> float:
    """Seconds of the first call in a process of its own, which finds and leaves compiled kernels in that folder."""
    command = [sys.executable, "-c", FIRST_CALL, device, backend]
    done = subprocess.run(command, env=dict(os.environ, TORCH_HOME=folder), capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1])
    return float(done.stdout)


def first_use_part(report: Report, call: Callable[[str], float] = first_call, repeats: int = 3) -> None:
    """Cold: with an empty folder; warm: with what the cold call has left there."""
    cold, warm = [], []
    for i in range(repeats):
        if not report.may_run(f"first use, repeat {i + 1}", needs=20):
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                cold.append(call(folder))
                warm.append(call(folder))
            except (RuntimeError, subprocess.TimeoutExpired) as e:
                report.cut(f"first use, repeat {i + 1}", reason(e))
    medians = {name: statistics.median(x) if x else None for name, x in (("cold_s", cold), ("warm_s", warm))}
    report.result["first_use"] = dict(medians, cold_all_s=cold, warm_all_s=warm)
    report.write()
    print(f"\nfirst use, seconds: cold{shown(medians['cold_s'])}, warm{shown(medians['warm_s'])}")


# ------------------------------------------------------------------------------------------------ whole models


@dataclass(frozen=True)
class ModelCase:
    model: str
    size: int
    dtype: str  # bfloat16: by autocast
    mode: str
    task: str

    def __str__(self) -> str:
        return f"{self.model} {self.size} {self.dtype} {self.mode} {self.task}"


OWN = ("RWKV-UNet-T", "RWKV-UNet-B", "RWKV-UNet-S")
BASELINES = ("U-Net (MONAI)", "AttentionUnet (MONAI)", "SwinUNETR (MONAI)")  # of bench_models.py


def model_cases() -> list[ModelCase]:
    """The most important first: eager runs cost little, so at each size they come before what has to be compiled."""

    def of(models, sizes, mode):
        runs = [(dtype, task) for dtype in ("bfloat16", "float32") for task in ("training", "inference")]
        return [ModelCase(model, size, d, mode, task) for size in sizes for model in models for d, task in runs]

    first, others = MODEL_SIZES[:1], MODEL_SIZES[1:]
    cases = of(OWN, first, "eager") + of(BASELINES, first, "eager") + of(OWN, first, "compiled")
    cases += of(OWN, others, "eager") + of(BASELINES, others, "eager")
    return cases + of(BASELINES[:2], first, "compiled") + of(OWN, others, "compiled")


@functools.cache
def _bench_models() -> dict:
    return runpy.run_path(str(ROOT / "benchmarks" / "bench_models.py"))


def build_model(name: str) -> torch.nn.Module:
    if name in OWN:
        return create_model(f"rwkv_unet_{name[-1].lower()}")
    return _bench_models()["baselines"]()[name]


def model_step(model: torch.nn.Module, case: ModelCase, x: Tensor, mask: Tensor) -> Callable:
    """A training step, which ends with the optimiser's, or a forward pass."""
    autocast = functools.partial(torch.autocast, x.device.type, torch.bfloat16, enabled=case.dtype == "bfloat16")

    def inference():
        with torch.inference_mode(), autocast():
            model(x)

    if case.task == "inference":
        return inference
    optimiser = torch.optim.AdamW(model.parameters())

    def training():
        optimiser.zero_grad()
        with autocast():
            logits = model(x)
        F.binary_cross_entropy_with_logits(logits.float(), mask).backward()
        optimiser.step()

    return training


def measure_model(case: ModelCase, batch: int, clock: Clock, device: torch.device) -> dict:
    """One entry of "models". All models are given channels_last, as rwkvlib trains and predicts."""
    torch.manual_seed(0)
    model = build_model(case.model).train(case.task == "training").to(device, memory_format=torch.channels_last)
    x = torch.randn(batch, 3, case.size, case.size, device=device).contiguous(memory_format=torch.channels_last)
    mask = (torch.rand(batch, 1, case.size, case.size, device=device) > 0.8).float()
    step = model_step(torch.compile(model) if case.mode == "compiled" else model, case, x, mask)
    start = time.perf_counter()
    clock.once(step)  # compiles
    first = time.perf_counter() - start
    seconds, _ = clock.time({"step": step})
    entry = dict(model=case.model, size=case.size, batch=batch, dtype=case.dtype, mode=case.mode, task=case.task)
    return dict(entry, images_per_s=batch / seconds["step"], first_step_s=first)


def largest_batch(case: ModelCase, clock: Clock, device: torch.device) -> dict:
    """`measure_model`, at half the batch as often as memory asks for it."""
    batch = MODEL_BATCH[case.size]
    while True:
        try:
            return measure_model(case, batch, clock, device)
        except torch.OutOfMemoryError:
            if batch == 1:
                raise
        batch //= 2
        free()  # here, as the error holds the tensors of the frames it came through


def models_part(report: Report, clock: Clock, device: torch.device, cases: Iterable[ModelCase]) -> None:
    compilations = []
    print(f"\n{'images/s':>66}")
    for case in cases:
        compiled = case.mode == "compiled"
        if not report.may_run(str(case), needs=max(compilations, default=COMPILE_SECONDS) if compiled else 5):
            continue
        start = time.perf_counter()
        try:
            entry = largest_batch(case, clock, device)
        except Exception as e:  # a compiler's errors have no class in common; the next model may well run
            report.cut(str(case), reason(e))
        else:
            report.result["models"].append(entry)
            if compiled:
                compilations.append(time.perf_counter() - start)
            print(f"{case!s:56}{entry['images_per_s']:10.1f}")
        free()
        if compiled:
            torch.compiler.reset()
        report.write()


# ------------------------------------------------------------------------------------------------ goals


def find(result: dict, B: int, T: int, C: int, dtype: str = "float32") -> dict | None:
    for entry in result["operator"]:
        if (entry["B"], entry["T"], entry["C"], entry["dtype"]) == (B, T, C, dtype):
            return entry
    return None


def ratio(entry: dict | None, task: str, name: str) -> float | None:
    return None if entry is None else entry["ratios"][task][name]


def goal(name: str, required: str | None, measured: float | None, **notes: object) -> dict:
    """`required` is such as ">= 5"; without it the number is only reported."""
    met = None
    if measured is not None and required is not None:
        sign, limit = required.split()
        met = {"<=": operator.le, ">=": operator.ge, "<": operator.lt}[sign](measured, float(limit))
    return dict(name=name, required=required, measured=measured, met=met, **notes)


def crossing(Ts: list[int], cuda_seconds: list[float], flash_seconds: list[float]) -> float | None:
    """The T from which on cuda is the faster one: between measured T both times are taken as powers of T.

    None where one of the two is faster at all of them, or where flash is at the largest.
    """
    lead = [math.log(b / a) for a, b in zip(cuda_seconds, flash_seconds, strict=True)]
    for i in reversed(range(1, len(lead))):
        if lead[i - 1] < 0 <= lead[i]:
            share = lead[i - 1] / (lead[i - 1] - lead[i])
            return math.exp(math.log(Ts[i - 1]) + share * math.log(Ts[i] / Ts[i - 1]))
        if lead[i] < 0:
            return None
    return None


def crossing_goal(result: dict, C: int, task: str) -> dict:
    """Which of cuda (float32) and flash (bfloat16) is faster from which T on, where B = 1."""
    found = [entry for entry in result["operator"] if (entry["B"], entry["C"], entry["dtype"]) == (1, C, "float32")]
    seconds = sorted((entry["T"], entry["seconds"][task]["cuda"], entry["seconds"][task]["flash"]) for entry in found)
    seconds = [row for row in seconds if None not in row]
    Ts, ours, theirs = zip(*seconds, strict=True) if seconds else ((), (), ())
    at = crossing(list(Ts), list(ours), list(theirs))
    note = "interpolated" if at else "not measured"
    if seconds and at is None:
        note = f"{'flash' if theirs[-1] < ours[-1] else 'cuda'} is faster at T = {Ts[-1]}"
        if all((a < b) == (ours[-1] < theirs[-1]) for a, b in zip(ours, theirs, strict=True)):
            note = f"{'flash' if theirs[-1] < ours[-1] else 'cuda'} is faster at every T measured, {Ts[0]} to {Ts[-1]}"
    return goal(f"T from which on cuda is faster than flash, C = {C}, B = 1, {task}", None, at, note=note)


def judge(result: dict) -> list[dict]:
    """The goals; what has not been measured has null."""
    model = find(result, 24, 784, 576)
    goals = [
        goal(f"{task} at (24, 784, 576) float32 / bound", f"<= {limit}", ratio(model, task, "cuda / bound"))
        for task, limit in (("forward", 2.5), ("both", 4))
    ]
    single = [entry for entry in result["operator"] if entry["B"] == 1 and entry["dtype"] == "float32"]
    for task in TASKS:
        at = find(result, 1, 784, 576)
        goals.append(goal(f"textbook / cuda at (1, 784, 576), {task}", ">= 5", ratio(at, task, "textbook / cuda")))
        rows = [(ratio(e, task, "textbook / cuda"), e["T"], e["C"]) for e in single]
        least = min((row for row in rows if row[0] is not None), default=(None, None, None))
        name = f"textbook / cuda, the smallest where B = 1, {task}"
        goals.append(goal(name, ">= 5", least[0], T=least[1], C=least[2], cases=len(rows)))
    for task in TASKS:
        at = find(result, 1, 16384, 768)
        goals.append(goal(f"flash / cuda at (1, 16384, 768), {task}", ">= 10", ratio(at, task, "flash / cuda")))
    goals += [crossing_goal(result, C, task) for task in TASKS for C in sorted(widths())]
    for name, limit in (("cold", 2), ("warm", 0.2)):
        goals.append(goal(f"first use, {name}, seconds", f"< {limit}", result["first_use"].get(f"{name}_s")))
    return goals


# ------------------------------------------------------------------------------------------------ tuning


def with_block(segments: int, tokens: int, found: dict, function: Callable) -> Callable:
    """The function with another block size; `found` takes the place of cuda.py's table of compiled kernels."""

    def run():
        before = cuda.SEGMENTS, cuda.TOKENS, cuda._found
        cuda.SEGMENTS, cuda.TOKENS, cuda._found = segments, tokens, found
        try:
            return function()
        finally:
            cuda.SEGMENTS, cuda.TOKENS, cuda._found = before

    return run


def tuning_part(
    report: Report,
    clock: Clock,
    device: torch.device,
    cases: Iterable[tuple[int, int, int]] = TUNE_CASES,
    settings: Iterable[tuple[int, int]] = TUNE_SETTINGS,
) -> None:
    """Times of every block size, interleaved; what does not compile or launch has its error instead."""
    settings = list(settings)
    report.result["tuning"] = []
    found = {setting: {} for setting in settings}
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, TORCH_HOME=folder):  # keeps out of the cache
        for shape in cases:
            case, errors, seconds = Case(*shape), {}, {}
            if not report.may_run(f"tuning {case}", needs=30):
                continue
            tasks = contenders(case, device)
            for task in TASKS:
                run = tasks[task]["cuda"]
                functions = {setting: with_block(*setting, found[setting], run) for setting in settings}
                seconds[task], _ = clock.time(usable(functions, task, clock, errors))
            print(f"\n{case}: microseconds, forward and both")
            for setting in settings:
                times = {task: seconds[task].get(setting) for task in TASKS}
                entry = dict(B=case.B, T=case.T, C=case.C, dtype=case.dtype, segments=setting[0], tokens=setting[1])
                report.result["tuning"].append(dict(entry, seconds=times, error=errors.get(setting)))
                us = "".join(shown(None if s is None else 1e6 * s) for s in times.values())
                print(f"  SEGMENTS {setting[0]:2}  TOKENS {setting[1]:2}{us}")
            report.write()
            del tasks, functions, run
            free()


# ------------------------------------------------------------------------------------------------ the whole


def find_device() -> torch.device:
    """The current CUDA device; ends the process where it or the kernel is missing."""
    if not torch.cuda.is_available():
        build = torch.version.cuda
        why = (
            f"PyTorch {torch.__version__} sees none" if build else f"PyTorch {torch.__version__} is built without CUDA"
        )
        sys.exit(f"bench_cuda.py needs a CUDA device: {why}")
    device = torch.device("cuda", torch.cuda.current_device())
    try:
        cuda.kernels(device, torch.float32)
    except cuda.KernelUnavailable as e:
        sys.exit(f"bench_cuda.py needs the CUDA kernel: {' '.join(str(e).split())}")
    return device


REHEARSED = (Case(2, 12, 5), Case(1, 7, 65, "bfloat16"))
REHEARSED_MODELS = tuple(ModelCase(name, 64, "float32", "eager", "inference") for name in (OWN[0], BASELINES[0]))


def describe(device: torch.device) -> dict:
    if device.type != "cuda":
        return dict(name="none: a rehearsal", multiprocessors=0)
    properties = torch.cuda.get_device_properties(device)
    return dict(
        name=properties.name,
        memory_bytes=properties.total_memory,
        multiprocessors=properties.multi_processor_count,
        l2_bytes=getattr(properties, "L2_cache_size", None),
        compute_capability="{}.{}".format(*torch.cuda.get_device_capability(device)),
        nvrtc=cuda.nvrtc_version(),
        tf32=dict(convolutions=torch.backends.cudnn.allow_tf32, matmul=torch.backends.cuda.matmul.allow_tf32),
        block=dict(lanes=cuda.LANES, segments=cuda.SEGMENTS, tokens=cuda.TOKENS),
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "results/bench/wkv_cuda.json")
    parser.add_argument("--budget-seconds", type=float, default=540)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS, help="default: all")
    parser.add_argument("--tune", action="store_true", help="also time other block sizes")
    parser.add_argument("--rehearse", action="store_true", help="tiny shapes on the CPU; its times say nothing")
    args = parser.parse_args(arguments)
    device = torch.device("cpu") if args.rehearse else find_device()
    command = f"python benchmarks/gpu/bench_cuda.py {' '.join(sys.argv[1:] if arguments is None else arguments)}"
    report = Report(args.out, args.budget_seconds, command.strip())
    clock = CpuClock() if args.rehearse else Clock(device)
    cases, models = (REHEARSED, REHEARSED_MODELS) if args.rehearse else (operator_cases(), model_cases())
    call = functools.partial(first_call, device="cpu", backend="tree") if args.rehearse else first_call
    report.result["device"] = describe(device)
    parts = {
        "operator": lambda: operator_part(report, clock, device, cases),
        "first_use": lambda: first_use_part(report, call, repeats=1 if args.rehearse else 3),
        "tuning": lambda: tuning_part(report, clock, device),
        "models": lambda: models_part(report, clock, device, models),
    }
    for name, part in parts.items():
        if name in args.parts or (name == "tuning" and args.tune):
            part()
        elif name in PARTS:
            report.cut(name, "not asked for")
    written = report.write()
    print()
    for entry in report.result["goals"]:
        verdict = {True: "met", False: "missed", None: "-"}[entry["met"]]
        print(f"{entry['name']:62}{entry['required'] or '':>8}{shown(entry['measured'])}  {verdict}")
    print(f"\nnot run: {len(report.result['not_run'])}; written: {written}")


if __name__ == "__main__":
    main()
