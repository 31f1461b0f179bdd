"""Bi-WKV in plain tensor operations: the scan as a tree of pairs, O(T C) work in O(log T) steps, on any device.

Neighbouring tokens are combined in pairs, the half as long sequence is scanned by recursion, and the tokens left out
are filled in from their neighbours. Nothing is ever subtracted and every exponent is at most 0.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

State = tuple[Tensor, tuple[Tensor, ...]]  # maximum, and sums divided by exp(maximum): each (B, T, C)


def low(x: Tensor) -> float:
    """Stands for log 0 in the dtype of x, and stays finite when two of them are subtracted."""
    return torch.finfo(x.dtype).min / 4


def combine(earlier: State, later: State, w: Tensor) -> State:
    """The state of two neighbouring stretches, where `earlier` decays by ``exp(-w)`` to reach the end of `later`."""
    (m1, x1), (m2, x2) = earlier, later
    m1 = m1 - w
    m = torch.maximum(m1, m2).clamp(min=low(m1))  # of tokens with k = -inf alone: no -inf minus -inf
    a, b = torch.exp(m1 - m), torch.exp(m2 - m)
    return m, tuple(torch.addcmul(b * q, a, p) for p, q in zip(x1, x2, strict=True))


def inclusive_scan(state: State, w: Tensor) -> State:
    """For every t the sum over i <= t of ``exp(m_i - (t - i) w) x_i``, as a `State`, from the single tokens' states."""
    T = state[0].shape[1]
    if torch.onnx.is_in_onnx_export() and isinstance(T, torch.SymInt):
        return doubling_scan(state, w)
    if T == 1:
        return state

    def take(s: State, index: slice) -> State:
        return s[0][:, index], tuple(x[:, index] for x in s[1])

    odd = inclusive_scan(combine(take(state, slice(0, T - 1, 2)), take(state, slice(1, T, 2)), w), 2 * w)
    before = take(odd, slice(0, (T - 1) // 2))  # the odd tokens that have an even one after them
    even = combine(before, take(state, slice(2, T, 2)), w)

    def weave(first: Tensor, even: Tensor, odd: Tensor) -> Tensor:
        even = torch.cat([first, even], dim=1)
        pairs = torch.stack([even[:, : T // 2], odd], dim=2).flatten(1, 2)
        return pairs if T % 2 == 0 else torch.cat([pairs, even[:, -1:]], dim=1)

    first = take(state, slice(0, 1))
    return weave(first[0], even[0], odd[0]), tuple(weave(*x) for x in zip(first[1], even[1], odd[1], strict=True))


def doubling_scan(state: State, w: Tensor) -> State:
    """`inclusive_scan` for any number of tokens, in O(T C log T): step j combines each token with the state 2^j tokens
    before it, an empty one where there is none (Hillis and Steele, Data parallel algorithms, 1986).

    In a graph T is a symbol, and there are steps for the largest T that its range allows.
    """
    from torch.fx.experimental.symbolic_shapes import statically_known_true  # here, as it takes a second

    T, reach = state[0].shape[1], 1

    def earlier(x: Tensor, fill: float) -> Tensor:
        return F.pad(x, (0, 0, reach, 0), value=fill)[:, :T]

    while not statically_known_true(reach >= T):
        before = earlier(state[0], -math.inf), tuple(earlier(x, 0.0) for x in state[1])
        state = combine(before, state, reach * w)
        reach *= 2
    return state


def neighbours(w: Tensor, k: Tensor, xs: tuple[Tensor, ...]) -> tuple[State, State]:
    """The sums over the tokens before t, and over those after t: ``sum exp(k_i - (|t - i| - 1) w) x_i``, as states."""

    def both_ways(x: Tensor) -> Tensor:
        return torch.cat([x, x.flip(1)])

    def shift(x: Tensor, fill: float) -> Tensor:  # token t gets what token t - 1 has
        return F.pad(x[:, :-1], (0, 0, 1, 0), value=fill)

    m, sums = inclusive_scan((both_ways(k), tuple(both_ways(x) for x in xs)), w)
    m, sums = shift(m, -math.inf), tuple(shift(x, 0.0) for x in sums)
    B = k.shape[0]
    return (m[:B], tuple(x[:B] for x in sums)), (m[B:].flip(1), tuple(x[B:].flip(1) for x in sums))


def forward(w: Tensor, u: Tensor, k: Tensor, v: Tensor, with_logden: bool = True) -> tuple[Tensor, Tensor | None]:
    """Bi-WKV, and the logarithm of its denominator or None; both (B, T, C)."""
    (mp, (np, dp)), (mf, (nf, df)) = neighbours(w, k, (v, torch.ones_like(v)))
    own = u + k
    m = torch.maximum(torch.maximum(mp, mf), own)
    p, f, o = torch.exp(mp - m), torch.exp(mf - m), torch.exp(own - m)
    den = p * dp + f * df + o
    return (p * np + f * nf + o * v) / den, m + den.log() if with_logden else None


def bi_wkv_tree(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Bi-WKV alone. Shapes as in `bi_wkv_oracle`."""
    return forward(w, u, k, v, with_logden=False)[0]


def backward(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, y: Tensor, logden: Tensor, g: Tensor, glogden: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of w, u, k, v from g, that of y, and from that of logden (None: zero). With E_ti the weight of token i
    in the output t:

    ``dv_i = sum_t E_ti g_t / D_t``, ``dk_i = v_i dv_i - sum_t E_ti gy_t / D_t`` where ``gy = g * y``: the same scans
    again, with ``-log D`` in the place of k. Each pair (i, t) has ``|t - i| - 1`` tokens strictly between, so the
    gradient of w is, summed over every token, the product of what comes from its one side and goes to its other.
    """
    gy = g * y if glogden is None else g * y - glogden
    (mp, (np, dp)), (mf, (nf, df)) = neighbours(w, k, (v, torch.ones_like(v)))
    (qp, (gp, hp)), (qf, (gf, hf)) = neighbours(w, -logden, (g, gy))
    p, f, o = torch.exp(k + qp), torch.exp(k + qf), torch.exp(u + k - logden)
    dv = p * gp + f * gf + o * g
    dk = v * dv - (p * hp + f * hf + o * gy)
    du = (o * (v * g - gy)).sum((0, 1))
    across = torch.exp(mp + qf - w) * (np * gf - dp * hf) + torch.exp(mf + qp - w) * (nf * gp - df * hp)
    return -across.sum((0, 1)), du, dk, dv


def published(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """What the published CUDA kernel computes (`published_weights` in oracle.py) in O(T C log T), shapes as there.

    A token sees the later ones with one decay more than in the definition, and so the earlier chunks; in its own chunk
    the definition's weights, plus a leak of ``(1 - exp(w)) exp(w (t - i))`` from every token but the chunk's first.
    """
    B, T, C = k.shape
    k, v = k.contiguous(), v.contiguous()
    L = math.ceil(T / 32)
    n = math.ceil(T / L)

    def chunks(x: Tensor, fill: float) -> Tensor:
        return F.pad(x, (0, 0, 0, n * L - T), value=fill).reshape(B * n, L, C)

    def tokens(x: Tensor) -> Tensor:
        return x.reshape(B, n * L, C)[:, :T]

    ones = torch.ones_like(v)
    (mp, sums_p), (mf, sums_f) = neighbours(w, k, (v, ones))
    kc, xs = chunks(k, low(k)), (chunks(v, 0.0), chunks(ones, 1.0))
    (mc, sums_c), _ = neighbours(w, kc, xs)  # the tokens before t in its own chunk
    kq = torch.cat([torch.full_like(kc[:, :1], low(k)), kc[:, 1:]], dim=1)  # the chunk's first token leaks nothing
    mq, sums_q = inclusive_scan((kq, xs), -w)

    # The earlier chunks: the state at the chunk's first token, decayed to t.
    # Repeated by `expand`, whose gradient sums in a fixed order; that of indexing does not.
    def first(x: Tensor) -> Tensor:
        return tokens(x[:, ::L, None].expand(-1, -1, L, -1))

    since = (torch.arange(T, device=k.device) % L)[:, None]
    me, sums_e = first(mp) - (since + 1) * w, [first(x) for x in sums_p]
    own = u + k
    parts = [
        (mf - w, 1.0, sums_f),
        (me, 1.0, sums_e),
        (tokens(mc), 1.0, [tokens(x) for x in sums_c]),
        (tokens(mq), -torch.expm1(w), [tokens(x) for x in sums_q]),
        (own, 1.0, (v, ones)),
    ]
    m = torch.stack([part[0] for part in parts]).amax(0).detach()
    num = sum(sign * torch.exp(top - m) * sums[0] for top, sign, sums in parts)
    den = sum(sign * torch.exp(top - m) * sums[1] for top, sign, sums in parts)
    return num / den


def published_backward(w: Tensor, u: Tensor, k: Tensor, v: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of w, u, k, v, by PyTorch."""
    return torch.func.vjp(published, w, u, k, v)[1](g)
