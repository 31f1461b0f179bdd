"""The CUDA kernels compiled for the CPU (host.h), in the place of those on a device."""

import ctypes
import re
import subprocess
from pathlib import Path

import torch
from torch import Tensor

from rwkvlib.wkv import cuda

HERE = Path(__file__).parent


def compile_host(folder: Path, compiler: str, dtype: torch.dtype, *flags: str, output: str = "kernels.so") -> Path:
    """Compiles bi_wkv.cu and host.h with g++ for k and v of that dtype and the block that cuda.py names at present."""
    return compile_source(
        Path(cuda.__file__).with_name("bi_wkv.cu"), folder / output, compiler, cuda.macros(dtype), *flags
    )


def compile_source(source: Path, path: Path, compiler: str, macros: dict[str, str], *flags: str) -> Path:
    """Compiles any such file and host.h to `path`. A block has LANES * SEGMENTS threads, two of the macros."""
    names = re.findall(r"^KERNEL (\w+)\(", source.read_text(encoding="utf8"), re.MULTILINE)
    macros = macros | {"SOURCE": f'"{source.name}"', "EACH(F)": " ".join(f"F({name})" for name in names)}
    command = [
        compiler,
        "-std=c++20",
        "-O2",
        "-Wall",
        "-Wno-unknown-pragmas",
        "-Werror",
        "-fPIC",
        "-fno-gnu-unique",  # each library its own static variables, which have the size of its blocks
        "-shared",
        "-pthread",
    ]
    command += [f"-D{name}={value}" for name, value in macros.items()]
    command += [f"-I{source.parent}", "-x", "c++", str(HERE / "host.h"), "-o", str(path), *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return path


class HostKernels:
    """Stands for `cuda.Kernels`; notes what was launched."""

    def __init__(self, library: Path):
        self.library = ctypes.CDLL(str(library))
        self.launched = []

    def launch(self, name: str, blocks: int, *arguments: Tensor | int | None) -> None:
        self.launched.append((name, blocks))
        values = [x.data_ptr() if isinstance(x, Tensor) else x or 0 for x in arguments]
        for x in arguments:
            assert not isinstance(x, Tensor) or (x.is_contiguous() and x.device.type == "cpu")
        array = (ctypes.c_longlong * len(values))(*values)
        error = self.library.launch(name.encode(), blocks, array, ctypes.c_size_t(len(values)))
        assert error == 0, f"{name}: {['', 'wrong number of arguments', 'no such kernel'][-error]}"
