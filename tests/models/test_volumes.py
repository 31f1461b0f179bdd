"""The same networks for volumes: counts, strides by axis, orders of the tokens, transformations, and clear errors."""

import numpy as np
import pytest
import torch
from torch import nn

from rwkvlib import create_model, load_checkpoint, load_official
from rwkvlib.analysis import count_macs, count_parameters, implicit_attention, spatial_mixes
from rwkvlib.data.pixels import normalise
from rwkvlib.data.synthetic.abdomen import synthetic_abdomen
from rwkvlib.engine.checkpoint import load_encoder, save_checkpoint
from rwkvlib.engine.export import export_onnx
from rwkvlib.engine.losses import DeepSupervision, make_loss
from rwkvlib.engine.predict import inference_copy
from rwkvlib.engine.released import released_name
from rwkvlib.models.config import ModelConfig
from rwkvlib.models.folding import fold_batchnorm
from rwkvlib.models.registry import MODELS, divisor_of, divisors_of
from tests.models.conftest import seeded

TINY = dict(depths=[1, 1, 2, 1], dims=[8, 8, 12, 12], stem_dim=8, attention_stages=[False, False, True, False])
TINY |= dict(kernel_size=3, decoder_kernel=3, spatial_dims=3)
THIN = dict(strides=[[1, 2, 2], [1, 2, 2], 2, 2], kernel_sizes=[[1, 3, 3], [1, 3, 3], 3, 3])  # for few slices
PARAMETERS = {"t": 3_760_237, "n": 629_121, "s": 10_673_765, "b": 18_365_077, "p": 129_833}


def tiny(**overrides):
    return seeded(**TINY | overrides)


def volume(*shape, channels=3):
    return torch.randn(1, channels, *shape, generator=torch.Generator().manual_seed(0))


def macs_by_hand(model, x):
    """Each convolution's and linear layer's output elements times the inputs that it takes for one."""
    found = []

    def count(module, inputs, output):
        taken = module.weight[0].numel()
        found.append(output.numel() * taken)

    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d, nn.Linear))]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return sum(found)


@pytest.mark.parametrize("size", PARAMETERS)
def test_all_sizes_are_there_with_their_counts(size):
    model, flat = (create_model(f"rwkv_unet_{size}", spatial_dims=dims) for dims in (3, 2))
    assert count_parameters(model) == PARAMETERS[size] and model.divisor == flat.divisor
    assert list(model.state_dict()) == list(flat.state_dict())
    others = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))]
    assert not others, "every layer with spatial axes has three"
    # A kernel of k voxels a side has k times the weights of one of k pixels a side; all else is the same.
    more = sum(m.weight.numel() * (m.kernel_size[0] - 1) for m in flat.modules() if isinstance(m, nn.Conv2d))
    assert count_parameters(flat) + more == PARAMETERS[size]


@pytest.mark.parametrize("overrides", [{}, THIN, dict(stem_stride=[1, 2, 2], ccm=False)], ids=str)
def test_multiply_accumulate_operations_are_those_by_hand(overrides):
    model = tiny(**overrides).eval()
    x = volume(*divisors_of(model))
    assert count_macs(model, tuple(x.shape)) == macs_by_hand(model, x)


