"""Everything in this folder needs a CUDA device and the kernel; without them it is skipped, with the reason."""

from pathlib import Path

import pytest
import torch

from rwkvlib import wkv
from rwkvlib.wkv import cuda
from tests.wkv.conftest import change_backend

HERE = Path(__file__).parent


def _reason() -> str:
    if not torch.cuda.is_available():
        return "needs a CUDA device, and PyTorch finds none"
    try:
        cuda.kernels(torch.device("cuda", 0), torch.float32)
    except cuda.KernelUnavailable as e:
        return f"needs the CUDA kernel: {e}"
    return ""


def pytest_collection_modifyitems(config, items):
    """Of the CPU's tests only those of backend "cuda" run here."""
    here = [item for item in items if HERE in item.path.parents]
    others = [item for item in here if item.path.name == "test_operator.py" and not _of_cuda(item)]
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in set(others)]
    # The values first, then what a device adds, and last what takes PyTorch's compiler minutes: time may run out.
    if len(here) == len(items) + len(others):
        items.sort(key=lambda item: (item.path.name != "test_operator.py", "compiled" in item.name))
    reason = _reason() if here else ""
    for item in here:
        if reason and item.path.name != "test_sanitize.py":  # that script's own logic needs no device
            item.add_marker(pytest.mark.skip(reason=reason))


def _of_cuda(item: pytest.Item) -> bool:
    # test_device.py has these with tensors that are on the device from the start.
    by_other_means = any(words in item.name for words in ("rules_of_custom_operators", "compiled"))
    return "cuda" in getattr(getattr(item, "callspec", None), "params", {}).values() and not by_other_means


@pytest.fixture
def cpu_tensors_on_the_device(monkeypatch):
    """Lets backend "cuda" take CPU tensors, moved to the device and the results back."""

    def moved(operator):
        def run(w, u, k, v, backend, *more):
            if backend != "cuda":
                return operator(w, u, k, v, backend, *more)
            out = operator(*(x.cuda() for x in (w, u, k, v)), backend, *more)
            return out.to(k.device) if isinstance(out, torch.Tensor) else tuple(x.to(k.device) for x in out)

        return run

    monkeypatch.setattr(wkv, "_bi_wkv", moved(wkv._bi_wkv))
    monkeypatch.setattr(wkv, "_published", moved(wkv._published))
    change_backend(monkeypatch, "cuda", device="cpu")
