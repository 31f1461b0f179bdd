"""What makes a network light: each field of the config by itself, all of them together, and the two networks."""

import numpy as np
import pytest
import torch
import torch.nn as nn

from rwkvlib import create_model, load_checkpoint
from rwkvlib.analysis import count_macs, count_parameters, implicit_attention, spatial_mixes
from rwkvlib.engine.checkpoint import load_encoder, save_checkpoint
from rwkvlib.engine.config import TrainConfig
from rwkvlib.engine.losses import DeepSupervision, make_loss
from rwkvlib.engine.train import train
from rwkvlib.layers import ConvNormAct, SpatialMix
from rwkvlib.models.folding import fold_batchnorm
from rwkvlib.models.registry import MODELS
from tests.models.conftest import seeded

TINY = dict(depths=[1, 2, 2, 1], dims=[8, 8, 16, 16], stem_dim=8, attention_stages=[False, True, True, False])
FIELDS = [
    dict(stem_stride=2),
    dict(stem_stride=4),
    dict(stem_stride=4, upsample="shuffle"),
    dict(first_expansion=0.5),
    dict(kernel_sizes=[9, 7, 5, 3]),
    dict(attention_groups=4),
    dict(ccm_dim=3),
    dict(skips="add"),
    dict(decoder_dims=[12, 10, 6, 4]),
    dict(deep_supervision=True),
]
ALL = dict(
    stem_stride=2,
    first_expansion=1.5,
    kernel_sizes=[7, 5, 3, 3],
    attention_groups=2,
    ccm_dim=4,
    skips="add",
    decoder_dims=[16, 8, 8, 12],
    upsample="shuffle",
    deep_supervision=True,
)


def tiny(**overrides):
    return seeded(**TINY | overrides)


