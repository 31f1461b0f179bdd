"""What the tests of networks share."""

import torch

from rwkvlib import create_model
from rwkvlib.analysis import spatial_mixes


def seeded(**config):
    """RWKV-UNet-T with these fields, and decays and bonuses away from 0, where every token has the same weight."""
    torch.manual_seed(0)
    model = create_model("rwkv_unet_t", **config)
    with torch.no_grad():
        for mix in spatial_mixes(model).values():
            mix.spatial_decay.uniform_(-3, 3)
            mix.spatial_first.uniform_(-3, 3)
    return model
