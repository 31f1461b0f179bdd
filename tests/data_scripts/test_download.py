"""Downloads resume, are checked, and unpack whole; against a server of our own."""

import dataclasses
import http.server
import io
import threading
import zipfile

import numpy as np
import pytest

from data_scripts.__main__ import main
from data_scripts.download import download
from data_scripts.registry import REGISTRY, find


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `content`, in ranges if asked; breaks off after `break_after` bytes once."""

    def do_GET(self):
        shop = self.server
        start = 0
        if shop.ranges and (asked := self.headers.get("Range")):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        shop.asked.append(self.headers.get("Range"))
        if start >= len(shop.content):
            self.send_error(416)
            return
        body = shop.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if shop.break_after is not None:
            body, shop.break_after = body[: shop.break_after], None
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as shop:
        shop.ranges, shop.break_after, shop.asked = True, None, []
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("Set/images/a (1).jpg", np.random.default_rng(0).bytes(3_000_000))
            archive.writestr("Set/readme.txt", "read me")
        shop.content = buffer.getvalue()
        thread = threading.Thread(target=shop.serve_forever, daemon=True)
        thread.start()
        yield shop
        shop.shutdown()


@pytest.fixture
def entry(server):
    return dataclasses.replace(find("kvasir_seg"), downloads=(f"http://127.0.0.1:{server.server_port}/set.zip",))


def test_a_download_is_unpacked_its_checksum_recorded_and_not_repeated(entry, server, tmp_path):
    download(entry, tmp_path)
    assert (tmp_path / "Set/readme.txt").read_text() == "read me"
    assert (tmp_path / "Set/images/a (1).jpg").stat().st_size == 3_000_000
    assert (tmp_path / "SHA256SUMS").read_text().endswith("  set.zip\n")
    (tmp_path / "Set/readme.txt").unlink()
    download(entry, tmp_path)
    assert len(server.asked) == 1 and (tmp_path / "Set/readme.txt").exists()
    assert not list(tmp_path.rglob("*.tmp")) + list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("ranges", [True, False], ids=["a server that resumes", "a server that starts again"])
def test_a_broken_download_goes_on(ranges, entry, server, tmp_path):
    server.ranges, server.break_after = ranges, 2_000_000
    with pytest.raises(OSError):
        download(entry, tmp_path)
    assert not (tmp_path / "set.zip").exists() and not (tmp_path / "SHA256SUMS").exists()
    have = (tmp_path / "set.zip.part").stat().st_size
    assert 0 < have <= 2_000_000
    download(entry, tmp_path)
    assert server.asked == [None, f"bytes={have}-"]
    assert (tmp_path / "set.zip").read_bytes() == server.content


def test_a_download_that_is_whole_but_not_yet_moved_is_taken(entry, server, tmp_path):
    (tmp_path / "set.zip.part").write_bytes(server.content)
    download(entry, tmp_path)
    assert (tmp_path / "set.zip").read_bytes() == server.content


def test_another_file_than_the_recorded_one_is_refused(entry, server, tmp_path):
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  set.zip\n")
    with pytest.raises(ValueError, match="hash"):
        download(entry, tmp_path)
    assert not (tmp_path / "Set").exists()


def test_an_archive_that_leads_out_of_the_folder_is_refused(entry, server, tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../outside.txt", "gotcha")
    server.content = buffer.getvalue()
    with pytest.raises(ValueError, match="leads out of the folder"):
        download(entry, tmp_path / "raw")
    assert not (tmp_path / "outside.txt").exists()


def test_sets_behind_a_registration_say_so(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["prepare", "synapse", "--download", "--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and "cannot be fetched by a program" in error and "synapse.org" in error


def test_list_and_info_print_every_set(capsys):
    main(["list"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(REGISTRY) >= 8 and all("  " in line for line in lines)
    main(["info", "busi"])
    printed = capsys.readouterr().out
    assert "Al-Dhabyani" in printed and "Dataset_BUSI_with_GT" in printed and "by hand" in printed
