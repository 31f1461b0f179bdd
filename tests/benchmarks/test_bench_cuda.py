"""The GPU benchmark without a GPU: its logic with a clock for the CPU, its kernels compiled for the CPU."""

import functools
import importlib.util
import json
import os
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch

from rwkvlib.models import create_model
from rwkvlib.wkv import cuda
from rwkvlib.wkv.oracle import bi_wkv_oracle
from tests.wkv.conftest import assert_near, change_backend, gradients, make_inputs
from tests.wkv.host_kernels import HostKernels, compile_host, compile_source

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu" / "bench_cuda.py"
CPU = torch.device("cpu")


def load():
    spec = importlib.util.spec_from_file_location("bench_cuda", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


bench = load()


class CpuClock(bench.Clock):
    def __init__(self):
        self.seconds, self.rounds = 0.0, (1, 1)

    def once(self, function):
        start = time.perf_counter()
        function()
        seconds = time.perf_counter() - start
        return seconds, seconds

    def peak(self, function):
        function()
        return 1


@pytest.fixture
def report(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "provenance", lambda seed, command: dict(command=command))
    return bench.Report(tmp_path / "wkv_cuda.json", 1000, "the command")


def stored(report):
    return json.loads(report.out.read_text())


@pytest.fixture(scope="module")
def libraries(require_tool, tmp_path_factory):
    """Both kernel files compiled for the CPU in float32, bi_wkv.cu with small blocks."""
    folder, compiler = tmp_path_factory.mktemp("kernels"), require_tool("g++")
    macros = bench.textbook_macros() | dict(SEGMENTS="1")
    found = dict(textbook=HostKernels(compile_source(bench.TEXTBOOK, folder / "textbook.so", compiler, macros)))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in dict(LANES=4, SEGMENTS=2, TOKENS=4).items():
            patch.setattr(cuda, name, value)
        found["bi_wkv"] = HostKernels(compile_host(folder, compiler, torch.float32))
    return found


@pytest.fixture
def host_kernels(libraries, monkeypatch):
    """Backend "cuda" and the textbook kernel run on CPU tensors."""

    def kernels(device, dtype):
        if dtype != torch.float32:
            raise cuda.KernelUnavailable("compiled for float32 only")
        if (cuda.SEGMENTS, cuda.TOKENS) != (2, 4):
            raise cuda.KernelUnavailable("compiled for one block only")
        return libraries["bi_wkv"]

    for name, value in dict(LANES=4, SEGMENTS=2, TOKENS=4, kernels=kernels).items():
        monkeypatch.setattr(cuda, name, value)
    change_backend(monkeypatch, "cuda", device="cpu")
    monkeypatch.setattr(bench, "textbook_kernels", lambda device: libraries["textbook"])


# ------------------------------------------------------------------------------------------------ the textbook kernel


@pytest.mark.parametrize(("shape", "w", "k"), [((2, 33, 5), 0.1, 1.0), ((3, 40, 33), -0.1, 10.0), ((1, 1, 2), 1, 1)])
def test_textbook_kernel_equals_oracle(shape, w, k, host_kernels):
    inputs = make_inputs(*shape, w, k)
    g = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = [tensor.float() for tensor in inputs]
    assert_near(bench.textbook_forward(*x)[0], bi_wkv_oracle(*inputs), 1e-5, "y")
    expected = gradients(bi_wkv_oracle, inputs, g)
    for name, a, b in zip("wukv", bench.textbook_both(*x, g.float()), expected, strict=True):
        assert_near(a, b, 1e-4, f"gradient of {name}")


def test_textbook_kernel_compiles_for_hopper(require_package):
    require_package("cuda.core")
    cubin = bench.compile_textbook("sm_90")
    assert cubin[:4] == b"\x7fELF"
    assert b"textbook_forward" in cubin and b"textbook_backward" in cubin


# ------------------------------------------------------------------------------------------------ the operator


def test_operator_part_on_a_cpu(host_kernels, report, monkeypatch):
    monkeypatch.setattr(bench, "copy_bandwidth", lambda clock, device: 1e9)
    cases = [bench.Case(2, 12, 5), bench.Case(1, 7, 65), bench.Case(1, 7, 5, "bfloat16")]
    bench.operator_part(report, CpuClock(), CPU, cases)
    result = stored(report)
    layout = {"provenance", "device", "operator", "first_use", "models", "goals", "not_run"}
    assert layout <= set(result)
    assert result["device"] == {"copy_bytes_per_s": 1e9}
    assert [(e["B"], e["T"], e["C"], e["dtype"]) for e in result["operator"]] == [
        (2, 12, 5, "float32"),
        (1, 7, 65, "float32"),
        (1, 7, 5, "bfloat16"),
    ]
    for entry in result["operator"]:
        whole = entry["dtype"] == "float32"
        assert entry["flash_C"] == 64
        assert set(entry["skipped"]) == (set() if whole else {"cuda", "textbook"})
        for task in ("forward", "both"):
            seconds, bound = entry["seconds"][task], entry["bound_seconds"][task]
            assert list(seconds) == list(entry["peak_bytes"][task]) == ["cuda", "tree", "textbook", "flash"]
            assert [name for name in seconds if seconds[name] is None] == ([] if whole else ["cuda", "textbook"])
            expected = {"cuda / bound": (seconds["cuda"], bound)}
            expected |= {f"{name} / cuda": (seconds[name], seconds["cuda"]) for name in ("tree", "textbook", "flash")}
            assert set(entry["ratios"][task]) == set(expected)
            for name, (a, b) in expected.items():
                known = None not in (a, b)
                assert entry["ratios"][task][name] == (pytest.approx(a / b) if known else None), name
    half = result["operator"][2]["skipped"]
    assert half["textbook"] == "float32 only"
    assert half["cuda"] == "; ".join(f"{t}: KernelUnavailable; compiled for float32 only" for t in ("forward", "both"))


def test_bounds_count_every_byte():
    bytes_ = bench.bound_seconds(bench.Case(24, 784, 576), bandwidth=1.0)
    assert bytes_ == dict(forward=12 * 24 * 784 * 576, both=44 * 24 * 784 * 576)
    assert bench.bound_seconds(bench.Case(1, 2, 3, "bfloat16"), bandwidth=2.0) == dict(forward=18, both=78)


def test_cases_have_the_widths_of_the_models_and_the_goals_first():
    assert sorted(bench.widths()) == [288, 384, 560, 576, 768, 960]
    cases = bench.operator_cases()
    assert len(cases) == len(set(cases))
    assert cases[:3] == [bench.Case(24, 784, 576), bench.Case(1, 784, 576), bench.Case(1, 16384, 768)]
    for C in bench.widths():
        assert {c.T for c in cases if (c.B, c.C) == (1, C)} == set(bench.TS)
        batches = {(24, 196), (24, 784), (24, 1024), (4, 4096)}
        assert {(c.B, c.T) for c in cases if c.C == C and c.B > 1 and c.dtype == "float32"} == batches
    assert [bench.flash_width(C) for C in (5, 288, 384, 560, 576, 768, 960)] == [64, 256, 384, 576, 576, 768, 960]


def test_contenders_compute_the_same(host_kernels):
    case = bench.Case(2, 12, 5)
    (forward, both), (x, _) = bench.contenders(case, CPU).values(), bench.inputs(case, CPU)
    for name in ("cuda", "textbook"):
        y = forward[name]()
        assert_near(y[0] if name == "textbook" else y, bi_wkv_oracle(*x), 1e-5, name)
        for a, b in zip(both[name](), both["tree"](), strict=True):
            assert_near(a, b, 1e-4, name)
    assert [grad.shape for grad in both["flash"]()] == [(2, 1, 12, 64)] * 3


def out_of_memory():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 EiB\nand much more text")


def refused():
    warnings.warn("the device is too old", UserWarning, stacklevel=1)
    raise RuntimeError("No available kernel. Aborting execution.")


def test_contender_that_fails_is_skipped_with_its_reason(host_kernels, report, monkeypatch):
    original = bench.contenders

    def failing(case, device):
        functions = original(case, device)
        functions["both"]["tree"] = out_of_memory
        for task in bench.TASKS:
            functions[task]["flash"] = refused
        return functions

    monkeypatch.setattr(bench, "contenders", failing)
    entry = bench.measure_case(bench.Case(1, 7, 5), CpuClock(), 1e9, CPU)
    why = "RuntimeError; No available kernel. Aborting execution.; the device is too old"
    assert entry["skipped"] == dict(tree="both: out of memory", flash=f"forward: {why}; both: {why}")
    assert entry["seconds"]["forward"]["tree"] > 0 and entry["seconds"]["both"]["tree"] is None
    assert entry["ratios"]["both"]["tree / cuda"] is None and entry["ratios"]["both"]["textbook / cuda"] > 0


def test_clock_gives_medians_and_interleaves():
    class Scripted(CpuClock):
        def __init__(self):
            self.seconds, self.rounds, self.script = 60, (1, 3), iter([9, 9, 1, 10, 7, 30, 2, 20])

        def once(self, function):
            function()
            seconds = next(self.script)
            return seconds, seconds / 2

    order = []
    functions = {name: functools.partial(order.append, name) for name in "ab"}
    assert Scripted().time(functions) == (dict(a=2, b=20), dict(a=1, b=10))
    assert order == ["a", "b"] * 4


def test_copy_bandwidth_counts_reads_and_writes():
    class Second(CpuClock):
        def once(self, function):
            function()
            return 2.0, 0.0

    assert bench.copy_bandwidth(Second(), CPU, size=4096) == 4096


# ------------------------------------------------------------------------------------------------ budget


def test_budget_cuts_and_says_what(host_kernels, report, monkeypatch):
    monkeypatch.setattr(bench, "copy_bandwidth", lambda clock, device: 1e9)
    now = iter([0, 5, 999, 1000, 1001])
    monkeypatch.setattr(report, "seconds", lambda: next(now, 2000))
    clock = CpuClock()
    monkeypatch.setattr(bench, "measure_case", lambda case, *_: made_up(case.B, case.T, case.C))
    monkeypatch.setattr(report, "write", lambda: None)
    bench.operator_part(report, clock, CPU, [bench.Case(1, T, 5) for T in (1, 2, 3, 4)])
    assert [entry["T"] for entry in report.result["operator"]] == [1, 2, 3]
    assert report.result["not_run"] == [dict(what="operator (1, 4, 5) float32", why="the budget of 1000 s")]
    bench.models_part(report, clock, CPU, bench.model_cases()[:1])
    bench.first_use_part(report, call=lambda folder: 1.0, repeats=1)
    bench.tuning_part(report, clock, CPU, cases=[(1, 2, 3)])
    assert [entry["what"] for entry in report.result["not_run"][1:]] == [
        "RWKV-UNet-T 256 bfloat16 eager training",
        "first use, repeat 1",
        "tuning (1, 2, 3) float32",
    ]
    assert report.result["first_use"]["cold_s"] is None


def test_budget_leaves_room_for_what_is_expected(report):
    assert report.may_run("short", needs=10)
    assert not report.may_run("long", needs=10_000)
    assert [entry["what"] for entry in report.result["not_run"]] == ["long"]


# ------------------------------------------------------------------------------------------------ first use


def test_first_use_is_cold_then_warm(report):
    def call(folder):
        cold = not os.listdir(folder)
        Path(folder, "kernel").touch()
        calls.append(folder)
        return 1.5 if cold else 0.1

    calls = []
    bench.first_use_part(report, call, repeats=3)
    assert stored(report)["first_use"] == dict(cold_s=1.5, warm_s=0.1, cold_all_s=[1.5] * 3, warm_all_s=[0.1] * 3)
    assert len(set(calls)) == 3


def test_first_use_that_fails_is_noted(report):
    def call(folder):
        raise RuntimeError("no driver")

    bench.first_use_part(report, call, repeats=1)
    assert report.result["not_run"] == [dict(what="first use, repeat 1", why="RuntimeError; no driver")]
    assert report.result["first_use"]["warm_s"] is None


def test_first_call_is_timed_in_a_process_of_its_own(tmp_path, monkeypatch):
    assert 0 < bench.first_call(str(tmp_path), "cpu", "tree") < 60
    monkeypatch.setattr(bench, "FIRST_CALL", "raise ValueError('wrong')")
    with pytest.raises(RuntimeError, match="ValueError: wrong"):
        bench.first_call(str(tmp_path))


def test_torch_home_moves_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert cuda.cache_folder() == tmp_path / "rwkvlib"


# ------------------------------------------------------------------------------------------------ models


@pytest.fixture
def small_models(monkeypatch):
    small = dict(depths=(1, 1, 2, 2), dims=(8, 8, 16, 16))
    monkeypatch.setattr(bench, "build_model", lambda name: create_model("rwkv_unet_t", **small))
    monkeypatch.setattr(bench, "MODEL_BATCH", {32: 4})
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda model: compiled.append(model) or model)
    return compiled


