"""Exponential, sine and cosine of vectors (`vectors.py`) in polynomials: the library's take one number at a time.

With x / ln 2 = k + r and the nearest integer k, exp(x) = 2^k 2^r. The constant 1 / ln 2 comes in two parts and meets x
in a fused multiply-add, so that a large x keeps its digits. The polynomials are minimax ones, relative for 2^r - 1 and
sin, absolute for cos.
"""

import math

import numpy as np
from numba import types
from numba.extending import overload

from statespace.kernels.compiled import helper
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
ROOT = math.sqrt(2)
# √2 sin(πt) / t and √2 cos(πt) as polynomials in t², t in [-1/2, 1/2].
SINE = {
    types.float32: (
        3.1415926368954115, -5.1677096847994767, 2.5500697263299961, -0.59824212634209369, 0.077560386790797222,
    ),
    types.float64: (
        3.1415926535897932377, -5.1677127800499695287, 2.5501640398772939404, -0.59926452931873826139,
        0.082145886569893038774, -0.007370430478764629614, 0.00046629968877916672934, -0.000021903185429548639509,
        7.6947273844559141955e-7,
    ),
}  # fmt: skip
COSINE = {
    types.float32: (
        1.0, -4.9348021372283223, 4.0587091643412954, -1.3352120566536518, 0.23493755890074913, -0.024396716536961510,
    ),
    types.float64: (
        1.0, -4.9348022005446793043, 4.0587121264167675451, -1.3352627688545550128, 0.23533063035779601577,
        -0.025806891376604471109, 0.0019295741873593386058, -0.00010463741712648405534, 4.3007248318146787192e-6,
        -1.3435271532313808683e-7,
    ),
}  # fmt: skip
TURNS = {types.float32: float(np.float32(1 / math.log(2))), types.float64: 1 / math.log(2)}
REST = {types.float32: 1 / math.log(2) - TURNS[types.float32], types.float64: 2.0355273740931033e-17}


def exp2m1(r):
    """2^r - 1 of a vector in [-1/2, 1/2]."""
    raise TypeError("called from compiled code only")


@overload(exp2m1)
def _exp2m1(r):
    if r.element == types.float32:
        p0, p1, p2, p3, p4, p5 = POWER[r.element]

        def implementation(r):
            return r * (p0 + r * (p1 + r * (p2 + r * (p3 + r * (p4 + r * p5)))))

    else:
        p0, p1, p2, p3, p4, p5, p6, p7, p8, p9, p10, p11 = POWER[r.element]

        def implementation(r):
            p = p6 + r * (p7 + r * (p8 + r * (p9 + r * (p10 + r * p11))))
            return r * (p0 + r * (p1 + r * (p2 + r * (p3 + r * (p4 + r * (p5 + r * p))))))

    return implementation


def half_turn(t):
    """√2 sin(πt) and √2 cos(πt) of a vector in [-1/2, 1/2]."""
    raise TypeError("called from compiled code only")


@overload(half_turn)
def _half_turn(t):
    if t.element == types.float32:
        s0, s1, s2, s3, s4 = (ROOT * s for s in SINE[t.element])
        c0, c1, c2, c3, c4, c5 = (ROOT * c for c in COSINE[t.element])

        def implementation(t):
            q = t * t
            s = t * (s0 + q * (s1 + q * (s2 + q * (s3 + q * s4))))
            return s, c0 + q * (c1 + q * (c2 + q * (c3 + q * (c4 + q * c5))))

    else:
        s0, s1, s2, s3, s4, s5, s6, s7, s8 = (ROOT * s for s in SINE[t.element])
        c0, c1, c2, c3, c4, c5, c6, c7, c8, c9 = (ROOT * c for c in COSINE[t.element])

        def implementation(t):
            q = t * t
            s = t * (s0 + q * (s1 + q * (s2 + q * (s3 + q * (s4 + q * (s5 + q * (s6 + q * (s7 + q * s8))))))))
            c = c4 + q * (c5 + q * (c6 + q * (c7 + q * (c8 + q * c9))))
            return s, c0 + q * (c1 + q * (c2 + q * (c3 + q * c)))

    return implementation


def exp_of_negative(x):
    """exp(x) of a vector x <= 0; 0 where it would be subnormal."""
    raise TypeError("called from compiled code only")


@overload(exp_of_negative)
def _exp_of_negative(x):
    single = x.element == types.float32
    lowest = -87.3 if single else -708.3
    magic = 1.5 * 2.0 ** (23 if single else 52)
    high, low = TURNS[x.element], REST[x.element]

    def implementation(x):
        z = at_least(x, lowest)
        shifted = z * high + magic
        r = fused(z, nothing(z) + high, magic - shifted) + z * low
        return where(x >= lowest, power_of_two(shifted) * (1.0 + exp2m1(r)), nothing(x))

    return implementation


@helper()
def sigmoid(x):
    """1 / (1 + exp(-x)) of a vector; no x overflows, and far on the left it is 0."""
    e = exp_of_negative(where(x >= 0.0, -x, x))
    return where(x >= 0.0, nothing(x) + 1.0, e) / (1.0 + e)
