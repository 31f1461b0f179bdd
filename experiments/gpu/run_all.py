"""Everything that only a GPU can show, in one command: is it right, how fast is it, what does it learn.

    python experiments/gpu/prepare.py --data kvasir_seg=PATH glas=PATH        # with a network, once
    python experiments/gpu/run_all.py --budget 570 --out results/gpu/NAME     # on the GPU machine, without one

Parts run in order of worth, each in a process of its own with a time limit of its own, so that one that hangs or fails
costs only itself. Each leaves DIR/PART.json (status, seconds, result, provenance) and its output in DIR/log.txt; a part
that is done is skipped when the command is given again, and the training goes on with the runs that are missing.
"""

import argparse
import contextlib
import csv
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
BROUGHT = Path(__file__).with_name("brought")  # of prepare.py; git ignores it
ARCHIVE = BROUGHT / f"packages-{sys.version_info.major}.{sys.version_info.minor}.tar.xz"  # for another Python: not used
TABLE = Path(__file__).with_name("runs.yaml")
REHEARSAL = Path(__file__).with_name("rehearsal.yaml")
LOG = "log.txt"
START_AND_SCORE = 30.0  # seconds of a run beside its training: imports, data, the test's scores
PAIRS_AT_ONCE = 2  # four processes share the GPU; each pair's two networks have the same neighbours
LEAST = 5.0  # seconds; no part begins with less


@dataclass(frozen=True)
class Part:
    """One process. "{out}" in the command stands for the file that it writes its result to, "{weights}" for a file of
    weights that is brought back, "{seconds}" for its limit less a reserve; `collect` makes a result from the output of
    a process that writes none, or was killed before."""

    name: str
    limit: float  # seconds
    command: Sequence[str]
    collect: Callable[[str], dict] | None = None
    extra: bool = False  # only where --parts names it: what comes back may be no more than eight files
    reserve: float = 5.0  # seconds of the limit that are not the command's to plan with


def python(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, *arguments)


def tests_in(output: str) -> dict:
    """What pytest -v has said of each test before its end: counts, and the names of those that failed."""
    words = "PASSED|FAILED|ERROR|SKIPPED"
    rows = re.findall(rf"^\[gw\d+\] \[ *\d+%\] ({words}) (\S.*)$", output, re.M)  # of several processes
    if not rows:
        rows = [(status, name) for name, status in re.findall(rf"^(tests/\S.*?) ({words})\b", output, re.M)]
    found = {name.strip(): status for status, name in rows}
    counts = {s.lower(): sum(x == s for x in found.values()) for s in ("PASSED", "FAILED", "ERROR", "SKIPPED")}
    return dict(counts, not_passed=sorted(name for name, s in found.items() if s in ("FAILED", "ERROR")))


def ncu_rows(output: str) -> dict:
    """The table of Nsight Compute's --csv output: one dict for each kernel."""
    kernels: dict[tuple, dict] = {}
    for row in csv.DictReader(line for line in output.splitlines() if line.startswith('"')):
        if "Metric Name" not in row:
            continue
        kernel = kernels.setdefault((row["ID"], row["Kernel Name"]), {"kernel": row["Kernel Name"]})
        kernel[f"{row['Metric Name']} [{row['Metric Unit']}]"] = row["Metric Value"]
    return {"kernels": list(kernels.values())}


METRICS = (
    "gpu__time_duration.sum,dram__bytes_read.sum,dram__bytes_write.sum,lts__t_bytes.sum,"
    "dram__throughput.avg.pct_of_peak_sustained_elapsed,sm__throughput.avg.pct_of_peak_sustained_elapsed,"
    "sm__warps_active.avg.pct_of_peak_sustained_active,launch__registers_per_thread,launch__grid_size,"
    "smsp__inst_executed.sum,smsp__inst_executed_pipe_xu.sum,smsp__inst_executed_pipe_fma.sum,"
    "smsp__inst_executed_pipe_alu.sum,smsp__issue_active.avg.pct_of_peak_sustained_active,"
    "smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active.ratio,"
    "smsp__average_warps_issue_stalled_barrier_per_issue_active.ratio,"
    "smsp__average_warps_issue_stalled_math_pipe_throttle_per_issue_active.ratio,"
    "smsp__average_warps_issue_stalled_mio_throttle_per_issue_active.ratio"
)
PROFILED = """
import torch
from rwkvlib import bi_wkv
B, T, C = 24, 784, 576
x = [torch.randn(*s, device="cuda") for s in ((C,), (C,), (B, T, C), (B, T, C))]
x = [x[0] * 3 / T, x[1] / T, x[2], x[3]]
x = [t.requires_grad_() for t in x]
g = torch.randn(B, T, C, device="cuda")
for i in range(2):
    y = bi_wkv(*x, backend="cuda")
    torch.autograd.grad(y, x, g)
torch.cuda.synchronize()
"""


