"""The theoretical receptive field, where it is known by hand and against gradients."""

import math

import pytest
import torch
from monai.networks.nets import UNet
from torch import nn

from rwkvlib import create_model
from rwkvlib.analysis import receptive_contribution, receptive_field_radius
from rwkvlib.layers import GLSP


def test_known_windows():
    conv = nn.Conv2d(3, 2, 5, padding=2)
    assert receptive_field_radius(conv, 32) == 2
    with torch.no_grad():
        conv.weight.zero_()  # what it can depend on, whatever the weights
    assert receptive_field_radius(conv, 32) == 2
    assert (
        receptive_field_radius(
            nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 7, padding=3)), 32
        )
        == 4
    )
    dilated = nn.Conv2d(3, 1, 3, padding=4, dilation=4)
    assert receptive_field_radius(dilated, 32) == 4
    # A pixel of a pooled and repeated map sees its own block alone, from its first pixel to its last.
    assert receptive_field_radius(nn.Sequential(nn.AvgPool2d(8), nn.Upsample(scale_factor=8)), 32, stride=8) == 7
    assert receptive_field_radius(nn.Identity(), 32) == 0


def test_whole_image_is_infinite():
    torch.manual_seed(0)
    assert receptive_field_radius(nn.InstanceNorm2d(3, affine=True), 32) == math.inf
    for attention, radius in ((True, math.inf), (False, 2)):
        block = GLSP(3, 3, 2, attention=attention).eval()
        assert receptive_field_radius(block, 32, stride=1) == radius
    # Squeeze-excite in RWKV-UNet's stem is a global path even without attention.
    encoder = create_model("rwkv_unet_t", attention=False).eval().encoder
    assert receptive_field_radius(encoder.stage0, 32, stride=1) == math.inf
    encoder.stage0[0].se = nn.Identity()
    assert receptive_field_radius(encoder.stage0, 32, stride=1) == 2


def test_gradients_stay_within_the_radius_and_reach_it():
    torch.manual_seed(0)
    model = UNet(2, 3, 1, (4, 8, 8), (2, 2), num_res_units=1, norm="batch", act="GELU").eval().double()
    radius = receptive_field_radius(lambda x: model(x.double()), 64, stride=4)
    reached = 0
    for position in range(30, 34):
        x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
        seen = receptive_contribution(model, x, (position, position)).nonzero()
        reached = max(reached, int((seen - position).abs().max()))
    assert reached == radius


def test_bad_arguments():
    with pytest.raises(ValueError, match="size: expected at least the stride 16, got 8"):
        receptive_field_radius(nn.Identity(), 8)
    with pytest.raises(ValueError, match="f: expected finite outputs"):
        receptive_field_radius(lambda x: x / 0, 32)
