"""The CUDA kernels without a GPU: compiled for devices and for the CPU, kept on disk, and all ways not to have them."""

import errno
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import types
import warnings
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from rwkvlib import wkv
from rwkvlib.wkv import bi_wkv, cuda
from rwkvlib.wkv.oracle import bi_wkv_oracle, published_oracle
from tests.wkv.conftest import WIDE, assert_near, gradients, make_inputs, published_decay, use_host_kernels
from tests.wkv.host_kernels import HostKernels, compile_host, compile_source

ROOT = Path(__file__).parents[2]
KERNELS = re.findall(r"^KERNEL (\w+)\(", cuda.source(), re.MULTILINE)
ARCHITECTURES = ("sm_75", "sm_80", "sm_90")
REGISTERS = 65536  # of a multiprocessor, for all threads of a block


@pytest.fixture
def host(monkeypatch, tmp_path_factory, require_tool):
    """A function that lets backend "cuda" run on the CPU, with blocks of the size that it is given."""
    folder = tmp_path_factory.getbasetemp() / "kernels"
    folder.mkdir(exist_ok=True)
    compiler = require_tool("g++")
    return lambda *block: use_host_kernels(monkeypatch, folder, compiler, block)


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty folder for compiled kernels."""
    folder = tmp_path / "cache" / "rwkvlib"
    monkeypatch.setattr(cuda, "cache_folder", lambda: folder)
    return folder


@pytest.fixture
def no_compiler(monkeypatch):
    """A compiler that notes its calls and gives some bytes, and an NVRTC of version 13.0."""
    calls = []

    def compile_kernels(dtype, arch):
        calls.append((dtype, arch))
        return f"cubin of {dtype} for {arch}\n with a line break".encode()

    monkeypatch.setattr(cuda, "compile_kernels", compile_kernels)
    monkeypatch.setattr(cuda, "nvrtc_version", lambda: "13.0")
    return calls


# ------------------------------------------------------------------------------------------ compiled for a device


def parse(report: str) -> list[dict]:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from cuda_resources import parse as parse_report
    finally:
        sys.path.pop(0)
    return parse_report(report)


def assert_fits(found: list[dict], dtype: torch.dtype) -> None:
    assert sorted(entry["kernel"] for entry in found) == sorted(KERNELS)
    for entry in found:
        assert entry["spill_bytes"] == 0, entry
        assert entry["shared_bytes"] <= 48 * 1024, entry
        assert entry["registers"] * int(cuda.macros(dtype)["THREADS"]) <= REGISTERS, entry


@pytest.fixture
def nvrtc(require_package):
    require_package("cuda.core")
    try:
        return cuda.nvrtc_version()
    except cuda.KernelUnavailable as e:
        require_package(None, str(e))


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("dtype", cuda.IO_TYPES, ids=str)
def test_nvrtc_compiles_without_spills(dtype, arch, nvrtc):
    log = io.StringIO()
    assert cuda.compile_kernels(dtype, arch, log).startswith(b"\x7fELF")
    assert_fits(parse(log.getvalue()), dtype)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("dtype", cuda.IO_TYPES, ids=str)
def test_nvcc_compiles_without_spills(dtype, arch, require_tool, tmp_path):
    command = [require_tool("nvcc"), "-cubin", f"-arch={arch}", "-std=c++17", "-use_fast_math", "-Xptxas", "-v"]
    command += [f"-D{name}={value}" for name, value in cuda.macros(dtype).items()]
    source = Path(cuda.__file__).with_name("bi_wkv.cu")
    done = subprocess.run([*command, str(source), "-o", str(tmp_path / "o")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_fits(parse(done.stderr), dtype)


def test_compiling_needs_no_header_and_no_toolkit(nvrtc, tmp_path):
    assert "#include" not in cuda.source()
    code = "import torch; from rwkvlib.wkv import cuda; print(len(cuda.compile_kernels(torch.bfloat16, 'sm_80')))"
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10_000


def test_stored_resources_are_those_of_this_source():
    stored = json.loads((ROOT / "results/bench/cuda_resources.json").read_text())
    block = dict(lanes=cuda.LANES, segments=cuda.SEGMENTS, tokens=cuda.TOKENS, whole=cuda.WHOLE)
    assert stored["source_sha256"] == hashlib.sha256(cuda.source().encode()).hexdigest(), (
        "bi_wkv.cu has changed: run python benchmarks/cuda_resources.py"
    )
    assert stored["block"] == block
    for arch in ARCHITECTURES:
        for dtype in cuda.IO_TYPES:
            name = str(dtype).removeprefix("torch.")
            assert_fits([x for x in stored["kernels"] if (x["arch"], x["dtype"]) == (arch, name)], dtype)


def test_an_architecture_unknown_to_nvrtc_is_said(nvrtc):
    with pytest.raises(
        cuda.KernelUnavailable, match=r"NVRTC .* does not compile bi_wkv.cu for sm_30(.|\n)*newer NVRTC"
    ):
        cuda.compile_kernels(torch.float32, "sm_30")


# ------------------------------------------------------------------------------------------ compiled for the CPU


@pytest.mark.parametrize("block", [(32, 8, 8), (3, 2, 1), (1, 4, 7)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_blocks_of_any_size_equal_the_oracle(block, dtype, host):
    host(*block)
    tolerance = 1e-11 if dtype == torch.float64 else 2e-4
    for shape in ((1, 1, 1), (2, 7, 5), (1, 64, 33), (2, 130, 3)):
        for variant, oracle, w in (
            ("paper", bi_wkv_oracle, 0.3),
            ("published", published_oracle, published_decay(shape[1])),
        ):
            inputs = make_inputs(*shape, w, 3.0)
            gy = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
            narrow = [x.to(dtype) for x in inputs]
            assert_near(bi_wkv(*narrow, variant=variant, backend="cuda"), oracle(*inputs), tolerance)
            found = gradients(lambda *x: bi_wkv(*x, variant=variant, backend="cuda"), narrow, gy.to(dtype))  # noqa: B023
            for name, a, b in zip("wukv", found, gradients(oracle, inputs, gy), strict=True):
                assert_near(a, b, tolerance, f"{variant} {shape} {name}")


def test_a_million_tokens(host):
    host(2, 8, 64)
    T = 2**20
    w, u, k, v = make_inputs(1, T, 1, 20 / T, 3.0)
    exact = bi_wkv(w, u, k, v, backend="tree")
    gy = torch.randn(k.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    true = gradients(lambda *x: bi_wkv(*x, backend="tree"), (w, u, k, v), gy)
    inputs = [x.float() for x in (w, u, k, v)]
    assert_near(bi_wkv(*inputs, backend="cuda"), exact, 1e-4)
    found = gradients(lambda *x: bi_wkv(*x, backend="cuda"), inputs, gy.float())
    for name, a, b in zip("wukv", found, true, strict=True):
        assert_near(a, b, 1e-3, name)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_every_half_precision_number_is_read_and_written(dtype, host):
    host(2, 3, 5)
    bits = torch.arange(-(2**15), 2**15).to(torch.int16)
    v = bits.view(dtype)
    v = v[v.isfinite()].reshape(-1, 1, 1)
    w = torch.zeros(1)
    y = bi_wkv(w, w, torch.zeros_like(v), v, backend="cuda")  # of one token alone the mean is its value
    assert torch.equal(y.view(torch.int16) & 0x7FFF, v.view(torch.int16) & 0x7FFF)
    nan = torch.full((1, 1, 1), torch.nan, dtype=dtype)
    assert bi_wkv(w, w, torch.zeros_like(nan), nan, backend="cuda").isnan().all()


def test_a_dtype_that_the_kernels_do_not_read_is_turned_into_float32(host):
    host(2, 3, 5)
    w, u, k, v = make_inputs(2, 40, 3, 0.1, dtype=torch.float32)
    k, v = k.to(torch.float8_e5m2), v.to(torch.float8_e5m2)
    y = bi_wkv(w, u, k, v, backend="cuda")
    assert torch.equal(y.float(), bi_wkv(w, u, k.float(), v.float(), backend="cuda").to(y.dtype).float())


@pytest.mark.parametrize("variant", ["paper", "published"])
def test_an_empty_batch(variant, host):
    host(2, 3, 5)
    inputs = [x.requires_grad_() for x in make_inputs(0, 5, 3, 0.1)]
    y = bi_wkv(*inputs, variant=variant, backend="cuda")
    assert y.shape == (0, 5, 3)
    grads = torch.autograd.grad(y.sum(), inputs)
    assert [x.shape for x in grads] == [x.shape for x in inputs] and not grads[0].any()


@pytest.mark.parametrize(
    ("T", "blocks", "block"), [(1, 4, (2, 1)), (15, 4, (2, 3)), (16, 6, (1, 4)), (60, 6, (1, 12))], ids=str
)
def test_few_tokens_take_one_launch(T, blocks, block, host):
    host(2, 3, 5)
    inputs = [x.requires_grad_() for x in make_inputs(2, T, 3, 0.1, dtype=torch.float32)]
    kernels = cuda.kernels(torch.device("cpu"), torch.float32)
    kernels.launched.clear()
    y = bi_wkv(*inputs, backend="cuda")
    assert kernels.launched == [("forward", blocks, block)]
    kernels.launched.clear()
    y.sum().backward()
    assert kernels.launched == [("backward", blocks, block), ("sum_rows", 3, (2, 3))]


def test_many_tokens_take_three_launches(host):
    host(2, 3, 5)
    inputs = [x.requires_grad_() for x in make_inputs(2, 61, 3, 0.1, dtype=torch.float32)]
    kernels = cuda.kernels(torch.device("cpu"), torch.float32)
    kernels.launched.clear()
    y = bi_wkv(*inputs, backend="cuda")
    assert [name for name, *_ in kernels.launched] == ["forward_summaries", "forward_carries", "forward"]
    kernels.launched.clear()
    y.sum().backward()
    names = ["backward_summaries", "backward_carries", "backward", "sum_rows"]
    assert [name for name, *_ in kernels.launched] == names


@pytest.mark.parametrize("T", [1, 15, 16, 60, 61, 64, 1024, 1025, 16384, 10**6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("sizes", [(16, 16, 16), (2, 3, 5), (1, 1, 1)], ids=str)
def test_blocks_hold_all_tokens_and_no_chunk_is_empty(sizes, dtype, T, monkeypatch):
    for name, size in zip(("LANES", "SEGMENTS", "TOKENS"), sizes, strict=True):
        monkeypatch.setattr(cuda, name, size)
    chunks, (lanes, segments) = cuda._chunks(T, dtype)
    tokens = int(cuda.macros(dtype)["TOKENS"])
    assert (chunks - 1) * segments * tokens < T <= chunks * segments * tokens
    assert lanes * segments <= int(cuda.macros(dtype)["THREADS"])


# Exponents of a segment's tokens: close to each other in some channels, too far apart in others.
WAYS = {
    "close": dict(w=0.3, k=1.0, u=1.0),
    "growth": dict(w=-0.3, k=1.0, u=1.0),
    "keys apart": dict(w=0.3, k=WIDE, u=1.0),
    "strong decay": dict(w=9.0, k=1.0, u=1.0),
    "strong growth": dict(w=-9.0, k=1.0, u=1.0),
    "large bonus": dict(w=0.3, k=1.0, u=150.0),
    "both in a block": None,
}


def inputs_of_way(way, shape, dtype):
    def make(w, k, u):
        x = make_inputs(*shape, w, k)
        return [x[0], u * x[1], x[2].to(dtype).double(), x[3].to(dtype).double()]

    if WAYS[way] is not None:
        return make(**WAYS[way])
    made = [make(**sizes) for sizes in WAYS.values() if sizes is not None]
    return [torch.stack([made[c % len(made)][i][..., c] for c in range(shape[2])], dim=-1) for i in range(4)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", cuda.IO_TYPES, ids=str)
def test_near_and_far_exponents_equal_the_oracle(dtype, way, host):
    host(4, 2, 6)
    half = dtype in (torch.float16, torch.bfloat16)
    tolerance = 1e-11 if dtype == torch.float64 else 2e-2 if half else 2e-4
    for shape in ((1, 1, 8), (2, 5, 9), (1, 48, 8), (1, 110, 8)):
        inputs = inputs_of_way(way, shape, dtype)
        gy = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
        wide = dtype if dtype == torch.float64 else torch.float32
        narrow = [x.to(wide) for x in inputs[:2]] + [x.to(dtype) for x in inputs[2:]]
        assert_near(bi_wkv(*narrow, backend="cuda"), bi_wkv_oracle(*inputs), tolerance)
        found = gradients(lambda *x: bi_wkv(*x, backend="cuda"), narrow, gy)
        for name, a, b in zip("wukv", found, gradients(bi_wkv_oracle, inputs, gy.double()), strict=True):
            if not half or name == "v":  # the others depend on y, which is rounded to half precision
                assert_near(a, b, tolerance, f"{shape} {name}")


def test_each_way_alone(host, require_tool, tmp_path, monkeypatch):
    """The general way is right for every input, the other one for close exponents only."""
    host(4, 2, 6)
    normal = cuda.kernels(torch.device("cpu"), torch.float32)
    close = "plain = d < DECAY && d > -DECAY && top - lowest < SPREAD;"
    fits = "return plain && before.top"
    assert close in cuda.source() and fits in cuda.source()
    results = {"as it is": normal}
    for name, text in (
        ("general", cuda.source().replace(close, "plain = d != d;")),
        ("linear", cuda.source().replace(close, "plain = d == d;").replace(fits, f"return true; {fits}")),
    ):
        path = tmp_path / f"{name}.cu"
        path.write_text(text)
        library = compile_source(path, tmp_path / f"{name}.so", require_tool("g++"), cuda.macros(torch.float32))
        results[name] = HostKernels(library)
    for way, right in (("close", ("general", "linear")), ("keys apart", ("general",))):
        inputs = inputs_of_way(way, (1, 110, 8), torch.float32)
        gy = torch.randn(1, 110, 8, generator=torch.Generator().manual_seed(1))
        wanted = [bi_wkv_oracle(*inputs), *gradients(bi_wkv_oracle, inputs, gy.double())]
        for name, kernels in results.items():
            monkeypatch.setattr(cuda, "kernels", lambda device, dtype, kernels=kernels: kernels)
            x = [x.float() for x in inputs]
            found = [bi_wkv(*x, backend="cuda"), *gradients(lambda *x: bi_wkv(*x, backend="cuda"), x, gy)]
            errors = [
                ((a - b).abs().max() / b.abs().max().clamp(min=1)).item() for a, b in zip(found, wanted, strict=True)
            ]
            assert (max(errors) < 2e-4) == (name == "as it is" or name in right), (way, name, errors)


@pytest.mark.parametrize("backend", ["cuda", "numba", "tree"])
def test_the_logarithm_is_made_only_where_gradients_are_recorded(backend, host):
    host(2, 3, 5)
    inputs = make_inputs(2, 40, 3, 0.1)
    y, nothing = wkv._bi_wkv(*inputs, backend, False)
    assert nothing.shape == (0,)
    assert torch.equal(y, wkv._bi_wkv(*inputs, backend)[0])
    assert torch.equal(y, bi_wkv(*inputs, backend=backend))
    torch.library.opcheck(wkv._bi_wkv, (*inputs, backend, False))
    made = []
    forward = cuda.forward
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "forward", lambda *x: made.append(x[-1]) or forward(*x))
        recorded = [inputs[0].clone().requires_grad_(), *inputs[1:]]
        bi_wkv(*inputs, backend="cuda")
        bi_wkv(*recorded, backend="cuda")
        with torch.no_grad():
            bi_wkv(*recorded, backend="cuda")
    assert made == [False, True, False]


def test_an_eager_call_equals_the_operator(host):
    host(2, 3, 5)
    inputs = [x.requires_grad_() for x in make_inputs(2, 40, 3, 0.1)]
    direct, operator = bi_wkv(*inputs, backend="cuda"), wkv._bi_wkv(*inputs, "cuda")[0]
    assert "_Direct" in direct.grad_fn.name() and "_Direct" not in operator.grad_fn.name()
    assert torch.equal(direct, operator)
    found, wanted = (torch.autograd.grad(y.square().sum(), inputs, create_graph=True) for y in (direct, operator))
    for first, expected in zip(found, wanted, strict=True):
        assert_near(first, expected, 1e-12)
    found, wanted = (torch.autograd.grad(sum(x.sum() for x in first), inputs) for first in (found, wanted))
    for second, expected in zip(found, wanted, strict=True):
        assert_near(second, expected, 1e-12)


def test_whoever_has_to_see_the_operator_sees_it(host):
    host(2, 3, 5)
    inputs = make_inputs(2, 40, 3, 0.1)
    assert wkv._unobserved(*inputs)
    with FakeTensorMode() as mode:
        assert not wkv._unobserved(*inputs)
    assert not wkv._unobserved(*(mode.from_tensor(x) for x in inputs))
    seen = []
    torch.func.vmap(lambda x: seen.append(wkv._unobserved(x)) or x)(inputs[0])
    torch.jit.trace(lambda x: seen.append(wkv._unobserved(x)) or x, inputs[0])
    assert len(seen) >= 2 and not any(seen[:2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_forward_keeps_its_inputs_its_output_and_one_more_tensor(dtype, host):
    host(2, 3, 5)
    kept = []
    w, u, k, v = make_inputs(2, 40, 3, 0.1, dtype=torch.float32)
    inputs = [x.requires_grad_() for x in (w, u, k.to(dtype), v.to(dtype))]
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        y = bi_wkv(*inputs, backend="cuda")
    known = {x.data_ptr() for x in (*inputs, y)}
    others = [x for x in kept if x.data_ptr() not in known]
    assert [(x.shape, x.dtype) for x in others] == [(k.shape, torch.float32)]


def test_only_the_logarithm_of_the_denominator_may_be_differentiated(host):
    host(2, 3, 5)
    inputs = [x.requires_grad_() for x in make_inputs(1, 20, 2, 0.2)]
    true = torch.autograd.grad(wkv._bi_wkv(*inputs, "tree")[1].sin().sum(), inputs)
    found = torch.autograd.grad(wkv._bi_wkv(*inputs, "cuda")[1].sin().sum(), inputs)
    for a, b in zip(found, true, strict=True):
        assert_near(a, b, 1e-12)


def test_gradient_where_the_published_denominator_is_negative(host):
    host(2, 3, 5)
    inputs = make_inputs(1, 100, 3, 3.0)
    assert (bi_wkv(*inputs, variant="published", backend="oracle").abs() > 10).any()  # near a zero of the denominator
    gy = torch.randn(1, 100, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = gradients(lambda *x: bi_wkv(*x, variant="published", backend="cuda"), inputs, gy)
    for name, a, b in zip("wukv", found, gradients(published_oracle, inputs, gy), strict=True):
        assert_near(a, b, 1e-6, name)


RACES = """
import sys
import torch
from rwkvlib.wkv import bi_wkv, cuda
from tests.wkv.host_kernels import HostKernels
from pathlib import Path

