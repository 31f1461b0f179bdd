"""The efficiency benchmark counts and measures what it says."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from rwkvlib.models.baselines import BASELINES

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("bench_efficiency")


def test_all_networks_are_in_it(bench):
    assert set(bench.MODELS) == {"rwkv_unet_t", "rwkv_unet_s", "rwkv_unet_b", *BASELINES}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_rows_hold_counts_and_measurements(bench, monkeypatch, tmp_path):
    out = tmp_path / "out.json"
    options = ["--sizes", "64", "256", "--models", "unet", "--repeats", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["bench_efficiency.py", *options])
    bench.main()
    small, large = json.loads(out.read_text())["rows"]
    assert small["parameters"] == large["parameters"] == 6_495_868
    assert large["macs"] == 16 * small["macs"] and large["seconds"] > small["seconds"] > 0
    # Feature maps of 16 times as many pixels; the largest are 32 channels at half the size, several at a time.
    assert large["peak_mib"] > 5 and large["peak_mib"] > 2 * small["peak_mib"]
