"""Run GPU tests of the operator under NVIDIA's compute-sanitizer: memcheck (bounds), racecheck (shared memory).

    python tests/gpu/sanitize.py [--tools memcheck racecheck] [--select EXPRESSION] [--out FILE]

Needs a CUDA device and compute-sanitizer, which comes with the CUDA toolkit. Ends with 1 where a tool finds an error or
cannot be run, and writes what it found to results/bench/cuda_sanitizer.json.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import torch

from rwkvlib.provenance import provenance, write_result

HERE = Path(__file__).parent
TOOLS = ("memcheck", "racecheck")
# Both variants, forward and backward, one and many chunks, strange sizes; every launch is slow under the sanitizer.
SELECT = (
    "test_auto_takes or two_runs_agree or strided_inputs or half_precision_sums or on_a_batch or only_the_gradients"
)


def find_sanitizer() -> str:
    """The path of compute-sanitizer.

    Raises:
        FileNotFoundError: it is neither on the PATH nor in a CUDA toolkit's usual place.
    """
    folders = [os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    path = os.pathsep.join([os.environ.get("PATH", ""), *(f"{folder}/bin" for folder in folders if folder)])
    found = shutil.which("compute-sanitizer", path=path)
    if not found:
        raise FileNotFoundError("compute-sanitizer is neither on the PATH nor in CUDA_HOME: install the CUDA toolkit")
    return found


def errors_in(report: str) -> int | None:
    """The number of errors that compute-sanitizer sums up in its last line; None where it did not come to that."""
    lines = re.findall(r"ERROR SUMMARY: (\d+) error|RACECHECK SUMMARY: (\d+) hazard", report)
    return sum(int(a or b) for a, b in lines) if lines else None


def kinds_of_errors(report: str) -> dict[str, int]:
    """How often each first line of an error stands in a report: "Invalid __global__ read of size 4 bytes" and so on."""
    lines = re.findall(
        r"^========= ((?:Invalid|Program hit|Error|Race|Warning|Uninitialized|Barrier)[^\n]*)", report, re.M
    )
    return dict(Counter(re.sub(r"0x[0-9a-f]+", "0x", line) for line in lines).most_common(20))


def run(sanitizer: str, tool: str, select: str) -> dict:
    """Runs one tool over the selected tests."""
    command = [sanitizer, "--tool", tool, "--error-exitcode", "9", "--target-processes", "application-only"]
    if tool == "memcheck":  # PyTorch asks the driver for things that it may not have, and handles the refusal
        command += ["--report-api-errors", "no"]
    command += [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE), "-k", select]
    # Every tensor an allocation of its own, or reading past one's end would meet the next and not be seen.
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    report = done.stdout + done.stderr
    tests = re.search(r"(\d+) passed", report)
    return dict(
        tool=tool,
        errors=errors_in(report),
        exit_status=done.returncode,
        tests_passed=int(tests[1]) if tests else 0,
        seconds=time.perf_counter() - start,
        kinds=kinds_of_errors(report),
        end_of_report=report[-2000:],
    )


def clean(found: dict) -> bool:
    """Whether a tool ran to its end, over tests that passed, and found nothing."""
    return found["errors"] == 0 and found["exit_status"] == 0 and found["tests_passed"] > 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--tools", nargs="+", default=TOOLS, choices=("memcheck", "racecheck", "initcheck", "synccheck")
    )
    parser.add_argument("--select", default=SELECT, help="pytest's -k expression")
    parser.add_argument("--at-once", action="store_true", help="all tools at the same time, in processes of their own")
    parser.add_argument("--out", default=HERE.parents[1] / "results/bench/cuda_sanitizer.json")
    args = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("needs a CUDA device, and PyTorch finds none", file=sys.stderr)
        return 1
    try:
        sanitizer = find_sanitizer()
    except FileNotFoundError as e:
        print(e, file=sys.stderr)
        return 1
    found = []
    with ThreadPoolExecutor(len(args.tools) if args.at_once else 1) as pool:
        for done in as_completed([pool.submit(run, sanitizer, tool, args.select) for tool in args.tools]):
            found.append(done.result())
            print("{tool}: {errors} errors, {tests_passed} tests passed, {seconds:.0f} s".format(**found[-1]))
            write_result(args.out, dict(runs=found, select=args.select, provenance=provenance(seed=None)))
    return 0 if all(map(clean, found)) else 1


if __name__ == "__main__":
    sys.exit(main())
