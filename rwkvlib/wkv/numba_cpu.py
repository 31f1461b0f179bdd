"""The two scans compiled for the CPU by Numba (optional: ``pip install "rwkvlib[cpu]"``), the default there.

The sequential recurrence of scan.py, for a block of channels at a time: the inner loops run over channels, which
LLVM turns into SIMD instructions, and the states of one block stay in the second-level cache. Threads share out the
(batch item, channel block) pairs. They are plain Python threads around kernels that release the GIL, so that
`torch.set_num_threads` is obeyed and a forked data loader meets no second thread pool.
"""

import math
import threading
from collections.abc import Callable

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload
from torch import Tensor

BLOCK = 64  # channels; the states of a 28x28 map are then 200 kB an array
# Elements above which threads share the work. Below some milliseconds a second one gains nothing inside a model:
# PyTorch's own threads go on spinning on the other cores for a while after each of its operations.
THREADED = 2**20
LOW = np.float32(-1e30)  # log of an empty sum: finite, so that no difference of two of them is NaN
ZERO, ONE = np.float32(0.0), np.float32(1.0)


@intrinsic
def _float_from_bits(typingctx, bits):
    """The float32 whose bit pattern is the given int32."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), codegen


@intrinsic
def _bits_from_float(typingctx, x):
    """The bit pattern of the given float32, as an int32."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.IntType(32))

    return types.int32(types.float32), codegen


def _exp(x):
    """exp for x <= 0 inside the kernels (a rounding error above 0 is fine)."""
    raise NotImplementedError("compiled code only")


@overload(_exp, inline="always")
def _exp_overload(x):
    if x != types.float32:
        return lambda x: math.exp(x)

    def exp32(x):
        # A polynomial rather than the C library's exp, since LLVM turns this into SIMD code; relative error 2e-7,
        # and below -87.7, where float32 has subnormals only, 0: at -88 the exponent's bits below are all 0.
        x = max(x, np.float32(-88.0))
        i = np.int32(x * np.float32(1.4426950408889634) - np.float32(0.5))  # rounds to nearest, as x <= 0
        n = np.float32(i)
        f = (x - n * np.float32(0.693359375)) + n * np.float32(2.12194440e-4)  # x - n ln 2, ln 2 in two parts
        p = np.float32(1.9875691500e-4)  # the Cephes polynomial for exp on [-ln 2 / 2, ln 2 / 2]
        p = p * f + np.float32(1.3981999507e-3)
        p = p * f + np.float32(8.3334519073e-3)
        p = p * f + np.float32(4.1665795894e-2)
        p = p * f + np.float32(1.6666665459e-1)
        p = p * f + np.float32(5.0000001201e-1)
        p = p * f * f + f + ONE
        return p * _float_from_bits(np.int32((i + np.int32(127)) << np.int32(23)))

    return exp32


def _log(x):
    """The natural logarithm of a normal x > 0 inside the kernels."""
    raise NotImplementedError("compiled code only")


@overload(_log, inline="always")
def _log_overload(x):
    if x != types.float32:
        return lambda x: math.log(x)

    def log32(x):
        # As for exp: SIMD. x = 2^n (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)), and the Cephes polynomial.
        bits = _bits_from_float(x)
        i = np.int32((bits - np.int32(0x3F3504F3)) >> np.int32(23))
        n = np.float32(i)
        f = _float_from_bits(np.int32(bits - (i << np.int32(23)))) - ONE
        p = np.float32(7.0376836292e-2)
        p = p * f - np.float32(1.1514610310e-1)
        p = p * f + np.float32(1.1676998740e-1)
        p = p * f - np.float32(1.2420140846e-1)
        p = p * f + np.float32(1.4249322787e-1)
        p = p * f - np.float32(1.6668057665e-1)
        p = p * f + np.float32(2.0000714765e-1)
        p = p * f - np.float32(2.4999993993e-1)
        p = p * f + np.float32(3.3333331174e-1)
        p = p * f * f * f - np.float32(0.5) * f * f + f
        return n * np.float32(-2.12194440e-4) + p + n * np.float32(0.693359375)

    return log32


def _jit(function: Callable) -> Callable:
    # Infinities and NaN keep their meaning: no `nnan`, no `ninf`.
    options = dict(nogil=True, fastmath={"contract", "nsz", "arcp", "reassoc"}, error_model="numpy")
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # no folder that can be written to: compile in every process
        return njit(**options)(function)


@njit(inline="always")
def _empty_state(s):
    """A state has the rows: two sums divided by exp(top); the logit that made top, its age in tokens; top."""
    s[:] = 0
    s[2, :], s[4, :] = LOW, LOW


@njit(inline="always")
def _step(s, w, logit, sign, a, b):
    """One token of the recurrence: the sums decay by exp(-w) and take in exp(sign * logit) times (a, b)."""
    for c in range(w.shape[0]):
        new = sign * logit[c]
        # From its origin and age, as subtracting w at every token would add up T rounding errors of the same sign.
        old = s[2, c] - (s[3, c] + ONE) * w[c]
        z = old - new
        e = _exp(-abs(z))  # of the two factors one is 1, so one exponential does
        p, q = (e, ONE) if z < 0 else (ONE, e)
        s[0, c] = p * s[0, c] + q * a[c]
        s[1, c] = p * s[1, c] + q * b[c]
        s[2, c] = new if z < 0 else s[2, c]
        s[3, c] = ZERO if z < 0 else s[3, c] + ONE
        s[4, c] = max(old, new)


