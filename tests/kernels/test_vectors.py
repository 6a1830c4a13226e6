"""Vectors of numbers in compiled loops: every operation against NumPy's, in both precisions."""

import numpy as np
import pytest
import torch
from numba import njit

from statespace.kernels import lanes, vectors
from statespace.kernels.vectors import WIDTH, load, store


@njit
def arithmetic(x, y, out):
    a, b = load(x, 0), load(y, 0)
    store(a + b, out, 0)
    store(a - b, out, WIDTH)
    store(a * b, out, 2 * WIDTH)
    store(a / b, out, 3 * WIDTH)
    store(2.5 - a * 3.0, out, 4 * WIDTH)


@njit
def functions(x, y, out):
    a, b = load(x, 0), load(y, 0)
    store(vectors.fused(a, b, a), out, 0)
    store(vectors.nearest(a), out, WIDTH)
    store(vectors.at_least(a, 0.25), out, 2 * WIDTH)
    store(vectors.without_tiny(a, 0.25), out, 3 * WIDTH)
    store(vectors.nothing(a), out, 4 * WIDTH)


@njit
def powers(x, out, magic):
    store(vectors.power_of_two(load(x, 0) + magic), out, 0)


def call(loop, dtype, *more):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, WIDTH)).astype(dtype)
    out = np.full(5 * WIDTH, np.nan, dtype)
    loop(x, y, out, *more)
    return x, y, out.reshape(5, WIDTH)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arithmetic(dtype):
    x, y, out = call(arithmetic, dtype)
    expected = [x + y, x - y, x * y, x / y, 2.5 - 3 * x]
    np.testing.assert_allclose(out, expected, rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_functions(dtype):
    x, y, out = call(functions, dtype)
    expected = [x * y + x, np.rint(x), np.maximum(x, 0.25), np.where(abs(x) > 0.25, x, 0), 0 * x]
    np.testing.assert_allclose(out, expected, rtol=4 * np.finfo(dtype).eps, atol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize(("dtype", "mantissa", "lowest"), [(np.float32, 23, -126), (np.float64, 52, -1022)])
def test_powers_of_two(dtype, mantissa, lowest):
    x = np.linspace(lowest, 0, WIDTH).round().astype(dtype)
    out = np.empty(WIDTH, dtype)
    powers(x, out, 1.5 * 2.0**mantissa)
    np.testing.assert_array_equal(out, np.exp2(x.astype(np.float64)))


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 5), (3, 16, 4), (2, 33, 2), (1, 32, 7)])
def test_lanes_there_and_back(shape):
    x = torch.randn(shape)
    rows = lanes.to_lanes(x)
    assert rows.shape[1:] == (shape[2], WIDTH)
    torch.testing.assert_close(lanes.from_lanes(rows, *shape[:2]), x, rtol=0, atol=0)
    torch.testing.assert_close(lanes.channels_back(lanes.channels_last(x), *shape[:2]), x, rtol=0, atol=0)