def test_models_part_on_a_cpu(small_models, report):
    runs = [("float32", "eager", "training"), ("bfloat16", "eager", "inference"), ("float32", "compiled", "training")]
    bench.models_part(report, CpuClock(), CPU, [bench.ModelCase("RWKV-UNet-T", 32, *run) for run in runs])
    models = stored(report)["models"]
    assert [(e["dtype"], e["mode"], e["task"]) for e in models] == runs
    for entry in models:
        assert (entry["model"], entry["size"], entry["batch"]) == ("RWKV-UNet-T", 32, 4)
        assert entry["images_per_s"] > 0
    assert len(small_models) == 1 and report.result["not_run"] == []


def test_models_take_a_smaller_batch_where_memory_ends(small_models, report, monkeypatch):
    original = bench.model_step

    def step(model, case, x, mask):
        return out_of_memory if len(x) > limit else original(model, case, x, mask)

    monkeypatch.setattr(bench, "model_step", step)
    case = bench.ModelCase("RWKV-UNet-T", 32, "float32", "eager", "inference")
    limit = 1
    bench.models_part(report, CpuClock(), CPU, [case])
    assert [entry["batch"] for entry in report.result["models"]] == [1]
    limit = 0
    bench.models_part(report, CpuClock(), CPU, [case])
    assert report.result["not_run"] == [dict(what=str(case), why="out of memory")]


