"""exp(-|x|) in a polynomial, on vectors: the only exponential that a running maximum needs, and it cannot overflow.

With -|x| / ln 2 = k + r, k the nearest integer, it is 2^k 2^r. At 2^-100 (2^-900 in float64) it stops falling: that is
nothing beside a number near 1, and products with it do not become subnormal, which slows a processor a hundredfold.
"""

import math

from numba import types
from numba.extending import overload

from statespace.kernels.diagonal_scan.decay import POWER
from statespace.kernels.vectors import at_least, nothing, power_of_two, where


def exp_of_minus_modulus(x):
    """exp(-|x|) of a vector."""
    raise TypeError("called from compiled code only")


@overload(exp_of_minus_modulus)
def _exp_of_minus_modulus(x):
    single = x.element == types.float32
    lowest = -100.0 if single else -900.0
    magic = 1.5 * 2.0 ** (23 if single else 52)
    factor = 1 / math.log(2)
    if single:
        p0, p1, p2, p3, p4, p5 = POWER[x.element]

        def implementation(x):
            z = at_least(factor * where(x > nothing(x), -x, x), lowest)
            shifted = z + magic
            r = z - (shifted - magic)
            return power_of_two(shifted) * (1.0 + r * (p0 + r * (p1 + r * (p2 + r * (p3 + r * (p4 + r * p5))))))

    else:
        p0, p1, p2, p3, p4, p5, p6, p7, p8, p9, p10, p11 = POWER[x.element]

        def implementation(x):
            z = at_least(factor * where(x > nothing(x), -x, x), lowest)
            shifted = z + magic
            r = z - (shifted - magic)
            p = p6 + r * (p7 + r * (p8 + r * (p9 + r * (p10 + r * p11))))
            p = p0 + r * (p1 + r * (p2 + r * (p3 + r * (p4 + r * (p5 + r * p)))))
            return power_of_two(shifted) * (1.0 + r * p)

    return implementation