def test_a_stage_divides_each_axis_by_its_own_stride_and_the_decoder_takes_it_back():
    model = tiny(**THIN, stem_stride=[1, 2, 2], num_classes=2, deep_supervision=True).train()
    assert model.divisor == (4, 32, 32) and divisor_of(model) == 32
    x = volume(8, 32, 64)
    maps = model.encoder.features(x)
    assert [tuple(y.shape[2:]) for y in maps] == [(8, 16, 32), (8, 8, 16), (8, 4, 8), (4, 2, 4), (2, 1, 2)]
    outputs = model(x)
    assert [tuple(y.shape[1:]) for y in outputs] == [(2, 8, 32, 64), (2, 8, 8, 16), (2, 8, 4, 8), (2, 4, 2, 4)]
    kernels = [model.encoder.get_submodule(f"stage{i}.0.conv_local.conv").kernel_size for i in (1, 3)]
    assert kernels == [(1, 3, 3), (3, 3, 3)]
    DeepSupervision(make_loss("synapse", 2))(outputs, torch.randint(2, (1, 1, 8, 32, 64))).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    flat = create_model("rwkv_unet_t", **TINY | dict(spatial_dims=2, strides=[1, 2, [1, 2], 2]))
    assert flat.divisor == (4, 8) and flat.eval()(torch.rand(1, 3, 8, 8)).shape == (1, 1, 8, 8)


def test_no_voxel_is_left_out():
    for overrides in (dict(stem_stride=2), dict(stem_stride=[1, 2, 2]), dict(stem_stride=4, kernel_size=5)):
        model = tiny(**overrides).eval()
        x = volume(*divisors_of(model)).requires_grad_()
        model.encoder.stage0(x).square().sum().backward()
        assert (x.grad != 0).all()


def test_a_volume_of_one_channel_is_repeated_and_a_classifier_gives_classes():
    gray, colour = tiny(in_channels=1).eval(), tiny().eval()
    x = volume(16, 16, 16, channels=1)
    with torch.no_grad():
        torch.testing.assert_close(gray(x), colour(x.repeat(1, 3, 1, 1, 1)))
    small = {name: value for name, value in TINY.items() if name != "decoder_kernel"}
    assert create_model("rwkv_encoder_t", num_classes=7, **small).eval()(volume(16, 16, 16)).shape == (1, 7)


def test_attention_is_seen_and_can_be_switched_off():
    x = volume(32, 16, 16)
    model, without = tiny().eval(), tiny(attention=False).eval()
    assert set(spatial_mixes(model)) == {"encoder.stage3.1.att"} and not spatial_mixes(without)
    assert set(without.state_dict()) < set(model.state_dict())
    with torch.no_grad():
        assert without(x).shape == model(x).shape
    weights = implicit_attention(model, x, "encoder.stage3.1.att")
    torch.testing.assert_close(weights.sum(1), torch.ones(4 * 2 * 2, weights.shape[2]))


def test_both_orders_have_the_same_weights_and_other_outputs():
    rows, axes, x = tiny().eval(), tiny(order="axes").eval(), volume(32, 32, 16)
    axes.load_state_dict(rows.state_dict())
    with torch.no_grad():
        assert (rows(x) - axes(x)).abs().max() > 1e-6
    with pytest.raises(ValueError, match="name: expected a Spatial Mix of order 'rows', got 'axes'"):
        implicit_attention(axes, x, "encoder.stage3.1.att")
    flat = create_model("rwkv_unet_t", **TINY | dict(spatial_dims=2, order="axes"))
    assert flat(torch.rand(2, 3, 32, 32)).shape == (2, 1, 32, 32)


def test_compiled_it_gives_the_same_numbers_and_gradients():
    model, x = tiny(**THIN, order="axes", drop_path=0), volume(8, 16, 16).repeat(2, 1, 1, 1, 1)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    parameters = list(model.parameters())
    found, expected = (torch.autograd.grad(f(x).square().mean(), parameters) for f in (compiled, model))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)


