"""exp(z) - 1 of a complex z, in polynomials that LLVM turns into vector instructions.

The library functions are called once for each number; these are straight-line arithmetic, so that a loop over the nodes
of a system computes 8 or 16 at a time. With z = Δ (a + 2πi f), a <= 0 and t = Δ f reduced to [-1/2, 1/2] turns,

    Re(exp(z) - 1) = expm1(Δa) - 2 exp(Δa) sin²(πt),    Im(exp(z) - 1) = 2 exp(Δa) sin(πt) cos(πt),

sums of one sign, so that a tiny z keeps all its digits. Frequencies come as sums of two numbers and meet the gap in a
fused multiply-add: after hundreds of turns a single float32 product would have lost the phase's last three digits.
"""

import math

import numpy as np
from numba import types
from numba.extending import overload

from statespace.kernels.intrinsics import as_float, fused, nearest

# exp(-87) is the last float32 power of e above the subnormal numbers; exp(-708) the last float64 one.
LOWEST = {np.float32: -87.0, np.float64: -708.0}


def expm1_complex(gap, a, f, f_low):
    """Real and imaginary part of exp(Δ (a + 2πi (f + f_low))) - 1, for Δ >= 0 and a <= 0."""
    raise TypeError("called from compiled code only")


@overload(expm1_complex, jit_options={"fastmath": {"contract", "nsz"}, "forceinline": True})
def _expm1_complex(gap, a, f, f_low):
    real = np.float32 if a == types.float32 else np.float64
    lowest, log2e = real(LOWEST[real]), real(math.log2(math.e))
    # ln 2 in two parts, the first short enough that its product with the exponent is exact.
    ln2_high = real(0.693359375) if real is np.float32 else real(0.693147180369123816490)
    ln2_low = real(math.log(2) - 0.693359375) if real is np.float32 else real(1.90821492927058770002e-10)
    half, one, two, pi = real(0.5), real(1), real(2), real(math.pi)
    # Taylor coefficients; by the ends of the ranges the first one left out is below half a unit in the last place.
    e = [real(1 / math.factorial(k)) for k in range(15)]
    t = [real((-1) ** (k // 2) / math.factorial(k)) for k in range(24)]
    e2, e3, e4, e5, e6, e7, e8, e9, e10, e11, e12, e13 = e[2:14]
    s3, s5, s7, s9, s11, s13, s15, s17, s19, s21 = t[3:22:2]
    c2, c4, c6, c8, c10, c12, c14, c16, c18, c20, c22 = t[2:23:2]

    if real is np.float32:

        def implementation(gap, a, f, f_low):
            a = max(gap * a, lowest)
            n = nearest(a * log2e)
            r = a - n * ln2_high - n * ln2_low
            p = r + r * r * (half + r * (e3 + r * (e4 + r * (e5 + r * (e6 + r * e7)))))
            power = as_float(np.int32((np.int32(n) + 127) << 23))
            h = pi * (fused(gap, f, -nearest(gap * f)) + gap * f_low)
            q = h * h
            s = h + h * q * (s3 + q * (s5 + q * (s7 + q * (s9 + q * (s11 + q * s13)))))
            c = one + q * (c2 + q * (c4 + q * (c6 + q * (c8 + q * (c10 + q * (c12 + q * c14))))))
            decay = power * p + (power - one)
            size = two * (decay + one) * s
            return decay - size * s, size * c

    else:

        def implementation(gap, a, f, f_low):
            a = max(gap * a, lowest)
            n = nearest(a * log2e)
            r = a - n * ln2_high - n * ln2_low
            p = e9 + r * (e10 + r * (e11 + r * (e12 + r * e13)))
            p = e3 + r * (e4 + r * (e5 + r * (e6 + r * (e7 + r * (e8 + r * p)))))
            p = r + r * r * (e2 + r * p)
            power = as_float((np.int64(n) + 1023) << 52)
            h = pi * (fused(gap, f, -nearest(gap * f)) + gap * f_low)
            q = h * h
            s = s11 + q * (s13 + q * (s15 + q * (s17 + q * (s19 + q * s21))))
            s = h + h * q * (s3 + q * (s5 + q * (s7 + q * (s9 + q * s))))
            c = c12 + q * (c14 + q * (c16 + q * (c18 + q * (c20 + q * c22))))
            c = one + q * (c2 + q * (c4 + q * (c6 + q * (c8 + q * (c10 + q * c)))))
            decay = power * p + (power - one)
            size = two * (decay + one) * s
            return decay - size * s, size * c

    return implementation
