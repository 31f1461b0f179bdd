"""Exported files give PyTorch's numbers, for any batch."""

import numpy as np
import pytest
import torch

from rwkvlib import create_model
from rwkvlib.engine.export import export_onnx
from rwkvlib.engine.predict import normalise
from rwkvlib.models.baselines import build_model


def moved(model):
    """With decay and bonus away from 0, where every token would have the same weight."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith(("spatial_decay", "spatial_first")):
                p.copy_(torch.randn_like(p))
    return model.eval()


@pytest.mark.parametrize("size", ["t", "s", "b"])
def test_the_file_gives_the_models_logits_for_any_batch(size, tmp_path):
    pytest.importorskip("onnxscript", reason="needs onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    torch.manual_seed(0)
    model = moved(create_model(f"rwkv_unet_{size}"))
    session = onnxruntime.InferenceSession(export_onnx(model, tmp_path / "model.onnx", 64))
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    for batch in (1, 3):
        image = torch.rand(batch, 3, 64, 64)
        (logits,) = session.run(["logits"], {"image": image.numpy()})
        with torch.no_grad():
            expected = model(normalise(image))
        assert expected.std() > 1e-3
        np.testing.assert_allclose(logits, expected.numpy(), atol=1e-4)


def test_bad_arguments_are_named_and_write_nothing(tmp_path):
    model = create_model("rwkv_unet_t", depths=(1, 1, 1, 1), dims=(8, 8, 8, 8))
    with pytest.raises(ValueError, match="model: expected a model in eval mode"):
        export_onnx(model.train(), tmp_path / "model.onnx", 64)
    with pytest.raises(ValueError, match="size: expected a multiple of 16, got 72"):
        export_onnx(model.eval(), tmp_path / "model.onnx", 72)
    with pytest.raises(ValueError, match="size: expected a multiple of 32, got 48"):
        export_onnx(build_model("swin_unetr", feature_size=12).eval(), tmp_path / "model.onnx", 48)
    assert not list(tmp_path.iterdir())
