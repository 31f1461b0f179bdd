"""Prediction for volumes: any size, windows with a Gaussian, flips, and tensors that are no volumes."""

import pytest
import torch
from torch import nn

from rwkvlib import create_model, predict
from rwkvlib.data.pixels import normalise
from rwkvlib.engine.predict import to_labels
from tests.models.test_volumes import THIN, TINY


class Threshold(nn.Module):
    """Looks at one voxel at a time, of volumes whose height and width are multiples of 4."""

    divisor, spatial_dims = (1, 4, 4), 3

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(tuple(x.shape[2:]))
        return torch.cat([x, -x], 1)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model("rwkv_unet_t", in_channels=1, **TINY | THIN)


@pytest.mark.parametrize("shape", [(4, 16, 16), (10, 17, 40), (2, 33, 15)])
def test_volumes_of_any_size_are_padded_by_axis_and_cropped(model, shape):
    image = torch.rand(1, 1, *shape)
    logits = predict(model, image)
    assert logits.shape == (1, 1, *shape) and model.training
    if shape == (4, 16, 16):
        with torch.no_grad():
            torch.testing.assert_close(logits, model.eval()(normalise(image)))
        model.train()


@pytest.mark.parametrize("window", [8, (2, 8, 4)])
def test_windows_cover_a_volume(window):
    threshold, image = Threshold(), torch.rand(1, 1, 9, 13, 10)
    found = predict(threshold, image, window=window)
    assert set(threshold.seen) == {window if isinstance(window, tuple) else (8, 8, 8)}
    torch.testing.assert_close(found, predict(threshold, image), atol=1e-5, rtol=1e-5)
    assert torch.equal(to_labels(found), (found[:, 1] > found[:, 0]).byte())


def test_windows_are_weighted_by_a_gaussian():
    """Those whose centre is nearer count more: with equal weights there were as many values as numbers of windows."""

    class Place(nn.Module):
        spatial_dims = 3

        def forward(self, x):
            return (x.mean((1, 2, 3, 4), keepdim=True) > 0) * torch.ones_like(x)

    image = torch.cat([torch.zeros(1, 1, 8, 8, 8), torch.ones(1, 1, 8, 8, 8)], 2)
    found = predict(Place(), image, window=8, overlap=0.75)[0, 0, :, 4, 4]
    assert (found.diff() >= 0).all() and len(found.unique()) > 6


def test_flips_make_the_prediction_of_a_mirrored_volume_the_mirrored_prediction(model):
    image = torch.rand(1, 1, 8, 16, 32)
    expected = predict(model, image, flips=True)
    for axis in (2, 3, 4):
        mirrored = predict(model, image.flip(axis), flips=True).flip(axis)
        torch.testing.assert_close(mirrored, expected, atol=1e-5, rtol=1e-4)
        assert (predict(model, image.flip(axis)).flip(axis) - predict(model, image)).abs().max() > 1e-5


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            (1, 1, 32, 32),
            r"expected shape \(B, C, D, H, W\), got \(1, 1, 32, 32\); of one volume: image\[None\]; images",
        ),
        ((1, 16, 32, 32, 1), r"expected shape \(B, 1, D, H, W\), got .*: image.permute\(0, 4, 1, 2, 3\)"),
        (
            (1, 1, 1, 32, 32),
            "a volume of at least 2 x 8 x 8 voxels, got 1 x 32 x 32: .*slices for one with spatial_dims=2",
        ),
        ((1, 1, 8, 5, 32), "a volume of at least 2 x 8 x 8 voxels, got 8 x 5 x 32: .*network with strides of 1 along"),
    ],
    ids=str,
)
def test_what_is_no_volume_is_named(model, shape, message):
    with pytest.raises(ValueError, match=message):
        predict(model, torch.rand(shape))


def test_other_bad_arguments_are_named(model):
    image = torch.rand(1, 1, 8, 32, 32)
    flat = create_model("rwkv_unet_p")
    with pytest.raises(ValueError, match=r"expected shape \(B, C, H, W\), got .*; a volume is for .* spatial_dims=3"):
        predict(flat, image)
    with pytest.raises(ValueError, match=r"window: expected at least \(4, 16, 16\) pixels, got \(2, 16, 16\)"):
        predict(model, image, window=(2, 16, 16))
    with pytest.raises(ValueError, match=r"window: expected at least \(4, 16, 16\) pixels, got \(16, 16\)"):
        predict(model, image, window=(16, 16))
    with pytest.raises(ValueError, match="size: expected None for volumes, got 32; resample them"):
        predict(model, image, size=32)
