"""The examples run: in MONAI's bundle parser, and on stand-ins of what is not installed here."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

from rwkvlib.data import load_data, synthetic_polyps

EXAMPLES = Path(__file__).parents[2] / "examples"
TINY = dict(depths=(1, 1, 2, 2), dims=(8, 8, 16, 16))


@pytest.fixture
def load(monkeypatch):
    """A function from an example's file, a module that it needs and what that holds to the example's module."""

    def read(name, needs, **holds):
        stand_in = ModuleType(needs)
        vars(stand_in).update(holds)
        monkeypatch.setitem(sys.modules, needs, stand_in)
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return read


def test_the_loop_of_lightning_learns(load):
    module = load("lightning_loop", "lightning", LightningModule=torch.nn.Module)
    torch.manual_seed(0)
    task, data = module.Segmentation(**TINY), load_data("synthetic:8", "train", size=32)
    batch = torch.utils.data.default_collate([data[i] for i in range(8)])
    optimizer, losses = task.configure_optimizers(), []
    for step in range(8):
        loss = task.training_step(batch, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


class Trainer:
    """What nnU-Net's trainer does with its subclass: it keeps the arguments, builds the network and switches."""

    def __init__(self, plans, configuration, fold, dataset_json, device):
        self.kept, self.enable_deep_supervision = (plans, configuration, fold, dataset_json, device), True

    def initialize(self, channels, classes):
        self.network = self.build_network_architecture("Class", {}, [], channels, classes, self.enable_deep_supervision)
        self.set_deep_supervision_enabled(False)


def test_the_trainer_builds_one_output_for_nnunet(load):
    place = "nnunetv2.training.nnUNetTrainer.nnUNetTrainer"
    module = load("nnunet_trainer", place, nnUNetTrainer=Trainer)
    trainer = module.nnUNetTrainerRWKVUNet({}, "2d", 0, {}, device=torch.device("cpu"))
    assert trainer.kept == ({}, "2d", 0, {}, torch.device("cpu")) and not trainer.enable_deep_supervision
    trainer.initialize(channels=2, classes=4)
    assert trainer.network(torch.rand(2, 2, 32, 48)).shape == (2, 4, 32, 48)


def test_the_bundle_writes_masks(require_package, tmp_path):
    bundle = require_package("monai.bundle")
    configs = EXAMPLES / "monai_bundle/configs"
    (tmp_path / "images").mkdir()
    Image.fromarray(synthetic_polyps(0, 40)[0]).save(tmp_path / "images/a.png")
    parser = bundle.ConfigParser()
    parser.read_config(configs / "inference.json")
    parser.read_meta(configs / "metadata.json")
    parser["dataset_dir"], parser["output_dir"] = str(tmp_path / "images"), str(tmp_path / "masks")
    assert parser.get_parsed_content("network_def")(torch.rand(1, 3, 32, 48)).shape == (1, 1, 32, 48)
    parser.get_parsed_content("run")
    assert Image.open(tmp_path / "masks/a.png").size == (40, 40)
    schema = {"version", "monai_version", "pytorch_version", "task", "description", "network_data_format", "changelog"}
    assert schema <= set(json.loads((configs / "metadata.json").read_text()))
