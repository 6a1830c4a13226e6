"""P_k(z) = 1 − exp(−z) Σ_{j<k} zʲ/j!, the regularised incomplete gamma function, with all its digits at small z."""

from statespace.kernels.kalman_filter.compiled import helper


@helper(fastmath={"contract"})
def gamma_3(z, e):
    """P_3(z): the series where 1 − e(1 + z + z²/2) would cancel. Both are computed: a loop of these vectorises."""
    s = 1.0 + z * (1 / 14)
    s = 1.0 + z * (1 / 13) * s
    s = 1.0 + z * (1 / 12) * s
    s = 1.0 + z * (1 / 11) * s
    s = 1.0 + z * (1 / 10) * s
    s = 1.0 + z * (1 / 9) * s
    s = 1.0 + z * (1 / 8) * s
    s = 1.0 + z * (1 / 7) * s
    s = 1.0 + z * (1 / 6) * s
    s = 1.0 + z * (1 / 5) * s
    s = 1.0 + z * (1 / 4) * s
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
