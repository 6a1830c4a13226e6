"""P_k(z) = 1 − exp(−z) Σ_{j<k} zʲ/j!, the regularised incomplete gamma function, with all its digits at small z."""

import math

from statespace.kernels.kalman_filter.compiled import helper

G4, G5, G6, G7, G8, G9, G10, G11, G12, G13, G14 = [6.0 / math.factorial(k) for k in range(4, 15)]


@helper(fastmath={"contract"})
def gamma_3(z, e):
    """P_3(z): the series where 1 − e(1 + z + z²/2) would cancel. Both are computed: a loop of these vectorises."""
    s = G9 + z * (G10 + z * (G11 + z * (G12 + z * (G13 + z * G14))))
    s = 1.0 + z * (G4 + z * (G5 + z * (G6 + z * (G7 + z * (G8 + z * s)))))
    series = e * z * z * z * (1 / 6) * s
    closed = 1.0 - e * (1.0 + z * (1.0 + 0.5 * z))
    return closed if z > 0.5 else series


@helper()
def gamma_5(z, e):
    """P_5(z): the series where 1 − e(1 + … + z⁴/24) would cancel."""
    if z > 2.0:
        return 1.0 - e * (1.0 + z * (1.0 + z / 2.0 * (1.0 + z / 3.0 * (1.0 + z / 4.0))))
    s = 1.0
    for j in range(24, 5, -1):
        s = 1.0 + s * z / j
    return e * z**5 / 120.0 * s
