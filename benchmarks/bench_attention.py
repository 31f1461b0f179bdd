"""Softmax attention, linear attention and Bi-WKV on one CPU thread: seconds and peak memory against the tokens.

One image, C channels, one head as wide as the channels; forward only. Both forms of Bi-WKV give the same numbers, and
so do both of softmax attention. What would hold more than MAX_ENTRIES numbers in one matrix is left out: the quadratic
form of Bi-WKV has a matrix for each channel. Times of one length are measured in one run, interleaved.
Usage, on one core of a quiet machine: taskset -c 1 python benchmarks/bench_attention.py
Writes results/bench/attention_cpu.json.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from common import interleaved, memory_of, peak_bytes
from torch import Tensor

from rwkvlib import bi_wkv
from rwkvlib.provenance import provenance, write_result

C = 64
TS = tuple(2**n for n in range(6, 14))
MEMORY_TS = TS[-5:]  # below, what a call allocates drowns in the process's own pages
FIT = 3  # the growth is that over the longest lengths of each contender
MAX_ENTRIES = 2**27  # half a gibibyte in float32


def softmax_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention as its equation stands, with the (T, T) matrix; q, k, v (B, T, C)."""
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1) @ v


def fused_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same by PyTorch's own operation, which reads the matrix in blocks and does not store it."""
    return F.scaled_dot_product_attention(*(x[:, None] for x in (q, k, v)))[:, 0]  # (B, heads, T, C)


def linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Linear attention with the features elu + 1 (Katharopoulos et al. 2020, Eq. 5-7): both sums over i first."""
    q, k = F.elu(q) + 1, F.elu(k) + 1
    return q @ (k.mT @ v) / (q @ k.sum(dim=1)[..., None])


def contenders(T: int, seed: int = 0) -> dict:
    """A callable for each way at this length, each returning (1, T, C)."""
    g = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(1, T, C, generator=g) for _ in range(3))
    w, u = torch.randn(C, generator=g) * 3 / T, torch.randn(C, generator=g) / T
    found = {
        "softmax, written out": lambda: softmax_attention(q, k, v),
        "softmax, fused": lambda: fused_attention(q, k, v),
        "linear attention": lambda: linear_attention(q, k, v),
        "Bi-WKV, quadratic": lambda: bi_wkv(w, u, k, v, backend="oracle"),
        "Bi-WKV, linear": lambda: bi_wkv(w, u, k, v),
    }
    if T * T * C > MAX_ENTRIES:
        del found["Bi-WKV, quadratic"]
    return found


def exponent(values: dict[int, float]) -> float:
    """The p of the best T^p through the values at the longest lengths."""
    longest = sorted(values)[-FIT:]
    return float(np.polyfit(np.log(longest), np.log([values[T] for T in longest]), 1)[0])


def peak_memory(name: str, T: int) -> int:
    """Bytes by which a process's peak memory grows by the call, the output included; in a process of its own."""
    return memory_of(__file__, name, T)


def print_memory(name: str, T: int) -> None:
    contenders(8)[name]()  # loads and compiles
    peak, y = peak_bytes(contenders(T)[name])
    # Pages that the process already held do not show in its growth; the output is there all the same.
    print(max(peak, y.numel() * y.element_size()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", default=Path(__file__).parents[1] / "results/bench/attention_cpu.json")
    parser.add_argument("--memory-of", nargs=2, metavar=("NAME", "T"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    if args.memory_of:
        print_memory(args.memory_of[0], int(args.memory_of[1]))
        return
    start = time.perf_counter()
    seconds, memory = {}, {}
    for T in TS:
        runs = contenders(T)
        for name, median in interleaved(runs, args.repeats).items():
            seconds.setdefault(name, {})[T] = median
            if T in MEMORY_TS:
                memory.setdefault(name, {})[T] = peak_memory(name, T)
    growth = {what: {name: exponent(x) for name, x in all_.items()} for what, all_ in (("s", seconds), ("B", memory))}
    for name in seconds:
        print(f"{name:22} ms: " + ", ".join(f"{T}: {1e3 * s:.3g}" for T, s in seconds[name].items()))
        print(f"{'':22} MB: " + ", ".join(f"{T}: {b / 1e6:.3g}" for T, b in memory[name].items()))
        print(f"{'':22} time grows as T^{growth['s'][name]:.2f}, memory as T^{growth['B'][name]:.2f}")
    result = dict(
        unit="seconds, median; bytes of peak memory above the inputs",
        shape=dict(B=1, C=C, dtype="float32", threads=1),
        repeats=args.repeats,
        seconds=seconds,
        peak_bytes=memory,
        fitted_over_longest=FIT,
        growth_exponent=dict(seconds=growth["s"], peak_bytes=growth["B"]),
        seconds_in_all=time.perf_counter() - start,
        provenance=provenance(0, f"taskset -c 1 python benchmarks/bench_attention.py {' '.join(sys.argv[1:])}".strip()),
    )
    print("written:", write_result(args.out, result))


if __name__ == "__main__":
    main()
