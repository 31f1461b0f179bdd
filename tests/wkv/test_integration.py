"""The operator inside PyTorch: its rules for operators, the compiler, export, ONNX, autocast, layouts and memory."""

import functools
import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from rwkvlib import wkv
from rwkvlib.wkv import bi_wkv
from tests.wkv.conftest import PATHS, assert_near, gradients, make_inputs, published_decay

HALVES = [torch.float16, torch.bfloat16]


class Mixer(nn.Module):
    """The operator with its two parameters, between elementwise operations that a compiler may fuse."""

    def __init__(self, T, C, variant="paper", backend="auto"):
        super().__init__()
        w, u, _, _ = make_inputs(1, 1, C, published_decay(T, 0.9), dtype=torch.float32)
        self.w, self.u = nn.Parameter(w), nn.Parameter(u)
        self.wkv = functools.partial(bi_wkv, variant=variant, backend=backend)

    def forward(self, k, v):
        return torch.tanh(self.wkv(self.w, self.u, 2 * k, v + 1)) + v


def step(module, k, v):
    """The output, and the gradients of k, v and the parameters."""
    k, v = (x.detach().clone().requires_grad_() for x in (k, v))
    y = module(k, v)
    return [y.detach(), *torch.autograd.grad(y.square().sum(), [k, v, *module.parameters()])]


def operator_samples():
    contiguous = make_inputs(2, 5, 3, 0.1)
    w, u, k, v = make_inputs(3, 5, 2, 0.1, dtype=torch.float32)
    yield contiguous
    yield make_inputs(1, 1, 1, 0.0)
    yield w, u, k.transpose(0, 1), v.transpose(0, 1)
    yield w, u, k.bfloat16(), v.bfloat16()


@pytest.mark.parametrize("backend", ["numba", "tree", "cuda"])
def test_paper_operator_obeys_the_rules_of_custom_operators(backend):
    for sample in operator_samples():
        for grad in (False, True):
            inputs = [x.detach().requires_grad_(grad) for x in sample]
            torch.library.opcheck(wkv._bi_wkv, (*inputs, backend), atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("backend", ["tree", "cuda"])
def test_published_operator_obeys_the_rules_of_custom_operators(backend):
    for shape, dtype in (((2, 3, 2), torch.float64), ((1, 1, 1), torch.float32)):
        for grad in (False, True):
            inputs = [x.requires_grad_(grad) for x in make_inputs(*shape, 0.1, dtype=dtype)]
            torch.library.opcheck(wkv._published, (*inputs, backend))


def assert_compiled_equals_eager(module, backend, shapes, dynamic=None):
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend=backend, dynamic=dynamic)
    for shape in shapes:
        k, v = torch.randn(shape), torch.randn(shape)
        expected = step(module, k, v)
        for a, b in zip(step(compiled, k, v), expected, strict=True):
            assert_near(a, b, 1e-5)


@pytest.mark.parametrize(("variant", "backend"), PATHS)
def test_compiled_graph_equals_eager(variant, backend):
    assert_compiled_equals_eager(Mixer(49, 6, variant, backend), "aot_eager", [(2, 49, 6)])


@pytest.mark.parametrize("backend", ["numba", "tree", "cuda"])
def test_graph_compiled_for_any_length_equals_eager(backend):
    shapes = [(2, 49, 6), (3, 64, 6), (2, 7, 6)]
    assert_compiled_equals_eager(Mixer(64, 6, "paper", backend), "aot_eager", shapes, dynamic=True)


@pytest.mark.parametrize("variant", ["paper", "published"])
def test_code_compiled_by_the_default_compiler_equals_eager(variant, require_tool):
    require_tool("g++")
    assert_compiled_equals_eager(Mixer(5, 6, variant), "inductor", [(2, 5, 6)])


@pytest.mark.parametrize("variant", ["paper", "published"])
def test_exported_program_equals_eager(variant):
    module, (k, v) = Mixer(49, 6, variant), torch.randn(2, 2, 49, 6)
    program = torch.export.export(module, (k, v))
    assert any("rwkvlib" in str(node.target) for node in program.graph.nodes)
    assert_near(program.module()(k, v), module(k, v), 1e-6)


