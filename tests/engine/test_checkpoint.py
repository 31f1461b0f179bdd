"""Weights in files: they come back as they were, with what tells where they are from."""

import argparse
import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from rwkvlib import create_model, load_checkpoint, load_official, load_pretrained
from rwkvlib.__main__ import main
from rwkvlib.bookkit import read_result
from rwkvlib.engine.checkpoint import checkpoint_file, load_encoder, save_checkpoint, write_file
from rwkvlib.models.registry import BASELINES
from tests.conftest import TINY


def test_checkpoints_survive_the_round_trip(tmp_path):
    model = create_model("rwkv_unet_t", **TINY).eval()
    meta = dict(model="rwkv_unet_t", overrides=TINY, size=32)
    save_checkpoint(tmp_path / "m.safetensors", model, meta)
    loaded, found = load_checkpoint(tmp_path / "m.safetensors")
    assert found == meta
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key
    save_checkpoint(tmp_path / "half.safetensors", model, meta, dtype=torch.float16)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.7 * (tmp_path / "m.safetensors").stat().st_size
    assert next(load_checkpoint(tmp_path / "half.safetensors")[0].parameters()).dtype == torch.float32


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_baselines_load_by_name_as_well(name, tmp_path):
    torch.manual_seed(0)
    overrides = dict(num_classes=3) | (dict(feature_size=12) if name == "swin_unetr" else {})
    model = create_model(name, **overrides).eval()
    save_checkpoint(tmp_path / "m.safetensors", model, dict(model=name, overrides=overrides, size=64))
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        y = model(x)
        assert y.shape == (1, 3, 64, 64)
        torch.testing.assert_close(load_checkpoint(tmp_path / "m.safetensors")[0](x), y)


def test_bad_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        load_checkpoint(tmp_path / "nothing.safetensors")
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, torch.nn.Linear(2, 2), dict(model="x", overrides={}, size=1))
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match=r"path: .*m\.safetensors' is damaged or no safetensors file"):
        load_checkpoint(path)


def test_a_file_is_whole_or_not_there(tmp_path, monkeypatch):
    write_file(tmp_path / "a", b"first")

    def broken(*args):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.replace", broken)
    with pytest.raises(OSError, match="could not write it, what it held is kept: Input/output error"):
        write_file(tmp_path / "a", b"second")
    assert [p.name for p in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_bytes() == b"first"


@pytest.fixture
def encoder(tmp_path):
    """A file of pretrained weights, and the encoder."""
    torch.manual_seed(1)
    model = create_model("rwkv_encoder_t", num_classes=5, **TINY)
    overrides = dict(TINY, num_classes=5, variant="published")
    save_checkpoint(tmp_path / "e.safetensors", model, dict(model="rwkv_encoder_t", overrides=overrides, size=32))
    return tmp_path / "e.safetensors", model


def test_an_encoder_is_loaded_strictly_and_reported(encoder):
    path, source = encoder
    model = create_model("rwkv_unet_t", **TINY)
    decoder = model.decoder1.state_dict()
    decoder = {key: value.clone() for key, value in decoder.items()}
    report = load_encoder(model, path)
    for key, value in model.encoder.state_dict().items():
        assert torch.equal(value, source.state_dict()[key]), key
    assert all(torch.equal(value, decoder[key]) for key, value in model.decoder1.state_dict().items())
    assert report.variant == "published" and model.encoder.stage3[1].att.variant == "published"
    assert "left" in str(report) and "ccm, decoder1" in str(report) and "classification norm and head" in str(report)
    assert load_encoder(model, path, "paper").variant == "paper"
    torch.save(source.state_dict(), path.with_suffix(".pth"))
    assert load_encoder(model, path.with_suffix(".pth")).variant == "published", "as released files were trained"


def test_an_encoder_of_another_size_is_refused(encoder):
    path, _ = encoder
    model = create_model("rwkv_unet_t", **dict(TINY, dims=[8, 8, 16, 24]))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"has shape \(.*\), expected"):
        load_encoder(model, path)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    with pytest.raises(ValueError, match=r"expected weights of the same network .* got those of 'rwkv_enc"):
        load_encoder(create_model("unet"), path)


