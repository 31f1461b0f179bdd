"""Implicit attention equals what the operator does with the model's own keys and values."""

import pytest
import torch

from rwkvlib import create_model
from rwkvlib.analysis import implicit_attention, spatial_mixes

SMALL = dict(depths=(1, 1, 2, 2), dims=(8, 8, 8, 8), expansions=(1, 1, 2, 2))
NAME = "encoder.stage3.1.att"


@pytest.fixture(params=["paper", "published"])
def model(request):
    torch.manual_seed(0)
    model = create_model("rwkv_unet_t", variant=request.param, **SMALL).double().eval()
    for mix in spatial_mixes(model).values():
        torch.nn.init.normal_(mix.spatial_decay, std=3)
        torch.nn.init.normal_(mix.spatial_first, std=3)
        torch.nn.init.normal_(mix.key.weight)
    return model


def test_the_shares_times_the_values_are_the_operators_output(model):
    mix, seen = spatial_mixes(model)[NAME], {}
    mix.value.register_forward_hook(lambda module, inputs, output: seen.update(v=output))
    mix.key_norm.register_forward_hook(lambda module, inputs, output: seen.update(y=inputs[0]))
    shares = implicit_attention(model, torch.randn(1, 3, 64, 32).double(), NAME)
    assert shares.shape == (32, 32, 16)
    torch.testing.assert_close(torch.einsum("tic,ic->tc", shares, seen["v"][0]), seen["y"][0])
    assert shares.std(0).max() > 1e-3, "rows differ, so that a transposed result would not pass"
    if mix.variant == "paper":  # the published kernel has a constant in its denominator, and negative weights
        torch.testing.assert_close(shares.sum(1), torch.ones(32, 16).double())
        assert (shares > 0).all()


def test_names_are_those_of_the_blocks_with_attention(model):
    assert list(spatial_mixes(model)) == [NAME, "encoder.stage4.1.att"]
    assert spatial_mixes(create_model("rwkv_unet_t", attention=False, **SMALL)) == {}


@pytest.mark.parametrize(
    ("x", "name", "message"),
    [
        (torch.zeros(1, 3, 32, 32), "stage3", f"name: expected one of {NAME}, encoder.stage4.1.att, got 'stage3'"),
        (torch.zeros(2, 3, 32, 32), NAME, "x: expected one image"),
        (torch.zeros(3, 32, 32), NAME, "x: expected one image"),
    ],
)
def test_bad_arguments_are_named(model, x, name, message):
    with pytest.raises(ValueError, match=message):
        implicit_attention(model, x.double(), name)
