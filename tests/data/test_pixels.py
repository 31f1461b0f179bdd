"""Pixels to tensors, and to the scale of the models."""

import pytest
import torch

from rwkvlib.data.pixels import normalise


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_three_channels_have_imagenets_scale_and_others_one_for_all(channels):
    image = torch.rand(2, channels, 3, 5)
    mean, std = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]) if channels == 3 else ([0.5] * 4, [0.25] * 4)
    for c in range(channels):
        torch.testing.assert_close(normalise(image)[:, c], (image[:, c] - mean[c]) / std[c])