@pytest.mark.parametrize("name", ["unet", "dyn_unet"])
def test_the_head_of_another_network_is_a_new_one_where_the_classes_differ(name, tmp_path):
    small = {} if name == "dyn_unet" else dict(channels=[8, 8, 16], strides=[2, 2])
    options = dict(filters=[8, 8, 16]) if name == "dyn_unet" else small
    source, path = create_model(name, num_classes=6, **options), tmp_path / "weights.safetensors"
    save_checkpoint(path, source, dict(model=name, overrides=dict(options, num_classes=6), size=32))
    model = create_model(name, num_classes=1, **options)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    report = load_encoder(model, path)
    given, after = source.state_dict(), model.state_dict()
    assert report.missing and set(report.missing) | set(report.loaded) == set(after)
    assert all(torch.equal(after[key], given[key]) for key in report.loaded)
    assert all(torch.equal(after[key], before[key]) for key in report.missing)
    assert all(given[key].shape != after[key].shape for key in report.missing)
    assert report.missing[0] in str(report) and "the file's is for 6 classes" in str(report)
    assert not load_encoder(create_model(name, num_classes=6, **options), path).missing
    # Nothing else may be of another shape, and without metadata nobody knows what is the head.
    wider = dict(filters=[8, 8, 24]) if name == "dyn_unet" else dict(small, channels=[8, 8, 24])
    with pytest.raises(ValueError, match="is missing or of another shape"):
        load_encoder(create_model(name, num_classes=1, **wider), path)
    torch.save(given, path.with_suffix(".pth"))
    with pytest.raises(ValueError, match="told from the metadata, which the file lacks"):
        load_encoder(model, path.with_suffix(".pth"))


def test_the_teachers_start_is_the_one_that_its_result_is_of():
    model = create_model("rwkv_unet_t")
    report = load_encoder(model, "teacher")
    assert set(report.loaded) == {key for key in model.state_dict() if key.startswith("encoder.")}
    assert not report.ignored and report.variant == "paper"
    result = read_result("starts/rwkv_encoder_t_teacher")
    assert hashlib.sha256(checkpoint_file("teacher").read_bytes()).hexdigest() == result["sha256"]
    assert result["log"][-1]["explained"] > 0.4, "of the teacher's variance"
    with pytest.raises(ValueError, match=r"has shape .* expected"):
        load_encoder(create_model("rwkv_unet_s"), "teacher")


def test_the_shipped_weights_have_a_name():
    for size in "tp":
        assert load_pretrained(f"rwkv_unet_{size}_synthetic")[1]["model"] == f"rwkv_unet_{size}"
    with pytest.raises(ValueError, match=r"name: expected one of \['rwkv_unet_t_synthetic', .* 'imagenet_t', .*'x'"):
        load_pretrained("x")


def test_a_checkpoint_of_a_run_says_where_it_is_from(tmp_path, recipe):
    from rwkvlib.engine.checkpoint import states
    from rwkvlib.engine.train import train

    log = train(recipe(epochs=2, choose="last"), tmp_path, progress=False)
    for path in (tmp_path / "model.safetensors", states(tmp_path)[-1] / "weights.safetensors"):
        model, meta = load_checkpoint(path)
        assert meta["config"]["lr"] == 1e-3 and meta["config"]["data"] == "synthetic:8" and meta["size"] == 32
        assert meta["versions"]["torch"] == torch.__version__ and "commit" in meta
        assert str(tmp_path) not in json.dumps(meta)
        assert model.encoder.config.dims == (8, 8, 16, 16) and not model.training
    assert load_checkpoint(tmp_path / "model.safetensors")[1]["metrics"] == log[-1]


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(2)
    return create_model("rwkv_unet_t", **TINY)


def lightning(prefix, state, **more):
    return {
        "state_dict": {prefix + key: x for key, x in state.items()} | more,
        "pytorch-lightning_version": "2.4",
        "hyper_parameters": {"lr": 1e-3},
        "epoch": 3,
    }


FORMS = {
    "plain": lambda s: s,
    "half": lambda s: {key: x.half() for key, x in s.items()},
    "DataParallel": lambda s: {"module." + key: x for key, x in s.items()},
    "compiled": lambda s: {"_orig_mod." + key: x for key, x in s.items()},
    "compiled, then parallel": lambda s: {"module._orig_mod." + key: x for key, x in s.items()},
    "parallel, then compiled": lambda s: {"_orig_mod.module." + key: x for key, x in s.items()},
    "a part compiled": lambda s: {key.replace("decoder1.", "decoder1._orig_mod."): x for key, x in s.items()},
    "model_state_dict": lambda s: {"model_state_dict": s, "epoch": 3, "best": 0.9},
    "net": lambda s: {"net": s},
    "ema": lambda s: {"ema": {"module": s}, "updates": 7},
    "Lightning": lambda s: lightning("model.", s),
    "Lightning with a loss": lambda s: lightning("net.", s, **{"loss.weight": torch.ones(2)}),
}


