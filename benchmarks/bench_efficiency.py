"""What each network costs on a CPU: parameters, multiply-accumulates, seconds and memory for one image, by image size.

Two threads, float32, BatchNorm folded and channels last for RWKV-UNet (what `predict_files` does), MONAI's as they
are. Times are medians, interleaved: one round after another, so that a disturbance meets all of them. Memory is the
largest resident set of a process of its own while it computes, less what it held before (Linux only). Writes
results/bench/efficiency_cpu.json.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from rwkvlib.analysis import count_macs, count_parameters
from rwkvlib.models.baselines import build_model
from rwkvlib.models.folding import fold_batchnorm
from rwkvlib.provenance import provenance, write_result

MODELS = ["rwkv_unet_t", "rwkv_unet_s", "rwkv_unet_b", "unet", "attention_unet", "basic_unet_plus_plus", "swin_unetr"]
MODELS += ["dyn_unet"]


def ready(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    model = build_model(name).eval()
    return fold_batchnorm(model).to(memory_format=torch.channels_last) if name.startswith("rwkv") else model


@torch.inference_mode()
def run(model: torch.nn.Module, size: int) -> None:
    model(torch.zeros(1, 3, size, size).contiguous(memory_format=torch.channels_last))


def peak_mib(name: str, size: int) -> float:
    """In a process of its own: a resident set never shrinks again."""
    line = [sys.executable, __file__, "--memory-of", name, str(size)]
    return float(subprocess.run(line, capture_output=True, text=True, check=True).stdout)


def memory_of(name: str, size: int) -> float:
    """MiB that the first image takes above the model and the libraries; a small one before it starts all of them."""
    model = ready(name)
    run(model, 64)
    Path("/proc/self/clear_refs").write_text("5")  # the mark of the largest set starts anew
    before = resident("VmRSS")
    run(model, size)
    return resident("VmHWM") - before


def resident(field: str) -> float:
    """MiB of this process: VmRSS now, VmHWM at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 256, 512])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--memory-of", nargs=2, metavar=("MODEL", "SIZE"), help="print the MiB of one image and stop")
    parser.add_argument("--out", default=Path(__file__).parents[1] / "results/bench/efficiency_cpu.json")
    args = parser.parse_args()
    torch.set_num_threads(2)
    if args.memory_of:
        print(memory_of(args.memory_of[0], int(args.memory_of[1])))
        return
    origin = provenance(0, f"python benchmarks/bench_efficiency.py {' '.join(sys.argv[1:])}".strip())
    models = {name: ready(name) for name in args.models}
    rows = []
    for size in args.sizes:
        seconds = {name: [] for name in models}
        for i in range(args.repeats + 1):
            for name, model in models.items():
                start = time.perf_counter()
                run(model, size)
                if i:  # the first round warms up
                    seconds[name].append(time.perf_counter() - start)
        for name in models:
            whole = build_model(name)
            whole, times = build_model(name), seconds[name]
            row = dict(model=name, size=size, parameters=count_parameters(whole))
            row |= dict(macs=count_macs(whole, (1, 3, size, size)), seconds=statistics.median(times))
            row |= dict(fastest=min(times), slowest=max(times), peak_mib=peak_mib(name, size))
            rows.append(row)
            print(
                f"{size:4} {name:22}{row['parameters'] / 1e6:6.1f} M {row['macs'] / 1e9:7.2f} GMACs "
                f"{1000 * row['seconds']:7.0f} ms {row['peak_mib']:7.0f} MiB "
                f"{row['seconds'] / statistics.median(seconds[args.models[0]]):6.2f} x {args.models[0]}",
                flush=True,
            )
    write_result(args.out, dict(unit="seconds, median", repeats=args.repeats, threads=2, rows=rows, provenance=origin))


if __name__ == "__main__":
    main()