def plan(rehearse: bool = False) -> list[Part]:
    """The parts on a GPU, the most important first; or with tiny shapes on a CPU, where what needs a GPU fails."""
    tiny = ("--rehearse",) if rehearse else ()

    def measured(part: str, *more: str) -> tuple[str, ...]:
        bench = "benchmarks/gpu/bench_cuda.py"
        return python(bench, "--out", "{out}", "--budget-seconds", "{seconds}", "--parts", part, *more)

    tests = ("tests/gpu/test_sanitize.py", "-n", "2") if rehearse else ("tests/gpu", "-n", "8")
    script = python("experiments/gpu/teacher.py", "--seconds", "{seconds}", "--out", "{out}", "--weights", "{weights}")
    small = ("images=64", "batch_size=4", "size=32", "overrides={depths: [1,1,2,2], dims: [8,8,16,16]}")
    large = ("images=4000000", "batch_size=64", "mixed_precision=bf16", "num_workers=14", "warmup_epochs=0.005")
    taught = (*script, *(small if rehearse else (*large, "validate_every=1000")))
    ncu = ("ncu", "--clock-control", "none", "--csv", "--metrics", METRICS, "-k", "regex:ward|sum_rows")
    parts = [
        Part("doctor", 60, python("-m", "rwkvlib", "doctor", "--json", "{out}")),
        Part("tests", 100, python("-m", "pytest", "-v", "-p", "no:cacheprovider", "--color=no", *tests), tests_in),
        Part("operator", 100, measured("operator", *tiny)),
        Part("first_use", 60, measured("first_use", *tiny)),
        Part("sanitizer", 60, python("tests/gpu/sanitize.py", "--out", "{out}", "--at-once")),
        Part("models", 90, measured("models", *tiny)),
        Part("training", math.inf, ()),  # `train_pairs`, for as long as there is time
        Part("tuning", 60, measured("--tune"), extra=True),
        Part("profile", 40, (*ncu, *python("-c", PROFILED)), ncu_rows, extra=True),
        Part("teacher", 8 if rehearse else 540, taught, extra=True, reserve=4 if rehearse else 60),
    ]
    # A CPU takes longer, and others may use it too.
    return [replace(part, limit=10 * part.limit) for part in parts] if rehearse else parts


# ------------------------------------------------------------------------------------------------ one process


def environment() -> dict[str, str]:
    """Of every process: the checkout first, then the packages that were brought along."""
    paths, more = [str(ROOT)], os.environ.get("PYTHONPATH")
    if ARCHIVE.exists():
        paths.append(str(unpacked()))
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // 4))}  # up to four processes at a time
    return (
        threads
        | os.environ
        | {"PYTHONPATH": os.pathsep.join(paths + ([more] if more else [])), "PYTHONUNBUFFERED": "1"}
    )


def unpacked() -> Path:
    """The folder of the brought packages, unpacked once for each version of the archive."""
    folder = Path(tempfile.gettempdir()) / f"rwkvlib_packages_{ARCHIVE.stat().st_size}_{os.getuid()}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=folder.parent) as partial:
            with tarfile.open(ARCHIVE) as tar:
                tar.extractall(Path(partial) / "site", filter="data")
            with contextlib.suppress(OSError):  # another process was first
                (Path(partial) / "site").rename(folder)
    return folder


def start(command: Sequence[str], log: Path) -> subprocess.Popen:
    """A process in a session of its own, so that all that it starts can be ended with it."""
    with log.open("ab") as file:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=environment(),
            start_new_session=True,
        )


