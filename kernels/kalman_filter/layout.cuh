// The blocks of a model, known when a kernel is compiled, and products with their block-diagonal matrices.
//
// Macros: N states in UNITS units of kinds KINDS, SIZES states and parameters in rows OWNERS; DIRECTIONS diffuse ones.
// A unit is a block, or one state of a random walk. Symmetric matrices are upper triangles, row by row; the matrices of
// units lie one after the other, row by row. Every index is a constant once loops are unrolled: all stays in registers.
#pragma once

enum { RANDOM_WALK, TREND, ROTATION, OU, MATERN32, MATERN52, TABLE, ROTATED_OU, ROTATED_MATERN32, ROTATED_MATERN52, SHO };

__device__ constexpr int listed(int which, int u) {
    constexpr int kinds[] = {KINDS}, sizes[] = {SIZES}, owners[] = {OWNERS};
    return which == 0 ? kinds[u] : which == 1 ? sizes[u] : owners[u];
}

// sums over the units before u: of sizes, of squared sizes, of squared sizes of tables
__device__ constexpr int before(int which, int u) {
    int total = 0;
    for (int v = 0; v < u; v++) {
        int s = listed(1, v);
        total += which == 0 ? s : which == 1 || listed(0, v) == TABLE ? s * s : 0;
    }
    return total;
}

template <int U> struct Unit {
    static constexpr int kind = listed(0, U), size = listed(1, U), owner = listed(2, U);
    static constexpr int first = before(0, U), packed = before(1, U), table = before(2, U);
};

constexpr int TRIANGLE = N * (N + 1) / 2, PACKED = before(1, UNITS), TABLES = before(2, UNITS);
constexpr int PARAMETERS = 3 * (listed(2, UNITS - 1) + 1);
// room for at least one, where there are none
constexpr int ROOM = DIRECTIONS > 0 ? DIRECTIONS : 1;

__device__ constexpr int at(int i, int j) {
    return i <= j ? i * N - i * (i - 1) / 2 + j - i : j * N - j * (j - 1) / 2 + i - j;
}

template <int I> struct Constant {
    static constexpr int value = I;
};

// f(Constant<FIRST>), …, f(Constant<LAST − 1>)
template <int FIRST, int LAST, class F> __device__ __forceinline__ void each(F &&f) {
    if constexpr (FIRST < LAST) {
        f(Constant<FIRST>{});
        each<FIRST + 1, LAST>(f);
    }
}

// x ← A_u x, or A_uᵀ x, of one unit
template <int U, bool TRANSPOSED> __device__ __forceinline__ void apply(const double *A, double *x) {
    using Own = Unit<U>;
    constexpr int s = Own::size, p = Own::packed;
    if constexpr (Own::kind == TREND) {
        if constexpr (TRANSPOSED)
            x[1] += A[p + 1] * x[0];
        else
            x[0] += A[p + 1] * x[1];
    } else if constexpr (Own::kind != RANDOM_WALK) {
        double y[s];
#pragma unroll
        for (int i = 0; i < s; i++) {
            y[i] = 0;
#pragma unroll
            for (int j = 0; j < s; j++) y[i] += A[p + (TRANSPOSED ? j * s + i : i * s + j)] * x[j];
        }
#pragma unroll
        for (int i = 0; i < s; i++) x[i] = y[i];
    }
}

template <bool TRANSPOSED> __device__ __forceinline__ void multiply(const double *A, double *x) {
    each<0, UNITS>([&](auto u) {
        constexpr int U = decltype(u)::value;
        apply<U, TRANSPOSED>(A, x + Unit<U>::first);
    });
}

// P ← A P Aᵀ, or Aᵀ P A, in pairs of units
template <bool TRANSPOSED> __device__ __forceinline__ void congruence(const double *A, double *P) {
    each<0, UNITS>([&](auto left) {
        constexpr int U = decltype(left)::value;
        each<U, UNITS>([&](auto right) {
            constexpr int V = decltype(right)::value;
            constexpr int s = Unit<U>::size, r = Unit<V>::size, o = Unit<U>::first, q = Unit<V>::first;
            double X[r][s];
#pragma unroll
            for (int j = 0; j < r; j++) {
#pragma unroll
                for (int i = 0; i < s; i++) X[j][i] = P[at(o + i, q + j)];
                apply<U, TRANSPOSED>(A, X[j]);
            }
#pragma unroll
            for (int i = 0; i < s; i++) {
                double row[r];
#pragma unroll
                for (int j = 0; j < r; j++) row[j] = X[j][i];
                apply<V, TRANSPOSED>(A, row);
#pragma unroll
                for (int j = U == V ? i : 0; j < r; j++) P[at(o + i, q + j)] = row[j];
            }
        });
    });
}

// P ← P + Q
__device__ __forceinline__ void add_blocks(const double *Q, double *P) {
    each<0, UNITS>([&](auto u) {
        using Own = Unit<decltype(u)::value>;
        constexpr int s = Own::size, o = Own::first;
#pragma unroll
        for (int i = 0; i < s; i++)
#pragma unroll
            for (int j = i; j < s; j++) P[at(o + i, o + j)] += Q[Own::packed + i * s + j];
    });
}

__device__ __forceinline__ double dot(const double *x, const double *y) {
    double total = 0;
#pragma unroll
    for (int i = 0; i < N; i++) total += x[i] * y[i];
    return total;
}

// out = P x of a symmetric P
__device__ __forceinline__ void symmetric_product(const double *P, const double *x, double *out) {
#pragma unroll
    for (int i = 0; i < N; i++) {
        out[i] = 0;
#pragma unroll
        for (int j = 0; j < N; j++) out[i] += P[at(i, j)] * x[j];
    }
}
