// The backward recursion r, N of one record (README.md), in powers of 1/κ where a diffuse direction is yet to be seen.
#pragma once
#include "forward.cuh"

// r₀, N₀: all there is after the last diffuse sample
struct Adjoint {
    double r[N], N0[TRIANGLE];
};

// r₁, N₁, N₂, in memory: few samples need them
struct Late {
    double r1[N], N1[TRIANGLE], N2[TRIANGLE];
};

// Sums of one record's gradient, and of a run of equal gaps.
struct Sums {
    double parameters[PARAMETERS], observation[N], noise, A[PACKED], Q[PACKED];
};

struct Seen {
    double m[N], k[N], v, F, F_inf, u, c;
};

// What an observation was, of predicted moments.
__device__ __forceinline__ void
recall(Seen &o, const double *a, const double *P, const double *h, double R, double y, int status) {
    symmetric_product(P, h, o.m);
    o.F = max(dot(h, o.m), 0.0) + R;
    o.v = y - dot(h, a);
    o.F_inf = 0.0;
    double inverse = status == SEEN ? 1.0 / o.F : 0.0;
#pragma unroll
    for (int i = 0; i < N; i++) o.k[i] = o.m[i] * inverse;
}

// N ← N − h eᵀ − e hᵀ + c h hᵀ
__device__ __forceinline__ void fold(double *X, const double *h, const double *e, double c) {
#pragma unroll
    for (int i = 0; i < N; i++)
#pragma unroll
        for (int j = i; j < N; j++) X[at(i, j)] += h[i] * (c * h[j] - e[j]) - e[i] * h[j];
}

// Back over an ordinary observation; adds ∂ℓ/∂R to ``by_noise`` and, where wanted, ∂ℓ/∂h to ``by_row`` from the
// predicted a, P.
template <bool BY_ROW> __device__ __forceinline__ void
back_over_observation(Adjoint &b, const Seen &o, const double *h, const double *a, const double *P, double &by_noise,
                      double *by_row) {
    double e[N];
    symmetric_product(b.N0, o.k, e);
    double u = o.v / o.F - dot(o.k, b.r), c = dot(o.k, e) + 1.0 / o.F, F0 = 0.5 * (u * u - c);
    by_noise += F0;
    if constexpr (BY_ROW) {
        double x[N], Px[N];
#pragma unroll
        for (int i = 0; i < N; i++) x[i] = b.r[i] * u + e[i] + h[i] * F0;
        symmetric_product(P, x, Px);
#pragma unroll
        for (int i = 0; i < N; i++) by_row[i] += o.m[i] * F0 + a[i] * u + Px[i];
    }
    fold(b.N0, h, e, c);
#pragma unroll
    for (int i = 0; i < N; i++) b.r[i] += u * h[i];
}

// Q̄ += ½ (r rᵀ − N)
__device__ __forceinline__ void add_noise_adjoint(const Adjoint &b, double *Q_bar) {
    each<0, UNITS>([&](auto unit) {
        using Own = Unit<decltype(unit)::value>;
        constexpr int s = Own::size, o = Own::first;
#pragma unroll
        for (int i = 0; i < s; i++)
#pragma unroll
            for (int j = 0; j < s; j++)
                Q_bar[Own::packed + i * s + j] += 0.5 * (b.r[o + i] * b.r[o + j] - b.N0[at(o + i, o + j)]);
    });
}

// W = N A, and N ← Aᵀ N A
__device__ __forceinline__ void pull(const double *A, double *X, double (*W)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) {
#pragma unroll
        for (int j = 0; j < N; j++) W[i][j] = X[at(i, j)];
        multiply<true>(A, W[i]);
    }
#pragma unroll
    for (int j = 0; j < N; j++) {
        double column[N];
#pragma unroll
        for (int i = 0; i < N; i++) column[i] = W[i][j];
        multiply<true>(A, column);
#pragma unroll
        for (int i = 0; i <= j; i++) X[at(i, j)] = column[i];
    }
}

// Ā += r x̂ᵀ − W P of every unit whose A depends on parameters; r from after the transition, P before it
__device__ __forceinline__ void
add_transition_adjoint(const double *r, const double *smoothed, const double (*W)[N], const double *P, double *A_bar) {
    each<0, UNITS>([&](auto unit) {
        using Own = Unit<decltype(unit)::value>;
        constexpr int s = Own::size, o = Own::first;
        if constexpr (Own::kind != RANDOM_WALK && Own::kind != TREND) {
#pragma unroll
            for (int i = 0; i < s; i++)
#pragma unroll
                for (int j = 0; j < s; j++) {
                    double total = r[o + i] * smoothed[o + j];
#pragma unroll
                    for (int c = 0; c < N; c++) total -= W[o + i][c] * P[at(c, o + j)];
                    A_bar[Own::packed + i * s + j] += total;
                }
        }
    });
}

