// Incomplete gamma functions, and A(Δ), Q(Δ) of the damped oscillator with derivatives: gamma.py, oscillator.py.
#pragma once

// P_3(z)
__device__ __forceinline__ double gamma_3(double z, double e) {
    if (z > 0.5) return 1.0 - e * (1.0 + z * (1.0 + 0.5 * z));
    double s = 1.0 + z * (1.0 / 14);
    s = 1.0 + z * (1.0 / 13) * s;
    s = 1.0 + z * (1.0 / 12) * s;
    s = 1.0 + z * (1.0 / 11) * s;
    s = 1.0 + z * (1.0 / 10) * s;
    s = 1.0 + z * (1.0 / 9) * s;
    s = 1.0 + z * (1.0 / 8) * s;
    s = 1.0 + z * (1.0 / 7) * s;
    s = 1.0 + z * (1.0 / 6) * s;
    s = 1.0 + z * (1.0 / 5) * s;
    s = 1.0 + z * (1.0 / 4) * s;
    return e * z * z * z * (1.0 / 6) * s;
}

// P_5(z)
__device__ __forceinline__ double gamma_5(double z, double e) {
    if (z > 2.0) return 1.0 - e * (1.0 + z * (1.0 + z / 2.0 * (1.0 + z / 3.0 * (1.0 + z / 4.0))));
    double s = 1.0;
#pragma unroll
    for (int j = 24; j > 5; j--) s = 1.0 + s * z * (1.0 / j);
    return e * z * z * z * z * z / 120.0 * s;
}

// 1 − sin(x)/x
__device__ __forceinline__ double one_minus_sinc(double x) {
    if (fabs(x) > 1.0) return 1.0 - sin(x) / x;
    double s = 1.0;
    for (int j = 20; j > 3; j -= 2) s = 1.0 - s * x * x / (j * (j + 1));
    return s * x * x / 6.0;
}

// Q₀₀/σ² for κ ≥ 0, z ≤ 4
__device__ __forceinline__ double overdamped_noise(double zeta, double kappa, double z, double e) {
    double step = z * z * kappa / (zeta * zeta), g = 1.0, total = 0.0;
    for (int k = 33; k > 2; k--) {
        g = 1.0 + z / (k + 1) * g;
        if (k % 2 == 1) total = g + step / ((k + 1) * (k + 2)) * total;
    }
    return e * z * z * z / 6.0 * total / (zeta * zeta);
}

struct Oscillation {
    double a00, sine, a11, product, kappa, zeta, tau;
};

__device__ __forceinline__ Oscillation oscillation(double frequency, double quality, double gap) {
    double zeta = 0.5 / quality, tau = frequency * gap, kappa = (zeta - 1.0) * (zeta + 1.0);
    if (kappa < 0.0) {
        double mu = sqrt(-kappa), root = exp(-zeta * tau), s, c;
        sincos(mu * tau, &s, &c);
        double cosine = root * c, sine = root * s / mu;
        return {cosine + zeta * sine, sine, cosine - zeta * sine, sine * cosine, kappa, zeta, tau};
    }
    double nu = sqrt(kappa), fast = zeta + nu, slow = 1.0 / fast;
    double first = exp(-slow * tau), second = exp(-fast * tau), sine = first * tau;
    if (nu * tau > 0.0) sine *= -expm1(-2.0 * nu * tau) / (2.0 * nu * tau);
    return {first + slow * sine, sine, second - slow * sine, sine * 0.5 * (first + second), kappa, zeta, tau};
}

// Q₀₀/σ²
__device__ __forceinline__ double position_noise(const Oscillation &o) {
    double z = 2.0 * o.zeta * o.tau, e = exp(-z);
    if (o.kappa < 0.0) {
        double angle = sqrt(-o.kappa) * o.tau, rest = one_minus_sinc(angle);
        return gamma_3(z, e) + e * z * (one_minus_sinc(2.0 * angle) + 0.5 * z * rest * (2.0 - rest));
    }
    if (z <= 4.0) return overdamped_noise(o.zeta, o.kappa, z, e);
    if (o.zeta < 1.25) return 1.0 - e - 2.0 * o.zeta * (o.product + o.zeta * o.sine * o.sine);
    double fast = o.zeta + sqrt(o.kappa), slow = 1.0 / fast;
    double total = -0.5 * (expm1(-2.0 * slow * o.tau) / slow + expm1(-2.0 * fast * o.tau) / fast);
    return o.zeta / o.kappa * (total + expm1(-z) / o.zeta);
}

