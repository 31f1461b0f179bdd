"""CPU latency of one image: T, S, B and MONAI's U-Net at three sizes, in PyTorch and in onnxruntime. Two threads.

The forms of one network and size are measured in turn, so that a disturbance meets all; only ratios within the table
are to be trusted. Writes results/bench/latency_cpu.json.
"""

import argparse
import logging
import sys
import tempfile
import time
from pathlib import Path

import onnxruntime
import torch
from bench_models import interleaved

from rwkvlib.analysis import count_parameters
from rwkvlib.data.pixels import normalise
from rwkvlib.engine.export import export_onnx
from rwkvlib.models.baselines import build_model
from rwkvlib.models.folding import fold_batchnorm
from rwkvlib.provenance import provenance, write_result

MODELS = {f"RWKV-UNet-{size.upper()}": f"rwkv_unet_{size}" for size in "tsb"} | {"U-Net (MONAI)": "unet"}


def measure(name: str, size: int, repeats: int, threads: int) -> dict:
    """A row of the table: seconds by form, and how the ONNX file came out."""
    torch.manual_seed(0)
    model = build_model(MODELS[name], 3, 1).eval()
    image = torch.rand(1, 3, size, size)
    x = normalise(image)
    last = fold_batchnorm(model).to(memory_format=torch.channels_last)
    x_last = x.to(memory_format=torch.channels_last)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        start = time.perf_counter()
        with torch.inference_mode(False):
            path = export_onnx(model, f"{folder}/model.onnx", size)
        exported, megabytes = time.perf_counter() - start, path.stat().st_size / 1e6
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        run = lambda: session.run(["logits"], {"image": image.numpy()})[0]  # noqa: E731
        difference = (torch.from_numpy(run()) - model(x)).abs().max().item()
        forms = {"pytorch": lambda: model(x), "pytorch_folded": lambda: last(x_last), "onnxruntime": run}
        seconds = interleaved(forms, repeats)
    return dict(
        model=name,
        size=size,
        parameters=count_parameters(model),
        seconds=seconds,
        export=dict(seconds=exported, megabytes=megabytes, largest_difference=difference),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 256, 512])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", default=Path(__file__).parents[1] / "results/bench/latency_cpu.json")
    args = parser.parse_args()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # which operators of torchvision it does without
    torch.set_num_threads(args.threads)
    rows = []
    for size in args.sizes:
        for name in MODELS:
            rows.append(measure(name, size, args.repeats, args.threads))
            times = ", ".join(f"{form} {1000 * s:.0f} ms" for form, s in rows[-1]["seconds"].items())
            print(f"{name:14} {size}: {times}, {rows[-1]['export']}", flush=True)
    command = f"python benchmarks/bench_latency.py {' '.join(sys.argv[1:])}".strip()
    result = dict(
        unit="seconds, median",
        repeats=args.repeats,
        threads=args.threads,
        onnxruntime=onnxruntime.__version__,
        rows=rows,
        provenance=provenance(0, command),
    )
    print("written:", write_result(args.out, result))


if __name__ == "__main__":
    main()
