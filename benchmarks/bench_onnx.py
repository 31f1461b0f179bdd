"""What an ONNX file for any size costs beside one for a fixed size, both by onnxruntime on one thread.

::

    python benchmarks/bench_onnx.py

Prints for each size the time of the file for any size as a multiple of that of the fixed one's; writes nothing.
"""

import argparse
import logging
import tempfile
from pathlib import Path

import onnxruntime
import torch
from common import interleaved

from rwkvlib import create_model
from rwkvlib.engine.export import export_onnx


def runner(path: Path, size: int):
    """What runs a file on one image."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)).numpy()
    return lambda: session.run(["logits"], {"image": image})


def main() -> None:
    """Prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="rwkv_unet_t")
    parser.add_argument("--sizes", nargs="+", type=int, default=[64, 128])
    parser.add_argument("--largest", type=int, default=1024, help="of the file for any size")
    parser.add_argument("--repeats", type=int, default=10)
    args = parser.parse_args()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # which operators of torchvision it does without
    model = create_model(args.model).eval()
    with tempfile.TemporaryDirectory() as folder:
        any_size = export_onnx(model, Path(folder, "any.onnx"), None, largest=args.largest)
        for size in args.sizes:
            fixed = export_onnx(model, Path(folder, f"{size}.onnx"), size)
            seconds = interleaved({p: runner(p, size) for p in (any_size, fixed)}, args.repeats)
            ratio = seconds[any_size] / seconds[fixed]
            print(
                f"{args.model} {size} px: {ratio:.2f} times the fixed file's {1000 * seconds[fixed]:.0f} ms", flush=True
            )


if __name__ == "__main__":
    main()
