"""The authors' weights, fetched by gdown itself from a stand-in for Google Drive on this machine."""

import hashlib
import io
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest
import requests
import torch

from rwkvlib import create_model, load_checkpoint, load_pretrained
from rwkvlib.engine.checkpoint import checkpoint_file, load_encoder
from rwkvlib.engine.released import RELEASED, released_file, weights_folder
from rwkvlib.engine.train import train
from tests.conftest import TINY

ENCODERS = RELEASED["imagenet_t"].folder.rpartition("/")[2]
BY_HAND = rf"by hand: get netT\.pth from https://drive\.google\.com/drive/folders/{ENCODERS}, put it at '.*netT\.pth'"


@pytest.fixture(autouse=True)
def gdown(require_package):
    return require_package("gdown")


class Drive(ThreadingHTTPServer):
    """Files of public folders; `asked` has the names of those that were fetched, `held_back` bytes never come."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.files, self.asked, self.held_back = [], [], 0  # files: folder, name, content


class Answer(BaseHTTPRequestHandler):
    """What gdown asks Google Drive for: a folder's page, and a file by its id."""

    server: Drive

    def do_GET(self):
        address = urlparse(self.path)
        wanted = parse_qs(address.query)["id"][0]
        if address.path == "/embeddedfolderview":
            names = [(i, name) for i, (folder, name, _) in enumerate(self.server.files) if folder == wanted]
            links = (f"<a href='https://drive.google.com/file/d/{i:030}/view'>{name}</a>" for i, name in names)
            self.answer(f"<title>weights</title>{''.join(links)}".encode())
        else:
            _, name, content = self.server.files[int(wanted)]
            self.server.asked.append(name)
            self.answer(content, f"attachment; filename={name}")

    def answer(self, body, disposition=None):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/octet-stream" if disposition else "text/html")
        if disposition:
            self.send_header("Content-Disposition", disposition)
        self.end_headers()
        self.wfile.write(body[: len(body) - self.server.held_back] if disposition else body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(1)
    return create_model("rwkv_encoder_t")


@pytest.fixture
def drive(tmp_path, monkeypatch, encoder):
    """The stand-in, whose folder of encoders holds netT.pth."""
    with Drive() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ask, here = requests.Session.request, f"http://127.0.0.1:{server.server_address[1]}/"

        def request(session, method, url, **options):
            assert url.startswith("https://drive.google.com/"), url
            return ask(session, method, url.replace("https://drive.google.com/", here), **options)

        monkeypatch.setattr(requests.Session, "request", request)
        for name, value in dict(HOME=tmp_path, RWKVLIB_WEIGHTS=tmp_path / "kept", NO_PROXY="127.0.0.1").items():
            monkeypatch.setenv(name, str(value))
        server.files.append((ENCODERS, "netT.pth", saved(encoder)))
        yield server
        server.shutdown()


def saved(model):
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    return buffer.getvalue()


def kept():
    return sorted(path.name for path in weights_folder().iterdir() if not path.name.endswith(".lock"))


def test_weights_are_fetched_once_with_bar_and_terms(drive, encoder, capfd):
    model = create_model("rwkv_unet_t")
    report = load_encoder(model, "imagenet")
    given = encoder.state_dict()
    assert all(torch.equal(x, given[key]) for key, x in model.encoder.state_dict().items())
    assert report.variant == "published" and "ccm, decoder1" in str(report)
    err = capfd.readouterr().err
    assert "MIT licence" in err and "has its own terms" in err and "100%" in err
    assert kept() == ["netT.pth", "netT.pth.json"]
    record = json.loads((weights_folder() / "netT.pth.json").read_text())
    assert record["sha256"] == hashlib.sha256(drive.files[0][2]).hexdigest() and record["folder"].endswith(ENCODERS)
    assert checkpoint_file("imagenet", model) == checkpoint_file("imagenet_t") == weights_folder() / "netT.pth"
    assert drive.asked == ["netT.pth"] and not capfd.readouterr().err


def test_a_file_that_has_changed_is_an_error_with_two_remedies(drive):
    file = released_file("imagenet_t")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"netT.pth' has changed: expected SHA-256 \w{64}, got \w{64}"):
        released_file("imagenet_t")
    file.unlink()
    assert released_file("imagenet_t") == file and drive.asked == ["netT.pth"] * 2
    drive.files[0] = (ENCODERS, "netT.pth", saved(create_model("rwkv_encoder_t", num_classes=2)))
    file.unlink()
    with pytest.raises(ValueError, match=r"delete 'netT.pth.json', and it is taken as it is"):
        released_file("imagenet_t")
    file.with_name("netT.pth.json").unlink()
    assert released_file("imagenet_t") == file


