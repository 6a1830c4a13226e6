// The exact diffuse start: directions D (rows) of infinite variance, what a sample sees of them, and which are left.
#pragma once
#include "layout.cuh"

// g = D h with invisible entries set to exactly 0; returns F∞ = g·g. See sweep.visible.
__device__ __noinline__ double visible(const double *h, const double (*D)[N], int alive, double *g) {
    double total = 0;
    for (int c = 0; c < alive; c++) {
        double x = 0, noise = 0;
        each<0, UNITS>([&](auto u) {
            using Own = Unit<decltype(u)::value>;
            constexpr bool mixes = Own::kind == ROTATION || Own::kind == TABLE;
            double hh = 0, dd = 0;
            for (int i = Own::first; i < Own::first + Own::size; i++) {
                x += h[i] * D[c][i];
                hh += h[i] * h[i];
                dd += D[c][i] * D[c][i];
                if (!mixes) noise += 1e-12 * fabs(h[i] * D[c][i]);
            }
            if (mixes) noise += 1e-9 * sqrt(hh * dd);
        });
        g[c] = fabs(x) > noise ? x : 0.0;
        total += g[c] * g[c];
    }
    return total;
}

// Reflect the rows of D so that one of them carries all of g, and drop that one.
__device__ __noinline__ void eliminate(double (*D)[N], int alive, const double *g) {
    int pivot = 0;
    for (int c = 1; c < alive; c++)
        if (fabs(g[c]) > fabs(g[pivot])) pivot = c;
    double norm = 0;
    for (int c = 0; c < alive; c++) norm += (g[c] / g[pivot]) * (g[c] / g[pivot]);
    norm = fabs(g[pivot]) * sqrt(norm);
    double u = g[pivot] + copysign(norm, g[pivot]), scale = 1.0 / (norm * fabs(u));
    for (int i = 0; i < N; i++) {
        double x = u * D[pivot][i];
        for (int c = 0; c < alive; c++)
            if (c != pivot) x += g[c] * D[c][i];
        x *= scale;
        for (int c = 0; c < alive; c++)
            if (c != pivot) D[c][i] -= g[c] * x;
        D[pivot][i] = D[alive - 1][i];
    }
}

// K0 = Dᵀ g / F∞
__device__ __noinline__ void diffuse_gain(const double (*D)[N], int alive, const double *g, double F_inf, double *k) {
    for (int i = 0; i < N; i++) {
        double total = 0;
        for (int c = 0; c < alive; c++) total += D[c][i] * g[c];
        k[i] = total / F_inf;
    }
}

// a ← a + K0 v, P∗ ← P∗ − M∗K0ᵀ − K0M∗ᵀ + F∗ K0K0ᵀ
__device__ __forceinline__ void
correct_diffuse(double *a, double *P, const double *m, double F, const double *k, double v) {
#pragma unroll
    for (int i = 0; i < N; i++) {
        a[i] += k[i] * v;
#pragma unroll
        for (int j = i; j < N; j++) P[at(i, j)] += F * k[i] * k[j] - m[i] * k[j] - k[i] * m[j];
    }
}

// The greatest variance of h·x, in any phase, that the diagonal of P allows.
__device__ __noinline__ double exposure(const double *h, const double *P) {
    double total = 0;
    each<0, UNITS>([&](auto u) {
        using Own = Unit<decltype(u)::value>;
        constexpr bool turns = Own::kind == ROTATION || Own::kind == TABLE;
        double most = 0, largest = 0;
        for (int i = Own::first; i < Own::first + Own::size; i++) {
            double spread = sqrt(max(P[at(i, i)], 0.0));
            if (turns) {
                most = max(most, fabs(h[i]));
                largest = max(largest, spread);
            } else {
                total += fabs(h[i]) * spread;
            }
        }
        total += most * largest;
    });
    return total * total;
}
