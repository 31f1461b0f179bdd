"""Every backend and both variants against the definition, and against stored values."""

import functools
import math
import warnings

import pytest
import torch

from rwkvlib import wkv
from rwkvlib.layers.conv import map_from_tokens, tokens_from_map
from rwkvlib.wkv import bi_wkv, operators
from rwkvlib.wkv.oracle import bi_wkv_oracle, published_oracle
from tests.wkv.conftest import WIDE, assert_near, by_channel, golden, make_inputs, published_decay

TS = (1, 2, 31, 32, 33, 49, 196, 784, 1025, 4096)
CS = (1, 7, 24, 33)
DECAYS = ("-5/T", "0", "3/T", "1", "50/T", "30")
KS = (1.0, 10.0, WIDE)
# Every pair of values of two of these four meets; each case is run with every backend and dtype.
CASES = [
    (T, CS[(i + j) % (2 if T == 4096 else 4)], decay, KS[(i + 2 * j) % 3])
    for i, T in enumerate(TS)
    for j, decay in enumerate(DECAYS)
]


def decay_value(decay: str, T: int) -> float:
    return float(decay.removesuffix("/T")) / (T if decay.endswith("/T") else 1)


@functools.lru_cache(maxsize=2)
def case_and_expected(T, C, decay, k):
    """Inputs in float64, the definition's result, and the channels it was computed for."""
    inputs = make_inputs(1, T, C, decay_value(decay, T), k, seed=T + C)
    channels = list(range(C)) if T < 500 else sorted({0, C - 1})
    w, u, k, v = inputs
    expected = by_channel(bi_wkv_oracle, w[channels], u[channels], k[..., channels], v[..., channels])
    return inputs, expected, channels


def test_the_cases_cover_every_pair_of_values():
    factors = [TS, CS, DECAYS, KS]
    for a in range(4):
        for b in range(a):
            pairs = {(case[a], case[b]) for case in CASES}
            missing = {(x, y) for x in factors[a] for y in factors[b]} - pairs
            assert missing <= {(33, 4096), (24, 4096)}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("backend", ["scan", "tree", "numba", "cuda"])
@pytest.mark.parametrize(("T", "C", "decay", "k"), CASES)
def test_backends_equal_oracle(T, C, decay, k, backend, dtype):
    inputs, expected, channels = case_and_expected(T, C, decay, k)
    y = bi_wkv(*(x.to(dtype) for x in inputs), backend=backend)
    assert y.dtype == dtype and y.shape == inputs[3].shape
    assert y.isfinite().all()
    tolerance = 1e-8 if dtype == torch.float64 else 2e-2 if k == WIDE else 2e-3
    assert_near(y[..., channels], expected, tolerance)


@pytest.mark.parametrize("backend", ["scan", "tree", "numba"])
def test_exponential_and_logarithm_are_exact_to_float32(backend):
    # Two tokens with v = (0, 1): the first one's output is exp(k) / (1 + exp(k)), its denominator 1 + exp(k).
    k = torch.linspace(-80, 0, 4001)[None, None]
    w, k = torch.zeros(4001), torch.cat([torch.zeros_like(k), k], dim=1)
    v = torch.tensor([0.0, 1.0])[:, None].expand_as(k)
    y = bi_wkv(w, w, k, v, backend=backend)[0, 0]
    assert_near(y / torch.sigmoid(k[0, 1].double()), torch.ones_like(w), 4e-7)  # eps is 1.2e-7
    if backend != "scan":
        logden = wkv._bi_wkv(w, w, k, v, backend)[1][0, 0]
        assert_near(logden, k[0, 1].double().exp().log1p(), 2e-7)


@pytest.mark.parametrize("backend", ["scan", "tree", "numba", "cuda"])
def test_backends_equal_oracle_on_a_batch(backend):
    inputs = make_inputs(3, 50, 70, 0.2, 2.0)  # more than one block of channels in numba_cpu.py
    expected = bi_wkv(*inputs, backend="oracle")
    assert_near(bi_wkv(*inputs, backend=backend), expected, 1e-12)


def test_oracle_is_the_equation_written_as_loops():
    T = 5
    w, u, k, v = make_inputs(1, T, 1, 0.3)
    for t in range(T):
        weights = [torch.exp((u if i == t else -(abs(t - i) - 1) * w) + k[0, i]) for i in range(T)]
        expected = sum(e * v[0, i] for i, e in enumerate(weights)) / sum(weights)
        assert_near(bi_wkv_oracle(w, u, k, v)[0, t], expected, 1e-14)


