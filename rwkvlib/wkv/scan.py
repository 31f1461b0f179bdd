"""The linear recurrence, one token at a time, in log space: the backend that the book explains."""

import torch
from torch import Tensor


def states(w: Tensor, k: Tensor, v: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """The sums over the tokens before t, for every t, each as (numerator, denominator, maximum), (B, C).

    The true sums are ``numerator * exp(maximum)`` and ``denominator * exp(maximum)``; keeping the largest exponent
    apart (the online softmax of Milakov and Gimelshein) is what prevents overflow and 0/0.
    Vision-RWKV, arXiv 2403.02308, Eq. 6-7.
    """
    num, den, top = torch.zeros_like(k[:, 0]), torch.zeros_like(k[:, 0]), torch.full_like(k[:, 0], -torch.inf)
    out = []
    for t in range(k.shape[1]):
        out.append((num, den, top))
        # Clamped for a first token with k = -inf, where the difference below were one of two infinities.
        new_top = torch.maximum(top - w, k[:, t]).clamp(min=torch.finfo(k.dtype).min / 4)
        old, new = torch.exp(top - w - new_top), torch.exp(k[:, t] - new_top)
        num, den, top = old * num + new * v[:, t], old * den + new, new_top
    return out


def bi_wkv_scan(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Bi-WKV by two sequential scans, left to right and right to left: O(T C) time. Shapes as in `bi_wkv_oracle`."""
    past = states(w, k, v)
    future = states(w, k.flip(1), v.flip(1))[::-1]
    y = []
    for t, ((num_p, den_p, top_p), (num_f, den_f, top_f)) in enumerate(zip(past, future, strict=True)):
        own = u + k[:, t]
        top = torch.maximum(torch.maximum(top_p, top_f), own)
        p, f, o = torch.exp(top_p - top), torch.exp(top_f - top), torch.exp(own - top)
        y.append((p * num_p + f * num_f + o * v[:, t]) / (p * den_p + f * den_f + o))
    return torch.stack(y, dim=1)