torch.set_num_threads(1)
cuda.LANES, cuda.SEGMENTS, cuda.TOKENS = 2, 3, 5
cuda.DEVICE_TYPE = "cpu"
kernels = HostKernels(Path(sys.argv[1]))
cuda.kernels = lambda device, dtype: kernels
for variant in ("paper", "published"):
    for T in (7, 50, 70):
        inputs = [torch.randn(shape).mul_(0.01).requires_grad_() for shape in ((3,), (3,), (2, T, 3), (2, T, 3))]
        bi_wkv(*inputs, variant=variant, backend="cuda").sum().backward()
print("done")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="preloads g++'s thread sanitizer, as on Linux")
@pytest.mark.parametrize("barriers", [True, False], ids=["as it is", "without barriers"])
def test_the_thread_sanitizer_finds_races_only_without_barriers(barriers, host, require_tool, tmp_path):
    host(2, 3, 5)
    compiler = require_tool("g++")
    flags = ["-fsanitize=thread"] + ([] if barriers else ["-DWITHOUT_BARRIERS"])
    library = compile_host(tmp_path, compiler, torch.float32, *flags)
    sanitizer = subprocess.check_output([compiler, "-print-file-name=libtsan.so"], text=True).strip()
    environment = os.environ | {"LD_PRELOAD": sanitizer, "OMP_NUM_THREADS": "1", "TSAN_OPTIONS": "exitcode=0"}
    command = [sys.executable, "-c", RACES, str(library)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300)
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("the thread sanitizer cannot run under this kernel's address layout")
    assert done.stdout.strip().endswith("done"), done.stderr
    assert ("data race" in done.stderr) != barriers, done.stderr[:3000]


