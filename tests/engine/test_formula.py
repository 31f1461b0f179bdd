"""Pretraining on formula images: that it learns, can be resumed, and what a network with other classes takes of it."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rwkvlib import create_model
from rwkvlib.__main__ import main
from rwkvlib.data import synthetic_formula
from rwkvlib.engine.checkpoint import load_checkpoint, load_encoder, load_state, states
from rwkvlib.engine.config import FormulaConfig, load_config
from rwkvlib.engine.formula import FormulaStream, pretrain_formula
from rwkvlib.engine.train import train
from tests.conftest import TINY

SMALL = dict(channels=[16, 32, 64], strides=[2, 2])  # of MONAI's U-Net


@pytest.fixture
def config():
    return FormulaConfig(overrides=TINY, size=32, images=16, batch_size=4, lr=5e-3, batchnorm_images=8)


def test_an_item_depends_on_the_seed_and_its_number_alone():
    long, short = FormulaStream(1000, 32, seed=3), FormulaStream(5, 32, seed=3)
    item = long[4]
    assert item["image"].shape == (3, 32, 32) and item["mask"].shape == (1, 32, 32) and 0 <= item["image"].min()
    assert torch.equal(item["image"], short[4]["image"]) and torch.equal(item["mask"], short[4]["mask"])
    image, mask = synthetic_formula(int(item["name"]), 32)
    assert np.array_equal((item["image"] * 255).round().permute(1, 2, 0).byte(), image)
    assert np.array_equal(item["mask"][0], mask)
    names = {FormulaStream(8, 32, seed)[i]["name"] for seed in range(4) for i in range(8)}
    assert len(names) == 32, "no two of them are the same image"
    assert short.sha256() == long.sha256() != FormulaStream(5, 32, seed=4).sha256() != FormulaStream(5, 48, 4).sha256()


def test_it_learns_and_segmentation_starts_from_it(config, tmp_path, recipe, capsys):
    """The Dice rises on images of the set that were not trained on; a network with one class takes all but the head."""
    config = replace(config, model="unet", overrides=SMALL, images=640, batch_size=8, validate_every=20, lr=1e-2)
    log = pretrain_formula(config, tmp_path / "run", progress=False)
    assert [row["step"] for row in log] == [20, 40, 60, 80]
    assert log[-1]["dice"] > 1.5 * log[0]["dice"] and log[-1]["loss"] < log[0]["loss"] - 0.1
    given, meta = load_checkpoint(tmp_path / "run")
    assert meta["overrides"]["num_classes"] == 6 and meta["data"] == "synthetic-formula"
    fine = recipe(model="unet", overrides=SMALL, pretrained=str(tmp_path / "run"), epochs=1, lr=1e-12, weight_decay=0)
    capsys.readouterr()
    train(fine, tmp_path / "fine", progress=False)
    said = capsys.readouterr().out
    assert "the head is a new one, as the file's is for 6 classes: net.model.2.0.conv.weight" in said
    weights, given = load_state(states(tmp_path / "fine")[-1])[0], given.state_dict()
    same = [key for key in given if weights[key].shape == given[key].shape]
    assert len(same) == len(given) - 4 and all(torch.allclose(weights[key], given[key], atol=1e-8) for key in same)


def test_encoder_and_decoder_of_rwkv_unet_are_taken(config, tmp_path):
    pretrain_formula(config, tmp_path / "run", progress=False)
    model = create_model("rwkv_unet_t", num_classes=1, **TINY)
    report = load_encoder(model, tmp_path / "run")
    assert set(report.missing) == {"final_conv.weight", "final_conv.bias"} and not report.ignored
    assert report.notes == ("the head (final_conv) is a new one for 1 classes: the file's is for 6 classes",)
    again = replace(config, pretrained=str(tmp_path / "run"))  # with as many classes: all of it
    pretrain_formula(replace(again, lr=1e-12, weight_decay=0), tmp_path / "again", progress=False)
    given = load_checkpoint(tmp_path / "run")[0].state_dict()
    weights = load_state(states(tmp_path / "again")[-1])[0]
    assert torch.allclose(weights["final_conv.weight"], given["final_conv.weight"], atol=1e-8)


def test_resume_is_exact(config, tmp_path):
    config = replace(config, save_every=1, validate_every=2)
    whole = pretrain_formula(config, tmp_path / "run", progress=False)
    weights = load_state(states(tmp_path / "run")[-1])[0]
    shutil.rmtree(states(tmp_path / "run")[-1])
    again = pretrain_formula(config, tmp_path / "run", resume=True, progress=False)
    assert [states(tmp_path / "run")[-1].name, again[-1]["step"]] == ["step_00000004", 4]
    resumed = load_state(states(tmp_path / "run")[-1])[0]
    assert all(torch.equal(x, resumed[key]) for key, x in weights.items())
    assert [[row[k] for k in ("loss", "dice")] for row in again] == [
        [row[k] for k in ("loss", "dice")] for row in whole
    ]
    pretrain_formula(replace(config, num_workers=2), tmp_path / "workers", progress=False)
    workers = load_state(states(tmp_path / "workers")[-1])[0]
    assert all(torch.equal(x, workers[key]) for key, x in weights.items()), "workers change nothing"


def test_bad_recipes_are_named(config, tmp_path):
    for fields, message in (
        (dict(model="rwkv_encoder_t"), "model: expected one of rwkv_unet_t, .*, got 'rwkv_encoder_t'"),
        (dict(num_classes=1), "num_classes: expected 6, as many as formula images have, got 1"),
        (dict(images=0), "images: expected at least 1, got 0"),
        (dict(data="synthetic"), "data: expected one of synthetic-formula, got 'synthetic'"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(config, **fields)
    with pytest.raises(FileNotFoundError, match="pretrained: no file 'nowhere'"):
        pretrain_formula(replace(config, pretrained="nowhere"), tmp_path / "a", progress=False)
    with pytest.raises(ValueError, match="size: expected a multiple of 16"):
        pretrain_formula(replace(config, size=40), tmp_path / "b", progress=False)


def test_the_recipe_and_the_command(tmp_path):
    path = Path(__file__).parents[2] / "configs/pretrain_formula.yaml"
    recipe = load_config(path)
    assert isinstance(recipe, FormulaConfig) and recipe.choose == "last" and recipe.augment == "none"
    settings = ["model=unet", "overrides={channels: [8, 8], strides: [2]}", "images=8", "batch_size=4", "size=32"]
    main(["pretrain", str(path), *settings, f"out={tmp_path / 'run'}"])
    assert load_checkpoint(tmp_path / "run")[1]["model"] == "unet"
