"""Cosine and sine in polynomials, which LLVM turns into vector instructions where a loop calls them."""

import math

from statespace.kernels.diagonal_scan.decay import fused
from statespace.kernels.kalman_filter.compiled import helper
from statespace.kernels.kalman_filter.exponential import SHIFT, as_bits

TWO_OVER_PI = 2.0 / math.pi
# π/2 in three parts: the first times a number of quarter turns is exact in a fused multiply-add
FIRST, SECOND, THIRD = 1.5707963267948966, 6.123233995736766e-17, -1.4973849048591833e-33
# up to here the parts leave an error below 1e-16
FARTHEST = 1e6
S3, S5, S7, S9, S11, S13, S15, S17 = [(-1) ** (k // 2) / math.factorial(k) for k in range(3, 18, 2)]
C4, C6, C8, C10, C12, C14, C16 = [(-1) ** (k // 2) / math.factorial(k) for k in range(4, 17, 2)]


@helper(fastmath={"contract"})
def cosine_and_sine(x):
    """cos x and sin x for |x| ≤ ``FARTHEST``, to 1.2e-16 beside numbers of size 1."""
    shifted = x * TWO_OVER_PI + SHIFT
    k = shifted - SHIFT
    r = fused(-k, THIRD, fused(-k, SECOND, fused(-k, FIRST, x)))
    q = r * r
    s = S9 + q * (S11 + q * (S13 + q * (S15 + q * S17)))
    s = r + r * q * (S3 + q * (S5 + q * (S7 + q * s)))
    c = C8 + q * (C10 + q * (C12 + q * (C14 + q * C16)))
    c = (1.0 - 0.5 * q) + q * q * (C4 + q * (C6 + q * c))
    quarters = as_bits(shifted) & 3
    odd = (quarters & 1) == 1
    cosine = s if odd else c
    sine = c if odd else s
    return -cosine if quarters == 1 or quarters == 2 else cosine, -sine if quarters >= 2 else sine
