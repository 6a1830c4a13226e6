"""exp(z) - 1 of complex z in polynomials: the library's functions take one number at a time, these take vectors.

With z = Δ (a + 2πi f), a <= 0, Δ a / ln 2 = k + r with the nearest integer k, and t = Δ f reduced to [-1/2, 1/2] turns,

    e = exp(Δ a) - 1 = 2^k (2^r - 1) + (2^k - 1)
    Re = e - 2 (e + 1) sin²(πt),    Im = 2 (e + 1) sin(πt) cos(πt),

sums of one sign, so that a tiny z keeps all its digits. Frequencies come as sums of two numbers and meet the gap in a
fused multiply-add: after hundreds of turns a single float32 product would have lost the phase's last three digits.

The polynomials are minimax ones, relative for 2^r - 1 and sin, absolute for cos; both of these carry a factor of √2.
"""

import math

from numba import types
from numba.extending import overload

from statespace.kernels.exponential import POWER
from statespace.kernels.vectors import at_least, fused, nearest, power_of_two

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


def expm1_complex(gap, a, f, f_low):
    """Real and imaginary part of exp(Δ (a ln 2 + 2πi (f + f_low))) - 1, for Δ >= 0 and a <= 0, in vectors."""
    raise TypeError("called from compiled code only")


@overload(expm1_complex)
def _expm1_complex(gap, a, f, f_low):
    single = gap.element == types.float32
    lowest = -126.0 if single else -1022.0
    magic = 1.5 * 2.0 ** (23 if single else 52)
    if single:
        p0, p1, p2, p3, p4, p5 = POWER[gap.element]
        s0, s1, s2, s3, s4 = (ROOT * s for s in SINE[gap.element])
        c0, c1, c2, c3, c4, c5 = (ROOT * c for c in COSINE[gap.element])

        def implementation(gap, a, f, f_low):
            x = at_least(gap * a, lowest)
            shifted = x + magic
            r = x - (shifted - magic)
            power = power_of_two(shifted)
            e = power * (r * (p0 + r * (p1 + r * (p2 + r * (p3 + r * (p4 + r * p5)))))) + (power - 1.0)
            t = fused(gap, f, 0.0 - nearest(gap * f)) + gap * f_low
            q = t * t
            s = t * (s0 + q * (s1 + q * (s2 + q * (s3 + q * s4))))
            c = c0 + q * (c1 + q * (c2 + q * (c3 + q * (c4 + q * c5))))
            size = e * s + s
            return e - size * s, size * c

    else:
        p0, p1, p2, p3, p4, p5, p6, p7, p8, p9, p10, p11 = POWER[gap.element]
        s0, s1, s2, s3, s4, s5, s6, s7, s8 = (ROOT * s for s in SINE[gap.element])
        c0, c1, c2, c3, c4, c5, c6, c7, c8, c9 = (ROOT * c for c in COSINE[gap.element])

        def implementation(gap, a, f, f_low):
            x = at_least(gap * a, lowest)
            shifted = x + magic
            r = x - (shifted - magic)
            power = power_of_two(shifted)
            p = p6 + r * (p7 + r * (p8 + r * (p9 + r * (p10 + r * p11))))
            e = power * (r * (p0 + r * (p1 + r * (p2 + r * (p3 + r * (p4 + r * (p5 + r * p))))))) + (power - 1.0)
            t = fused(gap, f, 0.0 - nearest(gap * f)) + gap * f_low
            q = t * t
            s = t * (s0 + q * (s1 + q * (s2 + q * (s3 + q * (s4 + q * (s5 + q * (s6 + q * (s7 + q * s8))))))))
            c = c4 + q * (c5 + q * (c6 + q * (c7 + q * (c8 + q * c9))))
            c = c0 + q * (c1 + q * (c2 + q * (c3 + q * c)))
            size = e * s + s
            return e - size * s, size * c

    return implementation