@pytest.mark.parametrize("backend", ["oracle", "scan", "tree", "numba", "cuda"])
@pytest.mark.parametrize("T", [49, 196])
def test_paper_variant_equals_stored_values(T, backend):
    g = golden(T)
    assert_near(bi_wkv(g["w"], g["u"], g["k"], g["v"], backend=backend), g["paper"], 1e-12)


@pytest.mark.filterwarnings("ignore:variant 'published'")
@pytest.mark.parametrize("backend", ["oracle", "tree", "cuda"])
@pytest.mark.parametrize("T", [49, 196])
def test_published_variant_equals_the_published_kernel(T, backend):
    g = golden(T)
    y = bi_wkv(g["w"], g["u"], g["k"], g["v"], variant="published", backend=backend)
    assert_near(y, g["published"], 5e-7)  # the kernel has 1e-6 in its denominator
    assert (g["published"] - g["paper"]).abs().max() > 1e-3  # it is another function


@pytest.mark.parametrize(("share", "k"), [(1.0, 1.0), (-1.0, 10.0), (-0.4, WIDE), (0.4, WIDE)])
@pytest.mark.parametrize("T", [1, 2, 31, 32, 33, 49, 196, 784, 1000, 1024])
@pytest.mark.parametrize("backend", ["tree", "cuda"])
def test_published_variant_equals_published_oracle(T, share, k, backend):
    inputs = make_inputs(*((2, T, 3) if T < 500 else (1, T, 1)), published_decay(T, share), k, seed=T)
    expected = by_channel(published_oracle, *inputs)
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 2e-2 if k == WIDE else 2e-3)):
        y = bi_wkv(*(x.to(dtype) for x in inputs), variant="published", backend=backend)
        assert y.dtype == dtype
        assert_near(y, expected, tolerance, str(dtype))


@pytest.mark.parametrize("backend", ["oracle", "tree", "cuda"])
@pytest.mark.parametrize("T", [1, 32, 49, 196])
def test_variants_agree_without_decay(T, backend):
    inputs = make_inputs(2, T, 5, 0.0)
    expected = bi_wkv(*inputs, backend="oracle")
    assert_near(bi_wkv(*inputs, variant="published", backend=backend), expected, 1e-12)


def test_published_warns_once_outside_its_range(monkeypatch):
    monkeypatch.setattr(operators, "_warned", set())
    inside = make_inputs(1, 64, 2, published_decay(64, 0.99))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bi_wkv(*inside, variant="published")
        bi_wkv(*make_inputs(1, 1024, 2, -published_decay(1024, 0.99)), variant="published")
    outside = make_inputs(1, 64, 2, published_decay(64, 1.01))
    with pytest.warns(RuntimeWarning, match=r"T <= 1024 and \|w\| ceil\(T / 32\) <= 0.5"):
        bi_wkv(*outside, variant="published")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bi_wkv(*outside, variant="published")
    monkeypatch.setattr(operators, "_warned", set())
    with pytest.warns(RuntimeWarning, match="variant 'published'"):
        bi_wkv(*make_inputs(1, 1025, 2, 0.0), variant="published")


@pytest.mark.parametrize("backend", ["tree", "numba"])
@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 7, 5), (10, 9, 8)])
def test_the_tokens_of_a_volume_are_its_flattened_voxels(backend, shape):
    w, u, k, v = make_inputs(2, math.prod(shape), 3, 0.2)
    expected = bi_wkv_oracle(w, u, k, v)
    volumes = [tokens_from_map(map_from_tokens(x, shape)) for x in (k, v)]
    assert_near(bi_wkv(w, u, *volumes, backend=backend), expected, 1e-12)


@pytest.mark.parametrize("backend", ["tree", "numba"])
def test_a_million_tokens_in_float32_are_averaged_as_in_float64(backend):
    """Those of 64 x 128 x 128 voxels. Without decay the output is one softmax average, the same for every token."""
    T = 2**20
    _, u, k, v = make_inputs(1, T, 2, 0.0)
    flat = torch.zeros(2)
    y = bi_wkv(flat, flat, k.float(), v.float(), backend=backend)
    assert_near(y, (k.softmax(1) * v).sum(1, keepdim=True).expand_as(y), 1e-3)
    w = torch.tensor([3.0, 40.0], dtype=torch.float64) / T
    y = bi_wkv(w.float(), u.float(), k.float(), v.float(), backend=backend)
    assert_near(y, bi_wkv(w, u, k, v, backend="tree"), 2e-3)
