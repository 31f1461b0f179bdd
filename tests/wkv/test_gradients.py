"""Gradients: against finite differences, and on larger inputs against PyTorch's own through the definition."""

import functools

import pytest
import torch

from rwkvlib import wkv
from rwkvlib.wkv import bi_wkv, numba_cpu
from rwkvlib.wkv.oracle import bi_wkv_oracle, published_oracle
from tests.wkv.conftest import PATHS, WIDE, assert_near, golden, gradients, make_inputs, published_decay


@pytest.mark.parametrize("shape", [(1, 1, 2), (2, 2, 1), (2, 7, 3), (1, 35, 1)])
@pytest.mark.parametrize(("variant", "backend"), PATHS)
def test_gradcheck(variant, backend, shape):
    for sign in (1, -1):
        inputs = [x.requires_grad_() for x in make_inputs(*shape, published_decay(shape[1], 0.9 * sign))]
        assert torch.autograd.gradcheck(functools.partial(bi_wkv, variant=variant, backend=backend), inputs)


@pytest.mark.parametrize("backend", ["numba", "tree", "cuda"])
def test_gradcheck_of_both_outputs_of_the_raw_operator(backend):
    for w in (0.4, -0.2, 5.0):
        inputs = [x.requires_grad_() for x in make_inputs(2, 6, 2, w)]
        assert torch.autograd.gradcheck(lambda *x: wkv._bi_wkv(*x, backend), inputs)


def log_denominator(w, u, k):
    t = torch.arange(k.shape[1])
    distance = (t[:, None] - t).abs()[..., None]
    return (torch.where(distance == 0, u, -(distance - 1) * w) + k[:, None]).logsumexp(2)


@pytest.mark.parametrize("backend", ["numba", "tree", "cuda"])
@pytest.mark.parametrize(("w", "k"), [(0.1, 1.0), (-0.1, 10.0), (30.0, WIDE)])
def test_log_denominator_equals_logsumexp(backend, w, k):
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        inputs = make_inputs(2, 100, 3, w, k, dtype)
        logden = wkv._bi_wkv(*inputs, backend)[1]
        assert logden.dtype == dtype
        assert_near(logden, log_denominator(*(x.double() for x in inputs[:3])), tolerance)


# (B, T, C), w, k
LARGE = [
    ((2, 196, 33), -5 / 196, 1.0),
    ((2, 196, 5), 3 / 196, WIDE),
    ((1, 784, 3), 50 / 784, 10.0),
    ((3, 49, 7), 30.0, WIDE),
    ((2, 333, 2), 1.0, 10.0),
    ((2, 64, 70), 0.0, 1.0),
    ((1, 33, 4), -1.0, 1.0),
    ((1, 1, 3), 1.0, 10.0),
    ((1, 2, 3), 30.0, WIDE),
    ((1, 1025, 2), -5 / 1025, WIDE),
]


@pytest.mark.parametrize(
    ("shape", "w", "k", "backend"),
    [
        (*case, b) for case in LARGE for b in ("scan", "tree", "numba", "cuda") if b != "scan" or case[0][1] < 400
    ],  # scan is slow
)
def test_gradients_equal_autograd_through_the_oracle(shape, w, k, backend):
    inputs = make_inputs(*shape, w, k)
    gy = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = gradients(bi_wkv_oracle, inputs, gy)
    for dtype, tolerance in ((torch.float64, 1e-8), (torch.float32, 2e-2 if k == WIDE else 2e-3)):
        found = gradients(functools.partial(bi_wkv, backend=backend), [x.to(dtype) for x in inputs], gy.to(dtype))
        for name, a, b in zip("wukv", found, expected, strict=True):
            assert a.dtype == dtype
            assert_near(a, b, tolerance, f"{name} in {dtype}")


@pytest.mark.parametrize(
    ("T", "share", "k"), [(1, 1, 1.0), (49, 1, 1.0), (64, -1, 10.0), (196, 0.5, WIDE), (1000, -1, 1)]
)
@pytest.mark.parametrize("backend", ["tree", "cuda"])
def test_published_gradients_equal_autograd_through_the_oracle(T, share, k, backend):
    inputs = make_inputs(2, T, 2, published_decay(T, share), k)
    gy = torch.randn(2, T, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = gradients(published_oracle, inputs, gy)
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 2e-2 if k == WIDE else 2e-3)):
        function = functools.partial(bi_wkv, variant="published", backend=backend)
        found = gradients(function, [x.to(dtype) for x in inputs], gy.to(dtype))
        for name, a, b in zip("wukv", found, expected, strict=True):
            assert_near(a, b, tolerance, f"{name} in {dtype}")


@pytest.mark.filterwarnings("ignore:variant 'published'")
@pytest.mark.parametrize(("T", "off_k", "off_v"), [(49, 0.071, 0.097), (196, 0.027, 0.020)])
def test_published_backward_kernel_is_not_the_derivative_of_its_forward(T, off_k, off_v):
    g = golden(T)
    function = functools.partial(bi_wkv, variant="published")
    true = gradients(function, [g[name] for name in "wukv"], g["gy"])
    for name, grad, expected in zip("wukv", true, (0, 0, off_k, off_v), strict=True):
        off = ((g[f"published_grad_{name}"] - grad).abs().max() / grad.abs().max()).item()
        assert off == pytest.approx(expected, rel=0.02, abs=2e-6), name


@pytest.mark.parametrize("backend", ["numba", "tree", "cuda"])
def test_only_the_gradients_asked_for_are_given(backend):
    w, u, k, v = make_inputs(2, 9, 3, 0.1)
    bi_wkv(w, u, k.requires_grad_(), v, backend=backend).sum().backward()
    assert k.grad is not None and w.grad is None and u.grad is None and v.grad is None


def results_with_threads(threads, variant, backend):
    """The output and the gradients of w, u, k, v, by name."""
    inputs = [x.requires_grad_() for x in make_inputs(2, 1000, 33, published_decay(1000), dtype=torch.float32)]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(numba_cpu, "THREADED", 0)  # share out even this little work
            y = bi_wkv(*inputs, variant=variant, backend=backend)
            grads = torch.autograd.grad(y.sin().sum(), inputs)
        return dict(zip(["y", *"wukv"], [y.detach(), *grads], strict=True))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("variant", "backend"), PATHS)
def test_two_runs_give_bit_identical_results(variant, backend):
    first = results_with_threads(2, variant, backend)
    for _ in range(2):
        for name, x in results_with_threads(2, variant, backend).items():
            assert torch.equal(x, first[name]), name


# The gradients of w and u of tree end in torch.sum, whose order of summation is PyTorch's business.
@pytest.mark.parametrize(
    ("variant", "backend", "names"), [("paper", "numba", "ywukv"), ("paper", "tree", "ykv"), ("published", "tree", "y")]
)
def test_the_number_of_threads_changes_no_bit(variant, backend, names):
    first = results_with_threads(1, variant, backend)
    for threads in (2, 3):
        other = results_with_threads(threads, variant, backend)
        for name in names:
            assert torch.equal(other[name], first[name]), name