// Back over a transition that began at the filtered moments of ``o``, whose predicted ones are a, P.
template <bool BY_A> __device__ __forceinline__ void
back_over_transition(Adjoint &b, const double *A, const double *a, const double *P, const Seen &o, Sums &sums) {
    add_noise_adjoint(b, sums.Q);
    if constexpr (!BY_A) {
        multiply<true>(A, b.r);
        congruence<true>(A, b.N0);
    } else {
        double r[N], W[N][N], x[N];
#pragma unroll
        for (int i = 0; i < N; i++) r[i] = b.r[i];
        multiply<true>(A, b.r);
        pull(A, b.N0, W);
        // x̂ = a + k v + (P − k mᵀ) r
        symmetric_product(P, b.r, x);
        double gain = o.v - dot(o.m, b.r), filtered[TRIANGLE];
#pragma unroll
        for (int i = 0; i < N; i++) {
            // a missing sample has k = 0, and v is NaN
            x[i] += a[i] + (o.k[i] != 0.0 ? o.k[i] * gain : 0.0);
#pragma unroll
            for (int j = i; j < N; j++) filtered[at(i, j)] = P[at(i, j)] - o.k[i] * o.m[j];
        }
        add_transition_adjoint(r, x, W, filtered, sums.A);
    }
}

// What one sample of the diffuse start wants of its neighbours.
struct Step {
    double a[N], P[TRIANGLE], D[ROOM][N], h[N], A[PACKED], R, y;
    int alive, status;
    // whether a transition follows, and whether the adjoints are wanted or only r and N
    bool moves, contracts;
};

// Back over a transition in powers of 1/κ, from the filtered a, P, D.
__device__ __noinline__ void
back_over_late_transition(Adjoint &b, Late &l, const double *A, const double *a, const double *P,
                          const double (*D)[N], int alive, bool contracts, Sums &sums) {
    double r[N], W[N][N], x[N];
    if (contracts) add_noise_adjoint(b, sums.Q);
    for (int i = 0; i < N; i++) r[i] = b.r[i];
    multiply<true>(A, l.r1);
    congruence<true>(A, l.N2);
    pull(A, l.N1, W);
    for (int c = 0; c < alive && contracts; c++) {
        double WD[N];
        for (int i = 0; i < N; i++) WD[i] = dot(W[i], D[c]);
        each<0, UNITS>([&](auto unit) {
            using Own = Unit<decltype(unit)::value>;
            for (int i = 0; i < Own::size; i++)
                for (int j = 0; j < Own::size; j++)
                    sums.A[Own::packed + i * Own::size + j] -= WD[Own::first + i] * D[c][Own::first + j];
        });
    }
    multiply<true>(A, b.r);
    pull(A, b.N0, W);
    if (!contracts) return;
    symmetric_product(P, b.r, x);
    for (int i = 0; i < N; i++) x[i] += a[i];
    for (int c = 0; c < alive; c++) {
        double along = dot(D[c], l.r1);
        for (int i = 0; i < N; i++) x[i] += D[c][i] * along;
    }
    add_transition_adjoint(r, x, W, P, sums.A);
}

