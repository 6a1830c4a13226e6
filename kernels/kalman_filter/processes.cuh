// A(Δ) and Q(Δ) of each unit in closed form, and ⟨Ā, dA/dθ⟩ + ⟨Q̄, dQ/dθ⟩: discretization.py and oscillator.py.
#pragma once
#include "layout.cuh"
#include "oscillator.cuh"

// exp(−x) and expm1(−x) for x ≥ 0, both to the last digits
__device__ __forceinline__ void decay(double x, double &root, double &fall) {
    x = -(x > 708.0 ? 708.0 : x);
    double shifted = x * 1.4426950408889634074 + 6755399441055744.0;
    double k = shifted - 6755399441055744.0;
    double r = x - k * 0.693147180369123816490 - k * 1.90821492927058770002e-10;
    double p = 1.0 / 6227020800.0;
    p = 1.0 / 479001600.0 + r * p;
    p = 1.0 / 39916800.0 + r * p;
    p = 1.0 / 3628800.0 + r * p;
    p = 1.0 / 362880.0 + r * p;
    p = 1.0 / 40320.0 + r * p;
    p = 1.0 / 5040.0 + r * p;
    p = 1.0 / 720.0 + r * p;
    p = 1.0 / 120.0 + r * p;
    p = 1.0 / 24.0 + r * p;
    p = 1.0 / 6.0 + r * p;
    p = 0.5 + r * p;
    p = r + r * r * p;
    double power = __longlong_as_double((__double_as_longlong(shifted) + 1023) << 52);
    root = power + power * p;
    fall = power * p + (power - 1.0);
}

// cos and sin; a sine below the rounding of its own argument is exactly 0
__device__ __forceinline__ void rotation(double angle, double &c, double &s) {
    sincos(angle, &s, &c);
    if (fabs(s) <= 4.5e-16 * fabs(angle)) {
        c = copysign(1.0, c);
        s = 0.0;
    }
}

__device__ __forceinline__ void matern32(double rate, double variance, double gap, double *A, double *Q) {
    double x = rate * gap, root, fall;
    decay(x, root, fall);
    double e = root * root, z = 2.0 * x, g = gamma_3(z, e);
    A[0] = root * (1.0 + x);
    A[1] = root * gap;
    A[2] = -root * rate * x;
    A[3] = root * (1.0 - x);
    Q[0] = variance * g;
    Q[1] = Q[2] = 0.5 * variance * rate * z * z * e;
    Q[3] = variance * rate * rate * (g + 2.0 * z * e);
}

__device__ __forceinline__ void matern52_transition(double rate, double gap, double root, double *A) {
    double x = rate * gap;
    A[0] = root * (1.0 + x + 0.5 * x * x);
    A[1] = root * gap * (1.0 + x);
    A[2] = root * 0.5 * gap * gap;
    A[3] = -root * 0.5 * rate * x * x;
    A[4] = root * (1.0 + x - x * x);
    A[5] = root * gap * (1.0 - 0.5 * x);
    A[6] = root * rate * rate * x * (0.5 * x - 1.0);
    A[7] = root * rate * x * (x - 3.0);
    A[8] = root * (1.0 - 2.0 * x + 0.5 * x * x);
}

__device__ __forceinline__ void matern52(double rate, double variance, double gap, double *A, double *Q) {
    double x = rate * gap, root, fall;
    decay(x, root, fall);
    double e = root * root, z = 2.0 * x, z2 = z * z, g = gamma_5(z, e);
    matern52_transition(rate, gap, root, A);
    double v1 = variance * rate, v2 = v1 * rate, v3 = v2 * rate;
    Q[0] = variance * g;
    Q[1] = Q[3] = v1 * e * z2 * z2 / 24.0;
    Q[2] = Q[6] = v2 / 3.0 * (e * z2 * z * (2.0 - z) / 6.0 - g);
    Q[4] = v2 / 3.0 * (g + e * z2 * z * (8.0 - z) / 12.0);
    Q[5] = Q[7] = v3 / 24.0 * e * z2 * (4.0 - z) * (4.0 - z);
    Q[8] = v3 * rate / 3.0 * (3.0 * g + 2.0 * e * z * (4.0 - z * (2.0 - z)));
}

template <int KIND> __device__ __forceinline__ void
stationary(double rate, double variance, double gap, double *A, double *Q) {
    if constexpr (KIND == OU) {
        double fall;
        decay(rate * gap, A[0], fall);
        Q[0] = -variance * fall * (1.0 + A[0]);
    } else if constexpr (KIND == MATERN32) {
        matern32(rate, variance, gap, A, Q);
    } else {
        matern52(rate, variance, gap, A, Q);
    }
}

// the process that a unit turns, and its number of states
__device__ constexpr int turned(int kind) {
    return kind == ROTATED_OU ? OU : kind == ROTATED_MATERN32 ? MATERN32 : MATERN52;
}

