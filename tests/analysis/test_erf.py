"""Receptive fields and costs of layers small enough to know the answer."""

import pytest
import torch

from rwkvlib.analysis import count_macs, count_parameters, effective_receptive_field, receptive_contribution
from rwkvlib.layers import GLSP


def test_a_convolution_sees_its_window():
    conv = torch.nn.Conv2d(2, 3, 5, padding=2)
    seen = receptive_contribution(conv, torch.randn(4, 2, 11, 11)) > 0
    expected = torch.zeros(11, 11, dtype=torch.bool)
    expected[3:8, 3:8] = True
    assert torch.equal(seen, expected)
    assert count_macs(conv, (1, 2, 11, 11)) == 11 * 11 * 5 * 5 * 2 * 3
    assert count_parameters(conv) == 5 * 5 * 2 * 3 + 3


@pytest.mark.parametrize("attention", [True, False])
def test_attention_sees_the_whole_map(attention):
    torch.manual_seed(0)
    block = GLSP(8, 8, 2, attention=attention).eval()
    seen = receptive_contribution(block, torch.randn(2, 8, 16, 16)) > 0
    assert seen.all() if attention else seen.sum() == 25


def test_effective_receptive_field_of_known_maps():
    one = torch.zeros(10, 10)
    one[5, 5] = 1
    assert effective_receptive_field(one) == pytest.approx(0.1)
    assert effective_receptive_field(torch.ones(10, 10), 1.0) == pytest.approx(1.0)
    with pytest.raises(ValueError, match=r"share: expected a number in \(0, 1\], got 0"):
        effective_receptive_field(one, 0)
