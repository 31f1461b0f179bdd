"""Training, evaluation, prediction and their command line, on tiny synthetic data."""

import json

import pytest
import torch
from PIL import Image

from rwkvlib import create_model, load_pretrained
from rwkvlib.__main__ import main
from rwkvlib.data import load_data, synthetic_polyps
from rwkvlib.engine.evaluate import evaluate
from rwkvlib.engine.predict import fold_batchnorm

TINY = dict(depths=[1, 1, 2, 2], dims=[8, 8, 16, 16])


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


def test_the_shipped_weights_find_synthetic_polyps():
    model, meta = load_pretrained("rwkv_unet_t_synthetic")
    table = evaluate(model, load_data("synthetic:80", "test", size=meta["size"]), hd95=False)
    assert table["dice"].mean() > 0.75


def test_the_command_line_trains_evaluates_and_predicts(tmp_path, write_recipe):
    run, images, masks = tmp_path / "run", tmp_path / "images", tmp_path / "masks"
    main(["train", str(write_recipe(data="synthetic:4", epochs=1)), f"out={run}"])
    checkpoint, out = str(run / "model.safetensors"), tmp_path / "result"
    main(["evaluate", checkpoint, "synthetic:4", "--out", str(out)])
    result = json.loads((out / "summary.json").read_text())
    assert len(result["log"]) == 1 and result["config"]["seed"] == 0
    assert {"provenance", "training", "overall", "classes", "checkpoint"} <= set(result)
    assert str(tmp_path) not in json.dumps(result), "a result must not depend on where files are kept"
    images.mkdir()
    for i, size in enumerate((40, 53)):
        Image.fromarray(synthetic_polyps(i, size)[0]).save(images / f"{i}.png")
    main(["predict", checkpoint, str(images), "--out", str(masks)])
    assert {f.name: Image.open(f).size for f in masks.iterdir()} == {"0.png": (40, 40), "1.png": (53, 53)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "nowhere", "synthetic:4"], "no file 'nowhere'"),
    ],
)
def test_the_command_line_says_what_is_wrong(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2 and message in capsys.readouterr().err