# ------------------------------------------------------------------------------------------ kept on disk


def test_second_use_compiles_nothing(cache, no_compiler):
    first = cuda.compiled(torch.float32, "sm_90")
    assert cuda.compiled(torch.float32, "sm_90") == first
    assert no_compiler == [(torch.float32, "sm_90")]
    (entry,) = cache.iterdir()
    assert re.fullmatch(r"bi_wkv-[0-9a-f]{16}-sm_90-nvrtc13\.0\.cubin", entry.name)


def test_another_source_option_architecture_or_compiler_is_another_entry(cache, no_compiler, monkeypatch):
    cuda.compiled(torch.float32, "sm_90")
    cuda.compiled(torch.float32, "sm_80")
    cuda.compiled(torch.float16, "sm_90")
    monkeypatch.setattr(cuda, "TOKENS", 4)
    cuda.compiled(torch.float32, "sm_90")
    monkeypatch.setattr(cuda, "nvrtc_version", lambda: "12.9")
    cuda.compiled(torch.float32, "sm_90")
    text = cuda.source()
    monkeypatch.setattr(cuda, "source", lambda: text + "\n")
    cuda.compiled(torch.float32, "sm_90")
    assert len(no_compiler) == len(list(cache.iterdir())) == 6


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data[:40],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: b"no line break",
        lambda data: data + b"x",
    ],
    ids=["empty", "cut", "cut in the checksum", "one bit", "other content", "longer"],
)
def test_damaged_entry_is_compiled_anew_and_replaced(damage, cache, no_compiler):
    cubin = cuda.compiled(torch.float32, "sm_90")
    (entry,) = cache.iterdir()
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    assert cuda.compiled(torch.float32, "sm_90") == cubin
    assert len(no_compiler) == 2
    assert entry.read_bytes() == whole