def test_what_does_not_come_whole_leaves_nothing(drive, gdown, monkeypatch):
    drive.held_back = 1000
    with pytest.raises(ConnectionError, match=rf"imagenet_t: could not be fetched \(.*incomplete.*\); {BY_HAND}"):
        released_file("imagenet_t")
    assert kept() == []
    drive.held_back = 0
    whole = drive.files[0][2]
    for content, what in ((b"<!DOCTYPE html>", "is a web page"), (whole[:-1000], "is damaged or cut short")):
        drive.files[0] = (ENCODERS, "netT.pth", content)
        with pytest.raises(ConnectionError, match=rf"imagenet_t: could not be fetched \(what came {what}.*; {BY_HAND}"):
            released_file("imagenet_t")
        assert kept() == []

    def interrupted(*_, output, **options):
        Path(output).write_bytes(b"some")
        raise KeyboardInterrupt

    monkeypatch.setattr(gdown, "download", interrupted)
    with pytest.raises(KeyboardInterrupt):
        released_file("imagenet_t")
    assert kept() == []


def test_without_network_package_or_file_the_message_says_what_to_put_where(drive, encoder, monkeypatch, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"expected Synapse_base\.pth in https://.*_, got \[\]; by hand: get Syn"
    ):
        load_pretrained("authors_synapse_b")
    drive.files[0] = (ENCODERS, "other.pth", b"")
    with pytest.raises(FileNotFoundError, match=rf"expected netT\.pth in .*, got \['other\.pth'\]; {BY_HAND}"):
        released_file("imagenet_t")

    def unreachable(*_, **__):
        raise requests.ConnectionError("Network is unreachable\nmore")

    with monkeypatch.context() as patch:
        patch.setattr(requests.Session, "request", unreachable)
        with pytest.raises(ConnectionError, match=rf"fetched \(Network is unreachable\); {BY_HAND}"):
            released_file("imagenet_t")
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(ImportError, match=rf'needs gdown: pip install "rwkvlib\[weights\]"; {BY_HAND}'):
        released_file("imagenet_t")
    assert kept() == []
    # What the message says, done: no gdown is needed then.
    file = weights_folder() / "netT.pth"
    file.write_text("<html>Sign in</html>")
    with pytest.raises(ValueError, match=r"netT.pth' is a web page"):
        released_file("imagenet_t")
    file.write_bytes(saved(encoder))
    assert load_encoder(create_model("rwkv_unet_t"), "imagenet").loaded and kept() == ["netT.pth", "netT.pth.json"]


def test_weights_of_another_size_are_refused(drive):
    with pytest.raises(ValueError, match=r"has shape \(.*\), expected"):
        load_encoder(create_model("rwkv_unet_s"), "imagenet_t")
    for model in (create_model("rwkv_unet_t", **TINY), create_model("unet")):
        with pytest.raises(ValueError, match=r"imagenet: expected imagenet_t, .* or a model of RWKV-UNet with"):
            load_encoder(model, "imagenet")
    with pytest.raises(ValueError, match=r"authors_acdc: expected .* got NoneType"):
        load_checkpoint("authors_acdc")


def test_a_whole_network_is_loaded_strictly_by_its_name(drive):
    source = create_model("rwkv_unet_t", num_classes=9)
    folder = RELEASED["authors_synapse_t"].folder.rsplit("/")[-1]
    drive.files.append((folder, "synapse_tiny.pth", saved(source)))  # nobody documents the letters' case
    model, meta = load_pretrained("authors_synapse_t")
    assert all(torch.equal(x, source.state_dict()[key]) for key, x in model.state_dict().items())
    assert (meta["model"], meta["overrides"]["num_classes"], meta["size"]) == ("rwkv_unet_t", 9, 224)
    assert not model.training and model.config.variant == "published" and "loaded" in meta["report"]
    drive.files.append((folder, "ACDC_tiny.pth", drive.files[1][2]))
    with pytest.raises(ValueError, match=r"final_conv.weight has shape \(9, .*expected \(4"):
        load_checkpoint("authors_acdc_t")


def test_training_starts_from_them_and_prints_the_report(drive, recipe, tmp_path, capsys):
    train(recipe(pretrained="imagenet", overrides={}, epochs=1), tmp_path / "run", progress=False)
    assert "pretrained=imagenet: loaded" in capsys.readouterr().out
    drive.files.clear()
    with pytest.raises(FileNotFoundError, match=r"^pretrained: authors_acdc_t: expected ACDC_tiny\.pth"):
        train(recipe(pretrained="authors_acdc", overrides={}, epochs=1), tmp_path / "other", progress=False)