def image(model, batch=2):
    return torch.randn(batch, 3, model.divisor, 2 * model.divisor, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("overrides", [*FIELDS, ALL], ids=str)
def test_a_field_changes_the_network_and_all_of_it_learns(overrides):
    model, plain = tiny(**overrides, num_classes=2), tiny(num_classes=2)
    assert model.divisor == 16 * overrides.get("stem_stride", 1)
    shapes = {name: p.shape for name, p in model.named_parameters()}
    assert shapes != {name: p.shape for name, p in plain.named_parameters()}
    x, loss = image(model), DeepSupervision(make_loss("synapse", 2))
    mask = torch.randint(2, (2, 1, *x.shape[2:]))
    with torch.no_grad():
        assert model.eval()(x).shape == (2, 2, *x.shape[2:])
    with pytest.raises(ValueError, match=f"x: expected height and width divisible by {model.divisor}, got"):
        model(x[..., model.divisor // 2 :])
    loss(model.train()(x), mask).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()]


def test_each_field_is_where_it_says():
    def sizes(**overrides):
        model = tiny(**overrides)
        return model, {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}

    model, convolutions = sizes(kernel_sizes=[9, 7, 5, 3], kernel_size=3)
    found = [convolutions[f"encoder.stage{i}.0.conv_local.conv"].kernel_size[0] for i in range(5)]
    assert found == [3, 9, 7, 5, 3] and convolutions["decoder1.conv_local.conv"].kernel_size == (9, 9)
    model, convolutions = sizes(first_expansion=0.5)
    assert [convolutions[f"encoder.stage3.{i}.conv.conv"].out_channels for i in (0, 1)] == [12, 48]
    model, convolutions = sizes(ccm_dim=3)
    assert {p.out_channels for p in model.ccm.projections} == {3}
    model, convolutions = sizes(skips="add")
    assert [convolutions[f"decoder{i}.conv.conv"].in_channels for i in range(1, 5)] == [16, 16, 8, 8]
    model, convolutions = sizes(decoder_dims=[12, 10, 6, 4])
    widths = [(c.in_channels, c.out_channels) for i in range(1, 5) for c in [convolutions[f"decoder{i}.proj.conv"]]]
    assert widths == [(16, 12), (12 + 16, 10), (10 + 8, 6), (6 + 8, 4)] and model.final_conv.in_channels == 4
    model, convolutions = sizes(stem_stride=4, upsample="shuffle")
    assert convolutions["encoder.stage0.0.conv"].stride == (4, 4) and model.final_conv.out_channels == 16
    maps = model.encoder.features(torch.rand(1, 3, 64, 128))
    assert [64 // y.shape[2] for y in maps] == [4, 8, 16, 32, 64]


def test_no_pixel_is_left_out_by_a_strided_stem():
    for stride in (2, 4):
        x = image(model := tiny(stem_stride=stride).eval()).requires_grad_()
        model.encoder.stage0(x).square().sum().backward()
        assert (x.grad != 0).all()


def test_added_skips_take_part():
    model = tiny(skips="add", ccm=False).eval()
    below, skip = torch.rand(1, 8, 4, 4), torch.rand(1, 8, 4, 4)
    assert torch.equal(model.join(below, skip), below + skip)
    assert torch.equal(tiny().join(below, skip), torch.cat([below, skip], 1))


def test_groups_share_one_spatial_mix():
    """Each group's output is that of the small layer on the group alone."""
    torch.manual_seed(0)
    groups, x = SpatialMix(24, groups=3), torch.randn(2, 20, 24)
    nn.init.normal_(groups.spatial_decay)
    single = SpatialMix(8)
    single.load_state_dict(groups.state_dict())
    expected = torch.cat([single(part, (4, 5)) for part in x.chunk(3, -1)], -1)
    torch.testing.assert_close(groups(x, (4, 5)), expected)
    whole, shared = (sum(p.numel() for p in m.parameters() if p.ndim == 2) for m in (SpatialMix(24), groups))
    assert whole == 9 * shared
    with pytest.raises(ValueError, match="groups: expected a divisor of 24 channels, got 5"):
        SpatialMix(24, groups=5)


def test_the_implicit_attention_of_groups_is_that_of_every_channel():
    model = tiny(attention_groups=2)
    model.train()(image(model))  # for BatchNorm's statistics
    nn.init.normal_(model.eval().encoder.stage2[1].att.key.weight)
    attention = implicit_attention(model, torch.randn(1, 3, 32, 32), "encoder.stage2.1.att")
    assert attention.shape == (64, 64, 20)
    torch.testing.assert_close(attention.sum(1), torch.ones(64, 20))
    assert (attention[..., :10] - attention[..., 10:]).abs().max() > 1e-4, "the groups have keys of their own"
    nn.init.zeros_(model.encoder.stage2[1].att.key.weight)
    attention = implicit_attention(model, torch.randn(1, 3, 32, 32), "encoder.stage2.1.att")
    torch.testing.assert_close(attention[..., :10], attention[..., 10:])  # of the same decay and bonus


def test_deep_supervision_gives_a_list_while_training_and_the_same_logits_afterwards():
    model, plain = tiny(deep_supervision=True), tiny()
    outputs = model.train()(image(model))
    assert [tuple(y.shape[2:]) for y in outputs] == [(16, 32), (8, 16), (4, 8), (2, 4)]
    plain.load_state_dict({key: x for key, x in model.state_dict().items() if not key.startswith("side_heads.")})
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(image(model)), plain.eval()(image(model)))


def test_shuffled_logits_differ_from_pixel_to_pixel():
    model = tiny(stem_stride=4, upsample="shuffle").eval()
    with torch.no_grad():
        model.final_conv.bias.copy_(torch.arange(16.0))
        model.final_conv.weight.zero_()
        y = model(image(model))
    assert torch.equal(y[0, 0, 4:8, 4:8].flatten(), torch.arange(16.0))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (dict(stem_stride=3), "stem_stride: expected 1, 2 or 4, got 3"),
        (dict(stem_stride=4, kernel_size=3), "kernel_size: expected at least stem_stride, .* got 3"),
        (dict(first_expansion=0), "first_expansion: expected a number above 0, got 0"),
        (dict(kernel_sizes=[3, 5, 4, 3]), "kernel_sizes: expected odd sizes, got .3, 5, 4, 3"),
        (dict(kernel_sizes=[3, 5]), "kernel_sizes: expected four values, one for each stage, got"),
        (dict(attention_groups=0), "attention_groups: expected at least 1, got 0"),
        (dict(attention_groups=7), r"attention_groups: expected a divisor of \[20, 48\], dims times .* got 7"),
        (dict(ccm_dim=0), "ccm_dim: expected at least 1, got 0"),
        (dict(skips="sum"), "skips: expected concatenate or add, got 'sum'"),
        (dict(decoder_dims=[8, 8, 8, 0]), "decoder_dims: expected integers of at least 1, got"),
        (dict(decoder_dims=[8, 8, 8, 8], skips="add"), r"decoder_dims: expected \(16, 8, 8\) first where skips are"),
        (dict(upsample="nearest"), "upsample: expected bilinear or shuffle, got 'nearest'"),
    ],
    ids=str,
)
def test_a_wrong_value_is_named(overrides, message):
    with pytest.raises(ValueError, match=message):
        tiny(**overrides)
    assert create_model("rwkv_unet_t", **TINY, attention=False, attention_groups=7), "where no group is"


