"""Vectors of numbers in compiled loops: every operation against NumPy's, in both precisions and several widths."""

import numpy as np
import pytest
import torch
from numba import njit
from numba.core.errors import TypingError

from statespace.kernels import lanes, vectors
from statespace.kernels.vectors import (
    loading,
    odd,
    power_of_two,
    somewhere,
    splatting,
    store,
    turned,
    where,
)

WIDTHS = [4, 8, 16]
KINDS = pytest.mark.parametrize(("dtype", "width"), [(dtype, w) for dtype in (np.float32, np.float64) for w in WIDTHS])
load4, load8 = loading(4), loading(8)


def arithmetic(load, width):
    @njit
    def loop(x, y, out):
        a, b = load(x, 0), load(y, 0)
        store(a + b, out, 0)
        store(a - b, out, width)
        store(a * b, out, 2 * width)
        store(a / b, out, 3 * width)
        store(2.5 - a * 3, out, 4 * width)
        store(-a, out, 5 * width)

    return loop


def functions(load, width):
    @njit
    def loop(x, y, out):
        a, b = load(x, 0), load(y, 0)
        store(vectors.fused(a, b, a), out, 0)
        store(vectors.nearest(a), out, width)
        store(vectors.at_least(a, 0.25), out, 2 * width)
        store(vectors.without_tiny(a, 0.25), out, 3 * width)
        vectors.prefetch(x, 1 << 40)  # no address of ours, and no matter
        store(vectors.nothing(a) + vectors.reciprocal(a), out, 4 * width)
        store(where((a > 0.25) & ~(b < 0.0) | (a == b), a, b), out, 5 * width)

    return loop


def comparisons(load, width):
    @njit
    def loop(x, y, out):
        a, b = load(x, 0), load(y, 0)
        no = vectors.nothing(a)
        yes = no + 1.0
        store(where(a < b, yes, no), out, 0)
        store(where(a <= b, yes, no), out, width)
        store(where(a > 0.5, yes, no), out, 2 * width)
        store(where(0.5 >= b, yes, no), out, 3 * width)  # noqa: SIM300 (a float on the left)
        store(where(a == b, yes, no), out, 4 * width)
        store(where(a != b, yes, no), out, 5 * width)

    return loop


def call(build, dtype, width):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, width)).astype(dtype)
    x[0], y[1], x[2] = y[0], np.nan, 0.5
    out = np.full(6 * width, np.nan, dtype)
    build(loading(width), width)(x, y, out)
    return x, y, out.reshape(6, width)


@KINDS
def test_arithmetic(dtype, width):
    x, y, out = call(arithmetic, dtype, width)
    expected = [x + y, x - y, x * y, x / y, 2.5 - 3 * x, -x]
    np.testing.assert_allclose(out, expected, rtol=4 * np.finfo(dtype).eps)


@KINDS
def test_functions(dtype, width):
    x, y, out = call(functions, dtype, width)
    chosen = np.where((x > 0.25) & ~(y < 0) | (x == y), x, y)
    expected = [x * y + x, np.rint(x), np.maximum(x, 0.25), np.where(abs(x) > 0.25, x, 0), 1 / x, chosen]
    np.testing.assert_allclose(out, expected, rtol=4 * np.finfo(dtype).eps, atol=4 * np.finfo(dtype).eps)


@KINDS
def test_comparisons(dtype, width):
    x, y, out = call(comparisons, dtype, width)
    np.testing.assert_array_equal(out, [x < y, x <= y, x > 0.5, y <= 0.5, x == y, x != y])


@KINDS
def test_powers_of_two_and_odd_numbers(dtype, width):
    load = loading(width)

    @njit
    def loop(x, out, magic):
        shifted = load(x, 0) + magic
        power = power_of_two(shifted)
        store(power, out, 0)
        store(where(odd(shifted), power, vectors.nothing(power)), out, width)

    mantissa, lowest = (23, -126) if dtype == np.float32 else (52, -1022)
    x = np.linspace(lowest, 1, width).round().astype(dtype)
    out = np.empty(2 * width, dtype)
    loop(x, out, 1.5 * 2.0**mantissa)
    powers = np.exp2(x.astype(np.float64))
    np.testing.assert_array_equal(out.reshape(2, width), [powers, np.where(x % 2 == 1, powers, 0)])


@pytest.mark.parametrize("width", WIDTHS)
def test_splat_and_somewhere(width):
    load, splat = loading(width), splatting(width)

    @njit
    def loop(x, out):
        store(splat(0.1), out, 0)
        return somewhere(load(x, 0) > splat(0.5))

    x, out = np.zeros(width), np.empty(width)
    assert not loop(x, out)
    np.testing.assert_array_equal(out, 0.1)
    for i in range(width):
        x[:] = 0
        x[i] = 1
        assert loop(x, out)


@njit
def transpose4(x, out, apart):
    vectors.store_rows(turned((load4(x, 0), load4(x, 4), load4(x, 8), load4(x, 12))), out, 1, apart)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_turned(dtype):
    x = np.arange(16, dtype=dtype)
    for apart in (4, 7):
        # rows from the second number on, and nothing between them
        out, expected = np.full((2, 30), np.nan, dtype)
        expected[1 + np.arange(4)[:, None] * apart + np.arange(4)] = x.reshape(4, 4).T
        transpose4(x, out, apart)
        np.testing.assert_array_equal(out, expected)


@njit
def sums4(x, out):
    out[0] = vectors.total(load4(x, 0))
    store(vectors.totals((load4(x, 0), load4(x, 4), load4(x, 8), load4(x, 12))), out, 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_of_lanes(dtype):
    x = 2.0 ** np.arange(16).astype(dtype)
    out = np.empty(5, dtype)
    sums4(x, out)
    np.testing.assert_array_equal(out, [15, *x.reshape(4, 4).sum(1)])


@njit
def between_widths(x, y):
    return somewhere(load4(x, 0) + load8(x, 0) > 0.0)


@njit
def between_precisions(x, y):
    store(load4(x, 0), y, 0)


@njit
def chosen_by_another_width(x, y):
    store(where(load8(x, 0) > 0.0, load4(x, 0), load4(x, 0)), x, 0)


@pytest.mark.parametrize("mixed", [between_widths, between_precisions, chosen_by_another_width])
def test_vectors_of_two_types_do_not_mix(mixed):
    """Without a type error, memory would be read or written as what it is not."""
    with pytest.raises(TypingError):
        mixed(np.zeros(16), np.zeros(16, np.float32))


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 5), (3, 16, 4), (2, 33, 2), (1, 32, 7)])
def test_lanes_there_and_back(shape):
    x = torch.randn(shape)
    rows = lanes.to_lanes(x)
    assert rows.shape[1:] == (shape[2], lanes.WIDTH)
    torch.testing.assert_close(lanes.from_lanes(rows, *shape[:2]), x, rtol=0, atol=0)
    torch.testing.assert_close(lanes.channels_back(lanes.channels_last(x), *shape[:2]), x, rtol=0, atol=0)