def test_writers_at_the_same_time_leave_one_whole_entry(cache, no_compiler, monkeypatch):
    barrier = threading.Barrier(8)
    compile_kernels = cuda.compile_kernels

    def at_the_same_time(dtype, arch):
        barrier.wait()
        return compile_kernels(dtype, arch)

    monkeypatch.setattr(cuda, "compile_kernels", at_the_same_time)
    found = []
    threads = [threading.Thread(target=lambda: found.append(cuda.compiled(torch.float32, "sm_90"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(set(found)) == 1
    assert len(list(cache.iterdir())) == 1  # no temporary file is left
    assert cuda.compiled(torch.float32, "sm_90") == found[0] and len(no_compiler) == 8


def refuse(error):
    def function(*args, **kwargs):
        raise OSError(error, os.strerror(error))

    return function


@pytest.mark.parametrize("where", ["mkdir", "mkstemp", "replace", "a file in the way"])
def test_where_nothing_can_be_kept_the_kernel_is_used_all_the_same(where, cache, no_compiler, monkeypatch):
    if where == "mkdir":
        monkeypatch.setattr(Path, "mkdir", refuse(errno.EROFS))
    elif where == "mkstemp":
        monkeypatch.setattr(tempfile, "mkstemp", refuse(errno.EACCES))
    elif where == "replace":
        monkeypatch.setattr(os, "replace", refuse(errno.ENOSPC))
    else:
        cache.parent.write_text("")
    with pytest.warns(UserWarning, match=r"the compiled kernel cannot be kept \(.*\); every process compiles it anew"):
        assert cuda.compiled(torch.float32, "sm_90").startswith(b"cubin of torch.float32")
    assert not cache.is_dir() or not list(cache.iterdir())


def test_unreadable_entry_is_compiled_anew(cache, no_compiler):
    cubin = cuda.compiled(torch.float32, "sm_90")
    (entry,) = cache.iterdir()
    entry.unlink()
    entry.mkdir()
    with pytest.warns(UserWarning, match="cannot be kept"):
        assert cuda.compiled(torch.float32, "sm_90") == cubin


def test_torch_home_moves_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert cuda.cache_folder() == tmp_path / "rwkvlib"


# ------------------------------------------------------------------------------------------ without the kernel


def missing(name):
    def patch(monkeypatch):
        monkeypatch.setitem(sys.modules, name, None)

    return patch


def nvrtc_that(function):
    def patch(monkeypatch):
        bindings = types.ModuleType("cuda.bindings")
        bindings.nvrtc = types.SimpleNamespace(nvrtcVersion=function)
        monkeypatch.setitem(sys.modules, "cuda.core", types.ModuleType("cuda.core"))
        monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)

    return patch


def not_found():
    raise RuntimeError("libnvrtc.so not found\nlooked in many places")


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        (missing("cuda.core"), r"the packages cuda-core and cuda-bindings are needed"),
        (missing("cuda.bindings"), r"the packages cuda-core and cuda-bindings are needed"),
        (nvrtc_that(not_found), r"NVRTC cannot be loaded \(libnvrtc.so not found\)"),
        (nvrtc_that(lambda: (7, 0, 0)), r"NVRTC does not tell its version \(7\)"),
    ],
    ids=["cuda-core", "cuda-bindings", "NVRTC", "version"],
)
@pytest.mark.parametrize(("build", "major"), [("12.6", "12"), ("13.0", "13"), (None, "13")])
def test_what_is_missing_is_said_with_the_remedy(patch, message, build, major, monkeypatch):
    patch(monkeypatch)
    monkeypatch.setattr(torch.version, "cuda", build)
    remedy = rf"; for the CUDA kernel: pip install 'cuda-core\[cu{major}\]'"
    with pytest.raises(cuda.KernelUnavailable, match=message + ".*" + remedy):
        cuda.nvrtc_version()


def test_amd_builds_have_no_kernel(monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "6.4")
    with pytest.raises(cuda.KernelUnavailable, match="NVIDIA's GPUs; this PyTorch is built for AMD's"):
        cuda.Kernels(torch.device("cuda", 0), torch.float32)


@pytest.fixture
def unavailable(monkeypatch):
    """No kernels on any device; notes how often they are asked for."""
    asked = []

    def make(device, dtype):
        asked.append((device, dtype))
        raise cuda.KernelUnavailable("there is no compiler; for the CUDA kernel: pip install it")

    monkeypatch.setattr(cuda, "Kernels", make)
    monkeypatch.setattr(cuda, "_found", {})
    monkeypatch.setattr(wkv, "_warned", set())
    return asked


@pytest.mark.parametrize("variant", ["paper", "published"])
def test_auto_runs_pytorch_operations_after_one_warning(variant, unavailable):
    # Not through bi_wkv, which takes this way for CUDA tensors only.
    operator = wkv._published if variant == "published" else lambda *x: wkv._bi_wkv(*x)[0]
    inputs = [x.requires_grad_() for x in make_inputs(2, 9, 3, 0.1, dtype=torch.float32)]
    message = r"Bi-WKV runs on cpu by plain PyTorch operations, which is slower: there is no compiler; .*pip install it"
    with pytest.warns(RuntimeWarning, match=message) as caught:
        y = operator(*inputs, "auto")
        grads = torch.autograd.grad(y.sum(), inputs)
        operator(*inputs, "auto")
    assert len(caught) == 1
    assert len(unavailable) == 1  # and is not looked for at every call
    expected = bi_wkv(*inputs, variant=variant, backend="tree")
    assert torch.equal(y, expected)
    for a, b in zip(grads, torch.autograd.grad(expected.sum(), inputs), strict=True):
        assert_near(a, b, 1e-6)


@pytest.mark.parametrize("variant", ["paper", "published"])
def test_by_name_a_missing_kernel_is_an_error(variant, unavailable, monkeypatch):
    monkeypatch.setattr(cuda, "DEVICE_TYPE", "cpu")
    for _ in range(2):
        with pytest.raises(cuda.KernelUnavailable, match="there is no compiler; for the CUDA kernel: pip install it"):
            bi_wkv(*make_inputs(2, 9, 3, 0.1), variant=variant, backend="cuda")
    assert len(unavailable) == 1


def test_an_error_that_is_no_missing_kernel_is_not_hidden(monkeypatch):
    def make(device, dtype):
        raise RuntimeError("CUDA_ERROR_OUT_OF_MEMORY")

    monkeypatch.setattr(cuda, "Kernels", make)
    monkeypatch.setattr(cuda, "_found", {})
    with pytest.raises(RuntimeError, match="CUDA_ERROR_OUT_OF_MEMORY"):
        wkv._bi_wkv(*make_inputs(1, 3, 2, 0.1), "auto")
    assert cuda._found == {}  # may go well the next time


def test_auto_takes_the_kernel_where_there_is_one(host):
    host(2, 3, 5)
    inputs = make_inputs(2, 40, 3, 0.1)
    assert torch.equal(wkv._bi_wkv(*inputs, "auto")[0], bi_wkv(*inputs, backend="cuda"))


# ------------------------------------------------------------------------------------------ the driver, faked


@pytest.fixture
def driver(monkeypatch, cache, no_compiler):
    """Stands for cuda-core and for PyTorch's CUDA devices; notes what it is asked to do, in order."""
    log, state = [], types.SimpleNamespace(index=0)

    class Guard:
        def __init__(self, device):
            self.device = device

        def __enter__(self):
            log.append(("enter", self.device))
            self.before, state.index = state.index, self.device.index

        def __exit__(self, *error):
            log.append(("leave", self.device))
            state.index = self.before

    class Device:
        def __init__(self, index):
            self.index = index

        def set_current(self):
            log.append(("current", self.index))

    class ObjectCode:
        @staticmethod
        def from_cubin(cubin):
            log.append(("load", cubin))
            return types.SimpleNamespace(get_kernel=lambda name: f"kernel {name}")

    core = types.ModuleType("cuda.core")
    core.Device, core.ObjectCode = Device, ObjectCode
    core.LaunchConfig = lambda grid, block: log.append(("config", grid, block)) or (grid, block)
    core.Stream = types.SimpleNamespace(from_handle=lambda handle: log.append(("stream", handle)) or f"stream {handle}")
    core.launch = lambda stream, config, kernel, *values: log.append(("launch", stream, config, kernel, values))
    monkeypatch.setitem(sys.modules, "cuda.core", core)
    monkeypatch.setattr(torch.cuda, "device", Guard)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: state.index)
    monkeypatch.setattr(cuda, "_thread", threading.local())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    monkeypatch.setattr(
        torch.cuda, "current_stream", lambda device: types.SimpleNamespace(cuda_stream=100 + device.index)
    )
    monkeypatch.setattr(cuda, "_found", {})
    return log


