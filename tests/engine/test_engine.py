"""Training, evaluation, prediction and their command line, on tiny synthetic data."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from rwkvlib import create_model, load_pretrained, predict
from rwkvlib.__main__ import main
from rwkvlib.data import load_data, synthetic_polyps
from rwkvlib.engine.evaluate import evaluate
from rwkvlib.engine.losses import make_loss
from rwkvlib.engine.predict import fold_batchnorm, normalise

TINY = dict(depths=[1, 1, 2, 2], dims=[8, 8, 16, 16])


def test_the_loss_is_the_papers():
    """0.5 BCE + Dice with squared denominators, over the whole batch."""
    logits, mask = torch.randn(3, 1, 8, 8), (torch.rand(3, 1, 8, 8) > 0.5).float()
    p = logits.sigmoid()
    dice = 1 - (2 * (p * mask).sum() + 1e-5) / (p.square().sum() + mask.square().sum() + 1e-5)
    expected = 0.5 * torch.nn.functional.binary_cross_entropy_with_logits(logits, mask) + dice
    torch.testing.assert_close(make_loss("dice_ce", 1)(logits, mask), expected)
    several, labels = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 1, 8, 8)).float()
    assert make_loss("dice_ce", 3)(several, labels).isfinite()


class Fixed(torch.nn.Module):
    """Predicts masks that were given, image after image."""

    def __init__(self, masks):
        super().__init__()
        self.p = torch.nn.Parameter(torch.zeros(1))
        self.logits = torch.as_tensor(masks, dtype=torch.float32)[:, None] * 2 - 1

    def forward(self, x):
        return self.logits


def test_evaluate_scores_by_hand():
    data = load_data("synthetic:16", "test", size=16)
    truth = np.zeros((4, 16, 16), np.uint8)
    truth[0, 4:8, 4:8] = truth[1, 4:8, 4:8] = truth[2, 4:8, 4:8] = 1
    given = np.zeros_like(truth)
    given[0, 4:8, 4:8] = 1  # right
    given[1, 4:8, 6:10] = 1  # two pixels to the right
    # 2: a miss; 3: nothing there, nothing found
    data.masks = truth
    table = evaluate(Fixed(given), data)
    np.testing.assert_allclose(table["dice"], [1, 0.5, 0, 1])
    np.testing.assert_allclose(table["iou"], [1, 1 / 3, 0, 1])
    np.testing.assert_allclose(table["hd95"], [0, 2, np.nan, np.nan])
    assert list(table["name"]) == data.names


@pytest.mark.parametrize("size", [(16, 16), (17, 40), (33, 31), (5, 7)])
def test_predict_takes_any_size(size):
    model = create_model("rwkv_unet_t", **TINY).train()
    image = torch.rand(2, 3, *size)
    logits = predict(model, image)
    assert logits.shape == (2, 1, *size) and model.training
    if size == (16, 16):
        with torch.no_grad():
            torch.testing.assert_close(logits, model.eval()(normalise(image)))


def test_folding_batchnorm_changes_no_number():
    model = create_model("rwkv_unet_t", **TINY)
    x = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        model(x)  # running statistics other than 0 and 1
        folded = fold_batchnorm(model.eval())
        torch.testing.assert_close(folded(x), model(x), atol=1e-5, rtol=1e-4)
    in_convolutions = [m for m in folded.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(in_convolutions) == 2, "those before the expansion of stages 1 and 2 stay"
    with pytest.raises(ValueError, match="model: expected a model in eval mode"):
        fold_batchnorm(model.train())


def test_predict_names_bad_input():
    model = create_model("rwkv_unet_t", **TINY)
    with pytest.raises(TypeError, match=r"image: expected a floating-point tensor, got torch\.uint8"):
        predict(model, torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"image: expected shape \(B, C, H, W\), got \(3, 16, 16\)"):
        predict(model, torch.rand(3, 16, 16))


def test_the_shipped_weights_find_synthetic_polyps():
    model, meta = load_pretrained("rwkv_unet_t_synthetic")
    table = evaluate(model, load_data("synthetic:80", "test", size=meta["size"]), hd95=False)
    assert table["dice"].mean() > 0.75


def test_the_command_line_trains_evaluates_and_predicts(tmp_path, write_recipe):
    run, images, masks = tmp_path / "run", tmp_path / "images", tmp_path / "masks"
    main(["train", str(write_recipe(data="synthetic:4", epochs=1)), f"out={run}"])
    checkpoint, out = str(run / "model.safetensors"), str(tmp_path / "result.json")
    main(["evaluate", "--checkpoint", checkpoint, "--data", "synthetic:4", "--out", out])
    result = json.loads((tmp_path / "result.json").read_text())
    assert len(result["images"]) == 1 and len(result["log"]) == 1 and result["config"]["seed"] == 0
    assert {"provenance", "training", "mean", "checkpoint"} <= set(result)
    assert str(tmp_path) not in json.dumps(result), "a result must not depend on where files are kept"
    images.mkdir()
    for i, size in enumerate((40, 53)):
        Image.fromarray(synthetic_polyps(i, size)[0]).save(images / f"{i}.png")
    main(["predict", "--checkpoint", checkpoint, "--images", str(images), "--out", str(masks)])
    assert {f.name: Image.open(f).size for f in masks.iterdir()} == {"0.png": (40, 40), "1.png": (53, 53)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "--data", "synthetic:4", "--checkpoint", "nowhere"], "no file 'nowhere'"),
    ],
)
def test_the_command_line_says_what_is_wrong(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2 and message in capsys.readouterr().err
