"""What follows from the definition for any input, on shapes that hypothesis chooses."""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rwkvlib.wkv import bi_wkv
from tests.wkv.conftest import PATHS, assert_near, make_inputs, published_decay

PAPER = [("paper", "numba"), ("paper", "tree"), ("paper", "scan"), ("paper", "cuda")]
case = st.tuples(
    st.integers(1, 3), st.integers(1, 70), st.integers(1, 9), st.floats(-1, 1), st.sampled_from([0.5, 3.0, 30.0])
)


def on_any_input(paths):
    """Runs the test as test(f, w, u, k, v), with f every path of these and inputs of any shape."""

    def decorate(test):
        @pytest.mark.parametrize(("variant", "backend"), paths)
        @settings(deadline=None, max_examples=10, derandomize=True, database=None)
        @given(case=case)
        def run(variant, backend, case):
            B, T, C, share, k = case
            test(
                functools.partial(bi_wkv, variant=variant, backend=backend),
                *make_inputs(B, T, C, published_decay(T, share), k, seed=T),
            )

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return decorate


@on_any_input(PAPER)
def test_reversing_the_tokens_reverses_the_output(f, w, u, k, v):
    assert_near(f(w, u, k.flip(1), v.flip(1)), f(w, u, k, v).flip(1), 1e-12)


@on_any_input(PAPER)
def test_output_lies_between_the_smallest_and_largest_value(f, w, u, k, v):
    y = f(w, u, k, v)
    assert (y >= v.amin(1, keepdim=True) - 1e-12).all()
    assert (y <= v.amax(1, keepdim=True) + 1e-12).all()


@on_any_input(PATHS)
def test_channels_are_independent(f, w, u, k, v):
    order = torch.randperm(k.shape[2], generator=torch.Generator().manual_seed(0))
    y = f(w, u, k, v)
    assert_near(f(w[order], u[order], k[..., order], v[..., order]), y[..., order], 1e-12)
    assert_near(f(w[:1], u[:1], k[..., :1], v[..., :1]), y[..., :1], 1e-12)


@on_any_input(PATHS)
def test_batch_items_are_independent(f, w, u, k, v):
    y = f(w, u, k, v)
    for b in range(k.shape[0]):
        assert_near(f(w, u, k[b : b + 1], v[b : b + 1]), y[b : b + 1], 1e-12)


@on_any_input(PATHS)
def test_adding_a_constant_to_k_changes_nothing(f, w, u, k, v):
    y = f(w, u, k, v)
    for constant in (-50.0, 3.0, 1000.0):
        assert_near(f(w, u, k + constant, v), y, 1e-10)


@on_any_input(PATHS)
def test_output_is_linear_in_v(f, w, u, k, v):
    assert_near(f(w, u, k, 2 * v - 3), 2 * f(w, u, k, v) - 3, 1e-11)


@on_any_input(PATHS)
def test_without_decay_and_bonus_it_is_a_softmax_average(f, w, u, k, v):
    expected = (k.softmax(1) * v).sum(1, keepdim=True).expand_as(v)
    assert_near(f(torch.zeros_like(w), torch.zeros_like(u), k, v), expected, 1e-12)


@on_any_input(PAPER)
def test_under_a_large_decay_a_token_sees_itself_and_its_neighbours(f, w, u, k, v):
    y = f(torch.full_like(w, 1e4), u, k, v)
    for t in range(k.shape[1]):
        near = slice(max(t - 1, 0), t + 2)
        own = torch.arange(k.shape[1])[near, None] == t
        expected = ((k[:, near] + own * u).softmax(1) * v[:, near]).sum(1)
        assert_near(y[:, t], expected, 1e-12)


@on_any_input(PATHS)
def test_strides_of_the_inputs_do_not_matter(f, w, u, k, v):
    expected = f(w, u, k, v)
    strided = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in (k, v)]
    assert_near(f(w.repeat_interleave(2)[::2], u.repeat_interleave(3)[::3], *strided), expected, 1e-12)