def test_kernels_are_loaded_once_a_device_and_dtype(driver, no_compiler):
    for _ in range(2):
        for index in (0, 1):
            for dtype in (torch.float32, torch.bfloat16):
                kernels = cuda.kernels(torch.device("cuda", index), dtype)
                assert list(kernels.functions) == KERNELS
    assert no_compiler == [(torch.float32, "sm_86"), (torch.bfloat16, "sm_86")]
    loads = [driver[i - 2 : i + 2] for i, entry in enumerate(driver) if entry[0] == "load"]
    assert len(loads) == 4
    for (enter, current, load, leave), index in zip(loads, (0, 0, 1, 1), strict=True):
        device = torch.device("cuda", index)
        assert (enter, current, leave) == (("enter", device), ("current", index), ("leave", device))
        assert load[1].startswith(b"cubin of torch.")


def test_launches_are_on_the_current_stream_of_the_tensors_device(driver):
    device = torch.device("cuda", 1)
    kernels = cuda.kernels(device, torch.float32)
    driver.clear()
    x = torch.zeros(3)
    kernels.launch(("forward", 7, (32, 4), x, None, 2**40, 0), ("sum_rows", 2, (32, 4), 5))
    assert driver == [
        ("enter", device),
        ("current", 1),
        ("stream", 101),
        ("config", 7, (32, 4)),
        ("launch", "stream 101", (7, (32, 4)), "kernel forward", (x.data_ptr(), 0, 2**40, 0)),
        ("config", 2, (32, 4)),
        ("launch", "stream 101", (2, (32, 4)), "kernel sum_rows", (5,)),
        ("leave", device),
    ]