def test_all_fields_can_be_in_a_recipe_and_come_back_with_a_checkpoint(tmp_path):
    settings = dict(data="synthetic:8", size=32, epochs=1, batch_size=4, overrides=TINY | ALL)
    log = train(TrainConfig(**settings), tmp_path / "run", progress=False)
    assert log[-1]["loss"] > 0
    loaded, meta = load_checkpoint(tmp_path / "run" / "model.safetensors")
    assert loaded.config == create_model("rwkv_unet_t", **TINY, **ALL).config and meta["overrides"]["skips"] == "add"
    with pytest.raises(ValueError, match=r"overrides\.kernel_sizes: expected 4 values, got 2"):
        TrainConfig(data="synthetic:8", overrides=dict(kernel_sizes=[3, 5]))


def test_weights_of_other_classes_leave_every_head_as_it_is(tmp_path):
    old, new = tiny(**ALL, num_classes=3), tiny(**ALL)
    overrides = dict(TINY, **ALL, num_classes=3)
    save_checkpoint(tmp_path / "m.safetensors", old, dict(model="rwkv_unet_t", overrides=overrides, size=32))
    report = load_encoder(new, tmp_path / "m.safetensors")
    assert {key.split(".")[0] for key in report.missing} == {"final_conv", "side_heads"}
    assert "a new one for 1 classes: the file's is for 3 classes" in str(report)


def test_compiled_it_gives_the_same_numbers():
    """With list outputs while it trains, without a break in the graph."""
    model = tiny(**ALL, drop_path=0)
    x = image(model)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    parameters = list(model.parameters())
    found, expected = (torch.autograd.grad(sum(y.square().mean() for y in f(x)), parameters) for f in (compiled, model))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)


def test_folded_it_gives_the_same_numbers():
    model = tiny(**ALL)
    model.train()(image(model))
    folded = fold_batchnorm(model.eval())
    assert not [m for m in folded.modules() if isinstance(m, ConvNormAct) and isinstance(m.norm, nn.BatchNorm2d)]
    with torch.no_grad():
        torch.testing.assert_close(folded(image(model)), model(image(model)), atol=1e-5, rtol=1e-4)


def test_exported_it_gives_the_same_numbers_for_any_batch(require_package, tmp_path):
    require_package("onnxscript")
    onnxruntime = require_package("onnxruntime")
    from rwkvlib.data.pixels import normalise
    from rwkvlib.engine.export import export_onnx

    model = tiny(**ALL).eval()
    session = onnxruntime.InferenceSession(export_onnx(model, tmp_path / "model.onnx", 32))
    for batch in (1, 3):
        pixels = torch.rand(batch, 3, 32, 32)
        (logits,) = session.run(["logits"], {"image": pixels.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(logits, model(normalise(pixels)).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "parameters", "gmacs", "most"),
    [("rwkv_unet_n", 412_225, 0.31706, (500_000, 1)), ("rwkv_unet_p", 47_569, 0.05256, (50_000, 0.06))],
)
def test_the_light_networks_keep_to_their_budgets(name, parameters, gmacs, most):
    model = create_model(name)
    found = count_parameters(model), count_macs(model, (1, 3, 256, 256)) / 1e9
    assert found == (parameters, pytest.approx(gmacs, rel=1e-3)) and found <= most and found[1] <= most[1]
    strides = [name.split(".")[1] for name in spatial_mixes(model)]
    assert set(strides) == {"stage2", "stage3"}, "at strides 8 and 16"
    assert MODELS[name].divisor == model.divisor == 32


def test_the_narrow_u_nets_are_fair_rivals():
    own, rival = (count_parameters(create_model(name)) for name in ("rwkv_unet_p", "unet_p"))
    assert abs(rival / own - 1) < 0.05
    batch = create_model("unet_n", norm="batch")
    assert not [m for m in batch.modules() if isinstance(m, nn.InstanceNorm2d)]
    assert [m for m in create_model("unet_n").modules() if isinstance(m, nn.InstanceNorm2d)]
