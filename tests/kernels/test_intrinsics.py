"""Single instructions on numbers, and compiled functions that are called by their address."""

import numpy as np
import pytest
from numba import njit, types

from statespace.kernels.intrinsics import address_of, as_float, calling, fused


@njit
def shifted_sum(x, weights, start):
    total = start
    for k in range(x.size):
        total += x[k] * weights[1]
    return total


@njit
def refuse(x):
    if x < 0:
        raise ValueError("x is negative")
    return x


call_float = calling(types.float64)


@njit
def by_address(address, arguments):
    return call_float(address, arguments)


def test_fused_rounds_once():
    x = 1 + 2.0**-30
    assert njit(lambda x, y, z: fused(x, y, z))(x, x, -1.0) == 2.0**-29 + 2.0**-60
    assert x * x - 1.0 != 2.0**-29 + 2.0**-60


def test_as_float():
    read = njit(lambda bits: as_float(bits))
    assert read(np.float32(1.5).view(np.int32)) == 1.5
    assert read(np.float64(-np.pi).view(np.int64)) == -np.pi


def test_a_call_by_address_is_the_call():
    x = np.arange(5.0)
    arguments = x, (0.5, 2.0), 1.0
    assert by_address(address_of(shifted_sum, *arguments), arguments) == shifted_sum(*arguments) == 21.0
    # Other types have an address of their own.
    narrow = x.astype(np.float32), (0.5, 2.0), 1.0
    assert address_of(shifted_sum, *narrow) != address_of(shifted_sum, *arguments)
    assert by_address(address_of(shifted_sum, *narrow), narrow) == 21.0


def test_an_error_passes_through_a_call_by_address():
    assert by_address(address_of(refuse, 2.0), (2.0,)) == 2.0
    with pytest.raises(ValueError, match="x is negative"):
        by_address(address_of(refuse, -2.0), (-2.0,))
