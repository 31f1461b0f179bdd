"""What the CUDA kernels take of a multiprocessor (registers, shared memory, spills), by NVRTC's report; no GPU needed.

Writes results/bench/cuda_resources.json.
"""

import argparse
import hashlib
import io
import re
import time
from pathlib import Path

from rwkvlib.provenance import provenance, write_result
from rwkvlib.wkv import cuda

ARCHITECTURES = ("sm_75", "sm_80", "sm_90")
REPORT = re.compile(
    r"entry function '(?P<kernel>\w+)'.*?(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


def parse(report: str) -> list[dict]:
    """One entry a kernel from the text that ptxas -v prints."""
    found = []
    for match in REPORT.finditer(report):
        shared = re.search(r"(\d+) bytes smem", match["rest"])
        found.append(
            dict(
                kernel=match["kernel"],
                registers=int(match["registers"]),
                shared_bytes=int(shared[1]) if shared else 0,
                spill_bytes=int(match["stores"]) + int(match["loads"]),
            )
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default=Path(__file__).parents[1] / "results/bench/cuda_resources.json")
    args = parser.parse_args()
    kernels, builds = [], []
    for dtype in cuda.IO_TYPES:
        name = str(dtype).removeprefix("torch.")
        for arch in ARCHITECTURES:
            log, start = io.StringIO(), time.perf_counter()
            cubin = cuda.compile_kernels(dtype, arch, log)
            builds.append(dict(arch=arch, dtype=name, seconds=time.perf_counter() - start, cubin_bytes=len(cubin)))
            kernels += [dict(arch=arch, dtype=name, **entry) for entry in parse(log.getvalue())]
            print(f"{arch} {name}: {builds[-1]['seconds']:.2f} s, {len(cubin) / 1024:.0f} KiB")
    for entry in kernels:
        if entry["arch"] == "sm_90" and entry["dtype"] == "float32":
            print(f"{entry['kernel']:30} {entry['registers']:4} registers {entry['shared_bytes']:6} bytes shared")
    print(f"spilled: {sum(entry['spill_bytes'] for entry in kernels)} bytes in all")
    block = dict(lanes=cuda.LANES, segments=cuda.SEGMENTS, tokens=cuda.TOKENS, whole=cuda.WHOLE)
    digest = hashlib.sha256(cuda.source().encode()).hexdigest()
    result = dict(nvrtc=cuda.nvrtc_version(), source_sha256=digest, block=block, kernels=kernels, builds=builds)
    print(write_result(args.out, dict(result, provenance=provenance(seed=None))))


if __name__ == "__main__":
    main()