def stop(process: subprocess.Popen) -> None:
    """Ends a process and whatever it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait(processes: Sequence[subprocess.Popen], seconds: float) -> None:
    """Until all have ended, or the time is over, when those that are left are killed."""
    end = time.monotonic() + seconds
    try:
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, end - time.monotonic()))
    finally:
        for process in processes:
            stop(process)


def say(out: Path, line: str) -> None:
    print(line, flush=True)
    with (out / LOG).open("a", encoding="utf8") as log:
        log.write(f"== {line}\n")


def status_of(code: int, in_time: bool) -> str:
    if not in_time:
        return "out of time"
    return "done" if code == 0 else f"killed by signal {-code}" if code < 0 else f"failed with {code}"


def read_json(path: Path, substitute: Mapping[str, str] | None = None) -> dict | None:
    """What a file holds, or None where there is none or it is cut; paths of this machine replaced."""
    try:
        text = path.read_text(encoding="utf8")
        for old, new in (substitute or {}).items():
            text = text.replace(old, new)
        return json.loads(text)
    except (OSError, ValueError):
        return None


def run_part(part: Part, out: Path, seconds: float) -> str:
    """Runs one part for at most so many seconds, and write its file. Returns its status."""
    from rwkvlib.provenance import provenance, write_result

    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        result, own_log = Path(folder) / "result.json", Path(folder) / "log"
        weights = out.resolve() / f"{part.name}.safetensors"
        values = dict(out=str(result), weights=str(weights), seconds=f"{max(1.0, seconds - part.reserve):g}")
        command = [re.sub(r"^\{(out|weights|seconds)\}$", lambda m: values[m[1]], word) for word in part.command]
        try:
            process = start(command, own_log)
        except OSError as error:  # a tool that is not installed
            status, code = f"not started: {error}", None
        else:
            wait([process], seconds)
            code = process.returncode
            status = status_of(code, time.monotonic() - began < seconds)
        output = own_log.read_text(encoding="utf8", errors="replace") if own_log.exists() else ""
        with (out / LOG).open("a", encoding="utf8") as log:
            log.write(output[-200_000:])
        found = (
            part.collect(output)
            if part.collect
            else read_json(result, {str(result): f"{part.name}.json", f"{ROOT}/": ""})
        )
    line = shlex.join(["python" if word == sys.executable else word for word in part.command])
    entry = dict(part=part.name, status=status, exit_status=code, seconds=time.monotonic() - began, result=found)
    write_result(out / f"{part.name}.json", dict(entry, provenance=provenance(None, line)))
    return status


# ------------------------------------------------------------------------------------------------ training


def pairs(table: Path, brought: Path) -> list[list[dict]]:
    """The runs of the table that have their data here, as tables of one run each, in pairs: seed by seed."""
    import yaml

    whole = yaml.safe_load(table.read_text(encoding="utf8"))
    groups: dict[tuple, list[dict]] = {}
    for seed in whole["seeds"]:
        for name, run in whole["runs"].items():
            recipe = yaml.safe_load((table.parent / run["config"]).read_text(encoding="utf8"))
            data = run.get("data") or recipe["data"]
            if not data.startswith("synthetic"):
                found = brought / f"{Path(data).name}.zip"
                data = str(found) if found.exists() else str(ROOT / data)
                if not Path(data).exists():
                    continue
            fields = dict(run, data=data, config=str((table.parent / run["config"]).resolve()))
            single = {key: value for key, value in whole.items() if key not in ("runs", "seeds")}
            key = (seed, name.rsplit("_", 1)[0])
            groups.setdefault(key, []).append(dict(single, seeds=[seed], runs={name: fields}))
    return list(groups.values())


def name_of(run: dict) -> str:
    return f"{next(iter(run['runs']))}_{run['seeds'][0]}"


def recipe_of(run: dict) -> dict:
    """What a run's result depends on, in the table: without the places of its files."""
    ((name, fields),) = run["runs"].items()
    names = {key: Path(fields[key]).stem for key in ("config", "data")}
    return json.loads(json.dumps(dict(run, runs={name: fields | names})))


def train_at_once(runs: Sequence[dict], folder: Path, seconds: float) -> Iterator[tuple[str, dict | None, str, str]]:
    """Trains and scores some runs at the same time. Yields of each its name, result (None: there is none), status and
    output."""
    import yaml

    processes = []
    for run in runs:
        file = folder / f"{name_of(run)}.yaml"
        file.write_text(yaml.safe_dump(run), encoding="utf8")
        command = python("-m", "rwkvlib", "sweep", str(file), "--out", str(folder / name_of(run)))
        processes.append(start(command, folder / f"{name_of(run)}.log"))
    wait(processes, seconds)
    for run, process in zip(runs, processes, strict=True):
        name = name_of(run)
        found = read_json(folder / name / f"{name}.json")
        if found is not None:
            found["config"]["data"] = Path(found["config"]["data"]).stem
            found["cases_csv"] = (folder / name / f"{name}.csv").read_text(encoding="utf8")
        output = (folder / f"{name}.log").read_text(encoding="utf8", errors="replace")
        yield name, found, status_of(process.returncode, True), output


