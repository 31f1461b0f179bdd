"""Losses by name."""

import torch.nn as nn
from monai.losses import DiceCELoss

# Weights of Dice and cross-entropy.
LOSSES = {"dice_ce": (1.0, 0.5), "dice_ce_synapse": (0.5, 0.5), "dice_ce_acdc": (0.8, 0.2)}


def make_loss(name: str, num_classes: int) -> nn.Module:
    """Dice over the whole batch, with squared denominators, and cross-entropy. Raises ValueError: unknown name."""
    if name not in LOSSES:
        raise ValueError(f"loss: expected one of {', '.join(LOSSES)}, got {name!r}")
    dice, ce = LOSSES[name]
    common = dict(squared_pred=True, batch=True, lambda_ce=ce, lambda_dice=dice, smooth_nr=1e-5, smooth_dr=1e-5)
    if num_classes == 1:
        return DiceCELoss(sigmoid=True, **common)
    return DiceCELoss(softmax=True, to_onehot_y=True, **common)
