"""Training, evaluation, prediction and their command line, on tiny synthetic data."""

import json

import pytest
import torch
from PIL import Image

from rwkvlib import create_model, load_checkpoint, load_pretrained
from rwkvlib.__main__ import main
from rwkvlib.data import load_data, synthetic_polyps
from rwkvlib.engine.checkpoint import save_checkpoint
from rwkvlib.engine.evaluate import evaluate
from rwkvlib.engine.train import TrainConfig, train

TINY = dict(depths=[1, 1, 2, 2], dims=[8, 8, 16, 16])
CONFIG = TrainConfig(data="synthetic:8", size=32, epochs=3, batch_size=4, overrides={**TINY, "dims": (8, 8, 16, 16)})


def test_resumed_training_gives_the_same_weights(tmp_path, monkeypatch):
    whole = train(CONFIG, tmp_path / "whole", progress=False)
    # A run that dies in its second epoch, and is resumed.
    import rwkvlib.engine.train as module

    calls = iter(range(100))

    def dying(*args, **kwargs):
        if next(calls) == 1:
            raise KeyboardInterrupt
        return evaluate(*args, **kwargs)

    monkeypatch.setattr(module, "evaluate", dying)
    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, tmp_path / "parts", progress=False)
    monkeypatch.undo()
    assert len(json.loads((tmp_path / "parts" / "log.json").read_text())) == 1
    parts = train(CONFIG, tmp_path / "parts", resume=True, progress=False)
    for a, b in zip(whole, parts, strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}
    a, b = (torch.load(tmp_path / run / "last.pt", weights_only=True)["model"] for run in ("whole", "parts"))
    for key, value in a.items():
        assert torch.equal(value, b[key]), key
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_run_stops_when_told_and_goes_on(tmp_path):
    assert [row["epoch"] for row in train(CONFIG, tmp_path, stop_after=1, progress=False)] == [1]
    log = train(CONFIG, tmp_path, resume=True, progress=False)
    assert [row["epoch"] for row in log] == [1, 2, 3] and log[-1]["lr"] < 1e-6


def test_a_run_is_not_overwritten(tmp_path):
    config = TrainConfig(data="synthetic:4", size=32, epochs=1, batch_size=4, overrides=TINY)
    train(config, tmp_path, progress=False)
    with pytest.raises(FileExistsError, match="holds a run already"):
        train(config, tmp_path)
    with pytest.raises(ValueError, match="another config"):
        train(TrainConfig(data="synthetic:4", size=32, epochs=2, batch_size=4, overrides=TINY), tmp_path, resume=True)


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
    with pytest.raises(FileNotFoundError, match="no file"):
        load_checkpoint(tmp_path / "nothing.safetensors")


def test_the_shipped_weights_find_synthetic_polyps():
    model, meta = load_pretrained("rwkv_unet_t_synthetic")
    table = evaluate(model, load_data("synthetic:80", "test", size=meta["size"]), hd95=False)
    assert table["dice"].mean() > 0.75
    with pytest.raises(ValueError, match=r"name: expected one of \['rwkv_unet_t_synthetic'\], got 'x'"):
        load_pretrained("x")


def test_the_command_line_trains_evaluates_and_predicts(tmp_path, capsys):
    run, images, masks = tmp_path / "run", tmp_path / "images", tmp_path / "masks"
    options = "--epochs 1 --size 32 --batch-size 4".split()
    main(["train", "--data", "synthetic:4", "--out", str(run), "--overrides", json.dumps(TINY), *options])
    checkpoint, out = str(run / "best.safetensors"), tmp_path / "result"
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
    assert "best validation Dice" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--data", "nowhere", "--out", "x"], "expected a folder or zip"),
        (["train", "--data", "synthetic:4", "--out", "x", "--model", "unet"], "name: expected one of"),
        (["train", "--data", "synthetic:4", "--out", "x", "--epochs", "0"], "epochs: expected at least 1, got 0"),
    ],
)
def test_the_command_line_says_what_is_wrong(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2 and message in capsys.readouterr().err
