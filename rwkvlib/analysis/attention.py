"""Implicit attention: the weights with which Spatial Mix averages the tokens of one image."""

import torch
import torch.nn as nn
from torch import Tensor

from ..layers import SpatialMix
from ..wkv import bi_wkv


def spatial_mixes(model: nn.Module) -> dict[str, SpatialMix]:
    """The Spatial Mixes of a model in the order of its modules, by name, such as ``encoder.stage3.1.att``."""
    return {name: module for name, module in model.named_modules() if isinstance(module, SpatialMix)}


@torch.no_grad()
def implicit_attention(model: nn.Module, x: Tensor, name: str) -> Tensor:
    """What each token takes from each other one in one Spatial Mix, for one image.

    Bi-WKV is linear in its values, ``y_t = sum_i a_ti v_i`` (Vision-RWKV, arXiv 2403.02308, Eq. 5), so the unit vectors
    in the place of the values give the weights, whichever the operator's variant and backend. The gate and the linear
    layers behind the operator are not part of them.

    Args:
        model: holds a `SpatialMix` under this name, and is called with `x`.
        x: (1, C, H, W), one image, or (1, C, D, H, W), one volume.
        name: of `spatial_mixes`.

    Returns:
        (T, T, D): for each of the D channels of the Spatial Mix the share of token i (second index) in the output of
        token t (first index). With variant "paper" they are positive, and each row sums to 1. Memory: 3 T T D numbers.

    Raises:
        ValueError: an unknown name, an operator that averages over several orders of the tokens, or not one image.
    """
    mixes = spatial_mixes(model)
    if name not in mixes:
        raise ValueError(f"name: expected one of {', '.join(mixes) or '(the model has no Spatial Mix)'}, got {name!r}")
    if mixes[name].order != "rows":
        raise ValueError(f"name: expected a Spatial Mix of order 'rows', got {mixes[name].order!r}")
    if x.ndim not in (4, 5) or x.shape[0] != 1:
        raise ValueError(f"x: expected one image (1, C, H, W) or volume (1, C, D, H, W), got {tuple(x.shape)}")
    mix, keys = mixes[name], []
    hook = mix.key.register_forward_hook(lambda module, inputs, output: keys.append(output))
    try:
        model(x)
    finally:
        hook.remove()
    (k,) = keys
    k = torch.cat(list(k), -1)[None]  # groups of channels, where there are several, side by side
    _, T, D = k.shape
    units = torch.eye(T, dtype=k.dtype, device=k.device)[..., None].expand(T, T, D)  # [i, t]: the value is 1 at i
    decay, bonus = (w.repeat(mix.groups) / T for w in (mix.spatial_decay, mix.spatial_first))
    shares = bi_wkv(
        decay, bonus, k.expand(T, T, D).contiguous(), units.contiguous(), variant=mix.variant, backend=mix.backend
    )
    return shares.transpose(0, 1)
