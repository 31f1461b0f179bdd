"""Exported files give PyTorch's numbers, for any batch."""

import copy
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from rwkvlib import create_model
from rwkvlib.__main__ import main
from rwkvlib.data import synthetic_polyps
from rwkvlib.engine.checkpoint import save_checkpoint
from rwkvlib.engine.export import BOUNDS, compare, export_onnx, quantise, sample_images
from rwkvlib.engine.predict import normalise

SHALLOW = dict(depths=(1, 1, 2, 2))
SMALL = dict(SHALLOW, dims=(8, 8, 16, 16))
SMALLEST = dict(depths=(1, 1, 1, 2), dims=(8, 8, 8, 16))  # one block with the operator, at stride 16


def moved(model):
    """With decay and bonus away from 0, where every token would have the same weight."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith(("spatial_decay", "spatial_first")):
                p.copy_(torch.randn_like(p))
    return model.eval()


# S and B differ from T in widths and depths: one block with attention in a stage has all that is to be exported.
@pytest.mark.parametrize(("size", "overrides"), [("t", {}), ("s", SHALLOW), ("b", SHALLOW)])
def test_the_file_gives_the_models_logits_for_any_batch(size, overrides, require_package, tmp_path):
    require_package("onnxscript")
    onnxruntime = require_package("onnxruntime")
    torch.manual_seed(0)
    model = moved(create_model(f"rwkv_unet_{size}", **overrides))
    pixels = 32  # the time grows with the number of sums that are written out
    session = onnxruntime.InferenceSession(export_onnx(model, tmp_path / "model.onnx", pixels))
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    for batch in (1, 3):
        image = torch.rand(batch, 3, pixels, pixels)
        (logits,) = session.run(["logits"], {"image": image.numpy()})
        with torch.no_grad():
            expected = model(normalise(image))
        assert expected.std() > 1e-3
        np.testing.assert_allclose(logits, expected.numpy(), atol=1e-4)


def test_a_rectangle_of_one_channel_in_an_older_opset_gives_the_models_logits(require_package, tmp_path):
    onnx = require_package("onnx")
    require_package("onnxscript")
    onnxruntime = require_package("onnxruntime")
    torch.manual_seed(0)
    model = moved(create_model("rwkv_unet_t", in_channels=1, num_classes=2, **SMALL))
    path = export_onnx(model, tmp_path / "model.onnx", (48, 16), opset_version=18)
    assert [o.version for o in onnx.load(path).opset_import if o.domain in ("", "ai.onnx")] == [18]
    image = torch.rand(2, 1, 48, 16)
    (logits,) = onnxruntime.InferenceSession(path).run(["logits"], {"image": image.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(logits, model(normalise(image)).numpy(), atol=1e-5)


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    model = moved(create_model("rwkv_unet_t", num_classes=2, **SMALLEST))
    meta = dict(
        model="rwkv_unet_t", overrides=dict(SMALLEST, num_classes=2), size=32, class_names=["background", "polyp"]
    )
    save_checkpoint(tmp_path / "mine.safetensors", model, meta)
    return tmp_path / "mine.safetensors", model


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "pictures").mkdir()
    for i in range(3):
        Image.fromarray(synthetic_polyps(i, 40)[0]).save(tmp_path / f"pictures/{i}.png")
    return tmp_path / "pictures"


def test_one_file_serves_any_height_and_width(checkpoint, pictures, require_package, tmp_path, capsys):
    """And its quantised copy keeps the labels."""
    onnx = require_package("onnx")
    require_package("onnxscript")
    onnxruntime = require_package("onnxruntime")
    path, model = checkpoint
    file = tmp_path / "any.onnx"
    main(["export", str(path), "--dynamic", "--largest", "96", "--check", "--out", str(file)])
    assert "largest difference from PyTorch over 2 images: logits" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(file)
    for batch, height, width in ((1, 16, 16), (2, 32, 80), (1, 96, 48), (3, 16, 96), (1, 96, 96)):
        image = torch.rand(batch, 3, height, width)
        (logits,) = session.run(["logits"], {"image": image.numpy()})
        with torch.no_grad():
            expected = model(normalise(image))
        assert expected.std() > 1e-3
        np.testing.assert_allclose(logits, expected.numpy(), atol=1e-4)
    about = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    assert about["size"] is None and (about["largest"], about["divisor"], about["num_classes"]) == (96, 16, 2)
    assert about["class_names"] == ["background", "polyp"] and about["mean"] == [0.485, 0.456, 0.406]
    images = sample_images(model, (32, 48), pictures)
    assert [tuple(image.shape) for image in images] == [(1, 3, 32, 48)] * 3
    small = quantise(file, tmp_path / "int8.onnx", images)
    found = compare(small, model, images)
    assert 0 < found["probabilities"] < 0.1
    weights = {tensor.data_type for tensor in onnx.load(small).graph.initializer if len(tensor.dims) == 4}
    assert onnx.TensorProto.INT8 in weights
    about = onnxruntime.InferenceSession(small).get_modelmeta().custom_metadata_map
    assert about["dtype"] == '"int8"' and about["num_classes"] == "2"
    with pytest.raises(ValueError, match="images: expected at least one"):
        quantise(file, tmp_path / "none.onnx", [])
    assert not (tmp_path / "none.onnx").exists()


def test_a_file_of_halves_is_half_as_large_and_near(
    checkpoint, pictures, require_package, tmp_path, monkeypatch, capsys
):
    require_package("onnxscript")
    onnx = require_package("onnx")
    path, file = str(checkpoint[0]), tmp_path / "half.onnx"
    command = ["export", path, "--half", "--check", "--calibrate", str(pictures), "--out", str(file)]
    main(command)
    assert "over 3 images" in capsys.readouterr().out
    weights = {tensor.data_type for tensor in onnx.load(file).graph.initializer if len(tensor.dims) == 4}
    assert weights == {onnx.TensorProto.FLOAT16}
    monkeypatch.setattr("rwkvlib.engine.export.export_onnx", lambda *args, **options: None)  # the file is there
    monkeypatch.setitem(BOUNDS, "float16", {"logits": 0.0})
    with pytest.raises(SystemExit, match=r"failed: beyond the bound of float16: logits .* > 0"):
        main([*command, "--overwrite"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--int8"], "calibrate: expected a folder of images for --int8"),
        (["--calibrate", "here"], "calibrate: expected --int8 or --check beside it"),
        (["--size", "32x"], "size: expected HEIGHTxWIDTH as in 256x192, or one number, got '32x'"),
        (["--size", "32x40"], "size: expected multiples of 16, got (32, 40)"),
        (["--dynamic", "--largest", "40"], "largest: expected multiples of 16, got 40"),
        (["--half", "--int8"], "not allowed with argument"),
        (["--size", "32", "--dynamic"], "not allowed with argument"),
        (["--out", "there.onnx"], "out: 'there.onnx' exists already"),
    ],
    ids=["int8", "calibrate", "form", "size", "largest", "numbers", "both", "out"],
)
def test_the_command_says_what_is_wrong(options, message, checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.onnx").touch()
    with pytest.raises(SystemExit) as error:
        main(["export", str(checkpoint[0]), "--out", "new.onnx", *options])
    assert error.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "new.onnx").exists() and not (tmp_path / "there.onnx").stat().st_size


def test_bad_arguments_are_named_and_write_nothing(tmp_path):
    model = create_model("rwkv_unet_t", depths=(1, 1, 1, 1), dims=(8, 8, 8, 8))
    with pytest.raises(ValueError, match="model: expected a model in eval mode"):
        export_onnx(model.train(), tmp_path / "model.onnx", 64)
    model.eval()
    for size in (72, 0, (32, 40), (32.0, 32)):
        with pytest.raises(ValueError, match=rf"size: expected multiples of 16, got {re.escape(str(size))}"):
            export_onnx(model, tmp_path / "model.onnx", size)
    with pytest.raises(ValueError, match=r"model: expected float32, got torch.float16; model.float\(\)"):
        export_onnx(copy.deepcopy(model).half(), tmp_path / "model.onnx", 32)
    with pytest.raises(ValueError, match="channels: expected 3, as the model takes, got 1"):
        export_onnx(model, tmp_path / "model.onnx", 32, channels=1)
    with pytest.raises(ValueError, match=r"model: expected a model on the CPU, got one on meta; model.cpu\(\)"):
        export_onnx(copy.deepcopy(model).to("meta"), tmp_path / "model.onnx", 32)
    with pytest.raises(ValueError, match="opset_version: expected at least 18, got 17"):
        export_onnx(model, tmp_path / "model.onnx", 32, opset_version=17)
    with pytest.raises(ValueError, match="size: expected multiples of 32, got 48"):
        export_onnx(create_model("swin_unetr", feature_size=12).eval(), tmp_path / "model.onnx", 48)
    published = create_model("rwkv_unet_t", variant="published", **SMALL).eval()
    with pytest.raises(ValueError, match=r"size: expected a number or .* variant 'published', got None"):
        export_onnx(published, tmp_path / "model.onnx", None)
    assert not list(tmp_path.iterdir())
