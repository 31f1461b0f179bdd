"""The definition, written down: O(T^2) weights, nothing clever. Every other backend is tested against this file."""

import math

import torch
from torch import Tensor


def bi_wkv_oracle(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Bi-WKV by its definition (Vision-RWKV, arXiv 2403.02308, Eq. 5): a softmax over the tokens.

    The logit of token i as seen from t is ``k_i - (|t - i| - 1) w``, and ``u + k_t`` for the token itself.

    Args: ``w``, ``u`` (C,); ``k``, ``v`` (B, T, C). Returns (B, T, C). Memory: B * T * T * C numbers.
    """
    t = torch.arange(k.shape[1], device=k.device)
    distance = (t[:, None] - t[None, :]).abs()[..., None]  # (T, T, 1)
    logits = torch.where(distance == 0, u, -(distance - 1) * w) + k[:, None]  # (B, T, T, C)
    return torch.einsum("btic,bic->btc", logits.softmax(dim=2), v)


def published_weights(w: Tensor, u: Tensor, T: int) -> Tensor:
    """The factors of exp(k_i) in the published CUDA kernel (closed form of what it computes), (T, T, C), rows t.

    The kernel cuts the tokens into chunks of ``L = ceil(T / 32)`` and leaks ``1 - exp(w)`` inside a chunk, so some
    factors are negative for w > 0. It equals the definition only where w = 0.
    """
    t = torch.arange(T, device=w.device)
    start = t // math.ceil(T / 32) * math.ceil(T / 32)  # first token of t's chunk
    d = (t[:, None] - t[None, :])[..., None]  # t - i
    same_chunk = (t[None, :] >= start[:, None])[..., None]
    leak = torch.where((t[None, :] > start[:, None])[..., None], 1 - w.exp(), torch.zeros_like(w))
    # The distance is clamped where a branch is not taken, so that the gradient of `where` meets no overflow there.
    far = torch.exp(-w * d.abs())
    near = torch.exp(-w * (d - 1).clamp(min=0)) + leak * torch.exp(w * torch.where(same_chunk, d, 0).clamp(min=0))
    return torch.where(d < 0, far, torch.where(d == 0, u.exp() + leak, torch.where(same_chunk, near, far)))


def published_oracle(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What the published CUDA kernel computes, without its 1e-6 in the denominator. Shapes as in `bi_wkv_oracle`."""
    weights = published_weights(w, u, k.shape[1]) * torch.exp(k - k.amax(dim=1, keepdim=True).detach())[:, None]
    return torch.einsum("btic,bic->btc", weights, v) / weights.sum(dim=2)