def test_model_cases_come_in_order_of_importance():
    cases = bench.model_cases()
    assert len(cases) == len(set(cases))
    assert [c.model for c in cases if c.mode == "eager" and c.size == 256][::4] == [*bench.OWN, *bench.BASELINES]
    assert {c.size for c in cases[: cases.index(next(c for c in cases if c.mode == "compiled")) + 12]} == {256}
    assert len([c for c in cases if c.model in bench.OWN]) == 3 * 3 * 2 * 2 * 2


@pytest.mark.parametrize("name", bench.BASELINES)
def test_baselines_take_a_training_step(name, require_package, monkeypatch):
    require_package("monai")
    case = bench.ModelCase(name, 64, "bfloat16", "eager", "training")
    assert bench.measure_model(case, 2, CpuClock(), CPU)["images_per_s"] > 0


# ------------------------------------------------------------------------------------------------ goals


def made_up(B, T, C, **seconds):
    """An entry of "operator" from the contenders' seconds and a bound of one second, alike for both tasks."""
    times = dict.fromkeys(bench.CONTENDERS) | seconds
    entry = dict(B=B, T=T, C=C, dtype="float32", seconds=dict.fromkeys(bench.TASKS, times))
    return dict(entry, ratios=dict.fromkeys(bench.TASKS, bench.ratios(times, 1.0)))