def test_exported_it_gives_the_same_numbers_for_any_batch(require_package, tmp_path):
    require_package("onnxscript")
    onnxruntime = require_package("onnxruntime")
    model = tiny(**THIN, in_channels=1, order="axes").eval()
    for size in ((8, 16), (8, 16, 24), (6, 16, 16)):
        with pytest.raises(ValueError, match="size: expected multiples of 4 x 16 x 16, got"):
            export_onnx(model, tmp_path / "model.onnx", size)
    session = onnxruntime.InferenceSession(export_onnx(model, tmp_path / "model.onnx", (8, 16, 16)))
    for batch in (1, 3):
        voxels = torch.rand(batch, 1, 8, 16, 16)
        (logits,) = session.run(["logits"], {"image": voxels.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(logits, model(normalise(voxels)).numpy(), atol=1e-5)


def test_folded_channels_last_and_in_bf16_it_gives_nearly_the_same_numbers():
    model, x = tiny(), volume(16, 16, 32).repeat(2, 1, 1, 1, 1)
    model(x)  # for BatchNorm's statistics
    with torch.no_grad():
        expected = model.eval()(x)
        torch.testing.assert_close(fold_batchnorm(model)(x), expected, atol=1e-5, rtol=1e-4)
        fast = inference_copy(model)
        assert fast.final_conv.weight.is_contiguous(memory_format=torch.channels_last_3d)
        assert len([m for m in fast.modules() if isinstance(m, nn.BatchNorm3d)]) == 2
        torch.testing.assert_close(fast(x), expected, atol=1e-5, rtol=1e-4)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = model(x)
    assert y.dtype == torch.bfloat16 and (y.float() - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (dict(spatial_dims=4), "spatial_dims: expected 2 for images or 3 for volumes, got 4"),
        (dict(strides=[2, 2, 2]), r"strides: expected four values, one for each stage, got \(2, 2, 2\)"),
        (dict(strides=[2, 3, 2, 2]), "strides: expected 1, 2 or 4, got"),
        (dict(strides=[[1, 2], 2, 2, 2]), "strides: expected one size, or 3 for depth, height and width, got"),
        (dict(strides=[None, 2, 2, 2]), "strides: expected 1, 2 or 4, got"),
        (dict(kernel_size=[1, 5, 4]), r"kernel_size: expected an odd size, got \(1, 5, 4\)"),
        (
            dict(kernel_size=[1, 5, 5]),
            r"kernel_size: expected at least strides, \(2, 2, 2, 2\), so that no pixel is left",
        ),
        (dict(kernel_sizes=[[1, 3, 3], 3, 3, 3]), "kernel_sizes: expected at least strides"),
        (dict(decoder_kernel=[9, 9]), "decoder_kernel: expected one size, or 3 for depth, height and width, got"),
        (dict(upsample="shuffle"), "upsample: expected bilinear for volumes"),
        (dict(order="zigzag"), "order: expected rows or axes, got 'zigzag'"),
    ],
    ids=str,
)
def test_a_wrong_value_is_named(overrides, message):
    with pytest.raises(ValueError, match=message):
        tiny(**overrides)


@pytest.mark.parametrize(
    ("dims", "shape", "message"),
    [
        (3, (1, 3, 32, 32), r"expected shape \(B, 3, D, H, W\), got \(1, 3, 32, 32\); images are for spatial_dims=2"),
        (2, (1, 3, 16, 32, 32), r"expected shape \(B, 3, H, W\), got .*; volumes are for spatial_dims=3"),
        (3, (1, 1, 16, 32, 32), r"expected shape \(B, 3, D, H, W\), got \(1, 1, 16, 32, 32\)$"),
        (
            3,
            (1, 3, 10, 32, 32),
            "depth, height and width divisible by 16, got 10 x 32 x 32; rwkvlib.predict pads volumes",
        ),
    ],
    ids=str,
)
def test_a_wrong_input_is_named(dims, shape, message):
    with pytest.raises(ValueError, match=message):
        tiny(spatial_dims=dims)(torch.zeros(shape))


def test_checkpoints_keep_the_fields_and_two_axes_do_not_go_into_three(tmp_path):
    overrides = TINY | THIN | dict(order="axes")
    model = create_model("rwkv_unet_t", **overrides).eval()
    save_checkpoint(tmp_path / "m.safetensors", model, dict(model="rwkv_unet_t", overrides=overrides, size=32))
    loaded, meta = load_checkpoint(tmp_path / "m.safetensors")
    assert loaded.config == model.config and loaded.config.strides == ((1, 2, 2), (1, 2, 2), 2, 2)
    assert meta["overrides"]["spatial_dims"] == 3
    report = load_encoder(create_model("rwkv_unet_t", **overrides, num_classes=3), tmp_path / "m.safetensors")
    assert {key.split(".")[0] for key in report.missing} == {"final_conv"}
    flat = {name: value for name, value in TINY.items() if name != "spatial_dims"}
    image = create_model("rwkv_unet_t", **flat)
    message = "expected weights of a network with spatial_dims={}, got those of one with spatial_dims={} ."
    with pytest.raises(ValueError, match=message.format(2, 3)):
        load_encoder(image, tmp_path / "m.safetensors")
    for source in (image, image.encoder):
        with pytest.raises(ValueError, match=message.format(3, 2)):
            load_official(tiny(), source.state_dict())
    with pytest.raises(ValueError, match=r"imagenet: expected .* and spatial_dims=2, got RWKVUNet"):
        released_name("imagenet", create_model("rwkv_unet_t", spatial_dims=3))


@pytest.mark.parametrize("name", [name for name, entry in MODELS.items() if entry.is_baseline])
def test_baselines_take_volumes_or_say_which_networks_do(name):
    if not MODELS[name].volumes:
        with pytest.raises(
            ValueError, match=f"spatial_dims: expected 2 for {name}, got 3; networks that have 3: .*segres"
        ):
            create_model(name, spatial_dims=3)
        return
    model = create_model(name, in_channels=1, num_classes=2, spatial_dims=3).eval()
    side = divisor_of(model)
    assert model.divisor == side and not [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        assert model(torch.rand(1, 1, side, side, 2 * side)).shape == (1, 2, side, side, 2 * side)
    with pytest.raises(ValueError, match=r"x: expected shape \(B, C, D, H, W\), got \(1, 1, 32, 32\); images are for"):
        model(torch.rand(1, 1, 32, 32))


def test_the_divisor_of_a_baseline_follows_its_strides():
    thin = create_model("unet_p", in_channels=1, spatial_dims=3, strides=[[1, 2, 2], [1, 2, 2], 2, 2])
    assert (
        thin.divisor == (4, 16, 16) and create_model("segresnet", blocks_down=(1, 2, 2), blocks_up=(1, 1)).divisor == 4
    )
    assert thin.eval()(torch.rand(1, 1, 4, 32, 16)).shape == (1, 1, 4, 32, 16)


def test_n_learns_organs_from_patches_of_a_generated_abdomen():
    voxels, labels, _ = synthetic_abdomen(0, size=64, depth=16)
    image = torch.from_numpy(np.clip((voxels + 125) / 400, 0, 1)).float()
    mask = torch.from_numpy((labels == 5).astype(np.float32))  # the liver
    patches = [(slice(None), slice(y, y + 32), slice(x, x + 32)) for y in (8, 24) for x in (0, 16)]
    x = normalise(torch.stack([image[p][None] for p in patches]))
    y = torch.stack([mask[p][None] for p in patches])
    torch.manual_seed(0)
    model = create_model("rwkv_unet_n", in_channels=1, spatial_dims=3, stem_stride=[1, 2, 2], decoder_kernel=3)
    optimizer, loss, seen = torch.optim.AdamW(model.parameters(), 3e-3), make_loss("binary", 1), []
    for _ in range(6):
        optimizer.zero_grad()
        value = loss(model(x), y)
        value.backward()
        optimizer.step()
        seen.append(value.item())
    assert 0.02 < y.mean() < 0.9 and seen[-1] < 0.85 * seen[0], seen


def test_the_default_is_the_network_for_images():
    config = ModelConfig(depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), expansions=(2, 2, 2, 2))
    assert (config.spatial_dims, config.order, config.divisor) == (2, "rows", 16)
