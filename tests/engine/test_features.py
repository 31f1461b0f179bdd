"""The encoder under other decoders: those of segmentation_models_pytorch in small, by the same interface."""

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

import rwkvlib
from rwkvlib.engine.checkpoint import load_encoder

TINY = dict(depths=(1, 1, 2, 2), dims=(8, 8, 16, 16))


def twice(x):
    return F.interpolate(x, scale_factor=2, mode="nearest")


class Unet(nn.Module):
    """Takes ``encoder_channels`` and a list of maps, drops the first, and goes up from the last."""

    def __init__(self, encoder_channels, width=8):
        super().__init__()
        *skips, last = encoder_channels[1:]
        ins = [last] + [width] * len(skips)
        self.blocks = nn.ModuleList(
            nn.Conv2d(n + skip, width, 3, padding=1) for n, skip in zip(ins, [*skips[::-1], 0], strict=True)
        )

    def forward(self, features):
        *skips, x = features[1:]
        for block, skip in zip(self.blocks, [*skips[::-1], None], strict=True):
            x = twice(x)
            x = block(x if skip is None else torch.cat([x, skip], 1)).relu()
        return x


class UnetPlusPlus(nn.Module):
    """Nodes X[i][j] of all the nodes of level i before it and of the one below."""

    def __init__(self, encoder_channels, width=8):
        super().__init__()
        n, self.first = encoder_channels[1:], nn.ModuleList()
        self.first.extend(nn.Conv2d(c, width, 1) for c in n)
        self.nodes = nn.ModuleDict(
            {
                f"{i}_{j}": nn.Conv2d((j + 1) * width, width, 3, padding=1)
                for j in range(1, len(n))
                for i in range(len(n) - j)
            }
        )

    def forward(self, features):
        rows = [[conv(x)] for conv, x in zip(self.first, features[1:], strict=True)]
        for j in range(1, len(rows)):
            for i in range(len(rows) - j):
                rows[i].append(self.nodes[f"{i}_{j}"](torch.cat([*rows[i], twice(rows[i + 1][j - 1])], 1)).relu())
        return twice(rows[0][-1])


class FPN(nn.Module):
    """The last four maps, added from below, and brought to a quarter of the images' size."""

    def __init__(self, encoder_channels, width=8):
        super().__init__()
        self.sides = nn.ModuleList(nn.Conv2d(c, width, 1) for c in encoder_channels[-4:])

    def forward(self, features):
        maps = [side(x) for side, x in zip(self.sides, features[-4:], strict=True)]
        for i in reversed(range(3)):
            maps[i] = maps[i] + twice(maps[i + 1])
        size = maps[0].shape[2:]
        return F.interpolate(sum(F.interpolate(x, size) for x in maps), features[0].shape[2:])


class MAnet(Unet):
    """The U-Net with attention over the positions of the last map."""

    def __init__(self, encoder_channels, width=8):
        super().__init__(encoder_channels, width)
        self.pab = nn.MultiheadAttention(encoder_channels[-1], 1, batch_first=True)

    def forward(self, features):
        tokens = features[-1].flatten(2).mT
        attended = self.pab(tokens, tokens, tokens)[0].mT.unflatten(2, features[-1].shape[2:])
        return super().forward([*features[:-1], attended])


@pytest.mark.parametrize("decoder", [Unet, UnetPlusPlus, FPN, MAnet])
@pytest.mark.parametrize("name", ["rwkv_unet_t", "rwkv_unet_n"])
def test_decoders_of_others_take_the_maps_and_train(name, decoder):
    torch.manual_seed(0)
    encoder = rwkvlib.features(name, **TINY)
    top = decoder(encoder.out_channels)
    image = torch.rand(2, 3, 2 * encoder.output_stride, encoder.output_stride)
    y = top(encoder(rwkvlib.normalise(image)))
    assert y.shape[2:] == image.shape[2:]
    y.square().mean().backward()
    assert all(p.grad is not None for n, p in encoder.named_parameters() if n.endswith("conv.weight"))


@pytest.mark.parametrize(
    ("name", "strides"), [("rwkv_unet_t", (1, 2, 4, 8, 16)), ("rwkv_unet_n", (1, 2, 4, 8, 16, 32))], ids=["t", "n"]
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_maps_have_the_channels_and_strides_that_are_told(name, strides, channels):
    encoder = rwkvlib.features(name, in_channels=channels)
    x = torch.rand(1, channels, 64, 32)
    maps = encoder(x)
    assert encoder.strides == strides and encoder.output_stride == strides[-1] and encoder.depth == len(strides) - 1
    assert [m.shape[1] for m in maps] == list(encoder.out_channels) and maps[0] is x
    assert [tuple(m.shape[2:]) for m in maps] == [(64 // s, 32 // s) for s in strides]


def test_pretrained_weights_are_in_the_encoder():
    encoder, model = rwkvlib.features("rwkv_unet_t", "teacher"), rwkvlib.create_model("rwkv_unet_t")
    load_encoder(model, "teacher")
    for (name, a), b in zip(encoder.encoder.named_parameters(), model.encoder.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_networks_without_such_maps_are_named():
    with pytest.raises(ValueError, match=r"name: expected rwkv_unet_t, .* got 'rwkv_encoder_t'"):
        rwkvlib.features("rwkv_encoder_t")
    with pytest.raises(ValueError, match="stem_stride of 1 or 2"):
        rwkvlib.features("rwkv_unet_t", stem_stride=4)
