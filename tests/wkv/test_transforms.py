"""Derivatives of other kinds than the backward pass: forward mode, torch.func, second order."""

import functools

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch import nn

import rwkvlib
from rwkvlib.wkv import bi_wkv
from tests.wkv.conftest import PATHS, assert_near, gradients, make_inputs, published_decay

PLAIN = [("paper", "oracle"), ("paper", "scan"), ("published", "oracle")]
SHAPE = (2, 13, 3)


def oracle(variant):
    return functools.partial(bi_wkv, variant=variant, backend="oracle")


def inputs_and_tangents(variant):
    inputs = make_inputs(*SHAPE, published_decay(SHAPE[1], 0.9) if variant == "published" else 0.3)
    return inputs, [torch.randn_like(x) for x in inputs]


def by_differences(function, inputs, tangents, step=1e-6):
    ahead, back = (function(*(x + s * t for x, t in zip(inputs, tangents, strict=True))) for s in (step, -step))
    return (ahead - back) / (2 * step)


@pytest.fixture(autouse=True)
def same_numbers():
    torch.manual_seed(0)


@pytest.mark.parametrize(("variant", "backend"), PATHS + PLAIN)
def test_forward_mode_gives_the_derivative_along_the_tangent(variant, backend):
    inputs, tangents = inputs_and_tangents(variant)
    function = functools.partial(bi_wkv, variant=variant, backend=backend)
    expected = by_differences(oracle(variant), inputs, tangents)
    y, tangent = torch.func.jvp(function, tuple(inputs), tuple(tangents))
    assert_near(y, function(*inputs), 1e-12)
    assert_near(tangent, expected, 1e-7)
    for i in range(4):  # a tangent of one argument alone
        only = [t if j == i else torch.zeros_like(t) for j, t in enumerate(tangents)]
        with forward_ad.dual_level():
            mixed = [forward_ad.make_dual(x, only[i]) if j == i else x for j, x in enumerate(inputs)]
            tangent = forward_ad.unpack_dual(function(*mixed)).tangent
        assert_near(tangent, by_differences(oracle(variant), inputs, only), 1e-7)


@pytest.mark.parametrize(("variant", "backend"), PATHS + PLAIN)
def test_transforms_of_torch_func_give_the_gradients_of_the_oracle(variant, backend):
    (w, u, k, v), (*_, gy) = inputs_and_tangents(variant)
    function = functools.partial(bi_wkv, variant=variant, backend=backend)
    expected = gradients(oracle(variant), (w, u, k, v), gy)

    def loss(*inputs):
        return (function(*inputs) * gy).sum()

    for a, b in zip(torch.func.grad(loss, argnums=(0, 1, 2, 3))(w, u, k, v), expected, strict=True):
        assert_near(a, b, 1e-12)
    rows = torch.func.jacrev(lambda k: function(w, u, k, v))(k)
    assert_near(torch.einsum("btcxyz,btc->xyz", rows, gy), expected[2], 1e-12)
    columns = torch.func.jacfwd(lambda k: function(w, u, k, v))(k)
    assert_near(columns, rows, 1e-12)

    def sample_loss(w, k, v, gy):
        return (function(w, u, k[None], v[None]) * gy).sum()

    samples = torch.func.vmap(torch.func.grad(sample_loss), in_dims=(None, 0, 0, 0))(w, k, v, gy)
    assert_near(samples.sum(0), expected[0], 1e-12)
    for b in range(SHAPE[0]):
        one = gradients(oracle(variant), (w, u, k[b : b + 1], v[b : b + 1]), gy[b : b + 1])[0]
        assert_near(samples[b], one, 1e-12)


@pytest.mark.parametrize(("variant", "backend"), PATHS)
def test_vmap_alone_gives_the_same_as_a_batch(variant, backend):
    (w, u, k, v), _ = inputs_and_tangents(variant)
    function = functools.partial(bi_wkv, variant=variant, backend=backend)
    mapped = torch.func.vmap(lambda k, v: function(w, u, k[None], v[None])[0])(k, v)
    assert_near(mapped, function(w, u, k, v), 1e-12)


def second_derivatives(function, inputs):
    inputs = [x.detach().requires_grad_() for x in inputs]
    first = torch.autograd.grad(function(*inputs).square().sum(), inputs, create_graph=True)
    return list(first), list(torch.autograd.grad(sum(x.square().sum() for x in first), inputs))


@pytest.mark.parametrize(("variant", "backend"), PATHS + PLAIN)
def test_second_derivatives_equal_those_of_the_oracle(variant, backend):
    inputs, _ = inputs_and_tangents(variant)
    function = functools.partial(bi_wkv, variant=variant, backend=backend)
    for found, expected in zip(
        second_derivatives(function, inputs), second_derivatives(oracle(variant), inputs), strict=True
    ):
        for a, b in zip(found, expected, strict=True):
            assert_near(a, b, 1e-10)


def test_a_gradient_penalty_takes_half_precision():
    w, u, k, v = make_inputs(*SHAPE, 0.3, dtype=torch.float32)
    k, v = k.half().requires_grad_(), v.half().requires_grad_()
    (first,) = torch.autograd.grad(bi_wkv(w, u, k, v).sum(), k, create_graph=True)
    first.float().square().sum().backward()
    assert v.grad.dtype == torch.float16 and v.grad.isfinite().all() and v.grad.abs().sum() > 0


def test_hessian_by_torch_func_equals_the_one_by_autograd():
    w, u, k, v = make_inputs(1, 4, 2, 0.3)
    by_func = torch.func.hessian(lambda k: bi_wkv(w, u, k, v).square().sum())(k)
    by_autograd = torch.autograd.functional.hessian(lambda k: bi_wkv(w, u, k, v).square().sum(), k)
    assert_near(by_func, by_autograd, 1e-12)


def test_compiled_code_differentiates_forward_too():
    (w, u, k, v), (*_, tangent) = inputs_and_tangents("paper")
    expected = torch.func.jvp(lambda k: bi_wkv(w, u, k, v), (k,), (tangent,))[1]
    torch._dynamo.reset()

    @functools.partial(torch.compile, fullgraph=True, backend="aot_eager")
    def inside(k):
        return torch.func.jvp(lambda k: bi_wkv(w, u, k, v), (k,), (tangent,))[1]

    assert_near(inside(k), expected, 1e-12)
    outside = torch.compile(lambda k: bi_wkv(w, u, k, v), backend="eager")
    assert_near(outside(k), bi_wkv(w, u, k, v), 1e-12)  # what was compiled without a tangent is not used with one
    assert_near(torch.func.jvp(outside, (k,), (tangent,))[1], expected, 1e-12)
    assert_near(outside(k), bi_wkv(w, u, k, v), 1e-12)


@pytest.mark.parametrize("variant", ["paper", "published"])
def test_forward_mode_goes_through_a_whole_network(variant):
    small = dict(depths=(1, 1, 2, 2), dims=(16, 24, 32, 48), variant=variant)
    model = rwkvlib.create_model("rwkv_unet_t", **small).eval().double()
    for block in model.modules():  # away from the initial values, under which the operator is a plain mean
        if hasattr(block, "spatial_decay"):
            nn.init.uniform_(block.spatial_decay, 0.1, 0.5)
            nn.init.normal_(block.spatial_first)
    image, tangent = torch.rand(1, 3, 32, 32).double(), torch.randn(1, 3, 32, 32).double()
    with torch.no_grad():
        expected = by_differences(model, [image], [tangent], 1e-7)  # few of ReLU's kinks lie between
        found = torch.func.jvp(model, (image,), (tangent,))[1]
    assert expected.abs().max() > 1e-3
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
