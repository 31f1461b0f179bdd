"""CPU cost of the Bi-WKV backends: time as ratios to the sequential scan and to one exp pass, growth with T, memory.

Times of one shape are measured in one run, interleaved; only ratios within it are to be trusted. Two threads.
Writes results/bench/wkv_cpu.json; with ``--volumes`` only prints time and memory at the lengths of volumes.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from common import interleaved, memory_of, peak_bytes

from rwkvlib import bi_wkv
from rwkvlib.provenance import provenance, write_result

MODEL_SHAPE = (4, 784, 576)  # a batch of 4 in a middle stage at 224 pixels
TS = (196, 784, 1024, 4096, 16384)
VOLUMES = tuple(2**n for n in (14, 16, 18, 20))  # tokens: 16 x 32 x 32 to 64 x 128 x 128 voxels
SCAN_AUTOGRAD_MAX = 1024  # tokens; the scan's graph has a dozen nodes for each


def inputs(B: int, T: int, C: int, grad: bool) -> list[torch.Tensor]:
    """w, u, k, v as at the start of a training run that has learned some decay."""
    g = torch.Generator().manual_seed(0)
    tensors = [torch.randn(C, generator=g) * 3 / T, torch.randn(C, generator=g) / T]
    tensors += [torch.randn(B, T, C, generator=g) for _ in range(2)]
    return [x.requires_grad_(grad) for x in tensors]


def forward(backend: str, x: list[torch.Tensor]):
    def run():
        with torch.no_grad():
            bi_wkv(*x, backend=backend)

    return run


def both(backend: str, x: list[torch.Tensor], gy: torch.Tensor):
    return lambda: torch.autograd.grad(bi_wkv(*x, backend=backend), x, gy)


def measure(B: int, T: int, C: int, repeats: int) -> dict:
    """Seconds of every backend for one shape, and their ratios."""
    x, gy = inputs(B, T, C, grad=True), torch.ones(B, T, C)
    k = x[2].detach()
    fast = interleaved(
        {
            "exp": lambda: torch.exp(k),
            "numba forward": forward("numba", x),
            "tree forward": forward("tree", x),
            "numba both": both("numba", x, gy),
            "tree both": both("tree", x, gy),
        },
        repeats,
    )
    # The scan is so slow that its own noise is small: fewer repeats, right after.
    slow = {"scan forward": forward("scan", x)}
    if T <= SCAN_AUTOGRAD_MAX:
        slow["scan both"] = both("scan", x, gy)
    fast |= interleaved(slow, 3)
    ratios = {}
    for backend in ("numba", "tree"):
        ratios[f"{backend} forward / exp"] = fast[f"{backend} forward"] / fast["exp"]
        ratios[f"scan / {backend} forward"] = fast["scan forward"] / fast[f"{backend} forward"]
        if "scan both" in fast:
            ratios[f"scan / {backend} both"] = fast["scan both"] / fast[f"{backend} both"]
    return dict(B=B, T=T, C=C, seconds=fast, ratios=ratios)


def peak_memory(backend: str, grad: bool, T: int, C: int = 256) -> float:
    """How much a process's peak memory grows by the call, as a multiple of the size of k; in a process of its own."""
    return memory_of(__file__, backend, int(grad), T, C)


def print_memory(backend: str, grad: bool, T: int, C: int) -> None:
    small, x = inputs(1, 8, 64, grad), inputs(1, T, C, grad)
    gy = torch.ones_like(x[2])
    run = both if grad else lambda backend, x, gy: forward(backend, x)
    run(backend, small, torch.ones_like(small[2]))()  # compiles
    print(peak_bytes(run(backend, x, gy))[0] / (x[2].numel() * 4))


def exponent(values: dict[int, float]) -> float:
    """The power of T that values by T grow as: the slope of their logarithms."""
    return float(np.polyfit(*np.log([list(values), list(values.values())]), 1)[0])