@pytest.mark.parametrize("form", FORMS)
def test_what_training_scripts_put_around_weights_is_known(form, unet, tmp_path):
    """Sources: nanoGPT#325, timm PR 2003, OpenTAD#44, PK-YOLO#6."""
    torch.save(FORMS[form](unet.state_dict()), tmp_path / "w.pth")
    model = create_model("rwkv_unet_t", **TINY)
    report = load_encoder(model, tmp_path / "w.pth")
    assert len(report.loaded) == len(unet.state_dict()) and not report.missing
    for key, x in model.state_dict().items():
        torch.testing.assert_close(x, unet.state_dict()[key], atol=2e-3 if form == "half" else 0, rtol=0)
    if form == "Lightning with a loss":
        assert "ignored 1 outside of 'net.': loss.weight" in str(report)
    assert ("without the prefix" in str(report)) == any("." in n and "'" in n for n in report.notes)


@pytest.mark.parametrize("name", ["w.safetensors", "w.bin", "w.pth"])
def test_plain_safetensors_are_pretrained_weights_whatever_they_are_called(name, unet, tmp_path):
    save_file(unet.state_dict(), tmp_path / name)
    model = create_model("rwkv_unet_t", **TINY)
    assert load_encoder(model, tmp_path / name).variant == "published", "as for released files, which say nothing"
    assert model.config.variant == model.encoder.config.variant == "published"
    assert all(torch.equal(x, unet.state_dict()[key]) for key, x in model.state_dict().items())
    with pytest.raises(ValueError, match=rf"path: '.*{name}' holds weights without rwkvlib metadata.*pretrained="):
        load_checkpoint(tmp_path / name)


def bad_files(folder, model):
    state = model.state_dict()
    torch.save({"model": state, "args": argparse.Namespace(lr=1e-3)}, folder / "namespace.pth")
    torch.save({"model": state, "best": np.float64(0.9)}, folder / "scalar.pth")
    torch.save(model, folder / "whole.pth")
    torch.save([1, 2], folder / "list.pth")
    torch.save(state, folder / "cut.pth")
    (folder / "cut.pth").write_bytes((folder / "cut.pth").read_bytes()[:20000])
    save_file(state, folder / "cut.safetensors")
    (folder / "cut.safetensors").write_bytes((folder / "cut.safetensors").read_bytes()[:20000])
    torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False)
    (folder / "old.pth").write_bytes((folder / "old.pth").read_bytes()[:20000])
    (folder / "lfs.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")
    (folder / "page.pth").write_text("\n<!DOCTYPE html><html>Sign in</html>")
    (folder / "empty.pth").write_bytes(b"")
    (folder / "picture.pth").write_bytes(b"\x89PNG\r\n" + bytes(100))


