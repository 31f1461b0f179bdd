"""Exported files give PyTorch's numbers, for any batch."""

import copy
import re

import numpy as np
import pytest
import torch

from rwkvlib import create_model
from rwkvlib.engine.export import export_onnx
from rwkvlib.engine.predict import normalise

SHALLOW = dict(depths=(1, 1, 2, 2))
SMALL = dict(SHALLOW, dims=(8, 8, 16, 16))


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
    assert not list(tmp_path.iterdir())
