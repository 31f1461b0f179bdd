"""The whole model under PyTorch's transformations, at small sizes, with both variants of the operator."""

import warnings

import numpy as np
import pytest
import torch

from rwkvlib import create_model
from rwkvlib.analysis import spatial_mixes
from tests.conftest import TINY

OPERATORS = {"paper": "rwkvlib.bi_wkv.default", "published": "rwkvlib.bi_wkv_published.default"}


def make(variant):
    """A narrow model with attention and CCM: the transformations see every kind of layer, in seconds."""
    torch.manual_seed(0)
    model = create_model("rwkv_unet_t", variant=variant, **TINY).eval()
    with torch.no_grad():  # away from decay 0, where the two variants are the same
        for name, p in model.named_parameters():
            if name.endswith(("spatial_decay", "spatial_first")):
                p.uniform_(-3, 3)  # more is outside of what "published" is held to
    return model


@pytest.fixture(params=OPERATORS)
def variant(request):
    return request.param


@pytest.fixture
def small(variant):
    return make(variant)


X = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def test_the_variants_differ_by_more_than_the_tolerances_here():
    with torch.no_grad():
        paper, published = (make(variant)(X) for variant in OPERATORS)
    assert (paper - published).abs().max() > 1e-4


def test_torch_compile_equals_eager(small, require_tool):
    require_tool("g++")
    compiled = torch.compile(small, fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(X), small(X), atol=1e-5, rtol=1e-4)


def test_gradients_of_the_compiled_model_equal_eager(small):
    compiled = torch.compile(small, fullgraph=True, backend="aot_eager")
    parameters = [p for p in small.parameters() if p.requires_grad]
    expected = torch.autograd.grad(small(X).square().mean(), parameters)
    for a, b in zip(torch.autograd.grad(compiled(X).square().mean(), parameters), expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)


def test_torch_export_keeps_the_operator_and_the_numbers(small, variant):
    exported = torch.export.export(small, (X,))
    targets = [str(node.target) for node in exported.graph.nodes]
    assert [target for target in targets if "rwkvlib" in target] == len(spatial_mixes(small)) * [OPERATORS[variant]]
    with torch.no_grad():
        torch.testing.assert_close(exported.module()(X), small(X), atol=1e-5, rtol=1e-4)


def test_onnx_export_runs_with_standard_operators(small, require_package, tmp_path):
    require_package("onnxscript")
    require_package("onnxruntime")
    import onnxruntime

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(small, (X,), tmp_path / "model.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (logits,) = session.run(None, {session.get_inputs()[0].name: X.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(logits, small(X).numpy(), atol=1e-5)


def test_bf16_autocast_is_near_float32(small):
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        y = small(X)
    with torch.no_grad():
        expected = small(X)
    assert y.dtype == torch.bfloat16
    assert (y.float() - expected).abs().max() < 0.05 * expected.abs().max()


def test_channels_last_changes_no_number(small):
    with torch.no_grad():
        y = small.to(memory_format=torch.channels_last)(X.to(memory_format=torch.channels_last))
        expected = small.to(memory_format=torch.contiguous_format)(X)
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-4)
