"""The attention benchmark compares equals with equals, and its exponents are those of its times."""

import importlib
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("bench_attention")


def test_two_forms_of_one_operator_give_one_output(bench):
    y = {name: run() for name, run in bench.contenders(100).items()}
    assert all(x.shape == (1, 100, bench.C) for x in y.values())
    torch.testing.assert_close(y["softmax, fused"], y["softmax, written out"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(y["Bi-WKV, linear"], y["Bi-WKV, quadratic"], rtol=1e-4, atol=1e-5)


def test_linear_attention_weighs_by_products_of_features(bench):
    g = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 20, 5, generator=g, dtype=torch.float64)
    features = [torch.where(x > 0, x + 1, x.exp()) for x in (q, k)]
    weights = torch.einsum("btd,bid->bti", *features)
    expected = (weights / weights.sum(-1, keepdim=True)) @ v
    torch.testing.assert_close(bench.linear_attention(q, k, v), expected)


def test_matrices_beyond_the_limit_are_left_out(bench):
    assert "Bi-WKV, quadratic" in bench.contenders(1024)
    assert "Bi-WKV, quadratic" not in bench.contenders(2048)


def test_exponent_is_the_slope_at_the_longest_lengths(bench):
    # A constant cost dominates the short lengths, as a call does.
    values = {2**n: max(1.0, 1e-4 * 4**n) for n in range(6, 14)}
    assert bench.exponent(values) == pytest.approx(2)


def test_peak_memory_sees_the_matrix(bench):
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("peak memory is read from Linux's /proc")
    written_out, fused = (bench.peak_memory(f"softmax, {form}", 4096) for form in ("written out", "fused"))
    assert written_out > 4096**2 * 4 > 4 * fused