__device__ __noinline__ void
oscillator(double frequency, double variance, double quality, double gap, double *A, double *Q) {
    Oscillation o = oscillation(frequency, quality, gap);
    double noise = position_noise(o);
    A[0] = o.a00;
    A[1] = o.sine;
    A[2] = -o.sine;
    A[3] = o.a11;
    Q[0] = variance * noise;
    Q[1] = Q[2] = 2.0 * o.zeta * variance * o.sine * o.sine;
    Q[3] = variance * (noise + 4.0 * o.zeta * o.product);
}

// the derivatives of A₀₀, A₀₁, A₁₁ by ζ
__device__ __forceinline__ void by_damping(const Oscillation &o, double &d00, double &d01, double &d11) {
    double zeta = o.zeta, tau = o.tau, kappa = o.kappa, sine = o.sine, x = kappa * tau * tau;
    if (fabs(x) < 1.0) {
        double s = 1.0 / 3.0, term = 1.0 / 3.0;
        for (int k = 1; k < 10; k++) {
            term *= x * (k + 1) / (k * (2.0 * k + 2.0) * (2.0 * k + 3.0));
            s += term;
        }
        d00 = exp(-zeta * tau) * tau * tau * tau * s;
        d01 = zeta * d00 - tau * sine;
        d11 = zeta * tau * sine - tau * (o.a11 + zeta * sine) - sine + zeta * tau * sine - zeta * zeta * d00;
    } else if (kappa < 0.0) {
        d00 = (tau * (o.a11 + zeta * sine) - sine) / kappa;
        d01 = zeta * d00 - tau * sine;
        d11 = zeta * tau * sine - tau * o.a11 - sine - zeta * zeta * d00;
    } else {
        double nu = sqrt(kappa), fast = zeta + nu, slow = 1.0 / fast;
        double first = exp(-slow * tau), second = exp(-fast * tau);
        d00 = (0.5 * tau * (first + second) - sine) / kappa;
        d01 = 0.5 * tau / kappa * (slow * first + fast * second) - sine * zeta / kappa;
        d11 = slow * (sine / nu - d01) - tau * fast / nu * second;
    }
}

__device__ __noinline__ void contract_oscillator(
    double frequency, double variance, double quality, double gap, const double *A_bar, const double *Q_bar,
    double *out) {
    Oscillation o = oscillation(frequency, quality, gap);
    double a00 = o.a00, sine = o.sine, a11 = o.a11, zeta = o.zeta, cross = Q_bar[1] + Q_bar[2];
    // dA/dτ and dQ/dτ = 4ζσ² ψψᵀ
    double by_tau = -sine * A_bar[0] + a11 * (A_bar[1] - A_bar[2]) - (sine + 2.0 * zeta * a11) * A_bar[3] +
                    4.0 * zeta * variance * (sine * sine * Q_bar[0] + sine * a11 * cross + a11 * a11 * Q_bar[3]);
    double noise = position_noise(o), d00, d01, d11;
    by_damping(o, d00, d01, d11);
    // Q = σ² (I − A Aᵀ), whose differential does not cancel
    double by_zeta = d00 * A_bar[0] + d01 * (A_bar[1] - A_bar[2]) + d11 * A_bar[3] -
                     2.0 * variance *
                         ((a00 * d00 + sine * d01) * Q_bar[0] +
                          0.5 * (d01 * (a11 - a00) + sine * (d11 - d00)) * cross +
                          (sine * d01 + a11 * d11) * Q_bar[3]);
    out[0] += gap * by_tau;
    out[1] += noise * Q_bar[0] + 2.0 * zeta * sine * sine * cross + (noise + 4.0 * zeta * o.product) * Q_bar[3];
    out[2] -= zeta / quality * by_zeta;
}
