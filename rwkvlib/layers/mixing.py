"""The two halves of a Vision-RWKV block: Spatial Mix (between tokens) and Channel Mix (between channels)."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn as nn
from torch import Tensor

from ..wkv import bi_wkv
from .shift import q_shift


class DropPath(nn.Module):
    """Drops a residual branch for whole images, with probability ``p``, while training (stochastic depth).

    Raises:
        ValueError: p is not in [0, 1).
    """

    def __init__(self, p: float):
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"p: expected a probability in [0, 1), got {p!r}")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if self.p == 0 or not self.training:
            return x
        keep = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device) >= self.p
        return x * keep / (1 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p:g}"


def _mix(x: Tensor, xx: Tensor, share: Tensor) -> Tensor:
    """``x * share + xx * (1 - share)``, in the form that rounds and moves memory once."""
    return torch.lerp(xx, x, share.to(x.dtype).expand_as(x))


def mean_over_axes(wkv: Callable[[Tensor, Tensor], Tensor], k: Tensor, v: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The mean of ``wkv(k, v)`` over the orders of a map's tokens in which one axis after another runs fastest.

    After U-RWKV (10.1109/TIP.2026.3654389), which fuses its three directions with learned weights; here they weigh the
    same and share all parameters, so that the networks of both orders have the same weights.

    Args: ``k``, ``v`` (B, T, C), tokens in row-major order of a map of that shape. Returns the same shape and order.
    """
    outputs = []
    for axis in range(1, 1 + len(shape)):
        y = wkv(*(x.unflatten(1, shape).movedim(axis, -2).flatten(1, -2) for x in (k, v)))
        turned = (*shape[: axis - 1], *shape[axis:], shape[axis - 1])
        outputs.append(y.unflatten(1, turned).movedim(-2, axis).flatten(1, -2))
    return torch.stack(outputs).mean(0)


class SpatialMix(nn.Module):
    """Tokens exchange what they hold by Bi-WKV, gated by their receptance (Vision-RWKV, arXiv 2403.02308, Eq. 1-5).

    ``y = W_o (sigmoid(r) * LayerNorm(bi_wkv(decay / T, first / T, k, v)))`` with r, k, v linear in a learned mix of
    the tokens and their Q-Shift.

    Args:
        dim: C, the number of channels.
        groups: of channels, which all go through the same layer of ``dim / groups`` channels: fewer parameters by
            ``groups ** 2`` (after UltraLight VM-UNet, arXiv 2403.20035).
        use_q_shift: False mixes the tokens with nothing (``xx = x``).
        learn_decay: False keeps decay and bonus at 0, the plain average with which training starts.
        order: of the tokens that the operator sees: "rows", one row, and one slice, after the other; or "axes", the
            mean over the orders in which each axis runs fastest, see `mean_over_axes`.
        variant, backend: of the operator, see `rwkvlib.bi_wkv`.

    Raises: ValueError where `groups` does not divide `dim`.
    """

    def __init__(
        self,
        dim: int,
        *,
        groups: int = 1,
        use_q_shift: bool = True,
        learn_decay: bool = True,
        order: str = "rows",
        variant: str = "paper",
        backend: str = "auto",
    ):
        super().__init__()
        if groups < 1 or dim % groups:
            raise ValueError(f"groups: expected a divisor of {dim} channels, got {groups}")
        self.groups, self.use_q_shift, self.order = groups, use_q_shift, order
        self.variant, self.backend = variant, backend
        dim //= groups
        self.spatial_decay = nn.Parameter(torch.zeros(dim), requires_grad=learn_decay)
        self.spatial_first = nn.Parameter(torch.zeros(dim), requires_grad=learn_decay)
        self.spatial_mix_k = nn.Parameter(torch.full((1, 1, dim), 0.5))
        self.spatial_mix_v = nn.Parameter(torch.full((1, 1, dim), 0.5))
        self.spatial_mix_r = nn.Parameter(torch.full((1, 1, dim), 0.5))
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.receptance = nn.Linear(dim, dim, bias=False)
        self.key_norm = nn.LayerNorm(dim)
        self.output = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Tokens (B, T, C) of a map of that shape, (height, width) or (depth, height, width), to the same."""
        T = x.shape[1]
        if self.groups > 1:
            x = torch.cat(x.chunk(self.groups, -1))  # one after the other in the batch
        xx = q_shift(x, shape) if self.use_q_shift else x
        k = self.key(_mix(x, xx, self.spatial_mix_k))
        v = self.value(_mix(x, xx, self.spatial_mix_v))
        r = self.receptance(_mix(x, xx, self.spatial_mix_r))
        decay, bonus = self.spatial_decay / T, self.spatial_first / T
        wkv = partial(bi_wkv, decay, bonus, variant=self.variant, backend=self.backend)
        y = wkv(k, v) if self.order == "rows" else mean_over_axes(wkv, k, v, shape)
        y = self.output(torch.sigmoid(r) * self.key_norm(y))
        return y if self.groups == 1 else torch.cat(y.unflatten(0, (self.groups, -1)).unbind(), -1)


class ChannelMix(nn.Module):
    """Channels of one token (and of its neighbours along each axis) are mixed (Vision-RWKV, arXiv 2403.02308, Eq. 9).

    ``y = sigmoid(r) * W_v LayerNorm(relu(k)^2)`` with hidden width ``2 * dim``.
    """

    def __init__(self, dim: int, *, use_q_shift: bool = True):
        super().__init__()
        self.use_q_shift = use_q_shift
        self.spatial_mix_k = nn.Parameter(torch.full((1, 1, dim), 0.5))
        self.spatial_mix_r = nn.Parameter(torch.full((1, 1, dim), 0.5))
        self.key = nn.Linear(dim, 2 * dim, bias=False)
        self.key_norm = nn.LayerNorm(2 * dim)
        self.receptance = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(2 * dim, dim, bias=False)

    def forward(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Tokens (B, T, C) of a map of that shape, (height, width) or (depth, height, width), to the same."""
        xx = q_shift(x, shape) if self.use_q_shift else x
        k = self.key(_mix(x, xx, self.spatial_mix_k))
        r = self.receptance(_mix(x, xx, self.spatial_mix_r))
        return torch.sigmoid(r) * self.value(self.key_norm(torch.relu(k).square()))
