"""What only a device can show: streams, devices, threads, graphs, autocast, memory, sizes, and the whole model."""

import subprocess
import sys
import threading

import pytest
import torch

from rwkvlib import create_model, wkv
from rwkvlib.wkv import bi_wkv, cuda
from tests.wkv.conftest import assert_near, gradients, make_inputs, published_decay

VARIANTS = ["paper", "published"]


def device_inputs(*shape, w=0.1, dtype=torch.float32, device="cuda", variant="paper"):
    w = published_decay(shape[1]) if variant == "published" else w
    return [x.to(device) for x in make_inputs(*shape, w, dtype=dtype)]


def assert_equal_oracle(y, inputs, variant="paper", tolerance=1e-4):
    expected = bi_wkv(*(x.detach().double().cpu() for x in inputs), variant=variant, backend="oracle")
    assert_near(y.detach().cpu(), expected, tolerance)


def test_auto_takes_the_kernel():
    inputs = device_inputs(2, 300, 40)
    y = bi_wkv(*inputs)
    assert torch.equal(y, bi_wkv(*inputs, backend="cuda"))
    assert_equal_oracle(y, inputs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_operator_obeys_the_rules_of_custom_operators(variant, dtype):
    operator = wkv._bi_wkv if variant == "paper" else wkv._published
    for shape in ((2, 5, 3), (1, 130, 33)):
        w, u, k, v = device_inputs(
            *shape, variant=variant, dtype=torch.float64 if dtype.itemsize == 8 else torch.float32
        )
        for backend in ("cuda", "auto"):
            inputs = [x.requires_grad_() for x in (w, u, k.to(dtype), v.to(dtype))]
            torch.library.opcheck(operator, (*inputs, backend), atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("variant", VARIANTS)
def test_work_is_done_on_the_current_stream(variant):
    inputs = device_inputs(2, 300, 40, variant=variant)
    k = torch.zeros_like(inputs[2])
    bi_wkv(inputs[0], inputs[1], k, inputs[3], variant=variant, backend="cuda")  # compiled before the clock starts
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)  # a kernel on another stream would read k before it is filled
        k.copy_(inputs[2])
        y = bi_wkv(inputs[0], inputs[1], k, inputs[3], variant=variant, backend="cuda")
    stream.synchronize()
    assert_equal_oracle(y, inputs, variant)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_tensors_on_another_device_than_the_current():
    with torch.cuda.device(0):
        inputs = [x.requires_grad_() for x in device_inputs(2, 300, 40, device="cuda:1")]
        y = bi_wkv(*inputs, backend="cuda")
        grads = torch.autograd.grad(y.sum(), inputs)
        assert y.device == grads[0].device == torch.device("cuda", 1)
        assert torch.cuda.current_device() == 0
    assert_equal_oracle(y, inputs)


def test_a_thread_that_has_called_nothing_of_cuda_yet():
    inputs = [x.requires_grad_() for x in device_inputs(2, 300, 40)]
    found = []

    def work():
        y = bi_wkv(*inputs, backend="cuda")
        found.append((y, torch.autograd.grad(y.sum(), inputs)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    ((y, grads),) = found
    assert torch.equal(y, bi_wkv(*inputs, backend="cuda"))
    assert all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize("variant", VARIANTS)
def test_cuda_graph_of_forward_and_backward(variant):
    inputs = [x.requires_grad_() for x in device_inputs(2, 300, 40, variant=variant)]
    gy = torch.ones_like(inputs[2])

    def step():
        y = bi_wkv(*inputs, variant=variant, backend="cuda")
        return [y, *torch.autograd.grad(y, inputs, gy)]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    others = make_inputs(2, 300, 40, inputs[0].abs().max().item(), dtype=torch.float32, seed=7)
    with torch.no_grad():
        for x, other in zip(inputs, others, strict=True):
            x.copy_(other)
    graph.replay()
    torch.cuda.synchronize()
    for a, b in zip(captured, step(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_compiled_equals_eager(variant, mode):
    inputs = [x.requires_grad_() for x in device_inputs(2, 300, 40, variant=variant)]

    def function(*x):
        return torch.tanh(bi_wkv(*x[:2], 2 * x[2], x[3] + 1, variant=variant)).square().sum()

    compiled = torch.compile(function, fullgraph=True, mode=mode)
    expected = torch.autograd.grad(function(*inputs), inputs)
    for _ in range(3):  # with reduce-overhead the third call replays a CUDA graph
        for a, b in zip(torch.autograd.grad(compiled(*inputs), inputs), expected, strict=True):
            assert_near(a.cpu(), b.cpu(), 1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_autocast(variant, dtype):
    w, u, k, v = device_inputs(2, 100, 8, variant=variant)
    linear = torch.nn.Linear(8, 8, device="cuda")
    with torch.autocast("cuda", dtype=dtype):
        key = linear(k)
        y = bi_wkv(w, u, key, linear(v), variant=variant)
    assert key.dtype == y.dtype == dtype
    expected = bi_wkv(w, u, linear(k), linear(v), variant=variant)
    assert_near(y.float().cpu(), expected.cpu(), 3e-2)


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_runs_agree_bit_by_bit(variant):
    inputs = device_inputs(3, 784, 100, variant=variant)
    gy = torch.randn(3, 784, 100, device="cuda")

    def run():
        function = lambda *x: bi_wkv(*x, variant=variant, backend="cuda")  # noqa: E731
        return [function(*inputs), *gradients(function, inputs, gy)]

    first = run()
    for _ in range(5):
        for a, b in zip(run(), first, strict=True):
            assert torch.equal(a, b)


def test_strided_inputs():
    w, u, k, v = device_inputs(2, 60, 12, dtype=torch.float64)
    expected = bi_wkv(w, u, k, v, backend="cuda")
    strided = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (k, v)]
    assert torch.equal(bi_wkv(w.repeat_interleave(2)[::2], u, *strided, backend="cuda"), expected)
    one = v[:, :1].expand(2, 60, 12)
    assert torch.equal(bi_wkv(w, u, k, one, backend="cuda"), bi_wkv(w, u, k, one.contiguous(), backend="cuda"))


def test_memory_of_a_forward_pass():
    inputs = [x.requires_grad_() for x in device_inputs(4, 784, 576)]
    bi_wkv(*inputs, backend="cuda")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    y = bi_wkv(*inputs, backend="cuda")
    size = y.numel() * 4
    assert torch.cuda.memory_allocated() - before <= 2.01 * size  # y, and the logarithm of the denominator
    assert torch.cuda.max_memory_allocated() - before <= 2.2 * size  # and, in between, the chunks' states
    del y
    torch.cuda.reset_peak_memory_stats()
    with torch.no_grad():
        bi_wkv(*inputs, backend="cuda")
    assert torch.cuda.max_memory_allocated() - before <= 1.2 * size


def test_a_million_tokens():
    inputs = device_inputs(1, 2**20, 2, w=20 / 2**20, dtype=torch.float64)
    gy = torch.randn(1, 2**20, 2, device="cuda", dtype=torch.float64)
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-3)):
        narrow = [x.to(dtype) for x in inputs]
        exact = bi_wkv(*(x.double() for x in narrow), backend="tree")
        assert_near(bi_wkv(*narrow, backend="cuda").cpu(), exact.cpu(), tolerance)
        true = gradients(lambda *x: bi_wkv(*x, backend="tree"), [x.double() for x in narrow], gy)
        found = gradients(lambda *x: bi_wkv(*x, backend="cuda"), narrow, gy.to(dtype))
        for name, a, b in zip("wukv", found, true, strict=True):
            assert_near(a.cpu(), b.cpu(), 10 * tolerance, f"{name} in {dtype}")


def test_more_elements_than_32_bits_count():
    T, C = 2**21 + 5, 1024
    if torch.cuda.mem_get_info()[0] < 50 * 2**30:
        pytest.skip("needs 50 GiB of free GPU memory")
    k, v, g = (torch.randn(1, T, C, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    w, u = torch.full((C,), 3 / T, device="cuda"), torch.zeros(C, device="cuda")
    function = lambda *x: bi_wkv(*x, backend="cuda")  # noqa: E731
    y, grads = function(w, u, k, v), gradients(function, (w, u, k, v), g)
    last = [w[-1:], u[-1:], k[..., -1:].contiguous(), v[..., -1:].contiguous()]  # channels are independent
    assert torch.equal(y[..., -1:], function(*last))
    for a, b in zip(grads[2:], gradients(function, last, g[..., -1:].contiguous())[2:], strict=True):
        assert torch.equal(a[..., -1:], b)


@pytest.mark.parametrize("name", ["rwkv_unet_t"])
def test_model_on_the_device_equals_that_on_the_cpu(name):
    torch.manual_seed(0)
    model = create_model(name, num_classes=3).double().eval()
    with torch.no_grad():
        for parameter_name, x in model.named_parameters():
            if parameter_name.endswith(("spatial_decay", "spatial_first")):
                x.normal_()
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    results = []
    for device in ("cpu", "cuda"):
        model.to(device).zero_grad()
        y = model(images.to(device))
        y.square().mean().backward()
        results.append((y.detach().cpu(), [x.grad.cpu().clone() for x in model.parameters() if x.grad is not None]))
    assert_near(results[1][0], results[0][0], 1e-9)
    for a, b in zip(results[1][1], results[0][1], strict=True):
        assert_near(a, b, 1e-8)


def test_without_the_packages_pytorch_operations_run_after_one_warning():
    code = """if True:
        import sys, warnings, torch
        sys.modules["cuda.core"] = None
        from rwkvlib import bi_wkv
        x = [torch.randn(s, device="cuda") for s in ((3,), (3,), (2, 9, 3), (2, 9, 3))]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            y = [bi_wkv(*x), bi_wkv(*x)]
        assert torch.equal(y[0], bi_wkv(*x, backend="tree"))
        print(len(caught), caught[0].message)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 Bi-WKV runs on cuda:0 without backend 'cuda', more slowly:")
    assert "pip install" in done.stdout


def test_entry_of_the_cache_is_used_by_the_next_process(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    code = "import torch; from rwkvlib.wkv import cuda; cuda.kernels(torch.device('cuda', 0), torch.float32)"
    stamps = []
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code], check=True)
        (entry,) = (tmp_path / "rwkvlib").iterdir()
        stamps.append(entry.stat().st_mtime_ns)
    assert stamps[0] == stamps[1]
    assert cuda.nvrtc_version() in entry.name
