"""exp(−x) and 1 − exp(−x) in polynomials, which LLVM turns into vector instructions where a loop calls them."""

import math

from numba import types
from numba.extending import intrinsic

from statespace.kernels.intrinsics import as_float
from statespace.kernels.kalman_filter.compiled import helper

LOG2_E = math.log2(math.e)
# ln 2 in two parts, the first short enough that its product with an exponent is exact
LN2_HIGH = 0.693147180369123816490
LN2_LOW = 1.90821492927058770002e-10
# the last power of e above the subnormal numbers
LARGEST = 708.0
C2, C3, C4, C5, C6, C7, C8, C9, C10, C11, C12, C13 = [1 / math.factorial(k) for k in range(2, 14)]


# added to a float below 2^51 it leaves the nearest whole number in the lowest bits
SHIFT = 1.5 * 2.0**52


@intrinsic
def as_bits(typingctx, x):
    """The int64 whose bits are those of a float64."""

    def codegen(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.int64))

    return types.int64(x), codegen


@helper(fastmath={"contract"})
def decay(x):
    """exp(−x) and expm1(−x) for x ≥ 0, both to the last digits; below 1e-307 a decay stays what it is there."""
    # a NaN stays one
    x = -(LARGEST if x > LARGEST else x)
    shifted = x * LOG2_E + SHIFT
    k = shifted - SHIFT
    r = x - k * LN2_HIGH - k * LN2_LOW
    p = C8 + r * (C9 + r * (C10 + r * (C11 + r * (C12 + r * C13))))
    p = C2 + r * (C3 + r * (C4 + r * (C5 + r * (C6 + r * (C7 + r * p)))))
    p = r + r * r * p
    power = as_float((as_bits(shifted) + 1023) << 52)
    return power + power * p, power * p + (power - 1.0)