WRONG = {
    "namespace.pth": r"holds other objects beside tensors \(argparse\.Namespace\)",
    "scalar.pth": r"holds other objects beside tensors \(numpy.*scalar.*\)",
    "whole.pth": "is a whole pickled model",
    "list.pth": "holds no weights by name, but one list",
    "cut.pth": "is damaged or cut short",
    "cut.safetensors": "is damaged or no safetensors file",
    "old.pth": "is damaged or cut short",
    "lfs.pth": "is a pointer of Git LFS",
    "page.pth": "is a web page",
    "empty.pth": "is empty",
    "picture.pth": "is no file of weights",
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_checkpoint_is_named_in_one_line(name, unet, tmp_path):
    """Sources: MRSegmentator#19, nerfstudio PR 3702."""
    bad_files(tmp_path, unet)
    model = create_model("rwkv_unet_t", **TINY)
    for load in (load_checkpoint, lambda path: load_encoder(model, path), lambda path: load_official(model, path)):
        with pytest.raises(ValueError, match=rf"'.*{name}' {WRONG[name]}") as caught:
            load(tmp_path / name)
        text = str(caught.value)
        assert "\n" not in text and "weights_only" not in text


def test_the_command_names_the_field_and_what_the_file_is(tmp_path, write_recipe, capsys):
    path = write_recipe()
    (tmp_path / "page.pth").write_text("<html>Sign in</html>")
    for setting, message in (
        (tmp_path / "page.pth", "is a web page"),
        ("nowhere.pth", "no file 'nowhere.pth'"),
        ("teacher", "pretrained=null starts from random weights"),  # of another size
    ):
        with pytest.raises(SystemExit) as caught:
            main(["train", str(path), f"pretrained={setting}", f"out={tmp_path / 'run'}"])
        error = capsys.readouterr().err
        assert caught.value.code == 2 and error.count("\n") == 1
        assert error.startswith("error: pretrained: ") and message in error


def test_fine_tuning_takes_a_new_head_and_says_so(unet, tmp_path):
    """Sources: smp PR 1107, HRNet#136, deeplab2#100."""
    meta = dict(model="rwkv_unet_t", overrides=TINY, size=32)
    save_checkpoint(tmp_path / "binary.safetensors", unet, meta)
    rest = {key: x for key, x in unet.state_dict().items() if not key.startswith("final_conv.")}
    torch.save(rest, tmp_path / "nohead.pth")
    for name, classes, why in (
        ("binary.safetensors", 4, "a new one for 4 classes: the file's is for 1 classes"),
        ("nohead.pth", 1, "a new one for 1 classes: the file has none"),
    ):
        model = create_model("rwkv_unet_t", num_classes=classes, **TINY)
        head = model.final_conv.weight.detach().clone()
        report = load_encoder(model, tmp_path / name)
        assert why in str(report) and "left 2 as initialised: final_conv" in str(report)
        assert torch.equal(model.final_conv.weight, head)
        assert all(torch.equal(model.state_dict()[key], x) for key, x in rest.items())
    same = create_model("rwkv_unet_t", **TINY)
    assert not load_encoder(same, tmp_path / "binary.safetensors").missing
    with pytest.raises(ValueError, match=r"final_conv\.weight is missing"):
        load_official(same, tmp_path / "nohead.pth")


def test_the_shipped_weights_and_a_runs_folder_are_taken_by_name(unet, tmp_path):
    meta = dict(model="rwkv_unet_t", overrides=TINY, size=32)
    save_checkpoint(tmp_path / "model.safetensors", unet, meta)
    assert load_checkpoint(tmp_path)[1] == meta
    assert not load_encoder(create_model("rwkv_unet_t", **TINY), tmp_path).missing
    assert load_checkpoint("synthetic")[1]["model"] == "rwkv_unet_t"
    assert not load_encoder(create_model("rwkv_unet_t"), "synthetic").missing
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no file '.*model\.safetensors' in the run's folder '.*empty'"):
        load_checkpoint(tmp_path / "empty")


def test_baselines_start_from_weights_of_the_same_network(tmp_path):
    small = dict(channels=[4, 8, 8], strides=[2, 2])
    source = create_model("unet_batchnorm", **small)
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in source.modules())
    save_checkpoint(tmp_path / "u.safetensors", source, dict(model="unet_batchnorm", overrides=small, size=32))
    torch.save({"net": source.net.state_dict()}, tmp_path / "monai.pth")
    for name in ("u.safetensors", "monai.pth"):
        model = create_model("unet_batchnorm", **small)
        assert not load_encoder(model, tmp_path / name).missing
        assert all(torch.equal(x, source.state_dict()[key]) for key, x in model.state_dict().items())
    with pytest.raises(ValueError, match="same network and the same overrides, got those of 'unet_batchnorm'"):
        load_encoder(create_model("unet_batchnorm", **small | {"channels": [4, 8, 16]}), tmp_path / "u.safetensors")
    with pytest.raises(ValueError, match="holds weights of 'unet_batchnorm', which is another network"):
        load_encoder(create_model("rwkv_unet_t", **TINY), tmp_path / "u.safetensors")


def test_a_checkpoint_without_a_key_of_its_model_is_an_error_of_input(unet, tmp_path):
    save_checkpoint(
        tmp_path / "m.safetensors", unet, dict(model="rwkv_unet_t", overrides=TINY | {"ccm": False}, size=32)
    )
    with pytest.raises(ValueError, match="does not fit the rwkv_unet_t that it names"):
        load_checkpoint(tmp_path / "m.safetensors")
