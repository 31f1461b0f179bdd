"""The network's parts against their equations, written out naively, on maps that are no squares."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rwkvlib.layers import GLSP, ChannelMix, CrossChannelMix, DecoderBlock, DropPath, SpatialMix, q_shift
from rwkvlib.layers.conv import map_from_tokens, tokens_from_map
from rwkvlib.wkv.oracle import bi_wkv_oracle

HEIGHT, WIDTH = 4, 3


def shaken(module: nn.Module) -> nn.Module:
    """Every parameter and statistic away from 0, 1 and 0.5, which could hide a term; decays that weigh."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, p in module.named_parameters():
            p.add_((3.0 if name.endswith(("spatial_decay", "spatial_first")) else 0.3) * torch.randn_like(p))
        for name, b in module.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                b.add_(torch.rand_like(b))
    return module.double().eval()


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def naive_shift(x, height, width):
    q, y = x.shape[-1] // 4, x.clone()
    for group, (down, right) in enumerate([(0, -1), (0, 1), (-1, 0), (1, 0)]):  # left, right, upper, lower
        c = slice(group * q, (group + 1) * q)
        for i in range(height):
            for j in range(width):
                inside = 0 <= i + down < height and 0 <= j + right < width
                y[:, i * width + j, c] = x[:, (i + down) * width + j + right, c] if inside else 0
    return y


def naive_norm(layer, x):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + layer.eps).sqrt() * layer.weight + layer.bias


def naive_spatial_mix(m, x, height, width):
    T, xx = x.shape[1], naive_shift(x, height, width) if m.use_q_shift else x
    k, v, r = (
        (x * share + xx * (1 - share)) @ linear.weight.T
        for share, linear in ((m.spatial_mix_k, m.key), (m.spatial_mix_v, m.value), (m.spatial_mix_r, m.receptance))
    )
    y = bi_wkv_oracle(m.spatial_decay / T, m.spatial_first / T, k, v)
    return (naive_norm(m.key_norm, y) / (1 + torch.exp(-r))) @ m.output.weight.T


def naive_channel_mix(m, x, height, width):
    xx = naive_shift(x, height, width) if m.use_q_shift else x
    k = (x * m.spatial_mix_k + xx * (1 - m.spatial_mix_k)) @ m.key.weight.T
    r = (x * m.spatial_mix_r + xx * (1 - m.spatial_mix_r)) @ m.receptance.weight.T
    return naive_norm(m.key_norm, k.clamp(min=0) ** 2) @ m.value.weight.T / (1 + torch.exp(-r))


