"""A(Δ) and Q(Δ) of a damped oscillator with noise, in every regime of damping, and their derivatives.

    f″ + 2ζω₀ f′ + ω₀² f = noise,    ζ = 1 / (2 quality),    state (f, f′/ω₀), stationary covariance σ² I.

Letters: τ = ω₀Δ, κ = ζ² − 1 (below 0: oscillation), z = 2ζτ, e = exp(−z). With C = cosh √κ τ and S = sinh(√κ τ)/√κ,
both entire functions of κ, so that critical damping is a point like any other, and the impulse response
ψ = exp(−ζτ) (S, C − ζS),

    A = exp(−ζτ) [[C + ζS, S], [−S, C − ζS]],    Q = 4ζσ² ∫₀^τ ψψᵀ ds,    dA/dτ = [[0, 1], [−1, −2ζ]] A.

Q₀₁ = 2ζσ² ψ₀² and Q₁₁ = Q₀₀ + 4ζσ² exp(−2ζτ) S C; Q₀₀ is a sum of positive terms wherever it is small: README.md.
"""

import numpy as np

from statespace.kernels.kalman_filter.compiled import helper, shared
from statespace.kernels.kalman_filter.gamma import gamma_3


@helper()
def one_minus_sinc(x):
    """1 − sin(x)/x without cancellation."""
    if abs(x) > 1.0:
        return 1.0 - np.sin(x) / x
    s = 1.0
    for j in range(20, 3, -2):
        s = 1.0 - s * x * x / (j * (j + 1))
    return s * x * x / 6.0


@helper()
def overdamped_noise(zeta, kappa, z, e):
    """Q₀₀/σ² = ζ⁻² Σ_j (κ/ζ²)^j P_{2j+3}(z) for κ ≥ 0, z ≤ 4, where all terms are positive.

    P_k = e zᵏ/k! G_k with G_k = 1 + z/(k + 1) G_{k+1}, from k = 33 downwards.
    """
    step = z * z * kappa / (zeta * zeta)
    g = 1.0
    total = 0.0
    for k in range(33, 2, -1):
        g = 1.0 + z / (k + 1) * g
        if k % 2 == 1:
            total = g + step / ((k + 1) * (k + 2)) * total
    return e * z * z * z / 6.0 * total / (zeta * zeta)


@shared()
def oscillation(frequency, quality, gap):
    """A₀₀, A₀₁, A₁₁, exp(−2ζτ) S C, and κ, ζ, τ."""
    zeta = 0.5 / quality
    tau = frequency * gap
    kappa = (zeta - 1.0) * (zeta + 1.0)
    if kappa < 0.0:
        mu = np.sqrt(-kappa)
        root = np.exp(-zeta * tau)
        angle = mu * tau
        cosine = root * np.cos(angle)
        sine = root * np.sin(angle) / mu
        return cosine + zeta * sine, sine, cosine - zeta * sine, sine * cosine, kappa, zeta, tau
    # in powers of the two rates ζ ± ν, whose product is 1: neither overflows, and nothing cancels
    nu = np.sqrt(kappa)
    fast = zeta + nu
    slow = 1.0 / fast
    first = np.exp(-slow * tau)
    second = np.exp(-fast * tau)
    sine = first * tau
    if nu * tau > 0.0:
        sine *= -np.expm1(-2.0 * nu * tau) / (2.0 * nu * tau)
    return first + slow * sine, sine, second - slow * sine, sine * 0.5 * (first + second), kappa, zeta, tau


@helper()
def position_noise(sine, product, kappa, zeta, tau):
    """Q₀₀/σ²."""
    z = 2.0 * zeta * tau
    e = np.exp(-z)
    if kappa < 0.0:
        angle = np.sqrt(-kappa) * tau
        rest = one_minus_sinc(angle)
        return gamma_3(z, e) + e * z * (one_minus_sinc(2.0 * angle) + 0.5 * z * rest * (2.0 - rest))
    if z <= 4.0:
        return overdamped_noise(zeta, kappa, z, e)
    if zeta < 1.25:
        return 1.0 - e - 2.0 * zeta * (product + zeta * sine * sine)
    fast = zeta + np.sqrt(kappa)
    slow = 1.0 / fast
    total = -0.5 * (np.expm1(-2.0 * slow * tau) / slow + np.expm1(-2.0 * fast * tau) / fast)
    return zeta / kappa * (total + np.expm1(-z) / zeta)


