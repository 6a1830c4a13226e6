// What a stretch of a record does to the state before it, whatever that is: elements that compose (Särkkä & García-
// Fernández 2021), and moments that pass through them. SoA: field after field, ``count`` of each.
#pragma once
#include "forward.cuh"

constexpr int SQUARE = N * N, ELEMENT = SQUARE + 2 * N + 2 * TRIANGLE, MOMENTS = N + TRIANGLE;

// Given x before it, the state after a stretch is N(Φ x + b, C), and the stretch's likelihood exp(η·x − ½ xᵀJ x) up to a
// factor. Φ by columns.
struct Element {
    double Phi[N][N], b[N], C[TRIANGLE], eta[N], J[TRIANGLE];

    __device__ void begin() {
        for (int i = 0; i < N; i++) {
            b[i] = eta[i] = 0.0;
            for (int j = 0; j < N; j++) Phi[j][i] = i == j;
        }
        for (int i = 0; i < TRIANGLE; i++) C[i] = J[i] = 0.0;
    }
    __device__ void write(double *to, long long i, long long count) const {
        const double *x = (const double *)this;
        for (int field = 0; field < ELEMENT; field++) to[field * count + i] = x[field];
    }
    __device__ void read(const double *from, long long i, long long count) {
        double *x = (double *)this;
        for (int field = 0; field < ELEMENT; field++) x[field] = from[field * count + i];
    }
};

struct Moments {
    double a[N], P[TRIANGLE];

    __device__ void write(double *to, long long i, long long count) const {
        for (int field = 0; field < N; field++) to[field * count + i] = a[field];
        for (int field = 0; field < TRIANGLE; field++) to[(N + field) * count + i] = P[field];
    }
    __device__ void read(const double *from, long long i, long long count) {
        for (int field = 0; field < N; field++) a[field] = from[field * count + i];
        for (int field = 0; field < TRIANGLE; field++) P[field] = from[(N + field) * count + i];
    }
};

// X ← B⁻¹ X, X (N, K), by elimination with pivots
template <int K> __device__ __noinline__ void solve(double (*B)[N], double (*X)[K]) {
    for (int c = 0; c < N; c++) {
        int pivot = c;
        for (int i = c + 1; i < N; i++)
            if (fabs(B[i][c]) > fabs(B[pivot][c])) pivot = i;
        for (int j = 0; j < N; j++) {
            double kept = B[c][j];
            B[c][j] = B[pivot][j];
            B[pivot][j] = kept;
        }
        for (int j = 0; j < K; j++) {
            double kept = X[c][j];
            X[c][j] = X[pivot][j];
            X[pivot][j] = kept;
        }
        for (int i = c + 1; i < N; i++) {
            double factor = B[i][c] / B[c][c];
            for (int j = c; j < N; j++) B[i][j] -= factor * B[c][j];
            for (int j = 0; j < K; j++) X[i][j] -= factor * X[c][j];
        }
    }
    for (int i = N - 1; i >= 0; i--)
        for (int j = 0; j < K; j++) {
            double total = X[i][j];
            for (int k = i + 1; k < N; k++) total -= B[i][k] * X[k][j];
            X[i][j] = total / B[i][i];
        }
}

// B = I + P J
__device__ __noinline__ void one_plus_product(const double *P, const double *J, double (*B)[N]) {
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            double total = i == j;
            for (int k = 0; k < N; k++) total += P[at(i, k)] * J[at(k, j)];
            B[i][j] = total;
        }
}

// C + Φ V Φᵀ, V the N columns of X from ``first`` on, whose two triangles differ by rounding
template <int K> __device__ __noinline__ void
spread(const double (*Phi)[N], const double (*X)[K], int first, const double *C, double *out) {
    double half[N][N];
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            half[i][j] = 0.0;
            for (int k = 0; k < N; k++)
                half[i][j] += Phi[k][i] * 0.5 * (X[k][first + j] + X[j][first + k]);
        }
    for (int i = 0; i < N; i++)
        for (int j = i; j < N; j++) {
            double total = C[at(i, j)];
            for (int k = 0; k < N; k++) total += half[i][k] * Phi[k][j];
            out[at(i, j)] = total;
        }
}

// ``e`` becomes e and then ``next``.
__device__ __noinline__ void append(Element &e, const Element &next) {
    constexpr int K = 2 * N + 1;
    double B[N][N], X[N][K], rest[N], along[N];
    one_plus_product(e.C, next.J, B);
    symmetric_product(e.C, next.eta, along);
    symmetric_product(next.J, e.b, rest);
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < N; j++) {
            X[i][j] = e.Phi[j][i];
            X[i][N + j] = e.C[at(i, j)];
        }
        X[i][2 * N] = e.b[i] + along[i];
        rest[i] = next.eta[i] - rest[i];
    }
    solve<K>(B, X);
    // η + Wᵀ (η′ − J′ b), J + Wᵀ J′ Φ, W = (I + C J′)⁻¹ Φ
    for (int j = 0; j < N; j++) {
        double pulled[N];
        symmetric_product(next.J, e.Phi[j], pulled);
        for (int i = 0; i < N; i++) {
            e.eta[j] += X[i][j] * rest[i];
            for (int k = 0; k <= j; k++) e.J[at(k, j)] += X[i][k] * pulled[i];
        }
    }
    spread<K>(next.Phi, X, N, next.C, e.C);
    for (int i = 0; i < N; i++) {
        e.b[i] = next.b[i];
        for (int k = 0; k < N; k++) e.b[i] += next.Phi[k][i] * X[k][2 * N];
    }
    for (int j = 0; j < N; j++)
        for (int i = 0; i < N; i++) {
            e.Phi[j][i] = 0.0;
            for (int k = 0; k < N; k++) e.Phi[j][i] += next.Phi[k][i] * X[k][j];
        }
}

// Filtered moments before a stretch become those after it.
__device__ __noinline__ void carry(Moments &s, const Element &e) {
    constexpr int K = N + 1;
    double B[N][N], X[N][K], along[N];
    one_plus_product(s.P, e.J, B);
    symmetric_product(s.P, e.eta, along);
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < N; j++) X[i][j] = s.P[at(i, j)];
        X[i][N] = s.a[i] + along[i];
    }
    solve<K>(B, X);
    spread<K>(e.Phi, X, 0, e.C, s.P);
    for (int i = 0; i < N; i++) {
        s.a[i] = e.b[i];
        for (int k = 0; k < N; k++) s.a[i] += e.Phi[k][i] * X[k][N];
    }
}
