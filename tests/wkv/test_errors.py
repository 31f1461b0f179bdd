"""Wrong arguments: the message names the argument, what was expected and what came."""

import importlib.util

import pytest
import torch

from rwkvlib.wkv import bi_wkv
from tests.wkv.conftest import make_inputs

zeros = torch.zeros
WRONG = {
    "rank of k": (dict(k=zeros(4, 3)), ValueError, r"k: expected shape \(B, T, C\), got \(4, 3\)"),
    "shape of v": (dict(v=zeros(2, 5, 3)), ValueError, r"v: expected the shape of k, \(2, 4, 3\), got \(2, 5, 3\)"),
    "rank of v": (dict(v=zeros(4, 3)), ValueError, r"v: expected the shape of k, \(2, 4, 3\), got \(4, 3\)"),
    "dtype of v": (dict(v=zeros(2, 4, 3).half()), TypeError, r"v: expected the dtype of k, .*float32, got .*float16"),
    "size of w": (dict(w=zeros(4)), ValueError, r"w: expected shape \(C,\) = \(3,\), got \(4,\)"),
    "rank of w": (dict(w=zeros(1, 3)), ValueError, r"w: expected shape \(C,\) = \(3,\), got \(1, 3\)"),
    "scalar u": (dict(u=zeros(())), ValueError, r"u: expected shape \(C,\) = \(3,\), got \(\)"),
    "no token": (
        dict(k=zeros(2, 0, 3), v=zeros(2, 0, 3)),
        ValueError,
        r"k: expected at least one token \(T >= 1\), got shape \(2, 0, 3\)",
    ),
    "channels of k": (dict(k=zeros(2, 4, 0), v=zeros(2, 4, 0)), ValueError, r"k: expected at least one channel"),
    "type of k": (dict(k=[1.0]), TypeError, r"k: expected a torch\.Tensor, got list"),
    "integer k": (dict(k=zeros(2, 4, 3).long()), TypeError, r"k: expected a floating-point tensor, got torch.int64"),
    "integer w": (dict(w=zeros(3).int()), TypeError, r"w: expected a floating-point tensor, got torch.int32"),
    "complex v": (
        dict(v=zeros(2, 4, 3, dtype=torch.complex64)),
        TypeError,
        r"v: expected a floating-point tensor, got torch.complex64",
    ),
    "list for v": (dict(v=[1.0]), TypeError, r"v: expected a torch.Tensor, got list"),
    "float for w": (dict(w=0.5), TypeError, r"w: expected a torch.Tensor, got float"),
    "None for u": (dict(u=None), TypeError, r"u: expected a torch.Tensor, got NoneType"),
    "device of v": (dict(v=zeros(2, 4, 3, device="meta")), ValueError, r"v: expected the device of k, cpu, got meta"),
    "device of k": (dict(k=zeros(2, 4, 3, device="meta")), ValueError, r"w: expected the device of k, meta, got cpu"),
    "backend": (dict(backend="cuda-c"), ValueError, r"backend: expected one of auto, oracle, .*numba.*, got 'cuda-c'"),
    "variant": (dict(variant="v2"), ValueError, r"variant: expected one of paper, published, got 'v2'"),
    "published scan": (
        dict(variant="published", backend="scan"),
        ValueError,
        r"backend: variant 'published' has the backends oracle, tree and cuda, got 'scan'",
    ),
    "published numba": (
        dict(variant="published", backend="numba"),
        ValueError,
        r"backend: variant 'published' has the backends oracle, tree and cuda, got 'numba'",
    ),
}


@pytest.mark.parametrize(("changed", "error", "message"), WRONG.values(), ids=WRONG)
def test_wrong_argument_is_named(changed, error, message):
    arguments = dict(zip("wukv", make_inputs(2, 4, 3, 0.1, dtype=torch.float32), strict=True))
    with pytest.raises(error, match=message):
        bi_wkv(**(arguments | changed))


def test_numba_refuses_tensors_elsewhere():
    inputs = [x.to("meta") for x in make_inputs(2, 4, 3, 0.1)]
    with pytest.raises(ValueError, match="backend: 'numba' runs on CPU tensors, got tensors on meta"):
        bi_wkv(*inputs, backend="numba")


def test_cuda_refuses_tensors_elsewhere():
    with pytest.raises(ValueError, match="backend: 'cuda' runs on CUDA tensors, got tensors on cpu"):
        bi_wkv(*make_inputs(2, 4, 3, 0.1), backend="cuda")


@pytest.fixture
def without_numba(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "numba" else find_spec(name, *a))


def test_missing_numba_is_said_with_the_remedy(without_numba):
    with pytest.raises(ValueError, match=r"backend: 'numba' needs the package numba, .*pip install numba"):
        bi_wkv(*make_inputs(2, 4, 3, 0.1), backend="numba")


def test_auto_takes_tree_where_numba_is_missing(without_numba):
    inputs = make_inputs(2, 4, 3, 0.1)
    assert torch.equal(bi_wkv(*inputs), bi_wkv(*inputs, backend="tree"))


def test_auto_takes_numba_on_a_cpu(require_package):
    require_package("numba")
    inputs = make_inputs(2, 40, 3, 0.1, dtype=torch.float32)
    assert torch.equal(bi_wkv(*inputs), bi_wkv(*inputs, backend="numba"))
