"""Training that goes on from weights: what is new is named, what is frozen stays, what is slow is slow."""

import pytest
import torch
from torch.optim.swa_utils import update_bn

from rwkvlib import create_model, load_checkpoint
from rwkvlib.engine import train as module
from rwkvlib.engine.checkpoint import load_encoder, load_state, save_checkpoint, states
from rwkvlib.engine.train import encoder_of, set_aside, train
from tests.conftest import TINY

NARROW = dict(channels=[4, 4, 8, 8, 8])  # a U-Net that takes milliseconds


def save(path, name, **overrides):
    torch.manual_seed(1)
    model = create_model(name, **overrides)
    save_checkpoint(path, model, dict(model=name, overrides=overrides, size=32))
    return model.state_dict()


@pytest.mark.parametrize(
    ("name", "overrides", "first"),
    [("rwkv_unet_t", TINY, "encoder.stage0."), ("unet_batchnorm", NARROW, "net.model.0.")],
)
def test_other_channels_get_a_new_first_layer_and_other_classes_a_new_head(name, overrides, first, tmp_path):
    held = save(tmp_path / "a.safetensors", name, num_classes=2, **overrides)
    torch.manual_seed(2)
    model = create_model(name, num_classes=3, in_channels=4, **overrides)
    before = {key: x.clone() for key, x in model.state_dict().items()}
    report = load_encoder(model, tmp_path / "a.safetensors")
    said = str(report)
    assert "the first layer is a new one, as the file's is for 3 channels: " + first in said
    assert ("the head (final_conv) is a new one for 3 classes: the file's is for 2" in said) or (
        "the head is a new one, as the file's is for 2 classes" in said
    )
    for key, x in model.state_dict().items():
        assert torch.equal(x, before[key] if key in report.missing else held[key]), key
    changed = {key for key, x in before.items() if x.shape != held[key].shape}
    assert changed <= set(report.missing) and len(report.missing) < len(before) / 2


def test_one_channel_takes_the_first_layer_of_three(tmp_path):
    held = save(tmp_path / "a.safetensors", "rwkv_unet_t", **TINY)
    model = create_model("rwkv_unet_t", in_channels=1, **TINY)
    assert not load_encoder(model, tmp_path / "a.safetensors").missing
    assert all(torch.equal(x, held[key]) for key, x in model.state_dict().items())


def test_an_encoder_alone_gets_a_new_first_layer(tmp_path):
    save(tmp_path / "a.safetensors", "rwkv_encoder_t", num_classes=5, **TINY)
    model = create_model("rwkv_unet_t", in_channels=2, **TINY)
    report = load_encoder(model, tmp_path / "a.safetensors")
    assert all(key.startswith(("encoder.stage0.", "decoder", "ccm.", "final_conv.")) for key in report.missing)
    assert any(key.startswith("encoder.stage0.") for key in report.missing) and report.loaded


def test_other_sizes_are_still_refused(tmp_path):
    save(tmp_path / "a.safetensors", "unet_batchnorm", **NARROW)
    with pytest.raises(ValueError, match="does not fit the model"):
        load_encoder(
            create_model("unet_batchnorm", in_channels=1, channels=[4, 4, 8, 8, 16]), tmp_path / "a.safetensors"
        )


@pytest.mark.parametrize("more", [{}, {"ema": 0.5}], ids=["plain", "average"])
def test_a_frozen_encoder_stays_as_it_was_with_its_statistics(more, tmp_path, recipe, capsys):
    held = save(tmp_path / "a.safetensors", "rwkv_unet_t", **TINY)
    config = recipe(epochs=2, pretrained=str(tmp_path / "a.safetensors"), freeze="encoder", **more)
    train(config, tmp_path / "run", progress=False)
    for state in (load_checkpoint(tmp_path / "run")[0].state_dict(), load_state(states(tmp_path / "run")[-1])[0]):
        for key, x in state.items():
            if key.startswith("encoder."):
                assert torch.equal(x, held[key]), key
    changed = [key for key, x in state.items() if not torch.equal(x, held[key])]
    assert any("decoder1" in key and key.endswith("weight") for key in changed)
    assert any("running_mean" in key for key in changed), "the decoder's are renewed"
    assert "loaded" in capsys.readouterr().out, "said without progress, too"


