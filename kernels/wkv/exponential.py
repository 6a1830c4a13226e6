"""exp(-|x|) in a polynomial, on vectors: the only exponential that a running maximum needs, and it cannot overflow.

With -|x| / ln 2 = k + r, k the nearest integer, it is 2^k 2^r. At 2^-100 (2^-900 in float64) it stops falling: that is
nothing beside a number near 1, and products with it do not become subnormal, which slows a processor a hundredfold.
"""

import math

from numba import types
from numba.extending import overload

from statespace.kernels.exponential import exp2m1
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

    def implementation(x):
        z = at_least(factor * where(x > nothing(x), -x, x), lowest)
        shifted = z + magic
        return power_of_two(shifted) * (1.0 + exp2m1(z - (shifted - magic)))

    return implementation
