"""The efficiency benchmark counts and measures what it says."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

from rwkvlib.models import model_names

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("bench_efficiency")


def test_all_networks_are_in_it(bench):
    # Than results/bench/efficiency_cpu.json.
    younger = {"lite0_unet", "rwkv_unet_n", "rwkv_unet_p", "unet_narrow", "unet_n", "unet_p", "segresnet"}
    assert set(bench.MODELS) == set(model_names("segmentation")) - younger


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_rows_hold_counts_and_measurements(bench, monkeypatch, tmp_path):
    out = tmp_path / "out.json"
    options = ["--sizes", "64", "256", "--models", "unet", "--onnx", "--repeats", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["bench_efficiency.py", *options])
    monkeypatch.setattr(bench, "second_call", lambda run: float(run().numel()))  # a clock that tells the sizes apart
    bench.main()
    small, large = json.loads(out.read_text())["rows"]
    assert small["parameters"] == large["parameters"] == 6_495_868
    assert large["macs"] == 16 * small["macs"] and (small["seconds"], large["seconds"]) == (64**2, 256**2)
    # Feature maps of 16 times as many pixels; the largest are 32 channels at half the size, several at a time.
    assert large["peak_mib"] > 5 and large["peak_mib"] > 2 * small["peak_mib"]
    assert small["onnx"] is None and small["seconds_as_built"] == small["seconds"], "there is nothing to fold"


def test_what_is_timed_is_what_the_commands_run(bench, monkeypatch):
    """The benchmark calls `predict` with the copy that `predict_files` and `evaluate` make."""
    calls = []
    monkeypatch.setattr(bench, "predict", lambda model, image: calls.append(model))
    ways = bench.forms("rwkv_unet_t", 32, lambda: calls.append("onnx"))
    assert list(ways) == ["seconds", "as_built", "onnx"]
    for run in ways.values():
        run()
    fast, model, onnx = calls
    assert onnx == "onnx"
    folded, whole = (sum(isinstance(m, torch.nn.BatchNorm2d) for m in x.modules()) for x in (fast, model))
    assert folded < whole and fast.final_conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_the_second_of_two_calls_is_timed(bench, monkeypatch):
    clock, calls = iter([10.0, 12.5]), []
    monkeypatch.setattr(bench.time, "perf_counter", lambda: next(clock))
    assert bench.second_call(lambda: calls.append(1)) == 2.5 and len(calls) == 2


def test_the_exported_file_is_timed_compared_and_used_again(bench, require_package, monkeypatch, tmp_path):
    require_package("onnxscript")
    options = ["--sizes", "32", "--models", "unet", "--onnx", "unet", "--repeats", "1", "--threads", "1"]
    options += ["--files", str(tmp_path / "files")]
    for name in ("a.json", "b.json"):
        monkeypatch.setattr(sys, "argv", ["bench_efficiency.py", *options, "--out", str(tmp_path / name)])
        bench.main()
    (a,), (b,) = (json.loads((tmp_path / name).read_text())["rows"] for name in ("a.json", "b.json"))
    assert a["onnx"]["largest_difference"] < 1e-4 and a["onnx"]["megabytes"] > 20 and a["onnx"]["seconds"] > 0
    assert b["onnx"]["export_seconds"] == a["onnx"]["export_seconds"]