def verdicts(operator=(), **first_use):
    return {goal["name"]: goal for goal in bench.judge(dict(operator=list(operator), first_use=first_use))}


def test_goals_are_null_where_nothing_is_measured():
    goals = verdicts()
    assert len(goals) == 22
    for entry in goals.values():
        assert {"name", "required", "measured", "met"} <= set(entry)
        assert entry["measured"] is None and entry["met"] is None


def test_goals_are_met_and_missed():
    goals = verdicts(
        [
            made_up(24, 784, 576, cuda=3.0),
            made_up(1, 784, 576, cuda=1.0, textbook=6.0),
            made_up(1, 196, 288, cuda=1.0, textbook=4.0),
            made_up(1, 4096, 288, cuda=1.0),
            made_up(1, 16384, 768, cuda=2.0, flash=20.0),
        ],
        cold_s=2.0,
        warm_s=0.1,
    )
    expected = {
        "forward at (24, 784, 576) float32 / bound": (3.0, False),
        "both at (24, 784, 576) float32 / bound": (3.0, True),
        "textbook / cuda at (1, 784, 576), forward": (6.0, True),
        "textbook / cuda, the smallest where B = 1, both": (4.0, False),
        "flash / cuda at (1, 16384, 768), both": (10.0, True),
        "first use, cold, seconds": (2.0, False),
        "first use, warm, seconds": (0.1, True),
    }
    for name, (measured, met) in expected.items():
        assert goals[name]["measured"] == pytest.approx(measured) and goals[name]["met"] is met, name
    least = goals["textbook / cuda, the smallest where B = 1, both"]
    assert (least["T"], least["C"]) == (196, 288)


