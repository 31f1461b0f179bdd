"""The operator's benchmark at the lengths of volumes."""

import importlib
from pathlib import Path

import pytest


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("bench_wkv")


def test_exponent_is_the_power_that_values_grow_as(bench):
    assert bench.exponent({T: 3e-9 * T**1.5 for T in bench.VOLUMES}) == pytest.approx(1.5)
    assert bench.VOLUMES[0] == 2**14 and bench.VOLUMES[-1] == 2**20


def test_volumes_print_time_and_memory_by_length(bench, capsys):
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("peak memory is read from Linux's /proc")
    powers = bench.volumes((2**15, 2**17), C=8, repeats=1)
    shown = capsys.readouterr().out
    assert "   32768" in shown and "  131072" in shown and "memory grows as T to the power of" in shown
    assert 0.7 < powers["memory"] < 1.3