@_jit
def _forward(w, u, k, v, y, logden, b, c0, c1):
    """One batch item and the channels c0 to c1: the states right of every token are kept, then met from the left."""
    T, n = k.shape[1], c1 - c0
    w, u = w[c0:c1], u[c0:c1]
    ones = np.ones(n, k.dtype)
    right = np.empty((3, T, n), k.dtype)
    s = np.empty((5, n), k.dtype)
    _empty_state(s)
    for t in range(T - 1, -1, -1):
        for c in range(n):
            right[0, t, c], right[1, t, c], right[2, t, c] = s[0, c], s[1, c], s[4, c]
        _step(s, w, k[b, t, c0:c1], ONE, v[b, t, c0:c1], ones)
    _empty_state(s)
    for t in range(T):
        kt, vt, yt, lt = k[b, t, c0:c1], v[b, t, c0:c1], y[b, t, c0:c1], logden[b, t, c0:c1]
        for c in range(n):
            own = u[c] + kt[c]
            m = max(max(s[4, c], right[2, t, c]), own)
            p, f, o = _exp(s[4, c] - m), _exp(right[2, t, c] - m), _exp(own - m)
            den = p * s[1, c] + f * right[1, t, c] + o
            yt[c] = (p * s[0, c] + f * right[0, t, c] + o * vt[c]) / den
            lt[c] = m + _log(den)
        _step(s, w, kt, ONE, vt, ones)


@_jit
def _backward(w, u, k, v, logden, g, gy, dw, du, dk, dv, b, c0, c1):
    """One batch item and the channels c0 to c1; the equations are those of `tree.backward`."""
    T, n = k.shape[1], c1 - c0
    w, u, dw, du = w[c0:c1], u[c0:c1], dw[b, c0:c1], du[b, c0:c1]
    ones = np.ones(n, k.dtype)
    right = np.empty((6, T, n), k.dtype)
    s, r = np.empty((5, n), k.dtype), np.empty((5, n), k.dtype)  # sums of exp(k) (v, 1), and of (g, gy) / D
    _empty_state(s)
    _empty_state(r)
    for t in range(T - 1, -1, -1):
        for c in range(n):
            right[0, t, c], right[1, t, c], right[2, t, c] = s[0, c], s[1, c], s[4, c]
            right[3, t, c], right[4, t, c], right[5, t, c] = r[0, c], r[1, c], r[4, c]
        _step(s, w, k[b, t, c0:c1], ONE, v[b, t, c0:c1], ones)
        _step(r, w, logden[b, t, c0:c1], -ONE, g[b, t, c0:c1], gy[b, t, c0:c1])
    _empty_state(s)
    _empty_state(r)
    dw[:], du[:] = 0, 0
    for t in range(T):
        kt, vt, lt, gt, ht = k[b, t, c0:c1], v[b, t, c0:c1], logden[b, t, c0:c1], g[b, t, c0:c1], gy[b, t, c0:c1]
        dkt, dvt = dk[b, t, c0:c1], dv[b, t, c0:c1]
        for c in range(n):
            p, f, o = _exp(kt[c] + r[4, c]), _exp(kt[c] + right[5, t, c]), _exp(u[c] + kt[c] - lt[c])
            d = p * r[0, c] + f * right[3, t, c] + o * gt[c]
            dvt[c] = d
            dkt[c] = vt[c] * d - (p * r[1, c] + f * right[4, t, c] + o * ht[c])
            du[c] += o * (vt[c] * gt[c] - ht[c])
        for c in range(n):
            p, f = _exp(s[4, c] + right[5, t, c] - w[c]), _exp(right[2, t, c] + r[4, c] - w[c])
            dw[c] -= p * (s[0, c] * right[3, t, c] - s[1, c] * right[4, t, c]) + f * (
                right[0, t, c] * r[0, c] - right[1, t, c] * r[1, c]
            )
        _step(s, w, kt, ONE, vt, ones)
        _step(r, w, lt, -ONE, gt, ht)


def _run(kernel: Callable, tensors: list[Tensor], B: int, T: int, C: int) -> None:
    """Calls the kernel for every (batch item, channel block), shared out over the threads."""
    arrays = [x.numpy() for x in tensors]
    threads = torch.get_num_threads() if B * T * C > THREADED else 1
    blocks = math.ceil(C / BLOCK)
    if B % threads:  # an equal number of blocks for every thread
        blocks = math.ceil(blocks / threads) * threads
    width = math.ceil(C / blocks / 16) * 16  # whole SIMD registers
    jobs = [(b, c, min(c + width, C)) for b in range(B) for c in range(0, C, width)]

    def work(first: int) -> None:
        for job in jobs[first::threads]:
            kernel(*arrays, *job)

    others = [threading.Thread(target=work, args=(i,)) for i in range(1, threads)]
    for thread in others:
        thread.start()
    work(0)
    for thread in others:
        thread.join()


def forward(w: Tensor, u: Tensor, k: Tensor, v: Tensor, with_logden: bool = True) -> tuple[Tensor, Tensor | None]:
    """Bi-WKV, and the logarithm of its denominator or None; both (B, T, C), for contiguous float32 or float64 CPU
    tensors."""
    y, logden = torch.empty_like(k), torch.empty_like(k)
    _run(_forward, [w, u, k, v, y, logden], *k.shape)
    return y, logden if with_logden else None


def backward(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, y: Tensor, logden: Tensor, g: Tensor, glogden: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of w, u, k, v (see `tree.backward`); those of w and u are summed over the batch in a fixed order."""
    gy = g * y if glogden is None else g * y - glogden
    dk, dv = torch.empty_like(k), torch.empty_like(k)
    dw, du = (torch.empty(k.shape[0], k.shape[2], dtype=k.dtype) for _ in range(2))
    _run(_backward, [w, u, k, v, logden, g, gy, dw, du, dk, dv], *k.shape)
    return dw.sum(0), du.sum(0), dk, dv