template <int U> __device__ __forceinline__ void
discretize_unit(const double *parameters, double gap, const double *A_row, const double *Q_row, double *A, double *Q) {
    using Own = Unit<U>;
    constexpr int kind = Own::kind, s = Own::size;
    const double *own = parameters + 3 * Own::owner;
    double first = own[0], second = own[1], third = own[2];
    A += Own::packed;
    Q += Own::packed;
    if constexpr (kind == RANDOM_WALK) {
        A[0] = 1.0;
        Q[0] = first * gap;
    } else if constexpr (kind == TREND) {
        A[0] = A[3] = 1.0;
        A[1] = gap;
        A[2] = 0.0;
        Q[0] = gap * (first + second * gap * gap / 3.0);
        Q[1] = Q[2] = second * gap * gap / 2.0;
        Q[3] = second * gap;
    } else if constexpr (kind == ROTATION) {
        rotation(first * gap, A[0], A[1]);
        A[2] = -A[1];
        A[3] = A[0];
        Q[0] = Q[3] = second * gap;
        Q[1] = Q[2] = 0.0;
    } else if constexpr (kind == OU || kind == MATERN32 || kind == MATERN52) {
        stationary<kind>(first, second, gap, A, Q);
    } else if constexpr (kind == TABLE) {
#pragma unroll
        for (int i = 0; i < s * s; i++) {
            A[i] = A_row ? A_row[Own::table + i] : i % (s + 1) ? 0.0 : 1.0;
            Q[i] = Q_row ? Q_row[Own::table + i] : 0.0;
        }
    } else if constexpr (kind == SHO) {
        // through arrays of its own: what a called function writes to cannot be in registers
        double own_A[4], own_Q[4];
        oscillator(first, second, third, gap, own_A, own_Q);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            A[i] = own_A[i];
            Q[i] = own_Q[i];
        }
    } else {
        constexpr int m = s / 2;
        double B[m * m], R[m * m], c, sine;
        stationary<turned(kind)>(first, second, gap, B, R);
        rotation(third * gap, c, sine);
#pragma unroll
        for (int i = 0; i < m; i++)
#pragma unroll
            for (int j = 0; j < m; j++) {
                double a = B[i * m + j], q = R[i * m + j];
                int above = i * s + j, below = above + m * s;
                A[above] = A[below + m] = c * a;
                A[above + m] = sine * a;
                A[below] = -sine * a;
                Q[above] = Q[below + m] = q;
                Q[above + m] = Q[below] = 0.0;
            }
    }
}

// A(Δ) and Q(Δ) of all units; the rows of tables where there are any, null for a gap of a table that moves nothing
__device__ __forceinline__ void
discretize(const double *parameters, double gap, const double *A_row, const double *Q_row, double *A, double *Q) {
    each<0, UNITS>([&](auto u) { discretize_unit<decltype(u)::value>(parameters, gap, A_row, Q_row, A, Q); });
}

__device__ __forceinline__ void
contract_matern32(double rate, double variance, double gap, const double *A, const double *Q, double *out) {
    double x = rate * gap, root, fall;
    decay(x, root, fall);
    double e = root * root, z = 2.0 * x, g = gamma_3(z, e), cross = Q[1] + Q[2];
    out[0] += root * (-gap * x * A[0] - gap * gap * A[1] - x * (2.0 - x) * A[2] - gap * (2.0 - x) * A[3]) +
              variance * (Q[0] * gap * z * z * e + cross * 0.5 * z * z * (3.0 - z) * e +
                          Q[3] * rate * (2.0 * (g + 2.0 * z * e) + x * (2.0 - z) * (2.0 - z) * e));
    out[1] += Q[0] * g + cross * 0.5 * rate * z * z * e + Q[3] * rate * rate * (g + 2.0 * z * e);
}