def volumes(Ts: tuple[int, ...] = VOLUMES, C: int = 16, repeats: int = 3) -> dict[str, float]:
    """Prints time and memory of forward and backward by numba at the lengths of volumes, and the powers of T that they
    grow as, which it returns: 1 where they are linear."""
    seconds, megabytes = {}, {}
    print(f"B = 1, C = {C}, numba, forward and backward\n{'T':>8}{'ms':>10}{'ns/token':>10}{'MB':>8}")
    for T in Ts:
        x, gy = inputs(1, T, C, grad=True), torch.ones(1, T, C)
        seconds[T] = interleaved({"both": both("numba", x, gy)}, repeats)["both"]
        megabytes[T] = peak_memory("numba", True, T, C) * x[2].numel() * 4 / 1e6
        print(f"{T:8}{1e3 * seconds[T]:10.1f}{1e9 * seconds[T] / T:10.0f}{megabytes[T]:8.1f}")
    powers = dict(time=exponent(seconds), memory=exponent(megabytes))
    for name, power in powers.items():
        print(f"{name} grows as T to the power of {power:.2f}: {'linear' if abs(power - 1) < 0.15 else 'not linear'}")
    return powers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", default=Path(__file__).parents[1] / "results/bench/wkv_cpu.json")
    parser.add_argument("--volumes", action="store_true", help="only the lengths of volumes; writes nothing")
    parser.add_argument("--memory-of", nargs=4, metavar=("BACKEND", "GRAD", "T", "C"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(2)
    if args.memory_of:
        backend, grad, T, C = args.memory_of
        print_memory(backend, grad == "1", int(T), int(C))
        return
    if args.volumes:
        volumes()
        return
    start = time.perf_counter()
    model = measure(*MODEL_SHAPE, args.repeats)
    print("(B, T, C) =", MODEL_SHAPE)
    for name, ratio in model["ratios"].items():
        print(f"  {name:28}{ratio:8.1f}")
    sweep = []
    print(f"\nB = 1, C = 64\n{'T':>8}{'numba ns/token':>16}{'tree':>10}{'scan':>10}{'scan / numba':>14}")
    for T in TS:
        row = measure(1, T, 64, args.repeats if T <= 4096 else 3)
        sweep.append(row)
        per_token = [row["seconds"][f"{b} forward"] / T * 1e9 for b in ("numba", "tree", "scan")]
        print(f"{T:8}{per_token[0]:16.0f}{per_token[1]:10.0f}{per_token[2]:10.0f}{per_token[2] / per_token[0]:14.1f}")
    long = [row for row in sweep if row["T"] >= 1024]  # below, the cost of a call shows
    growth = {}
    for name in ("numba forward", "tree forward", "scan forward", "numba both", "tree both"):
        growth[name] = exponent({row["T"]: row["seconds"][name] for row in long})
    print("\ntime grows as T to the power of: " + ", ".join(f"{name} {p:.2f}" for name, p in growth.items()))
    memory = {
        f"{backend} {'both' if grad else 'forward'}": {T: peak_memory(backend, grad, T) for T in (32768, 65536)}
        for backend in ("numba", "tree")
        for grad in (False, True)
    }
    print("peak memory above the inputs, in sizes of k:")
    for name, sizes in memory.items():
        print(f"  {name:16}" + ", ".join(f"T = {T}: {size:.1f}" for T, size in sizes.items()))
    result = dict(
        unit="seconds, median",
        repeats=args.repeats,
        model_shape=model,
        sweep=sweep,
        growth_exponent=growth,
        peak_memory_in_sizes_of_k=memory,
        seconds_in_all=time.perf_counter() - start,
        provenance=provenance(0, f"python benchmarks/bench_wkv.py {' '.join(sys.argv[1:])}".strip()),
    )
    print("written:", write_result(args.out, result))


if __name__ == "__main__":
    main()