def export_onnx(variant, T, path):
    module = Mixer(T, 4, variant).eval()
    k, v = torch.randn(2, 1, T, 4)
    with torch.no_grad():
        torch.onnx.export(module, (k, v), path, dynamo=True, verbose=False)
        return k, v, module(k, v)


@pytest.mark.parametrize("variant", ["paper", "published"])
def test_onnx_file_equals_pytorch_and_grows_with_the_logarithm_of_the_length(variant, require_package, tmp_path):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        require_package(name)
    import onnx
    import onnxruntime

    nodes = {}
    for T in (25, 100):
        path = str(tmp_path / f"{T}.onnx")
        k, v, expected = export_onnx(variant, T, path)
        model = onnx.shape_inference.infer_shapes(onnx.load(path))
        assert not model.functions
        assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}, "an operation that is not standard"
        values = [*model.graph.value_info, *model.graph.output]
        shapes = [[d.dim_value for d in value.type.tensor_type.shape.dim] for value in values]
        shapes += [list(tensor.dims) for tensor in model.graph.initializer]
        assert len(shapes) > 50
        assert max(math.prod(shape) for shape in shapes) <= 20 * k.numel() < T * T * 4
        assert not any(shape.count(T) > 1 for shape in shapes)
        nodes[T] = len(model.graph.node)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [x.name for x in session.get_inputs()]
        (y,) = session.run(None, dict(zip(names, (k.numpy(), v.numpy()), strict=True)))
        assert_near(torch.from_numpy(y), expected, 1e-5)
    assert nodes[100] <= 2 * nodes[25]  # linear would be 4


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize(("variant", "backend"), PATHS)
def test_half_precision_sums_in_float32_and_answers_in_the_dtype_of_v(variant, backend, dtype):
    w, u, k, v = make_inputs(2, 100, 5, published_decay(100), 3.0, torch.float32)
    k, v = k.to(dtype), v.to(dtype)
    function = functools.partial(bi_wkv, variant=variant, backend=backend)
    y = function(w, u, k, v)
    assert y.dtype == dtype
    expected = function(w, u, k.float(), v.float())
    assert torch.equal(y, expected.to(dtype))  # the only rounding is that of the result
    found = gradients(function, (w, u, k, v), torch.ones_like(y))
    true = gradients(function, (w, u, k.float(), v.float()), torch.ones_like(expected))
    for x, a, b in zip((w, u, k, v), found, true, strict=True):
        assert a.dtype == x.dtype
        assert_near(a, b, 3e-2)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize(("variant", "backend"), PATHS)
def test_autocast_gives_nearly_the_float32_result(variant, backend, dtype):
    w, u, k, v = make_inputs(2, 49, 8, published_decay(49), dtype=torch.float32)
    torch.manual_seed(0)
    key, value = nn.Linear(8, 8), nn.Linear(8, 8)

    def layer(w, u, k, v):
        return bi_wkv(w, u, key(k), value(v), variant=variant, backend=backend)

    expected = layer(w, u, k, v)
    with torch.autocast("cpu", dtype=dtype):
        y = layer(w, u, k, v)
        found = gradients(layer, (w, u, k, v), torch.ones_like(y))
    assert y.dtype == dtype
    assert_near(y, expected, 2e-2)
    for a, b in zip(found, gradients(layer, (w, u, k, v), torch.ones_like(expected)), strict=True):
        assert a.dtype == torch.float32
        assert_near(a, b, 5e-2)