def test_crossing_is_interpolated_in_logarithms():
    Ts = [100, 1000, 10000]
    power = [T**2 for T in Ts]
    assert bench.crossing(Ts, [300 * T for T in Ts], power) == pytest.approx(300)
    assert bench.crossing(Ts, [1000 * T for T in Ts], power) == pytest.approx(1000)
    assert bench.crossing(Ts, [T for T in Ts], power) is None
    assert bench.crossing(Ts, [20000 * T for T in Ts], power) is None
    assert bench.crossing(Ts, [1, 4, 1], [2, 1, 4]) == pytest.approx(10**3.5)  # the last of several
    assert bench.crossing([100], [1], [2]) is None
    assert bench.crossing([], [], []) is None


def test_crossing_goal_says_which_is_faster():
    name = "T from which on cuda is faster than flash, C = 288, B = 1, both"
    entries = [made_up(1, T, 288, cuda=300.0 * T, flash=float(T**2)) for T in (1000, 100)]
    at = verdicts(entries)[name]
    assert (at["measured"], at["required"], at["met"]) == (pytest.approx(300), None, None)
    fast = [made_up(1, T, 288, cuda=1.0, flash=2.0) for T in (10, 20)]
    assert verdicts(fast)[name]["note"] == "cuda is faster at every T measured, 10 to 20"
    mixed = [made_up(1, 10, 288, cuda=1.0, flash=2.0), made_up(1, 20, 288, cuda=2.0, flash=1.0)]
    assert verdicts(mixed)[name]["note"] == "flash is faster at T = 20"
    assert verdicts([made_up(1, 10, 288, cuda=1.0)])[name]["note"] == "not measured"


# ------------------------------------------------------------------------------------------------ tuning, the whole


def test_tuning_notes_what_does_not_launch(host_kernels, report):
    before = cuda.SEGMENTS, cuda.TOKENS, cuda._found
    bench.tuning_part(report, CpuClock(), CPU, cases=[(1, 9, 5)], settings=[(2, 4), (16, 16)])
    good, bad = stored(report)["tuning"]
    assert (good["segments"], good["tokens"], good["error"]) == (2, 4, None)
    assert good["seconds"]["forward"] > 0 and good["seconds"]["both"] > 0
    assert bad["seconds"] == dict(forward=None, both=None)
    assert bad["error"].startswith("forward: KernelUnavailable; compiled for one block only; both: ")
    assert (cuda.SEGMENTS, cuda.TOKENS) == before[:2] and cuda._found is before[2]


def test_tuning_hands_every_setting_a_table_of_its_own():
    seen, table = [], {}
    bench.with_block(4, 12, table, lambda: seen.append((cuda.SEGMENTS, cuda.TOKENS, cuda._found is table)))()
    assert seen == [(4, 12, True)] and cuda._found is not table


@pytest.fixture
def pretended(monkeypatch, report):
    """A device, so that `main` runs; every part does nothing but note its name."""
    ran = []
    monkeypatch.setattr(bench, "find_device", lambda: CPU)
    monkeypatch.setattr(bench, "describe", lambda device: dict(name="none"))
    monkeypatch.setattr(bench, "Clock", lambda device: CpuClock())
    for name in ("operator", "first_use", "tuning", "models"):
        monkeypatch.setattr(bench, f"{name}_part", lambda report, *_, name=name, **__: ran.append(name))
    return ran


def test_main_runs_the_parts_asked_for(pretended, tmp_path, capsys):
    out = tmp_path / "here.json"
    bench.main(["--out", str(out)])
    assert pretended == ["operator", "first_use", "models"]
    result = json.loads(out.read_text())
    assert result["not_run"] == [] and result["device"] == dict(name="none") and len(result["goals"]) == 22
    pretended.clear()
    bench.main(["--out", str(out), "--parts", "operator", "--tune"])
    assert pretended == ["operator", "tuning"]
    assert [entry["what"] for entry in json.loads(out.read_text())["not_run"]] == ["first_use", "models"]
    assert "written:" in capsys.readouterr().out


def test_without_a_device_it_ends_with_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as e:
        bench.main(["--out", str(tmp_path / "results" / "none.json")])
    message = e.value.code  # a text, which Python prints to stderr before it exits with status 1
    assert message.startswith("bench_cuda.py needs a CUDA device: PyTorch ") and "\n" not in message
    assert capsys.readouterr().out == "" and not list(tmp_path.iterdir())


def test_without_the_kernel_it_ends_with_one_line(monkeypatch):
    def missing(device, dtype):
        raise cuda.KernelUnavailable("the package cuda-core\nis missing")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(cuda, "kernels", missing)
    with pytest.raises(SystemExit) as e:
        bench.find_device()
    assert e.value.code == "bench_cuda.py needs the CUDA kernel: the package cuda-core is missing"
