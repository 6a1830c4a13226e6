"""The exponential of vectors (`vectors.py`) in polynomials, and the sigmoid: the library's take one number at a time.

With x / ln 2 = k + r and the nearest integer k, exp(x) = 2^k 2^r. The constant 1 / ln 2 comes in two parts and meets x
in a fused multiply-add, so that a large x keeps its digits.
"""

import math

import numpy as np
from numba import njit, types
from numba.extending import overload

from statespace.kernels.vectors import at_least, fused, nothing, power_of_two, where

# (2^r - 1) / r on [-1/2, 1/2]: minimax polynomials, relative.
POWER = {
    types.float32: (
        0.69314718792669306, 0.24022649794962265, 0.055503574336426599, 0.0096182374949070143, 0.0013390735477607874,
        0.00015403512367553546,
    ),
    types.float64: (
        0.69314718055994530926, 0.24022650695910071286, 0.05550410866482162654, 0.009618129107628436948,
        0.0013333558146406629814, 0.00015403530393466168344, 0.000015252733841378433742, 1.3215486721358576058e-6,
        1.0178057169304502643e-7, 7.0549322716041566848e-9, 4.455804851545879953e-10, 2.5678429104123610884e-11,
    ),
}  # fmt: skip
TURNS = {types.float32: float(np.float32(1 / math.log(2))), types.float64: 1 / math.log(2)}
REST = {types.float32: 1 / math.log(2) - TURNS[types.float32], types.float64: 2.0355273740931033e-17}


def exp_of_negative(x):
    """exp(x) of a vector x <= 0; 0 where it would be subnormal."""
    raise TypeError("called from compiled code only")


@overload(exp_of_negative)
def _exp_of_negative(x):
    single = x.element == types.float32
    lowest = -87.3 if single else -708.3
    magic = 1.5 * 2.0 ** (23 if single else 52)
    high, low = TURNS[x.element], REST[x.element]
    if single:
        p0, p1, p2, p3, p4, p5 = POWER[x.element]

        def implementation(x):
            z = at_least(x, lowest)
            shifted = z * high + magic
            r = fused(z, nothing(z) + high, magic - shifted) + z * low
            p = 1.0 + r * (p0 + r * (p1 + r * (p2 + r * (p3 + r * (p4 + r * p5)))))
            return where(x >= lowest, power_of_two(shifted) * p, nothing(x))

    else:
        p0, p1, p2, p3, p4, p5, p6, p7, p8, p9, p10, p11 = POWER[x.element]

        def implementation(x):
            z = at_least(x, lowest)
            shifted = z * high + magic
            r = fused(z, nothing(z) + high, magic - shifted) + z * low
            p = p6 + r * (p7 + r * (p8 + r * (p9 + r * (p10 + r * p11))))
            p = 1.0 + r * (p0 + r * (p1 + r * (p2 + r * (p3 + r * (p4 + r * (p5 + r * p))))))
            return where(x >= lowest, power_of_two(shifted) * p, nothing(x))

    return implementation


@njit(cache=True, error_model="numpy")
def sigmoid(x):
    """1 / (1 + exp(-x)) of a vector; no x overflows, and far on the left it is 0."""
    e = exp_of_negative(where(x >= 0.0, -x, x))
    return where(x >= 0.0, nothing(x) + 1.0, e) / (1.0 + e)