def train_pairs(table: Path, out: Path, brought: Path, seconds: float) -> str:
    """Trains and scores as many pairs of the table as the time allows, and gathers them in training.json."""
    from rwkvlib.provenance import provenance, write_result

    end, failed = time.monotonic() + seconds, {}
    done = ((read_json(out / "training.json") or {}).get("result") or {}).get("runs", {})
    wanted = {name_of(run): run for pair in pairs(table, brought) for run in pair}
    if other := [name for name in done if name in wanted and done[name].get("table") != recipe_of(wanted[name])]:
        return f"training.json holds {', '.join(other)} by another recipe than the table's; choose another --out"
    todo = [pair for pair in pairs(table, brought) if any(name_of(run) not in done for run in pair)]
    origin = provenance(None, f"python experiments/gpu/run_all.py --parts training --table {table.name}")

    def write(status: str) -> str:
        entry = dict(part="training", status=status, result=dict(runs=done, failed=failed), provenance=origin)
        write_result(out / "training.json", entry)
        return status

    while todo:
        now, left = todo[:PAIRS_AT_ONCE], end - time.monotonic()
        if left < START_AND_SCORE + max(run["budget_seconds"] for pair in now for run in pair):
            return write(f"the time did not do for {len(todo)} pairs")
        todo = todo[PAIRS_AT_ONCE:]
        with tempfile.TemporaryDirectory() as folder:
            for name, found, status, output in train_at_once([r for pair in now for r in pair], Path(folder), left):
                with (out / LOG).open("a", encoding="utf8") as log:
                    log.write(f"== {name}\n{output[-20_000:]}\n")
                if found is None:
                    failed[name] = status
                    say(out, f"{name}: {status}: {(output.strip().splitlines() or [''])[-1][:200]}")
                    continue
                done[name] = dict(found, table=recipe_of(wanted[name]))
                say(out, f"{name}: mean scores {found['mean']}, {found['log'][-1]['step']} steps")
        write("running")
    return write(f"failed: {', '.join(failed)}" if failed else "done")


# ------------------------------------------------------------------------------------------------ the whole


def settled(out: Path, name: str) -> bool:
    """Whether a part was done before. The training is only when no pair is left, which it finds out itself."""
    entry = read_json(out / f"{name}.json")
    return entry is not None and entry["status"] == "done" and name != "training"


def run_all(
    parts: Sequence[Part],
    out: Path,
    budget: float,
    *,
    table: Path = TABLE,
    brought: Path = BROUGHT,
) -> dict[str, str]:
    """Runs the parts that are not done yet, within so many seconds in all. Returns the status of each."""
    end, statuses = time.monotonic() + budget, {}
    out.mkdir(parents=True, exist_ok=True)
    for part in parts:
        left = end - time.monotonic()
        if settled(out, part.name):
            statuses[part.name] = "done before"
        elif left < LEAST:
            statuses[part.name] = "no time left"
        elif part.name == "training":
            statuses[part.name] = train_pairs(table, out, brought, left)
        else:
            began = time.monotonic()
            statuses[part.name] = run_part(part, out, min(part.limit, left))
            say(out, f"{part.name}: {statuses[part.name]} ({time.monotonic() - began:.0f} s)")
            continue
        say(out, f"{part.name}: {statuses[part.name]}")
    return statuses


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results; what is done there is skipped")
    parser.add_argument("--budget", type=float, default=570, metavar="SECONDS", help="of all parts together")
    parser.add_argument("--parts", nargs="+", metavar="PART", help="only these; also tuning, profile, teacher")
    parser.add_argument("--table", type=Path, default=TABLE, help="of the training runs")
    parser.add_argument("--rehearse", action="store_true", help="the plan on a CPU, with tiny shapes; needs no GPU")
    parser.add_argument("--brought", type=Path, default=BROUGHT, help="what prepare.py has gathered")
    args = parser.parse_args(arguments)
    for path in environment()["PYTHONPATH"].split(os.pathsep):
        if path not in sys.path:
            sys.path.insert(0, path)
    known = {part.name: part for part in plan(args.rehearse)}
    unknown = set(args.parts or []) - set(known)
    if unknown:
        parser.error(f"--parts: expected any of {', '.join(known)}, got {', '.join(sorted(unknown))}")
    parts = [known[name] for name in args.parts] if args.parts else [p for p in known.values() if not p.extra]
    table = REHEARSAL if args.rehearse and args.table == TABLE else args.table
    statuses = run_all(parts, args.out, args.budget, table=table, brought=args.brought)
    return 0 if all(status in ("done", "done before") for status in statuses.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
