"""The command that examines a machine: what it says where all is well, where something is missing, or wrong."""

import json
import os
import subprocess
import sys

import pytest
import torch

from rwkvlib import doctor
from rwkvlib.__main__ import main
from rwkvlib.provenance import to_json
from rwkvlib.wkv import cuda

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def found():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doctor, "find_device", lambda: CPU)
        patch.setitem(doctor.TIMED, "cpu", (1, 20, 8))
        return doctor.examine()


def test_backends_of_a_cpu_are_right(found):
    assert found["ok"] is True
    checked = {(c["backend"], c["variant"], c["dtype"]) for c in found["checks"]}
    for dtype in ("float32", "bfloat16"):
        assert {("scan", "paper", dtype), ("tree", "paper", dtype), ("tree", "published", dtype)} <= checked
    for check in found["checks"]:
        assert 0 < check["forward"] <= check["tolerance"] and 0 < check["backward"] <= check["tolerance"]
    assert "cuda" in found["unavailable"]
    assert {row["backend"] for row in found["timings"]} >= {"tree"}


def test_text_is_one_screen_and_json_is_json(found):
    lines = doctor.describe(found).splitlines()
    assert len(lines) <= 40
    assert "all checks passed" in lines[-1]
    assert any(line.startswith("cuda     not here: ") for line in lines)
    assert json.loads(to_json(found))["ok"] is True
    assert found["provenance"]["versions"]["torch"]


def test_wrong_backend_fails_the_examination(monkeypatch, capsys):
    right = doctor.bi_wkv

    def wrong(w, u, k, v, *, variant, backend):
        y = right(w, u, k, v, variant=variant, backend=backend)
        return y + 0.01 * (backend == "scan")

    monkeypatch.setattr(doctor, "bi_wkv", wrong)
    monkeypatch.setattr(doctor, "find_device", lambda: CPU)
    monkeypatch.setitem(doctor.TIMED, "cpu", (1, 20, 8))
    monkeypatch.setattr(doctor, "backends", lambda device, kernel: {"scan": "", "tree": ""})
    with pytest.raises(SystemExit) as end:
        main(["doctor"])
    assert end.value.code == 1
    text = capsys.readouterr().out
    assert "FAILED: differs from the oracle" in text and "A CHECK HAS FAILED" in text


@pytest.mark.parametrize("error", [RuntimeError("no device"), ValueError("two\nlines")])
def test_backend_that_raises_is_a_failed_check(error, monkeypatch):
    right = doctor.bi_wkv

    def raises(w, u, k, v, *, variant, backend):
        if backend == "tree":
            raise error
        return right(w, u, k, v, variant=variant, backend=backend)

    monkeypatch.setattr(doctor, "bi_wkv", raises)
    check = doctor.compare("tree", "paper", torch.float32, CPU)
    assert not check["ok"] and type(error).__name__ in check["why"] and "\n" not in check["why"]


def test_nan_is_no_agreement(monkeypatch):
    right = doctor.bi_wkv
    monkeypatch.setattr(
        doctor, "bi_wkv", lambda *x, **more: right(*x, **more) * (more["backend"] != "tree" or torch.nan)
    )
    assert not doctor.compare("tree", "paper", torch.float32, CPU)["ok"]


def test_missing_package_of_the_kernel_is_no_failure_and_names_its_remedy(monkeypatch):
    def missing():
        raise cuda.KernelUnavailable(f"the packages cuda-core and cuda-bindings are needed; {cuda.remedy()}")

    monkeypatch.setattr(cuda, "nvrtc_version", missing)
    kernel = doctor.compile_kernel(torch.device("cuda", 0))
    assert kernel["state"] == "missing" and "pip install" in kernel["why"]
    assert doctor.backends(torch.device("cuda", 0), kernel)["cuda"] == kernel["why"]


def test_kernel_that_does_not_compile_is_a_failure(monkeypatch):
    def broken(device, dtype):
        raise cuda.KernelUnavailable("NVRTC 13.0 does not compile bi_wkv.cu for sm_90")

    monkeypatch.setattr(cuda, "nvrtc_version", lambda: "13.0")
    monkeypatch.setattr(cuda, "kernels", broken)
    assert doctor.compile_kernel(torch.device("cuda", 0))["state"] == "failed"


def test_runs_without_any_extra():
    """In a process that can import nothing but what the library itself needs."""
    hidden = sorted({m.split(".")[0] for modules, _ in doctor.EXTRAS.values() for m in modules} - {"requests"})
    code = f"""if True:
        import sys
        for name in {hidden!r}: sys.modules[name] = None
        from rwkvlib import doctor
        doctor.TIMED["cpu"] = (1, 20, 8)
        doctor.has = lambda name: name.split(".")[0] not in {hidden!r}
        doctor.find_device = lambda: __import__("torch").device("cpu")
        from rwkvlib.__main__ import main
        main(["doctor"])"""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "pip install 'rwkvlib[cpu]'" in done.stdout and "pip install 'rwkvlib[train]'" in done.stdout


def test_json_goes_to_a_file_beside_the_text(found, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "examine", lambda: found)
    for arguments in (["doctor", "--json"], ["doctor", "--json", str(tmp_path / "found.json")]):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 0
    first, _, text = capsys.readouterr().out.partition("\n}\n")
    assert json.loads(first + "\n}")["checks"] and "all checks passed" in text
    assert json.loads((tmp_path / "found.json").read_text())["ok"] is True
