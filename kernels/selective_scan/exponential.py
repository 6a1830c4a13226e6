"""exp(z) - 1, softplus and the logistic function of vectors, in polynomials.

With z / ln 2 = k + r and the nearest integer k, exp(z) - 1 = 2^k (2^r - 1) + (2^k - 1): sums of one sign, so that a
tiny z keeps all its digits. With t = exp(-|v|) and s = t / (2 + t),

    softplus(v) = max(v, 0) + 2 artanh(s),    logistic(|v|) = 1 / (1 + t),    logistic(-|v|) = t / (1 + t),

precise relatively at both ends. The polynomials are minimax ones, relative.
"""

import math

from numba import types
from numba.extending import overload

from statespace.kernels.compiled import helper
from statespace.kernels.exponential import exp2m1, half_turn
from statespace.kernels.vectors import at_least, at_most, fused, nearest, nothing, power_of_two, where

# artanh(s) / s as a polynomial in s² on [0, 1/9], where s = t / (2 + t) lies for t in [0, 1].
ARTANH = {
    types.float32: (
        1.0000000038408794, 0.33333160820688887, 0.20012297615351874, 0.13982578872598634, 0.14078889181554540,
    ),
    types.float64: (
        1.0, 0.33333333333341287164, 0.19999999997643800004, 0.14285714555828580111, 0.11111095430673142019,
        0.090914299002369554786, 0.076818381244458171292, 0.067956527427899469179, 0.049403945243823931204,
        0.088903819130566514469,
    ),
}  # fmt: skip
# log2(e) in two parts, the first one a float32.
SCALE = 1.44269502162933349609375
REST = 1 / math.log(2) - SCALE


def expm1_exp(x):
    """2^x - 1 and 2^x of a vector, each precise relatively; x is held between the exponents of floats."""
    raise TypeError("called from compiled code only")


@overload(expm1_exp)
def _expm1_exp(x):
    single = x.element == types.float32
    # One below the exponents of normal numbers: its power comes out as 0.
    lowest, highest = (-127.0, 127.0) if single else (-1023.0, 1023.0)
    magic = 1.5 * 2.0 ** (23 if single else 52)

    def implementation(x):
        x = at_most(at_least(x, lowest), highest)
        shifted = x + magic
        power, p = power_of_two(shifted), exp2m1(x - (shifted - magic))
        return power * p + (power - 1.0), power * p + power

    return implementation


def half_turns(gap, f, f_low):
    """√2 sin and √2 cos of half of gap · (f + f_low) turns: what `decay` of diagonal_scan makes exp(z) - 1 of."""
    raise TypeError("called from compiled code only")


@overload(half_turns)
def _half_turns(gap, f, f_low):
    def implementation(gap, f, f_low):
        t = fused(gap, f, 0.0 - nearest(gap * f)) + gap * f_low
        return half_turn(t - nearest(t))

    return implementation


def exp_negative(v):
    """exp(-|v|) of a vector."""
    raise TypeError("called from compiled code only")


@overload(exp_negative)
def _exp_negative(v):
    single = v.element == types.float32
    lowest = -88.0 if single else -709.0  # from here on the power is 0
    magic = 1.5 * 2.0 ** (23 if single else 52)

    def implementation(v):
        v = at_least(where(v > 0.0, -v, v), lowest)
        k = nearest(v * SCALE)
        r = fused(v, nothing(v) + SCALE, -k) + v * REST
        return power_of_two(k + magic) * (1.0 + exp2m1(r))

    return implementation


def log1p_fraction(t):
    """log(1 + t) of a vector between 0 and 1."""
    raise TypeError("called from compiled code only")


@overload(log1p_fraction)
def _log1p_fraction(t):
    if t.element == types.float32:
        p0, p1, p2, p3, p4 = (2 * p for p in ARTANH[t.element])

        def implementation(t):
            s = t / (2.0 + t)
            q = s * s
            return s * (p0 + q * (p1 + q * (p2 + q * (p3 + q * p4))))

    else:
        p0, p1, p2, p3, p4, p5, p6, p7, p8, p9 = (2 * p for p in ARTANH[t.element])

        def implementation(t):
            s = t / (2.0 + t)
            q = s * s
            p = p5 + q * (p6 + q * (p7 + q * (p8 + q * p9)))
            return s * (p0 + q * (p1 + q * (p2 + q * (p3 + q * (p4 + q * p)))))

    return implementation


@helper()
def softplus(v):
    """softplus(v), and its slope logistic(v)."""
    t = exp_negative(v)
    inverse = 1.0 / (1.0 + t)
    # NaN is not below 0 and stays.
    return where(v < 0.0, nothing(v), v) + log1p_fraction(t), where(v < 0.0, t * inverse, inverse)


@helper()
def silu(z):
    """z logistic(z), and its slope logistic(z) (1 + z logistic(-z))."""
    t = exp_negative(z)
    inverse = 1.0 / (1.0 + t)
    logistic, other = where(z < 0.0, t * inverse, inverse), where(z < 0.0, inverse, t * inverse)
    return z * logistic, logistic * (1.0 + z * other)
