"""The network of the pages: what its controls change is what the text says of them."""

import base64
import gzip
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from book import network
from rwkvlib import create_model, load_pretrained, predict
from rwkvlib.data.pixels import normalise


@pytest.fixture(scope="module")
def model():
    model = load_pretrained("rwkv_unet_p_synthetic")[0].eval()
    with torch.no_grad():  # as learned they are near 0, and a fault would not show
        for name, value in model.named_parameters():
            if name.endswith(("spatial_decay", "spatial_first")):
                value.uniform_(-3, 3, generator=torch.Generator().manual_seed(0))
    return model


def numbers(*values):
    return [torch.tensor(float(value)) for value in values]


@torch.no_grad()
def test_controls_change_decay_bonus_and_operator(model):
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    controlled = network.Controlled(model)
    torch.testing.assert_close(controlled(image, *numbers(1, 1, 1)), model(normalise(image)))
    other = create_model("rwkv_unet_p").eval()
    for factors in ((2.5, 1, 1), (1, 0, 1)):
        state = dict(model.state_dict())
        for name, value in model.state_dict().items():
            if name.endswith("spatial_decay"):
                state[name] = value * factors[0]
            if name.endswith("spatial_first"):
                state[name] = value * factors[1]
        other.load_state_dict(state)
        expected = other(normalise(image))
        assert not torch.allclose(expected, model(normalise(image)), atol=1e-4)
        torch.testing.assert_close(controlled(image, *numbers(*factors)), expected)
    without = load_pretrained("rwkv_unet_p_synthetic")[0].eval()
    for block in without.modules():
        if hasattr(block, "att"):
            block.att = None
    torch.testing.assert_close(controlled(image, *numbers(1, 1, 0)), without(normalise(image)), atol=1e-5, rtol=1e-5)


def test_what_is_packed_comes_out_again():
    content = bytes(range(256)) * 100
    assert gzip.decompress(base64.b64decode(network.packed(content))) == content
    assert len(network.packed(content)) < len(content)
    text = network.script(name="pico").decode()
    assert json.loads(text[text.index(" {", 40) : text.rindex(")")]) == {"name": "pico"}


def test_pictures_are_square_and_the_network_finds_the_lumps():
    shown = network.pictures()
    model = load_pretrained("rwkv_unet_p_synthetic")[0]
    for picture in shown:
        assert picture["image"].shape == (network.SIZE, network.SIZE, 3) and picture["image"].dtype == np.uint8
        assert picture["mask"].shape == (network.SIZE, network.SIZE) and set(np.unique(picture["mask"])) <= {0, 1}
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(network.png(picture["image"])))), picture["image"])
    for picture in shown[:2]:
        found = predict(model, torch.from_numpy(picture["image"]).permute(2, 0, 1)[None] / 255)[0, 0].numpy() > 0
        truth = picture["mask"] > 0
        assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.9
