"""The model against the reference: counts, golden outputs, sizes, overrides."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from rwkvlib import create_model, load_official
from rwkvlib.analysis import count_macs, count_parameters
from rwkvlib.layers import SpatialMix
from rwkvlib.models import model_names

DATA = Path(__file__).parents[1] / "reference"
GOLDEN = np.load(DATA / "golden_T_64.npz")
PARAMETERS = {"t": 3_145_761, "s": 9_701_945, "b": 17_125_513}
WITH_HEAD = {"t": 3_306_761, "s": 9_894_945, "b": 17_366_513}
PUBLISHED_MODULE = {"t": 5_677_782, "s": 15_087_782, "b": 24_642_686}
GMACS = {
    "t": {224: 2.745, 256: 3.585, 512: 14.339},
    "s": {224: 5.737, 256: 7.493, 512: 29.973},
    "b": {224: 10.958, 256: 14.312, 512: 57.249},
}


def published_keys(size: str) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of the published module of October 2025 (4 classes), dead ones included."""
    return {k: tuple(s) for k, s in json.loads((DATA / f"state_dict_{size.upper()}.json").read_text()).items()}


def golden_tensor(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The rule by which the golden model's state dict is filled."""
    n = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
    name = key.rpartition(".")[2]
    if name == "num_batches_tracked":
        return torch.tensor(0)
    if name == "running_var":
        n = 1 + 0.1 * abs(n)
    elif name in ("running_mean", "bias"):
        n = 0.1 * n
    elif name.startswith("spatial_mix_"):
        n = 0.5 + 0.1 * n
    elif name in ("spatial_decay", "spatial_first"):
        pass
    elif len(shape) == 1:
        n = 1 + 0.1 * n
    else:
        n = n / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(n).float()


def golden_state() -> dict[str, torch.Tensor]:
    return {key: golden_tensor(key, shape) for key, shape in published_keys("t").items()}


@pytest.fixture(scope="module")
def golden_model():
    model = create_model("rwkv_unet_t", num_classes=4).eval()
    load_official(model, golden_state(), variant="paper")
    return model


@pytest.mark.parametrize("size", "tsb")
def test_parameter_counts_equal_the_reference(size):
    model = create_model(f"rwkv_unet_{size}")
    assert count_parameters(model) == PARAMETERS[size]
    head = create_model(f"rwkv_encoder_{size}").head
    assert count_parameters(model) + count_parameters(head) == WITH_HEAD[size]


@pytest.mark.parametrize("size", "tsb")
def test_every_published_key_is_ours_or_dead(size):
    keys = published_keys(size)
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    total = sum(int(np.prod(shape)) for key, shape in keys.items() if not key.endswith(buffers))
    assert total == PUBLISHED_MODULE[size] + 3 * 25  # the files have 4 classes, the counts 1
    model = create_model(f"rwkv_unet_{size}", num_classes=4)
    report = load_official(model, {key: torch.zeros(shape) for key, shape in keys.items()})
    assert set(report.loaded) == set(model.state_dict())
    assert len(report.loaded) + sum(map(len, report.ignored.values())) == len(keys)
    assert not report.missing


@pytest.mark.parametrize("size", "tsb")
def test_macs_equal_the_reference(size):
    model = create_model(f"rwkv_unet_{size}")
    for pixels, expected in GMACS[size].items():
        assert count_macs(model, (1, 3, pixels, pixels)) / 1e9 == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("dtype", "backend", "tolerance"),
    [
        (torch.float64, "numba", 1e-6),
        (torch.float64, "tree", 1e-6),
        (torch.float32, "numba", 1e-4),
        (torch.float32, "tree", 1e-4),
    ],
)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_golden_logits_are_reproduced(dtype, backend, tolerance, memory_format):
    model = create_model("rwkv_unet_t", num_classes=4, backend=backend).eval()
    load_official(model, golden_state(), variant="paper")
    model = model.to(dtype=dtype, memory_format=memory_format)
    with torch.no_grad():
        logits = model(torch.from_numpy(GOLDEN["input"]).to(dtype, memory_format=memory_format))
    torch.testing.assert_close(logits.double(), torch.from_numpy(GOLDEN["logits"]).double(), atol=tolerance, rtol=0)


