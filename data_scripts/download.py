"""Downloads that can be broken off and taken up again, with checksums."""

import shutil
import zipfile
from functools import partial
from pathlib import Path

from tqdm import tqdm

from rwkvlib.files import expand, replacing, write_file

from .entry import Entry

SUMS = "SHA256SUMS"


def download(entry: Entry, raw: str | Path) -> Path:
    """Fetches an entry's archives into `raw` and unpacks each there.

    The SHA-256 of an archive is written to ``SHA256SUMS`` of `raw` when it is first fetched; put a colleague's file
    there to be sure to get the same. What is there already and has its checksum is not fetched again.

    Raises:
        ValueError: the entry has no direct address, or an archive is not the one of the checksum.
        OSError: no connection; what was fetched so far is kept, and the next call goes on from it.
    """
    if not entry.downloads:
        raise ValueError(f"--download: {entry.title} cannot be fetched by a program. {entry.manual} See {entry.page}")
    try:
        import pooch
    except ImportError as error:
        raise ImportError("pooch: needed for --download; pip install pooch requests") from error
    raw = expand(raw)
    raw.mkdir(parents=True, exist_ok=True)
    for url in entry.downloads:
        name = url.rsplit("/", 1)[-1]
        sums = _read_sums(raw)
        pooch.retrieve(url, sums.get(name), fname=name, path=raw, downloader=partial(_resume, raw / f"{name}.part"))
        if name not in sums:
            sums[name] = pooch.file_hash(raw / name)
            write_file(raw / SUMS, "".join(f"{digest}  {file}\n" for file, digest in sorted(sums.items())))
        _unpack(raw / name, raw)
    return raw


def _read_sums(raw: Path) -> dict[str, str]:
    lines = (raw / SUMS).read_text().splitlines() if (raw / SUMS).is_file() else []
    return {file: digest for digest, file in (line.split(maxsplit=1) for line in lines if line.strip())}


def _resume(part: Path, url: str, output_file: str, _pooch: object) -> None:
    """A downloader for pooch that keeps what it has in `part`, and asks for the rest of it the next time."""
    import requests

    have = part.stat().st_size if part.exists() else 0
    with requests.get(url, headers={"Range": f"bytes={have}-"} if have else {}, stream=True, timeout=60) as answer:
        if answer.status_code == 416:  # nothing beyond what we have
            part.replace(output_file)
            return
        answer.raise_for_status()
        have = have if answer.status_code == 206 else 0  # a server that cannot resume sends all again
        total = have + int(answer.headers.get("Content-Length", 0)) or None
        with (
            part.open("ab" if have else "wb") as file,
            tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=url.rsplit("/", 1)[-1]) as bar,
        ):
            for chunk in answer.iter_content(1 << 20):
                file.write(chunk)
                bar.update(len(chunk))
    part.replace(output_file)


def _unpack(archive: Path, folder: Path) -> None:
    """Every file of a zip that is not there yet, each under a temporary name first."""
    with zipfile.ZipFile(archive) as content:
        for member in content.infolist():
            target = folder / member.filename
            if folder.resolve() not in target.resolve().parents:
                raise ValueError(f"{archive.name}: its member {member.filename!r} leads out of the folder")
            if member.is_dir() or (target.exists() and target.stat().st_size == member.file_size):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(target) as temporary, content.open(member) as source, temporary.open("wb") as file:
                shutil.copyfileobj(source, file)
