// Smoothed moments of the stretches of one long record.
//
// READ: rows of the readout, 0 for all moments; EACH_READ: whether each sample has its own.
#include "associative.cuh"
#include "backward.cuh"
#include "checkpoints.cuh"

// From r, N after every stretch.
extern "C" __global__ void __launch_bounds__(THREADS) smooth_stretches(
    const double* y, const double* dt, const double* h, const double* R, const double* parameters,
    const double* transition, const double* process_noise, const long long* gap_index, const double* mean,
    const double* covariance, const double* diffuse, long long samples, long long length, long long count,
    double* steps, const double* ends, const double* readout, double* means, double* covariances) {
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= count) return;
    Record record = {y, dt, h, R, parameters, transition, process_noise, gap_index, mean, covariance, diffuse};
    Memory memory = {nullptr, steps, i, count};
    Motion motion;
    Moments end;
    Adjoint b;
    end.read(ends, i, count);
    for (int j = 0; j < N; j++) b.r[j] = end.a[j];
    for (int j = 0; j < TRIANGLE; j++) b.N0[j] = end.P[j];
    long long first = i * length, last = min(first + length, samples);
    for (long long t = last - 1; t >= first; t--) {
        bool changed;
        if (t + 1 < samples && motion.to(record, t + 1, dt[t + 1], changed)) {
            multiply<true>(motion.A, b.r);
            congruence<true>(motion.A, b.N0);
        }
        const double *step = memory.step(t - first);
        double a[N], P[TRIANGLE], x[N];
        memory.read_moments(step, a, P);
        if (memory.read_mark(step) % 4 == SEEN) {
            Seen o;
            double row[N], unused = 0.0;
            record.row(t, row);
            recall(o, a, P, row, record.noise(t), y[t], SEEN);
            back_over_observation<false>(b, o, row, a, P, unused, row);
        }
        symmetric_product(P, b.r, x);
#pragma unroll
        for (int j = 0; j < N; j++) a[j] += x[j];
        reduce(P, b.N0);
        if (READ == 0) {
#pragma unroll
            for (int j = 0; j < N; j++) {
                means[t * N + j] = a[j];
#pragma unroll
                for (int k = 0; k < N; k++)
                    covariances[(t * N + j) * N + k] = j == k ? max(P[at(j, j)], 0.0) : P[at(j, k)];
            }
        }
        for (int r = 0; r < READ; r++) {
            double z[N], w[N];
#pragma unroll
            for (int j = 0; j < N; j++) z[j] = readout[((EACH_READ ? t : 0) * READ + r) * N + j];
            symmetric_product(P, z, w);
            means[t * READ + r] = dot(z, a);
            covariances[t * READ + r] = max(dot(z, w), 0.0);
        }
    }
}