def test_golden_intermediates_are_reproduced(golden_model):
    model = golden_model.double()
    seen = {}

    def record(name):
        return lambda module, args, out: seen.__setitem__(name, out)

    handles = [
        model.encoder.get_submodule(f"stage{i}").register_forward_hook(record(f"encoder_stage{i}")) for i in range(5)
    ]
    handles += [model.get_submodule(f"decoder{i}").register_forward_hook(record(f"decoder{i}")) for i in range(1, 5)]
    handles += [model.ccm.register_forward_hook(record("ccm"))]
    with torch.no_grad():
        model(torch.from_numpy(GOLDEN["input"]).double())
    for handle in handles:
        handle.remove()
    seen.update({f"ccm_{i}": x for i, x in enumerate(seen.pop("ccm"))})
    assert len(seen) == 12
    for name, x in seen.items():
        assert list(x.shape) == GOLDEN[f"{name}_shape"].tolist(), name
        np.testing.assert_allclose(x.mean((2, 3)), GOLDEN[f"{name}_mean"], atol=1e-6, err_msg=name)
        np.testing.assert_allclose(x.flatten(2).std(2), GOLDEN[f"{name}_std"], atol=1e-6, rtol=1e-6, err_msg=name)


def test_layer_norms_and_batch_norms_have_the_published_eps():
    model = create_model("rwkv_unet_t")
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d) or name.endswith(".norm.norm"):
            assert module.eps == 1e-6, name
        elif isinstance(module, torch.nn.LayerNorm):
            assert module.eps == 1e-5, name
    assert all(m.momentum == 0.1 for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))


def test_initialisation_is_the_published_one():
    torch.manual_seed(0)
    model = create_model("rwkv_unet_s")
    for name, p in model.named_parameters():
        if name.endswith(("spatial_decay", "spatial_first")):
            assert (p == 0).all(), name
        elif ".spatial_mix_" in name:
            assert (p == 0.5).all(), name
        elif name.endswith((".key.weight", ".value.weight", ".receptance.weight", ".output.weight")):
            assert p.std().item() == pytest.approx(0.02, rel=0.05), name


@pytest.mark.parametrize("p", [1.0, -0.1, float("nan")])
def test_a_rate_of_drop_path_that_is_no_probability_below_1_is_refused(p):
    with pytest.raises(ValueError, match=r"p: expected a probability in \[0, 1\), got"):
        create_model("rwkv_unet_t", drop_path=p)


def test_drop_path_grows_linearly_over_the_blocks():
    encoder = create_model("rwkv_unet_t").encoder
    rates = [block.drop_path.p for stage in range(1, 5) for block in encoder.get_submodule(f"stage{stage}")]
    assert encoder.stage0[0].drop_path.p == 0
    np.testing.assert_allclose(rates, np.linspace(0, 0.05, 10))


@pytest.mark.parametrize("shape", [(1, 3, 16, 16), (2, 3, 32, 80), (1, 3, 48, 16), (1, 3, 512, 512)])
def test_every_multiple_of_16_works(shape):
    model = create_model("rwkv_unet_t", num_classes=2).eval()
    with torch.no_grad():
        assert model(torch.randn(shape)).shape == (shape[0], 2, *shape[2:])


@pytest.mark.parametrize("shape", [(1, 3, 30, 32), (1, 3, 32, 100), (1, 3, 0, 32)])
def test_other_sizes_are_refused_with_both_numbers(shape):
    with pytest.raises(ValueError, match=rf"divisible by 16, got {shape[2]} x {shape[3]}"):
        create_model("rwkv_unet_t")(torch.randn(shape))


