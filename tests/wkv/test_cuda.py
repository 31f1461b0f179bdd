"""The CUDA kernels without a GPU: compiled for devices and for the CPU, kept on disk, and all ways not to have them."""

import errno
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import threading
import types
import warnings
from pathlib import Path

import pytest
import torch

from rwkvlib import wkv
from rwkvlib.wkv import bi_wkv, cuda, operators
from rwkvlib.wkv.oracle import bi_wkv_oracle, published_oracle
from tests.wkv.conftest import assert_near, change_backend, gradients, make_inputs, published_decay, use_host_kernels
from tests.wkv.host_kernels import compile_host

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


def assert_fits(found: list[dict]) -> None:
    assert sorted(entry["kernel"] for entry in found) == sorted(KERNELS)
    for entry in found:
        assert entry["spill_bytes"] == 0, entry
        assert entry["shared_bytes"] <= 48 * 1024, entry
        assert entry["registers"] * cuda.LANES * cuda.SEGMENTS <= REGISTERS, entry


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
    assert_fits(parse(log.getvalue()))


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("dtype", cuda.IO_TYPES, ids=str)
def test_nvcc_compiles_without_spills(dtype, arch, require_tool, tmp_path):
    command = [require_tool("nvcc"), "-cubin", f"-arch={arch}", "-std=c++17", "-use_fast_math", "-Xptxas", "-v"]
    command += [f"-D{name}={value}" for name, value in cuda.macros(dtype).items()]
    source = Path(cuda.__file__).with_name("bi_wkv.cu")
    done = subprocess.run([*command, str(source), "-o", str(tmp_path / "o")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_fits(parse(done.stderr))


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
    block = dict(lanes=cuda.LANES, segments=cuda.SEGMENTS, tokens=cuda.TOKENS)
    assert stored["source_sha256"] == hashlib.sha256(cuda.source().encode()).hexdigest(), (
        "bi_wkv.cu has changed: run python benchmarks/cuda_resources.py"
    )
    assert stored["block"] == block
    for arch in ARCHITECTURES:
        for dtype in cuda.IO_TYPES:
            name = str(dtype).removeprefix("torch.")
            assert_fits([x for x in stored["kernels"] if (x["arch"], x["dtype"]) == (arch, name)])


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


def test_few_tokens_take_one_launch_and_many_take_three(host):
    host(2, 3, 5)
    for T, forward, backward in (
        (15, ["forward"], ["backward", "sum_rows"]),
        (
            16,
            ["forward_summaries", "forward_carries", "forward"],
            ["backward_summaries", "backward_carries", "backward", "sum_rows"],
        ),
    ):
        inputs = [x.requires_grad_() for x in make_inputs(2, T, 3, 0.1)]
        kernels = cuda.kernels(torch.device("cpu"), torch.float64)
        kernels.launched.clear()
        y = bi_wkv(*inputs, backend="cuda")
        assert [name for name, _ in kernels.launched] == forward
        kernels.launched.clear()
        y.sum().backward()
        assert [name for name, _ in kernels.launched] == backward


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
    with pytest.MonkeyPatch.context() as patch:
        change_backend(patch, "cuda", forward={"paper": lambda *x: made.append(x[-1]) or cuda.forward(*x)})
        recorded = [inputs[0].clone().requires_grad_(), *inputs[1:]]
        bi_wkv(*inputs, backend="cuda")
        bi_wkv(*recorded, backend="cuda")
        with torch.no_grad():
            bi_wkv(*recorded, backend="cuda")
    assert made == [False, True, False]


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
import pytest
import torch
from rwkvlib.wkv import bi_wkv, cuda
from tests.wkv.conftest import change_backend
from tests.wkv.host_kernels import HostKernels
from pathlib import Path

torch.set_num_threads(1)
cuda.LANES, cuda.SEGMENTS, cuda.TOKENS = 2, 3, 5
change_backend(pytest.MonkeyPatch(), "cuda", device="cpu")
kernels = HostKernels(Path(sys.argv[1]))
cuda.kernels = lambda device, dtype: kernels
for variant in ("paper", "published"):
    for T in (7, 50):
        inputs = [torch.randn(shape).mul_(0.01).requires_grad_() for shape in ((3,), (3,), (2, T, 3), (2, T, 3))]
        bi_wkv(*inputs, variant=variant, backend="cuda").sum().backward()
print("done")
"""


def setarch() -> list[str]:
    """What starts a command without address space randomisation, where that is allowed (containers may refuse)."""
    command = ["setarch", "-R"]
    try:
        return command if subprocess.run([*command, "true"], capture_output=True).returncode == 0 else []
    except OSError:
        return []


@pytest.mark.skipif(sys.platform != "linux", reason="preloads g++'s thread sanitizer, as on Linux")
@pytest.mark.parametrize("barriers", [True, False], ids=["as it is", "without barriers"])
def test_thread_sanitizer_finds_races_only_without_barriers(barriers, host, require_tool, require_package, tmp_path):
    host(2, 3, 5)
    compiler = require_tool("g++")
    flags = ["-fsanitize=thread"] + ([] if barriers else ["-DWITHOUT_BARRIERS"])
    library = compile_host(tmp_path, compiler, torch.float32, *flags)
    sanitizer = subprocess.check_output([compiler, "-print-file-name=libtsan.so"], text=True).strip()
    environment = os.environ | {"LD_PRELOAD": sanitizer, "OMP_NUM_THREADS": "1", "TSAN_OPTIONS": "exitcode=0"}
    # Without the random addresses, under some of which the sanitizer cannot run.
    command = [*setarch(), sys.executable, "-c", RACES, str(library)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300)
    if "unexpected memory mapping" in done.stderr:
        require_package(None, "the thread sanitizer cannot run under this kernel's address layout: see setarch -R")
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


@pytest.mark.parametrize("where", ["mkdir", "open", "replace", "a file in the way"])
def test_where_nothing_can_be_kept_the_kernel_is_used_all_the_same(where, cache, no_compiler, monkeypatch):
    if where == "mkdir":
        monkeypatch.setattr(Path, "mkdir", refuse(errno.EROFS))
    elif where == "open":
        monkeypatch.setattr(Path, "write_bytes", refuse(errno.EACCES))
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
    """Backend "cuda" for CPU tensors, but no kernels; notes how often they are asked for."""
    asked = []

    def make(device, dtype):
        asked.append((device, dtype))
        raise cuda.KernelUnavailable("there is no compiler; for the CUDA kernel: pip install it")

    monkeypatch.setattr(cuda, "Kernels", make)
    monkeypatch.setattr(cuda, "_found", {})
    monkeypatch.setattr(operators, "_warned", set())
    change_backend(monkeypatch, "cuda", device="cpu")
    return asked


@pytest.mark.parametrize("variant", ["paper", "published"])
def test_auto_runs_pytorch_operations_after_one_warning(variant, unavailable, monkeypatch):
    change_backend(monkeypatch, "numba", device="another")  # as on a CUDA device
    inputs = [x.requires_grad_() for x in make_inputs(2, 9, 3, 0.1, dtype=torch.float32)]
    message = r"Bi-WKV runs on cpu without backend 'cuda', more slowly: there is no compiler; .*pip install it"
    with pytest.warns(RuntimeWarning, match=message) as caught:
        y = bi_wkv(*inputs, variant=variant)
        grads = torch.autograd.grad(y.sum(), inputs)
        bi_wkv(*inputs, variant=variant)
    assert len(caught) == 1
    assert len(unavailable) == 1  # and is not looked for at every call
    expected = bi_wkv(*inputs, variant=variant, backend="tree")
    assert torch.equal(y, expected)
    for a, b in zip(grads, torch.autograd.grad(expected.sum(), inputs), strict=True):
        assert_near(a, b, 1e-6)


@pytest.mark.parametrize("variant", ["paper", "published"])
def test_by_name_a_missing_kernel_is_an_error(variant, unavailable):
    for _ in range(2):
        with pytest.raises(cuda.KernelUnavailable, match="there is no compiler; for the CUDA kernel: pip install it"):
            bi_wkv(*make_inputs(2, 9, 3, 0.1), variant=variant, backend="cuda")
    assert len(unavailable) == 1


def test_an_error_that_is_no_missing_kernel_is_not_hidden(monkeypatch):
    def make(device, dtype):
        raise RuntimeError("CUDA_ERROR_OUT_OF_MEMORY")

    monkeypatch.setattr(cuda, "Kernels", make)
    monkeypatch.setattr(cuda, "_found", {})
    change_backend(monkeypatch, "cuda", device="cpu")
    with pytest.raises(RuntimeError, match="CUDA_ERROR_OUT_OF_MEMORY"):
        bi_wkv(*make_inputs(1, 3, 2, 0.1))
    assert cuda._found == {}  # may go well the next time


def test_auto_takes_the_kernel_where_there_is_one(host):
    host(2, 3, 5)
    inputs = make_inputs(2, 40, 3, 0.1)
    assert torch.equal(bi_wkv(*inputs), bi_wkv(*inputs, backend="cuda"))
    assert not torch.equal(bi_wkv(*inputs), bi_wkv(*inputs, backend="numba"))


# ------------------------------------------------------------------------------------------ the driver, faked


@pytest.fixture
def driver(monkeypatch, cache, no_compiler):
    """Stands for cuda-core and for PyTorch's CUDA devices; notes what it is asked to do, in order."""
    log = []

    class Guard:
        def __init__(self, device):
            self.device = device

        def __enter__(self):
            log.append(("enter", self.device))

        def __exit__(self, *error):
            log.append(("leave", self.device))

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
    core.LaunchConfig = lambda grid, block: (grid, block)
    core.launch = lambda stream, config, kernel, *values: log.append(
        ("launch", stream.__cuda_stream__(), config, kernel, values)
    )
    monkeypatch.setitem(sys.modules, "cuda.core", core)
    monkeypatch.setattr(torch.cuda, "device", Guard)
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


def test_launch_is_on_the_current_stream_of_the_tensors_device(driver):
    device = torch.device("cuda", 1)
    kernels = cuda.kernels(device, torch.float32)
    driver.clear()
    x = torch.zeros(3)
    kernels.launch("forward", 7, x, None, 2**40, 0)
    values = (x.data_ptr(), 0, 2**40, 0)
    block = (cuda.LANES, cuda.SEGMENTS)
    assert driver == [
        ("enter", device),
        ("current", 1),
        ("launch", (0, 101), (7, block), "kernel forward", values),
        ("leave", device),
    ]


def test_device_is_left_after_an_error(driver, monkeypatch):
    device = torch.device("cuda", 0)
    kernels = cuda.kernels(device, torch.float32)
    driver.clear()

    def fail(*arguments):
        raise RuntimeError("CUDA_ERROR_LAUNCH_FAILED")

    monkeypatch.setattr(sys.modules["cuda.core"], "launch", fail)
    with pytest.raises(RuntimeError, match="CUDA_ERROR_LAUNCH_FAILED"):
        kernels.launch("forward", 1)
    assert driver[-1] == ("leave", device)


def test_importing_the_library_compiles_and_loads_nothing():
    code = "import sys, rwkvlib.wkv.cuda; print('cuda.core' in sys.modules, 'cuda.bindings.nvrtc' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
