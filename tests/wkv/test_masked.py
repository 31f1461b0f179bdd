"""Tokens that k = -inf takes out: one answer on every backend, for the output and the gradients."""

import functools
import math

import pytest
import torch

from rwkvlib.wkv import bi_wkv
from tests.wkv.conftest import PATHS, assert_near, gradients, make_inputs, published_decay

T = 70
MASKS = {
    "one token": [3],
    "the first": [0],
    "the last": [T - 1],
    "neighbours": [10, 11, 12, 13],
    "the end, as padding": range(T // 2, T),
    "the beginning": range(40),
    "all but one": [t for t in range(T) if t != 20],
    "all but the last": range(T - 1),
}
EVERY = [*PATHS, ("paper", "scan"), ("paper", "oracle"), ("published", "oracle")]


def masked_inputs(variant, tokens, dtype=torch.float64):
    """Masked in one channel of one batch item, and in all channels of another."""
    w, u, k, v = make_inputs(3, T, 4, published_decay(T, -0.5) if variant == "published" else 0.2, 2.0)
    k[0, list(tokens), 1] = -math.inf
    k[2, list(tokens)] = -math.inf
    return [x.to(dtype) for x in (w, u, k, v)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("tokens", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize(("variant", "backend"), EVERY)
def test_masked_tokens_have_no_part_in_any_average(variant, backend, tokens, dtype):
    inputs = masked_inputs(variant, tokens)
    function = functools.partial(bi_wkv, variant=variant, backend=backend)
    # The definition with a logit that only float64 tells from -inf by nothing: its weight is exp(-2000) = 0.
    low = [x.clamp(min=-2000) if x is inputs[2] else x for x in inputs]
    expected = bi_wkv(*low, variant=variant, backend="oracle")
    gy = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).double()
    wanted = gradients(functools.partial(bi_wkv, variant=variant, backend="oracle"), low, gy)
    cast = [x.to(dtype) for x in inputs]
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    assert_near(function(*cast), expected, tolerance)
    found = gradients(function, cast, gy.to(dtype))
    for name, a, b in zip("wukv", found, wanted, strict=True):
        assert_near(a, b, tolerance, name)
    out = inputs[2].isinf()
    for name, grad in (("k", found[2]), ("v", found[3])):
        assert (grad[out].abs() < 1e-30).all(), f"{name}: a masked token has a gradient"


@pytest.mark.parametrize(("variant", "backend"), EVERY)
def test_padding_changes_no_real_token(variant, backend):
    if variant == "published":
        pytest.skip("the published kernel's chunks depend on the number of tokens")
    w, u, k, v = masked_inputs(variant, range(T // 2, T))
    expected = bi_wkv(w, u, k[:, : T // 2], v[:, : T // 2], backend="oracle")
    assert_near(bi_wkv(w, u, k, v, backend=backend)[2, : T // 2], expected[2], 1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("length", [1, 2, 3, 50])
@pytest.mark.parametrize(("variant", "backend"), EVERY)
def test_a_channel_without_any_token_is_nan_and_no_other_is(variant, backend, length, dtype):
    w, u, k, v = (x.to(dtype) for x in make_inputs(2, length, 3, 0.0))
    k[1, :, 2] = -math.inf
    y = bi_wkv(w, u, k, v, variant=variant, backend=backend)
    assert y[1, :, 2].isnan().all()
    y[1, :, 2] = 0
    assert y.isfinite().all()


@pytest.mark.parametrize(("variant", "backend"), PATHS)
def test_forward_mode_and_second_derivatives_take_masked_tokens(variant, backend):
    w, u, k, v = masked_inputs(variant, MASKS["all but one"])
    tangent = torch.randn(v.shape, generator=torch.Generator().manual_seed(1)).double()
    function = functools.partial(bi_wkv, w, u, variant=variant, backend=backend)
    oracle = functools.partial(bi_wkv, w, u, variant=variant, backend="oracle")
    found, expected = (torch.func.jvp(f, (k, v), (tangent, tangent))[1] for f in (function, oracle))
    assert_near(found, expected, 1e-10)
    recorded = [x.requires_grad_() for x in (k, v)]
    first = torch.autograd.grad(function(*recorded).square().sum(), recorded, create_graph=True)
    for grad in torch.autograd.grad(sum(x.square().sum() for x in first), recorded):
        assert grad.isfinite().all()