def test_wrong_channels_are_refused():
    with pytest.raises(ValueError, match=r"expected shape \(B, 3, H, W\), got \(1, 1, 32, 32\)"):
        create_model("rwkv_unet_t")(torch.randn(1, 1, 32, 32))


def test_one_channel_is_repeated_to_three():
    torch.manual_seed(0)
    gray = create_model("rwkv_unet_t", in_channels=1).eval()
    colour = create_model("rwkv_unet_t").eval()
    colour.load_state_dict(gray.state_dict())
    x = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(gray(x), colour(x.repeat(1, 3, 1, 1)))


def test_encoder_classifies():
    model = create_model("rwkv_encoder_t", num_classes=7).eval()
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 7)
    assert [tuple(x.shape) for x in model.features(torch.randn(1, 3, 64, 32))] == [
        (1, 24, 64, 32),
        (1, 32, 32, 16),
        (1, 48, 16, 8),
        (1, 96, 8, 4),
        (1, 160, 4, 2),
    ]


def spatial_mixes(model):
    return [module for module in model.modules() if isinstance(module, SpatialMix)]


@pytest.mark.parametrize(
    ("overrides", "shows"),
    [
        (dict(attention=False), lambda m: not spatial_mixes(m)),
        (dict(ccm=False), lambda m: m.ccm is None),
        (
            dict(q_shift=False),
            lambda m: not any(mix.use_q_shift for mix in [*spatial_mixes(m), m.ccm.channel]),
        ),
        (dict(learn_decay=False), lambda m: not any(mix.spatial_decay.requires_grad for mix in spatial_mixes(m))),
        (dict(decoder_kernel=3), lambda m: kernels(m) == {5, 3}),
        (dict(kernel_size=3), lambda m: kernels(m) == {3, 9}),
        (dict(variant="published"), lambda m: {mix.variant for mix in spatial_mixes(m)} == {"published"}),
        (dict(backend="scan"), lambda m: {mix.backend for mix in spatial_mixes(m)} == {"scan"}),
        (dict(in_channels=5), lambda m: next(m.parameters()).shape[1] == 5),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_overrides_build_models_that_learn(overrides, shows):
    torch.manual_seed(0)
    model = create_model("rwkv_unet_t", **overrides)
    assert shows(model) and not shows(create_model("rwkv_unet_t"))
    x = torch.randn(2, overrides.get("in_channels", 3), 32, 32)
    model(x).square().mean().backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without, "every parameter that exists takes part"
    frozen = {name.rpartition(".")[2] for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == ({"spatial_decay", "spatial_first"} if "learn_decay" in overrides else set())


def kernels(model):
    """The sizes of the depthwise convolutions."""
    return {m.kernel_size[0] for m in model.modules() if isinstance(m, torch.nn.Conv2d) and m.groups > 1}


def test_the_operator_variant_reaches_every_spatial_mix(golden_model):
    x = torch.from_numpy(GOLDEN["input"])
    published = create_model("rwkv_unet_t", num_classes=4).eval()
    report = load_official(published, golden_state())
    assert report.variant == "published"
    assert [mix.variant for mix in spatial_mixes(published)] == ["published"] * 4
    with torch.no_grad():
        difference = (published(x) - golden_model.float()(x)).abs().max()
    assert 1e-6 < difference < 0.1


def test_create_model_names_what_is_wrong():
    with pytest.raises(ValueError, match="name: expected one of rwkv_unet_t"):
        create_model("rwkv_unet_x")
    with pytest.raises(TypeError, match=r"overrides: unknown field 'kernel'; near ones: kernel_size"):
        create_model("rwkv_unet_t", kernel=3)
    with pytest.raises(ValueError, match="decoder_kernel: expected an odd size, got 8"):
        create_model("rwkv_unet_t", decoder_kernel=8)
    with pytest.raises(ValueError, match="num_classes: expected at least 1, got 0"):
        create_model("rwkv_unet_t", num_classes=0)
    assert len(model_names("segmentation")) == 16 and len(model_names("classification")) == 3
