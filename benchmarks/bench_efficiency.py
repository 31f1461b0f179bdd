"""What each network costs on a CPU: parameters, multiply-accumulates, seconds and memory for one image, by image size.

Timed is what users run: `rwkvlib.predict` of the `inference_copy` that `predict_files` and `evaluate` make of a model.
Beside it stand the same of the model as it was built, and for some networks onnxruntime with the exported file. Two
threads, float32. Times are medians, interleaved: one round after another, so that a disturbance meets all of them; in
each round the second of two calls counts.
Memory is the largest resident set of a process of its own while it computes, less what it held before (Linux only).
Chapters 13 and 16 read the one file that this writes, results/bench/efficiency_cpu.json.
"""

import argparse
import contextlib
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch
from common import memory_of, peak_bytes

from rwkvlib import create_model, predict
from rwkvlib.analysis import count_macs, count_parameters
from rwkvlib.engine.export import export_onnx
from rwkvlib.engine.predict import inference_copy
from rwkvlib.provenance import provenance, repeatable, write_result

MODELS = ["rwkv_unet_t", "rwkv_unet_s", "rwkv_unet_b", "unet", "unet_batchnorm", "attention_unet"]
MODELS += ["basic_unet_plus_plus", "swin_unetr", "dyn_unet"]  # the others are younger than the file of results
EXPORTED = ["rwkv_unet_t", "unet"]  # minutes for each of the others, and more at 512 pixels


def built(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return create_model(name).eval()


def image(size: int) -> torch.Tensor:
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))


def export(name: str, size: int, folder: Path) -> dict:
    """Writes a network's ONNX file, where the folder has none, and beside it how it came out. Returns the latter."""
    path, about = folder / f"{name}_{size}.onnx", folder / f"{name}_{size}.json"
    if not about.exists():
        start = time.perf_counter()
        export_onnx(built(name), path, size)
        found = dict(export_seconds=time.perf_counter() - start, megabytes=path.stat().st_size / 1e6)
        about.write_text(json.dumps(found))
    return json.loads(about.read_text())


def session(name: str, size: int, threads: int, folder: Path) -> Callable[[], object]:
    """What runs a network's ONNX file on one image."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    runner = onnxruntime.InferenceSession(folder / f"{name}_{size}.onnx", options, providers=["CPUExecutionProvider"])
    inputs = {"image": image(size).numpy()}
    return lambda: runner.run(["logits"], inputs)[0]


def forms(name: str, size: int, onnx: Callable[[], object] | None) -> dict[str, Callable[[], object]]:
    """The ways to run a network on one image."""
    model, x = built(name), image(size)
    fast = inference_copy(model)
    ways = {"seconds": lambda: predict(fast, x)}
    if fast is not model:
        ways["as_built"] = lambda: predict(model, x)
    return ways | ({"onnx": onnx} if onnx else {})


def second_call(run: Callable[[], object]) -> float:
    """Seconds of the second of two calls: the first brings back what the others have driven out of the caches."""
    run()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def peak_mib(name: str, size: int) -> float:
    """MiB that one image takes, see `peak_of_first`, in a process of its own."""
    return memory_of(__file__, name, size)


def peak_of_first(name: str, size: int) -> float:
    """MiB that the first image takes above the model and the libraries; a small one before it starts all of them."""
    model = inference_copy(built(name))
    predict(model, image(64))
    return peak_bytes(lambda: predict(model, image(size)))[0] / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 256, 512])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument(
        "--onnx", nargs="*", default=EXPORTED, metavar="MODEL", help="of which onnxruntime is timed too"
    )
    parser.add_argument("--memory-of", nargs=2, metavar=("MODEL", "SIZE"), help="print the MiB of one image and stop")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--files", type=Path, help="folder of ONNX files, to use those of an earlier run again")
    parser.add_argument("--out", default=Path(__file__).parents[1] / "results/bench/efficiency_cpu.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.memory_of:
        print(peak_of_first(args.memory_of[0], int(args.memory_of[1])))
        return
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # which operators of torchvision it does without
    origin = provenance(0, f"python benchmarks/bench_efficiency.py {repeatable(sys.argv[1:])}".strip())
    rows = []
    with contextlib.ExitStack() as stack:
        folder = args.files or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        pairs = [(name, size) for size in args.sizes for name in args.models if name in args.onnx]
        files = {(name, size): export(name, size, folder) for name, size in pairs}  # minutes, not beside what is timed
        print("exported; now the times, on a machine that should do nothing else", flush=True)
        for size in args.sizes:
            rows += measure(size, args, files, folder)
    result = dict(unit="seconds, median", repeats=args.repeats, threads=args.threads, rows=rows)
    print("written:", write_result(args.out, result | dict(onnxruntime=onnxruntime.__version__, provenance=origin)))


def measure(size: int, args: argparse.Namespace, files: dict[tuple[str, int], dict], folder: Path) -> list[dict]:
    """The rows of one size."""
    rows, ready = [], {}
    for name in args.models:
        ready[name] = forms(name, size, session(name, size, args.threads, folder) if (name, size) in files else None)
    seconds = {(name, way): [] for name, ways in ready.items() for way in ways}
    for _ in range(args.repeats):
        for name, way in seconds:
            seconds[name, way].append(second_call(ready[name][way]))
    for name, ways in ready.items():
        whole, times, file = create_model(name), seconds[name, "seconds"], files.get((name, size))
        row = dict(model=name, size=size, parameters=count_parameters(whole))
        row |= dict(macs=count_macs(whole, (1, 3, size, size)), seconds=statistics.median(times))
        row |= dict(fastest=min(times), slowest=max(times), peak_mib=peak_mib(name, size))
        row["seconds_as_built"] = statistics.median(seconds.get((name, "as_built"), times))
        row["onnx"] = None
        if file:
            difference = torch.from_numpy(ways["onnx"]()) - predict(built(name), image(size))
            row["onnx"] = dict(seconds=statistics.median(seconds[name, "onnx"]), **file)
            row["onnx"]["largest_difference"] = difference.abs().max().item()
        rows.append(row)
        print(
            f"{size:4} {name:22}{row['parameters'] / 1e6:6.1f} M {row['macs'] / 1e9:7.2f} GMACs "
            f"{1000 * row['seconds']:7.0f} ms ({1000 * row['seconds_as_built']:.0f} as built"
            + (f", {1000 * row['onnx']['seconds']:.0f} by onnxruntime) " if file else ") ")
            + f"{row['peak_mib']:7.0f} MiB",
            flush=True,
        )
    return rows


if __name__ == "__main__":
    main()