def naive_conv(c, x):
    """Convolution and BatchNorm of a ConvNormAct."""
    size, stride = c.conv.kernel_size[0], c.conv.stride[0]
    x = F.conv2d(x, c.conv.weight, stride=stride, padding=(size - stride + 1) // 2, groups=c.conv.groups)
    return naive_batchnorm(c.norm, x) if isinstance(c.norm, nn.BatchNorm2d) else x


def naive_batchnorm(bn, x):
    scale = bn.weight / (bn.running_var + 1e-6).sqrt()
    return (x - bn.running_mean[:, None, None]) * scale[:, None, None] + bn.bias[:, None, None]


def naive_glsp(b, x):
    height, width = x.shape[2:]
    h = naive_conv(b.conv, naive_batchnorm(b.norm, x)).clamp(min=0)
    tokens = torch.stack([h[:, :, i, j] for i in range(height) for j in range(width)], dim=1)
    tokens = tokens + naive_norm(b.ln1, naive_spatial_mix(b.att, tokens, height, width))
    h = torch.stack([tokens[:, i * width : (i + 1) * width] for i in range(height)], dim=1).permute(0, 3, 1, 2)
    local = naive_conv(b.conv_local, h)
    local = local / (1 + torch.exp(-local))
    gate = F.conv2d(local.mean((2, 3), keepdim=True), b.se.conv_reduce.weight, b.se.conv_reduce.bias)
    gate = F.conv2d(gate / (1 + torch.exp(-gate)), b.se.conv_expand.weight, b.se.conv_expand.bias)
    local = local / (1 + torch.exp(-gate))
    return x + naive_conv(b.proj, h + local) if b.has_skip else naive_conv(b.proj, local)


def test_q_shift_by_hand():
    tokens = torch.arange(1.0, 7.0)  # 1 2 3
    x = tokens[None, :, None].expand(2, 6, 6)  # 4 5 6, in six channels: four groups of one and two that stay
    looked = {
        "left": [0, 1, 2, 0, 4, 5],
        "right": [2, 3, 0, 5, 6, 0],
        "upper": [0, 0, 0, 1, 2, 3],
        "lower": [4, 5, 6, 0, 0, 0],
    }
    y = q_shift(x, (2, 3))
    for channel, (side, expected) in enumerate(looked.items()):
        assert y[..., channel].tolist() == [expected] * 2, side
    assert torch.equal(y[..., 4:], x[..., 4:])


@pytest.mark.parametrize("shape", [(6,), (1, 1, 2, 3), ()])
def test_a_shape_of_another_length_is_named(shape):
    with pytest.raises(ValueError, match=r"shape: expected \(height, width\) or \(depth, height, width\), got \("):
        q_shift(torch.zeros(1, 6, 4), shape)


@pytest.mark.parametrize("layer", [SpatialMix(4), ChannelMix(4), q_shift])
def test_a_shape_with_another_number_of_tokens_is_named(layer):
    with pytest.raises(ValueError, match=r"x: expected height \* width = 2 \* 4 = 8 tokens, got 6"):
        layer(torch.zeros(1, 6, 4), (2, 4))


def test_tokens_are_the_rows_one_after_the_other():
    x = torch.arange(12.0).reshape(1, 1, HEIGHT, WIDTH)
    tokens = tokens_from_map(x)
    assert tokens.flatten().tolist() == list(range(12))
    assert torch.equal(map_from_tokens(tokens, (HEIGHT, WIDTH)), x)


@pytest.mark.parametrize("use_q_shift", [True, False])
@pytest.mark.parametrize("layer, naive", [(SpatialMix, naive_spatial_mix), (ChannelMix, naive_channel_mix)])
def test_mixes_equal_their_equations(layer, naive, use_q_shift):
    m, x = shaken(layer(9, use_q_shift=use_q_shift)), normal(2, HEIGHT * WIDTH, 9)
    torch.testing.assert_close(m(x, (HEIGHT, WIDTH)), naive(m, x, HEIGHT, WIDTH))


@pytest.mark.parametrize("dim_out, stride", [(8, 1), (6, 2)])
def test_glsp_equals_its_equations(dim_out, stride):
    block, x = shaken(GLSP(8, dim_out, 1.5, stride=stride, attention=True, squeeze_excite=True)), normal(2, 8, 4, 6)
    y = block(x)
    assert y.shape == (2, dim_out, 4 // stride, 6 // stride)
    torch.testing.assert_close(y, naive_glsp(block, x))


@pytest.mark.parametrize("height, width", [(2, 3), (3, 1)])
def test_cross_channel_mix_equals_its_equations(height, width):
    ccm = shaken(CrossChannelMix([12, 8, 6], 5))
    maps = [normal(2, c, n * height, n * width) for c, n in ((12, 1), (8, 2), (6, 4))]
    size = (4 * height, 4 * width)
    large = [F.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in maps]
    z = torch.cat([F.conv2d(x, p.weight, p.bias) for p, x in zip(ccm.projections, large, strict=True)], dim=1)
    mixed = naive_norm(ccm.ln1, naive_channel_mix(ccm.channel, z.flatten(2).mT, *size))
    thirds = (z + mixed.mT.reshape(z.shape)).split(5, dim=1)
    for y, p, third, x in zip(ccm(maps), ccm.final_projections, thirds, maps, strict=True):
        back = F.conv2d(third, p.weight, p.bias)
        torch.testing.assert_close(y, F.interpolate(back, size=x.shape[2:], mode="bilinear", align_corners=False))


def test_the_decoders_block_doubles_both_sides():
    block, x = shaken(DecoderBlock(6, 4)), normal(2, 6, HEIGHT, WIDTH)
    h = naive_conv(block.conv_local, naive_conv(block.conv, x).clamp(min=0))
    h = naive_conv(block.proj, h / (1 + torch.exp(-h))).clamp(min=0)
    expected = F.interpolate(h, size=(2 * HEIGHT, 2 * WIDTH), mode="bilinear", align_corners=False)
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("shape", [(5,), (3, 2, 2)])
def test_drop_path_drops_whole_images_and_keeps_the_mean(shape):
    torch.manual_seed(0)
    drop, x = DropPath(0.25), normal(4000, *shape)
    y = drop(x)
    dropped = (y == 0).flatten(1).all(1)
    assert torch.equal(y[~dropped], x[~dropped] / 0.75)  # what is left stands in for what is dropped
    assert 0.22 < dropped.double().mean() < 0.28
    assert 0.03 < (dropped[1:] & dropped[:-1]).double().mean() < 0.1, "each image draws for itself"
    assert not torch.equal(dropped, (drop(x) == 0).flatten(1).all(1)), "every call draws anew"


def test_drop_path_does_nothing_outside_of_training_or_without_a_probability():
    x = normal(50, 3)
    assert torch.equal(DropPath(0.9).eval()(x), x) and torch.equal(DropPath(0.0)(x), x)


@pytest.mark.parametrize("p", [-0.1, 1, 1.5])
def test_a_probability_outside_is_named(p):
    with pytest.raises(ValueError, match=r"p: expected a probability in \[0, 1\), got"):
        DropPath(p)


def naive_volume_shift(x, shape):
    """Six groups, each with its neighbour along one half-axis: left, right, upper, lower, before, behind."""
    q, y, grid = x.shape[-1] // 6, x.clone(), list(itertools.product(*map(range, shape)))
    steps = [(0, 0, -1), (0, 0, 1), (0, -1, 0), (0, 1, 0), (-1, 0, 0), (1, 0, 0)]
    for group, step in enumerate(steps):
        c = slice(group * q, (group + 1) * q)
        for t, place in enumerate(grid):
            other = tuple(p + s for p, s in zip(place, step, strict=True))
            y[:, t, c] = x[:, grid.index(other), c] if other in grid else 0
    return y


@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 4, 2), (3, 1, 1)])
@pytest.mark.parametrize("channels", [5, 6, 15])
def test_q_shift_of_a_volume_moves_six_groups_and_leaves_the_rest(shape, channels):
    x = normal(2, math.prod(shape), channels)
    assert torch.equal(q_shift(x, shape), naive_volume_shift(x, shape))
    with pytest.raises(ValueError, match=r"x: expected depth \* height \* width = 2 \* 2 \* 2 = 8 tokens, got"):
        q_shift(x[:, :3], (2, 2, 2))