def test_on_the_current_device_later_launches_only_launch(driver):
    kernels = cuda.kernels(torch.device("cuda", 0), torch.float32)
    kernels.launch(("forward", 7, (32, 4), 1))
    driver.clear()
    kernels.launch(("forward", 7, (32, 4), 2))
    launch = ("launch", "stream 100", (7, (32, 4)), "kernel forward", (2,))
    assert driver == [launch]
    # Another thread has no context yet; its second call has.
    driver.clear()
    thread = threading.Thread(target=lambda: [kernels.launch(("forward", 7, (32, 4), 2)) for _ in range(2)])
    thread.start()
    thread.join()
    device = torch.device("cuda", 0)
    assert driver == [("enter", device), ("current", 0), launch, ("leave", device), launch]


def test_device_is_left_after_an_error(driver, monkeypatch):
    device = torch.device("cuda", 1)

    def fail(*arguments):
        raise RuntimeError("CUDA_ERROR_LAUNCH_FAILED")

    monkeypatch.setattr(sys.modules["cuda.core"], "launch", fail)
    kernels = cuda.kernels(device, torch.float32)
    driver.clear()
    with pytest.raises(RuntimeError, match="CUDA_ERROR_LAUNCH_FAILED"):
        kernels.launch(("forward", 1, (32, 8)))
    assert driver[-1] == ("leave", device)


def test_importing_the_library_compiles_and_loads_nothing():
    code = "import sys, rwkvlib.wkv.cuda; print('cuda.core' in sys.modules, 'cuda.bindings.nvrtc' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