def test_a_frozen_run_resumes_to_the_bit(tmp_path, recipe):
    save(tmp_path / "a.safetensors", "rwkv_unet_t", **TINY)
    config = recipe(epochs=2, pretrained=str(tmp_path / "a.safetensors"), freeze="encoder")
    train(config, tmp_path / "whole", progress=False)
    train(config, tmp_path / "parts", stop_after=1, progress=False)
    train(config, tmp_path / "parts", resume=True, progress=False)
    a, b = (load_state(states(tmp_path / run)[-1])[0] for run in ("whole", "parts"))
    assert all(torch.equal(x, b[key]) for key, x in a.items())


def test_what_is_set_aside_works_and_learns_no_statistics():
    model = create_model("rwkv_unet_t", **TINY)
    names, before = list(model.state_dict()), {key: x.clone() for key, x in model.state_dict().items()}
    with set_aside(model.train()):
        update_bn([torch.randn(4, 3, 32, 32)], model)
    assert list(model.state_dict()) == names and not model.encoder.training and model.decoder1.training
    changed = {key.partition(".")[0] for key, x in model.state_dict().items() if not torch.equal(x, before[key])}
    assert changed and "encoder" not in changed


def test_the_encoders_rate_follows_the_schedule(tmp_path, recipe, monkeypatch):
    seen, AdamW = [], torch.optim.AdamW

    class Noting(AdamW):
        def step(self, *args, **kwargs):
            seen.append([(group["lr"], len(group["params"])) for group in self.param_groups])
            return super().step(*args, **kwargs)

    monkeypatch.setattr(module.torch.optim, "AdamW", Noting)
    train(recipe(lr=1e-2, encoder_lr=1e-3, warmup_epochs=1), tmp_path, progress=False)
    model = create_model("rwkv_unet_t", **TINY)
    inside = len(list(model.encoder.parameters()))
    for (rest, n), (encoder, m) in seen:
        assert encoder == pytest.approx(rest / 10) and m == inside and n + m == len(list(model.parameters()))
    assert len({rest for (rest, _), _ in seen}) > 3


def test_what_cannot_be_frozen_is_named(tmp_path, recipe):
    save(tmp_path / "a.safetensors", "rwkv_unet_t", **TINY)
    save(tmp_path / "b.safetensors", "unet_batchnorm", **NARROW)
    unet = dict(model="unet_batchnorm", overrides=NARROW, pretrained=str(tmp_path / "b.safetensors"))
    for fields, message in (
        (dict(freeze="encoder"), "freeze: expected pretrained weights"),
        (dict(freeze="decoder", pretrained="x"), "freeze: expected one of encoder, got 'decoder'"),
        (dict(freeze="encoder", pretrained="x", encoder_lr=1e-3), "encoder_lr: expected null where"),
        (dict(encoder_lr=0), "encoder_lr: expected more than 0, got 0"),
        (dict(**unet, freeze="encoder"), "freeze: expected a network with an encoder .*, got 'unet_batchnorm'"),
        (dict(**unet, encoder_lr=1e-3), "encoder_lr: expected a network with an encoder"),
    ):
        with pytest.raises(ValueError, match=message):
            train(recipe(**fields), tmp_path / "run", progress=False)


def test_a_new_first_layer_is_not_frozen(tmp_path, recipe):
    save(tmp_path / "a.safetensors", "rwkv_unet_t", in_channels=4, **TINY)
    with pytest.raises(
        ValueError, match=r"freeze: expected weights for all of the encoder, .* none for encoder\.stage0"
    ):
        train(recipe(pretrained=str(tmp_path / "a.safetensors"), freeze="encoder"), tmp_path / "run", progress=False)


@pytest.mark.parametrize("name", ["rwkv_unet_n", "swin_unetr"])
def test_networks_that_have_an_encoder(name):
    assert len(list(encoder_of(create_model(name))[1].parameters())) > 10