def naive_order(shape, axis):
    """The numbers of the tokens in the order in which they are read with this axis the fastest."""
    grid = list(itertools.product(*map(range, shape)))
    others = [i for i in range(len(shape)) if i != axis]
    return sorted(range(len(grid)), key=lambda t: [grid[t][i] for i in [*others, axis]])


@pytest.mark.parametrize("order", ["rows", "axes"])
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 4), (1, 3, 2)])
def test_spatial_mix_reads_a_map_in_its_order(shape, order):
    m, x = shaken(SpatialMix(7, order=order)), normal(2, math.prod(shape), 7)
    T, xx = x.shape[1], q_shift(x, shape)
    k, v, r = (
        (x * share + xx * (1 - share)) @ linear.weight.T
        for share, linear in ((m.spatial_mix_k, m.key), (m.spatial_mix_v, m.value), (m.spatial_mix_r, m.receptance))
    )
    outputs = []
    for axis in range(len(shape)) if order == "axes" else [len(shape) - 1]:
        read, y = naive_order(shape, axis), torch.empty_like(v)
        y[:, read] = bi_wkv_oracle(m.spatial_decay / T, m.spatial_first / T, k[:, read], v[:, read])
        outputs.append(y)
    mean = sum(outputs) / len(outputs)
    torch.testing.assert_close(m(x, shape), (naive_norm(m.key_norm, mean) / (1 + torch.exp(-r))) @ m.output.weight.T)


def test_the_parts_of_a_volume_are_those_of_its_slices_where_kernels_and_strides_are_flat():
    """A block without attention or Q-Shift, and with weights copied, sees each slice as the block for images does."""
    image, volume = shaken(GLSP(6, 6, 2)), shaken(GLSP(6, 6, 2, kernel_size=(1, 5, 5), stride=1, spatial_dims=3))
    volume.load_state_dict({k: x[:, :, None] if x.ndim == 4 else x for k, x in image.state_dict().items()})
    x = normal(2, 6, 3, 4, 5)
    expected = torch.stack([image(each) for each in x.unbind(2)], 2)
    torch.testing.assert_close(volume(x), expected)
    block = shaken(DecoderBlock(6, 4, kernel_size=(1, 3, 3), scale=(1, 2, 4), spatial_dims=3))
    assert block(x).shape == (2, 4, 3, 8, 20)
    ccm = shaken(CrossChannelMix([12, 6], 5, spatial_dims=3))
    assert [tuple(y.shape) for y in ccm([normal(1, 12, 2, 2, 2), normal(1, 6, 2, 4, 4)])] == [
        (1, 12, 2, 2, 2),
        (1, 6, 2, 4, 4),
    ]
