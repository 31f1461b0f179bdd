"""How the benchmarks measure on a CPU: times interleaved, peak memory in a process of its own (Linux only)."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def interleaved(
    contenders: Mapping[Any, Callable], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[Any, float]:
    """Median seconds of each callable; one round after another, so that a disturbance meets all of them."""
    times = {name: [] for name in contenders}
    for i in range(repeats + 1):
        for name, run in contenders.items():
            start = clock()
            run()
            if i:  # the first round warms up, and compiles
                times[name].append(clock() - start)
    return {name: statistics.median(t) for name, t in times.items()}


def memory_of(script: str, *arguments: object) -> float:
    """What ``SCRIPT --memory-of ARGUMENTS`` prints, in a process of its own: a resident set never shrinks again."""
    command = [sys.executable, script, "--memory-of", *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peak_bytes(run: Callable[[], Any]) -> tuple[int, Any]:
    """Bytes by which the largest resident set of this process exceeds the present one in a call, and its output."""
    # The peak is set back to the present size, or that of importing torch would hide ours.
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    output = run()
    return _status("VmHWM") - before, output


def _status(field: str) -> int:
    """A memory figure of this process in bytes: VmRSS now, VmHWM at most."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024