// Back over the transition that follows a sample before the last diffuse one, and over its observation.
__device__ __noinline__ void late_step(Adjoint &b, Late &l, const Step &s, Sums &sums, double &by_noise, double *by_row) {
    double a[N], P[TRIANGLE], D[ROOM][N], m[N], K0[N], g[ROOM], K1[N], e0[N], e1[N], first[N], second[N];
    int left = s.alive;
    for (int i = 0; i < N; i++) a[i] = s.a[i];
    for (int i = 0; i < TRIANGLE; i++) P[i] = s.P[i];
    for (int c = 0; c < s.alive; c++)
        for (int i = 0; i < N; i++) D[c][i] = s.D[c][i];
    symmetric_product(P, s.h, m);
    double F = max(dot(s.h, m), 0.0) + s.R, F_inf = 0.0, v = s.y - dot(s.h, a);
    if (s.status == DIFFUSE) {
        F_inf = visible(s.h, D, s.alive, g);
        diffuse_gain(D, s.alive, g, F_inf, K0);
        correct_diffuse(a, P, m, F, K0, v);
        eliminate(D, s.alive, g);
        left--;
    } else if (s.status == SEEN) {
        correct(a, P, m, F, s.R, v, K0);
    }
    if (s.moves) back_over_late_transition(b, l, s.A, a, P, D, left, s.contracts, sums);
    if (s.status != SEEN && s.status != DIFFUSE) return;
    // 1/F = 1/(κF∞) − F∗/(κF∞)² and k = K0 + K1/κ at a diffuse sample
    for (int i = 0; i < N; i++) K1[i] = F_inf > 0.0 ? (m[i] - K0[i] * F) / F_inf : 0.0;
    symmetric_product(b.N0, K0, e0);
    symmetric_product(b.N0, K1, first);
    symmetric_product(l.N1, K0, e1);
    double u0 = -dot(K0, b.r), c0 = dot(K0, e0), u1 = -dot(K0, l.r1) - dot(K1, b.r);
    double c1 = dot(K0, e1) + 2.0 * dot(K0, first), quadratic = dot(K1, first);
    for (int i = 0; i < N; i++) e1[i] += first[i];
    symmetric_product(l.N1, K1, first);
    symmetric_product(l.N2, K0, second);
    quadratic += dot(K0, second) + 2.0 * dot(K0, first);
    if (F_inf > 0.0) {
        u1 += v / F_inf;
        c1 += 1.0 / F_inf;
        quadratic -= F / (F_inf * F_inf);
    } else {
        u0 += v / F;
        c0 += 1.0 / F;
    }
    for (int i = 0; i < N; i++) second[i] += first[i];
    if (s.contracts) {
        double F0 = 0.5 * (u0 * u0 - c0), F1 = u0 * u1 - 0.5 * c1, x0[N], x1[N], Px[N];
        by_noise += F0;
        for (int i = 0; i < N; i++) {
            x0[i] = b.r[i] * u0 + e0[i] + s.h[i] * F0;
            x1[i] = b.r[i] * u1 + l.r1[i] * u0 + e1[i] + s.h[i] * F1;
        }
        symmetric_product(s.P, x0, Px);
        for (int i = 0; i < N; i++) by_row[i] += m[i] * F0 + s.a[i] * u0 + Px[i] + F_inf * K0[i] * F1;
        for (int c = 0; c < s.alive; c++) {
            double along = dot(s.D[c], x1);
            for (int i = 0; i < N; i++) by_row[i] += s.D[c][i] * along;
        }
    }
    fold(l.N2, s.h, second, quadratic);
    fold(l.N1, s.h, e1, c1);
    fold(b.N0, s.h, e0, c0);
    for (int i = 0; i < N; i++) {
        b.r[i] += u0 * s.h[i];
        l.r1[i] += u1 * s.h[i];
    }
}

// P ← P − P N P of symmetric matrices
__device__ __forceinline__ void reduce(double *P, const double *X) {
    double V[TRIANGLE];
#pragma unroll
    for (int j = 0; j < N; j++) {
        double column[N], w[N], x[N];
#pragma unroll
        for (int i = 0; i < N; i++) column[i] = P[at(i, j)];
        symmetric_product(X, column, w);
        symmetric_product(P, w, x);
#pragma unroll
        for (int i = 0; i <= j; i++) V[at(i, j)] = P[at(i, j)] - x[i];
    }
#pragma unroll
    for (int i = 0; i < TRIANGLE; i++) P[i] = V[i];
}

// Sums on the way back, contracted where the gap changes.
struct Back {
    const Record &record;
    Sums sums;
    // of the run of equal gaps that the sums of Ā and Q̄ belong to
    double gap = -1.0;
    double *table_sums;

    __device__ __forceinline__ void clear_run() {
#pragma unroll
        for (int i = 0; i < PACKED; i++) sums.A[i] = sums.Q[i] = 0.0;
    }

    // Contract what a run of equal gaps has added up, where the transition to sample t is of another.
    __device__ __forceinline__ void turn(double next) {
        if (next == gap) return;
        if (gap >= 0.0) contract(record.parameters, gap, sums.A, sums.Q, sums.parameters);
        clear_run();
        gap = next;
    }

    // The adjoints of a table's rows are those of one transition at a time; they are added up by row elsewhere.
    __device__ __forceinline__ void leave_tables(long long t, bool moved) {
        if constexpr (TABLES > 0) {
            each<0, UNITS>([&](auto unit) {
                using Own = Unit<decltype(unit)::value>;
                if constexpr (Own::kind == TABLE) {
                    constexpr int s = Own::size;
                    for (int i = 0; i < s * s; i++) {
                        table_sums[2 * t * TABLES + Own::table + i] = moved ? sums.A[Own::packed + i] : 0.0;
                        table_sums[(2 * t + 1) * TABLES + Own::table + i] = moved ? sums.Q[Own::packed + i] : 0.0;
                        sums.A[Own::packed + i] = sums.Q[Own::packed + i] = 0.0;
                    }
                }
            });
        }
    }
};
