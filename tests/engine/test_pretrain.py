"""Pretraining: folders of images in, an encoder out that segmentation starts from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rwkvlib.__main__ import main
from rwkvlib.engine import pretrain as module
from rwkvlib.engine.checkpoint import load_checkpoint, load_state, states
from rwkvlib.engine.config import PretrainConfig
from rwkvlib.engine.pretrain import ImageFolder, accuracy, pretrain
from rwkvlib.engine.train import train
from tests.conftest import TINY


@pytest.fixture
def folder(tmp_path):
    """Three classes that colour tells apart: 8 images for training and 4 for validation of each, of several sizes."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("validation", 4)):
        for c, name in enumerate(["blue (1)", "green", "red"]):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 90, (40 + i, 60 - i, 3), dtype=np.uint8)
                pixels[..., 2 - c] += 150
                Image.fromarray(pixels).save(tmp_path / "set" / split / name / f"{i}.{'JPEG' if i % 2 else 'png'}")
    return tmp_path / "set"


@pytest.fixture
def config(folder):
    given = dict(
        data=str(folder), num_classes=3, size=32, batch_size=12, epochs=30, overrides=TINY, schedule="one_cycle"
    )
    return PretrainConfig(**given, lr=5e-3, warmup_epochs=1)


def test_classes_are_numbered_by_name_and_images_cut_square(folder):
    data = ImageFolder(folder / "train", 36)
    assert data.classes == ["blue (1)", "green", "red"] and len(data) == 24
    item = data[23]
    assert item["label"] == 2 and item["name"] == "red/7.JPEG" and item["image"].shape == (3, 36, 36)
    assert item["image"][0].mean() > 0.6 > 0.3 > item["image"][2].mean()


def test_an_encoder_learns_the_classes_and_segmentation_starts_from_it(config, tmp_path, recipe):
    log = pretrain(replace(config, augment="none"), tmp_path / "run", progress=False)
    assert log[-1]["accuracy"] > 0.9 and log[-1]["loss"] < log[0]["loss"]
    model, meta = load_checkpoint(tmp_path / "run" / "model.safetensors")
    assert meta["model"] == "rwkv_encoder_t" and model.head.out_features == 3
    validation = ImageFolder(tmp_path / "set" / "validation", 36)
    assert accuracy(model, validation, 32, 5) == max(row["accuracy"] for row in log)
    path = str(tmp_path / "run" / "model.safetensors")
    train(recipe(pretrained=path, epochs=1, lr=1e-12, weight_decay=0), tmp_path / "unet", progress=False)
    weights = load_state(states(tmp_path / "unet")[-1])[0]
    for key, x in model.named_parameters():
        if not key.startswith(("norm.", "head.")):
            torch.testing.assert_close(weights[f"encoder.{key}"], x, atol=1e-9, rtol=0)


def test_the_recipe_runs_and_resumes_on_a_small_folder(folder, tmp_path, capsys):
    path = Path(__file__).parents[2] / "configs" / "pretrain_imagenet.yaml"
    small = [f"data={folder}", "num_classes=3", "size=32", "epochs=2", "warmup_epochs=1", "batch_size=12"]
    small += ["num_workers=0", "overrides.depths=[1,1,2,2]", "overrides.dims=[8,8,16,16]", "mixed_precision=no"]
    for run, more in (("whole", []), ("parts", ["stop_after=1"]), ("parts", ["resume=true"])):
        main(["train", str(path), *small, f"out={tmp_path / run}", *more])
    whole, parts = (load_state(states(tmp_path / run)[-1]) for run in ("whole", "parts"))
    assert all(torch.equal(x, parts[0][key]) for key, x in whole[0].items())
    averages = [state["average"] for _, state in (whole, parts)]
    assert all(torch.equal(x, averages[1][key]) for key, x in averages[0].items())
    assert "augment: imagenet (assumed, not published)" in capsys.readouterr().out


def test_labels_are_smoothed_as_the_recipe_says(config, tmp_path, monkeypatch):
    tasks = []
    monkeypatch.setattr(module, "fit", lambda task, *args, **kwargs: tasks.append(task))
    pretrain(replace(config, label_smoothing=0.3), tmp_path / "run", progress=False)
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    smooth = 0.7 * torch.nn.functional.one_hot(labels) + 0.1
    expected = -(smooth * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(tasks[0].loss(logits, labels), expected)


def test_workers_change_nothing(config, tmp_path):
    for n in (0, 2):
        pretrain(replace(config, num_workers=n), tmp_path / f"{n}", stop_after=1, progress=False)
    a, b = (load_state(states(tmp_path / f"{n}")[-1])[0] for n in (0, 2))
    assert all(torch.equal(x, b[key]) for key, x in a.items())


def test_bad_folders_and_images_are_named_and_cost_no_checkpoint(config, folder, tmp_path):
    with pytest.raises(ValueError, match=r"num_classes: expected 4 classes, .*, got 3 in"):
        pretrain(replace(config, num_classes=4), tmp_path / "a", progress=False)
    with pytest.raises(FileNotFoundError, match="data: expected a folder with one folder for each class"):
        ImageFolder(tmp_path / "nowhere", 32)
    with pytest.raises(ValueError, match="augment: expected imagenet or none for classification, got 'strong'"):
        pretrain(replace(config, augment="strong"), tmp_path / "b", progress=False)
    pretrain(config, tmp_path / "run", stop_after=1, progress=False)
    before = [p.read_bytes() for p in sorted(states(tmp_path / "run")[-1].iterdir())]
    bad = folder / "train" / "green" / "3.JPEG"
    bad.write_bytes(bad.read_bytes()[:100] + bytes(bad.stat().st_size - 100))  # a changed size is other data
    with pytest.raises(ValueError, match=r"data: '.*green/3\.JPEG' does not decode"):
        pretrain(config, tmp_path / "run", resume=True, progress=False)
    assert [p.read_bytes() for p in sorted(states(tmp_path / "run")[-1].iterdir())] == before
    (folder / "train" / "zebra").mkdir()
    with pytest.raises(ValueError, match=r"data: no images in the class folder .*zebra"):
        ImageFolder(folder / "train", 32)
