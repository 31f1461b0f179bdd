"""Files: written whole or not at all; paths as users type them."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


def expand(path: str | Path) -> Path:
    """The path with ``~`` as the user's home: shells leave it alone in key=value, and YAML knows nothing of it."""
    return Path(path).expanduser()


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, to be written in the block; at its end the file is on the disk and renamed.

    The temporary name is hidden, short and ends as `path` does, since some writers go by the suffix. Whatever happens
    in the block, no half file is left under `path`, nor the temporary one.

    Raises: OSError that names the file, where the disk is full for example; what `path` held before is kept then.
    """
    path = Path(path)
    # A name of its own, so that a long one has room, and two writers of one file do not meet.
    temporary = path.with_name(f".{secrets.token_hex(6)}.tmp{_suffix(path)}")
    try:
        yield temporary
        write_through(temporary)
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(error.errno, f"could not write it, what it held is kept: {reason}", str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _suffix(path: Path) -> str:
    return "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix


def write_through(path: Path, content: bytes | None = None) -> None:
    """Writes `content`, where given, and waits until the disk has all of the file."""
    with open(path, "rb+" if content is None else "wb") as file:
        if content is not None:
            file.write(content)
            file.flush()
        os.fsync(file.fileno())


def write_file(path: str | Path, content: bytes | str) -> None:
    """Writes bytes, or text as UTF-8, whole or not at all. Raises OSError as `replacing` does."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def walk(folder: str | Path) -> Iterator[Path]:
    """Every file below a folder, in order, as `walk_folders` finds them."""
    for root, names in walk_folders(folder):
        yield from (root / name for name in names)


def walk_folders(folder: str | Path) -> Iterator[tuple[Path, list[str]]]:
    """A folder and every one below it, with the names of its files. Links are followed, but not round in circles; what
    begins with a dot and ``__MACOSX`` is left out, as systems and notebooks put it there.

    Raises: OSError for a folder that cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise error

    above = {str(folder): frozenset([os.path.realpath(folder)])}
    for root, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        known = above.pop(root)
        real = {d: os.path.realpath(os.path.join(root, d)) for d in sorted(folders) if not _hidden(d)}
        folders[:] = [d for d in real if real[d] not in known]
        above |= {os.path.join(root, d): known | {real[d]} for d in folders}
        yield Path(root), [name for name in sorted(files) if not _hidden(name)]


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def identity(path: str | Path) -> tuple[int, int] | None:
    """What two names of one file share, links and other letter case included; None where there is no file."""
    try:
        about = os.stat(path)
    except OSError:  # a name that is too long, too
        return None
    return about.st_dev, about.st_ino


def exists(paths: list[Path]) -> FileExistsError:
    """The error for results that are there already."""
    there = f"and {len(paths) - 1} more exist" if len(paths) > 1 else "exists"
    return FileExistsError(
        f"out: {str(paths[0])!r} {there} already; choose another folder, or "
        "replace what is there by --overwrite (overwrite=True)"
    )