@shared()
def oscillator(frequency, variance, quality, gap, A, Q, p):
    a00, sine, a11, product, kappa, zeta, tau = oscillation(frequency, quality, gap)
    noise = position_noise(sine, product, kappa, zeta, tau)
    A[p] = a00
    A[p + 1] = sine
    A[p + 2] = -sine
    A[p + 3] = a11
    Q[p] = variance * noise
    Q[p + 1] = 2.0 * zeta * variance * sine * sine
    Q[p + 2] = Q[p + 1]
    Q[p + 3] = variance * (noise + 4.0 * zeta * product)


@shared()
def contract_oscillator(frequency, variance, quality, gap, A_bar, Q_bar, p, out, o):
    a00, sine, a11, product, kappa, zeta, tau = oscillation(frequency, quality, gap)
    cross = Q_bar[p + 1] + Q_bar[p + 2]
    # dA/dτ and dQ/dτ = 4ζσ² ψψᵀ
    by_tau = (
        -sine * A_bar[p] + a11 * (A_bar[p + 1] - A_bar[p + 2]) - (sine + 2.0 * zeta * a11) * A_bar[p + 3]
        + 4.0 * zeta * variance * (sine * sine * Q_bar[p] + sine * a11 * cross + a11 * a11 * Q_bar[p + 3])
    )  # fmt: skip
    out[o, 0] += gap * by_tau
    noise = position_noise(sine, product, kappa, zeta, tau)
    out[o, 1] += noise * Q_bar[p] + 2.0 * zeta * sine * sine * cross + (noise + 4.0 * zeta * product) * Q_bar[p + 3]
    d00, d01, d11 = by_damping(a00, sine, a11, kappa, zeta, tau)
    # Q = σ² (I − A Aᵀ), whose differential does not cancel
    by_zeta = d00 * A_bar[p] + d01 * (A_bar[p + 1] - A_bar[p + 2]) + d11 * A_bar[p + 3]
    by_zeta -= (
        2.0
        * variance
        * (
            (a00 * d00 + sine * d01) * Q_bar[p]
            + 0.5 * (d01 * (a11 - a00) + sine * (d11 - d00)) * cross
            + (sine * d01 + a11 * d11) * Q_bar[p + 3]
        )
    )
    out[o, 2] -= zeta / quality * by_zeta


@helper()
def by_damping(a00, sine, a11, kappa, zeta, tau):
    """The derivatives of A₀₀, A₀₁, A₁₁ by ζ."""
    x = kappa * tau * tau
    if abs(x) < 1.0:
        # T = (τC − S)/κ = τ³ Σ_k x^k (2k + 2)/(2k + 3)!, times exp(−ζτ)
        s = 1.0 / 3.0
        term = 1.0 / 3.0
        for k in range(1, 10):
            term *= x * (k + 1) / (k * (2.0 * k + 2.0) * (2.0 * k + 3.0))
            s += term
        d00 = np.exp(-zeta * tau) * tau * tau * tau * s
        d01 = zeta * d00 - tau * sine
        # C = A₁₁ + ζ S
        d11 = zeta * tau * sine - tau * (a11 + zeta * sine) - sine + zeta * tau * sine - zeta * zeta * d00
        return d00, d01, d11
    if kappa < 0.0:
        d00 = (tau * (a11 + zeta * sine) - sine) / kappa
        d01 = zeta * d00 - tau * sine
        return d00, d01, zeta * tau * sine - tau * a11 - sine - zeta * zeta * d00
    nu = np.sqrt(kappa)
    fast = zeta + nu
    slow = 1.0 / fast
    first = np.exp(-slow * tau)
    second = np.exp(-fast * tau)
    d00 = (0.5 * tau * (first + second) - sine) / kappa
    d01 = 0.5 * tau / kappa * (slow * first + fast * second) - sine * zeta / kappa
    return d00, d01, slow * (sine / nu - d01) - tau * fast / nu * second
