// The way back over one long record, parallel in time: what a stretch does to r, N is affine, and composes.
#include "associative.cuh"
#include "backward.cuh"
#include "checkpoints.cuh"

constexpr int MAP = SQUARE + MOMENTS;

// r ← Φᵀ r + ρ, N ← Φᵀ N Φ + Γ; Φ by rows
struct Map {
    double Phi[N][N], rho[N], Gamma[TRIANGLE];

    __device__ void begin() {
        for (int i = 0; i < N; i++) {
            rho[i] = 0.0;
            for (int j = 0; j < N; j++) Phi[i][j] = i == j;
        }
        for (int i = 0; i < TRIANGLE; i++) Gamma[i] = 0.0;
    }
    __device__ void write(double *to, long long i, long long count) const {
        const double *x = (const double *)this;
        for (int field = 0; field < MAP; field++) to[field * count + i] = x[field];
    }
    __device__ void read(const double *from, long long i, long long count) {
        double *x = (double *)this;
        for (int field = 0; field < MAP; field++) x[field] = from[field * count + i];
    }
    // r, N from after the stretch to before it
    __device__ void pull(double *r, double *X) const {
        double s[N], W[N][N], Y[TRIANGLE];
        for (int j = 0; j < N; j++) {
            s[j] = rho[j];
            for (int i = 0; i < N; i++) {
                s[j] += Phi[i][j] * r[i];
                W[i][j] = 0.0;
                for (int k = 0; k < N; k++) W[i][j] += X[at(i, k)] * Phi[k][j];
            }
        }
        for (int i = 0; i < N; i++)
            for (int j = i; j < N; j++) {
                double total = Gamma[at(i, j)];
                for (int k = 0; k < N; k++) total += Phi[k][i] * W[k][j];
                Y[at(i, j)] = total;
            }
        for (int i = 0; i < N; i++) r[i] = s[i];
        for (int i = 0; i < TRIANGLE; i++) X[i] = Y[i];
    }
};

// Filter again from the known start, keep predicted moments in ``steps``, and go back over the stretch.
extern "C" __global__ void __launch_bounds__(THREADS) summarize_back(
    const double* y, const double* dt, const double* h, const double* R, const double* parameters,
    const double* transition, const double* process_noise, const long long* gap_index, const double* mean,
    const double* covariance, const double* diffuse, long long samples, long long length, long long count,
    const double* starts, double* values, double* steps, double* maps) {
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= count) return;
    Record record = {y, dt, h, R, parameters, transition, process_noise, gap_index, mean, covariance, diffuse};
    Memory memory = {nullptr, steps, i, count};
    Motion motion;
    Moments start;
    State state;
    Totals totals;
    start.read(starts, i, count);
    state.begin(record);
    for (int j = 0; j < N; j++) state.a[j] = start.a[j];
    for (int j = 0; j < TRIANGLE; j++) state.P[j] = start.P[j];
    long long first = i * length, last = min(first + length, samples);
    forward_keeping(record, motion, state, totals, 0, first, last, memory);
    values[i] = totals.log_likelihood();
    Adjoint b;
    Map map;
    map.begin();
    for (int j = 0; j < N; j++) b.r[j] = 0.0;
    for (int j = 0; j < TRIANGLE; j++) b.N0[j] = 0.0;
    for (long long t = last - 1; t >= first; t--) {
        bool changed;
        if (t + 1 < samples && motion.to(record, t + 1, dt[t + 1], changed)) {
            for (int j = 0; j < N; j++) multiply<true>(motion.A, map.Phi[j]);
            multiply<true>(motion.A, b.r);
            congruence<true>(motion.A, b.N0);
        }
        const double *step = memory.step(t - first);
        double a[N], P[TRIANGLE], row[N], unused = 0.0;
        memory.read_moments(step, a, P);
        if (memory.read_mark(step) % 4 != SEEN) continue;
        Seen o;
        record.row(t, row);
        recall(o, a, P, row, record.noise(t), y[t], SEEN);
        for (int j = 0; j < N; j++) {
            double along = dot(map.Phi[j], o.k);
            for (int q = 0; q < N; q++) map.Phi[j][q] -= along * row[q];
        }
        back_over_observation<false>(b, o, row, a, P, unused, row);
    }
    for (int j = 0; j < N; j++) map.rho[j] = b.r[j];
    for (int j = 0; j < TRIANGLE; j++) map.Gamma[j] = b.N0[j];
    map.write(maps, i, count);
}

extern "C" __global__ void __launch_bounds__(THREADS) fold_back(
    const double* maps, long long count, long long group, long long groups, double* folded) {
    long long g = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (g >= groups) return;
    Map whole, own;
    long long last = min((g + 1) * group, count) - 1;
    whole.read(maps, last, count);
    for (long long i = last - 1; i >= g * group; i--) {
        own.read(maps, i, count);
        own.pull(whole.rho, whole.Gamma);
        for (int q = 0; q < N; q++) {
            double row[N];
            for (int j = 0; j < N; j++) {
                row[j] = 0.0;
                for (int k = 0; k < N; k++) row[j] += whole.Phi[q][k] * own.Phi[k][j];
            }
            for (int j = 0; j < N; j++) whole.Phi[q][j] = row[j];
        }
    }
    whole.write(folded, g, groups);
}

// r, N after each group, by one thread.
extern "C" __global__ void __launch_bounds__(THREADS) lead_back(
    const double* folded, long long groups, double* ends) {
    if (threadIdx.x) return;
    Moments b;
    Map map;
    for (int i = 0; i < N; i++) b.a[i] = 0.0;
    for (int i = 0; i < TRIANGLE; i++) b.P[i] = 0.0;
    for (long long g = groups - 1; g >= 0; g--) {
        b.write(ends, g, groups);
        map.read(folded, g, groups);
        map.pull(b.a, b.P);
    }
}

// r, N after each stretch.
extern "C" __global__ void __launch_bounds__(THREADS) descend_back(
    const double* maps, long long count, long long group, long long groups, const double* after_groups, double* ends) {
    long long g = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (g >= groups) return;
    Moments b;
    Map map;
    b.read(after_groups, g, groups);
    for (long long i = min((g + 1) * group, count) - 1; i >= g * group; i--) {
        b.write(ends, i, count);
        map.read(maps, i, count);
        map.pull(b.a, b.P);
    }
}