__device__ __forceinline__ void
contract_matern52(double rate, double variance, double gap, const double *A, const double *Q, double *out) {
    double x = rate * gap, root, fall;
    decay(x, root, fall);
    double e = root * root, z = 2.0 * x, z2 = z * z, z3 = z2 * z, g = gamma_5(z, e), x2 = x * x, x3 = x2 * x;
    // λ dA_ij/dλ = λ^(i−j) β_ij(x) exp(−x)
    double diagonal = -0.5 * x3 * A[0] + x2 * (x - 3.0) * A[4] + x * (3.0 * x - 3.0 - 0.5 * x2) * A[8];
    // each divided by λ, where λ may be small: x / λ is the gap
    double above = -gap * x2 * A[1] + 0.5 * gap * x * (x - 3.0) * A[5];
    double below = 0.5 * x2 * (x - 3.0) * A[3] + x * (6.0 * x - 6.0 - x2) * A[7];
    double corner = x * (3.0 * x - 3.0 - 0.5 * x2) * A[6];
    out[0] += root * (diagonal / rate + below + corner * rate - 0.5 * gap * gap * gap * A[2] + above / rate);
    // Q_ij = σ² λ^(i+j) f_ij(z), so λ dQ_ij/dλ = σ² λ^(i+j) ((i + j) f_ij + z f′_ij)
    double q01 = Q[1] + Q[3], q02 = Q[2] + Q[6], q12 = Q[5] + Q[7];
    double f01 = e * z2 * z2 / 24.0, f02 = (e * z3 * (2.0 - z) / 6.0 - g) / 3.0;
    double f11 = (g + e * z3 * (8.0 - z) / 12.0) / 3.0, f12 = e * z2 * (4.0 - z) * (4.0 - z) / 24.0;
    double f22 = g + e * z * (8.0 - z * (4.0 - 2.0 * z)) / 3.0;
    double d00 = e * z3 * z2 / 24.0, d01 = e * z2 * z2 * (4.0 - z) / 24.0;
    double d02 = e * z3 * (1.0 - z + z2 / 8.0) / 3.0;
    double d11 = 2.0 / 3.0 * e * z3 * (1.0 - 0.25 * z) * (1.0 - 0.25 * z);
    double d12 = e * z2 * (4.0 - z) * (8.0 - z * (8.0 - z)) / 24.0;
    double d22 = 8.0 / 3.0 * e * z * (1.0 - z + z2 / 8.0) * (1.0 - z + z2 / 8.0);
    out[0] += variance * (Q[0] * d00 / rate + q01 * (f01 + d01) +
                          rate * (q02 * (2.0 * f02 + d02) + Q[4] * (2.0 * f11 + d11)) +
                          rate * rate * (q12 * (3.0 * f12 + d12) + rate * Q[8] * (4.0 * f22 + d22)));
    out[1] += Q[0] * g + rate * (q01 * f01 + rate * (q02 * f02 + Q[4] * f11 + rate * (q12 * f12 + rate * Q[8] * f22)));
}

template <int KIND> __device__ __forceinline__ void
contract_stationary(double rate, double variance, double gap, const double *A, const double *Q, double *out) {
    if constexpr (KIND == OU) {
        double root, fall;
        decay(rate * gap, root, fall);
        out[0] += gap * root * (2.0 * variance * root * Q[0] - A[0]);
        out[1] -= fall * (1.0 + root) * Q[0];
    } else if constexpr (KIND == MATERN32) {
        contract_matern32(rate, variance, gap, A, Q, out);
    } else {
        contract_matern52(rate, variance, gap, A, Q, out);
    }
}

// Adds to ``out`` (blocks, 3); what belongs to tables is left out.
template <int U> __device__ __forceinline__ void
contract_unit(const double *parameters, double gap, const double *A, const double *Q, double *out) {
    using Own = Unit<U>;
    constexpr int kind = Own::kind, s = Own::size;
    const double *own = parameters + 3 * Own::owner;
    double first = own[0], second = own[1], third = own[2];
    A += Own::packed;
    Q += Own::packed;
    out += 3 * Own::owner;
    if constexpr (kind == RANDOM_WALK) {
        out[0] += gap * Q[0];
    } else if constexpr (kind == TREND) {
        out[0] += gap * Q[0];
        out[1] += gap * (gap * gap / 3.0 * Q[0] + 0.5 * gap * (Q[1] + Q[2]) + Q[3]);
    } else if constexpr (kind == ROTATION) {
        double c, sine;
        rotation(first * gap, c, sine);
        out[0] += gap * (c * (A[1] - A[2]) - sine * (A[0] + A[3]));
        out[1] += gap * (Q[0] + Q[3]);
    } else if constexpr (kind == OU || kind == MATERN32 || kind == MATERN52) {
        contract_stationary<kind>(first, second, gap, A, Q, out);
    } else if constexpr (kind == SHO) {
        double own_A[4], own_Q[4], found[3] = {0, 0, 0};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            own_A[i] = A[i];
            own_Q[i] = Q[i];
        }
        contract_oscillator(first, second, third, gap, own_A, own_Q, found);
#pragma unroll
        for (int i = 0; i < 3; i++) out[i] += found[i];
    } else if constexpr (kind != TABLE) {
        // the adjoints of R ⊗ A_M and I₂ ⊗ Q_M become those of A_M and Q_M
        constexpr int m = s / 2;
        double B[m * m], R[m * m], A_bar[m * m], Q_bar[m * m], c, sine, along = 0.0;
        stationary<turned(kind)>(first, second, gap, B, R);
        rotation(third * gap, c, sine);
#pragma unroll
        for (int i = 0; i < m; i++)
#pragma unroll
            for (int j = 0; j < m; j++) {
                int above = i * s + j, below = above + m * s;
                double together = A[above] + A[below + m], apart = A[above + m] - A[below];
                along += B[i * m + j] * (c * apart - sine * together);
                A_bar[i * m + j] = c * together + sine * apart;
                Q_bar[i * m + j] = Q[above] + Q[below + m];
            }
        out[2] += gap * along;
        contract_stationary<turned(kind)>(first, second, gap, A_bar, Q_bar, out);
    }
}

__device__ __forceinline__ void
contract(const double *parameters, double gap, const double *A_bar, const double *Q_bar, double *out) {
    each<0, UNITS>([&](auto u) { contract_unit<decltype(u)::value>(parameters, gap, A_bar, Q_bar, out); });
}