@pytest.mark.parametrize(("variant", "backend"), PATHS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_huge_logits_give_no_nan(variant, backend, dtype):
    w, u, _, v = make_inputs(2, 65, 4, published_decay(65), dtype=dtype)
    k = 6e4 * torch.randn(v.shape, generator=torch.Generator().manual_seed(1)).sign().to(dtype)
    k[0] = -6e4
    inputs = [x.requires_grad_() for x in (w, u, k, v)]
    y = bi_wkv(*inputs, variant=variant, backend=backend)
    assert y.isfinite().all()
    for grad in torch.autograd.grad(y.sum(), inputs):
        assert grad.isfinite().all()


@pytest.mark.parametrize(("variant", "backend"), PATHS)
def test_inputs_need_not_be_contiguous(variant, backend):
    w, u, k, v = make_inputs(3, 7, 4, published_decay(7))
    layouts = {
        "transposed": (w, u, k.mT.contiguous().mT, v.transpose(0, 1).contiguous().transpose(0, 1)),
        "sliced": (w.repeat(2)[:4], u.repeat_interleave(2)[::2], k.repeat(1, 1, 2)[..., 4:], v.repeat(1, 2, 1)[:, :7]),
        "expanded": (w[:1].expand(4), u[:1].expand(4), k[:1].expand(3, 7, 4), v[:, :, :1].expand(3, 7, 4)),
        "channels first": (w, u, k.permute(2, 0, 1).contiguous().permute(1, 2, 0), v),
    }
    function = functools.partial(bi_wkv, variant=variant, backend=backend)
    gy = torch.randn(4, 7, 3, dtype=torch.float64).permute(2, 1, 0)
    for name, inputs in layouts.items():
        plain = [x.contiguous() for x in inputs]
        y = function(*inputs)
        assert y.is_contiguous()
        assert_near(y, function(*plain), 1e-13, name)
        for a, b in zip(gradients(function, inputs, gy), gradients(function, plain, gy.contiguous()), strict=True):
            assert_near(a, b, 1e-13, name)


def test_result_does_not_depend_on_gradients_being_recorded():
    inputs = make_inputs(2, 30, 3, 0.1)
    with torch.no_grad():
        expected = bi_wkv(*inputs)
    assert not expected.requires_grad
    recorded = [x.requires_grad_() for x in inputs]
    assert torch.equal(bi_wkv(*recorded), expected)


@pytest.mark.parametrize("backend", ["numba", "tree", "cuda"])
def test_a_long_sequence_needs_no_table_of_all_pairs(backend):
    T = 200_000  # such a table is 160 GB
    inputs = [x.requires_grad_() for x in make_inputs(1, T, 1, 3 / T, dtype=torch.float32)]
    y = bi_wkv(*inputs, backend=backend)
    assert y.isfinite().all()
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(y.sum(), inputs))


class Allocations(TorchDispatchMode):
    """Notes the number of elements of every tensor that an operation gives."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.sizes += [
            x.numel() for x in (out if isinstance(out, tuple | list) else [out]) if isinstance(x, torch.Tensor)
        ]
        return out


def paper_forward_and_backward(w, u, k, v):
    y, logden = wkv.tree.forward(w, u, k, v)
    wkv.tree.backward(w, u, k, v, y, logden, y, None)


def published_forward_and_backward(*inputs):
    gradients(wkv.tree.published, inputs, inputs[3])


@pytest.mark.parametrize("function", [paper_forward_and_backward, published_forward_and_backward])
def test_memory_grows_linearly_with_the_number_of_tokens(function):
    total = {}
    for T in (256, 1024):
        inputs = make_inputs(1, T, 2, 0.0)
        with Allocations() as made:
            function(*inputs)
        assert max(made.sizes) <= 10 * T * 2  # T * T would be 12 times as much
        total[T] = sum(made.sizes)
    assert 0 < total[1024] < 4.5 * total[256]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("backend", "variant"), [("oracle", "paper"), ("scan", "paper"), ("oracle", "published")])
def test_the_books_backends_take_half_precision_with_float32_decay(backend, variant, dtype):
    w, u, k, v = make_inputs(2, 6, 3, 0.1)
    k, v = k.to(dtype), v.to(dtype)
    y = bi_wkv(w.float(), u.float(), k, v, backend=backend, variant=variant)
    expected = bi_wkv(w.double(), u.double(), k.double(), v.double(), backend="oracle", variant=variant)
    assert y.dtype == dtype
    torch.testing.assert_close(y.double(), expected, atol=2e-2, rtol=2e-2)
