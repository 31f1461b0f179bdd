"""Weights in files: they come back as they were, with what tells where they are from."""

import json

import pytest
import torch

from rwkvlib import create_model, load_checkpoint, load_pretrained
from rwkvlib.engine.checkpoint import load_encoder, save_checkpoint, write_file
from rwkvlib.models.baselines import BASELINES, build_model

TINY = dict(depths=[1, 1, 2, 2], dims=[8, 8, 16, 16])


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
    model = build_model(name, **overrides).eval()
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
    with pytest.raises(TypeError, match=r"model: expected a model of rwkvlib\.create_model"):
        load_encoder(build_model("unet"), path)


def test_the_shipped_weights_have_a_name():
    assert load_pretrained("rwkv_unet_t_synthetic")[1]["model"] == "rwkv_unet_t"
    with pytest.raises(ValueError, match=r"name: expected one of \['rwkv_unet_t_synthetic'\], got 'x'"):
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
        assert model.encoder.config.dims == [8, 8, 16, 16] and not model.training
    assert load_checkpoint(tmp_path / "model.safetensors")[1]["metrics"] == log[-1]
