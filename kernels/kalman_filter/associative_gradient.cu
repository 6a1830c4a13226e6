// The gradient of the stretches of one long record.
//
// MOVES: whether the gradient by A(Δ) is wanted; BY_OBSERVATION: whether that by h is.
#include "associative.cuh"
#include "backward.cuh"
#include "checkpoints.cuh"

constexpr int SUMS = PARAMETERS + N + 1;

// From r, N after every stretch: ``totals`` (stretches, SUMS) by parameters, h and R; ``origin`` by
// the moments before the record. A transition belongs to the stretch that it leaves, the first one to the first.
extern "C" __global__ void __launch_bounds__(THREADS) differentiate_stretches(
    const double* y, const double* dt, const double* h, const double* R, const double* parameters,
    const double* transition, const double* process_noise, const long long* gap_index, const double* mean,
    const double* covariance, const double* diffuse, long long samples, long long length, long long count,
    double* steps, const double* ends, double* totals, double* by_noise, double* by_row, double* table_sums,
    double* origin) {
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= count) return;
    Record record = {y, dt, h, R, parameters, transition, process_noise, gap_index, mean, covariance, diffuse};
    Memory memory = {nullptr, steps, i, count};
    Motion motion;
    Moments end;
    Adjoint b;
    Back back = {record, {}, -1.0, table_sums};
    Sums &sums = back.sums;
    for (int j = 0; j < PARAMETERS; j++) sums.parameters[j] = 0.0;
    for (int j = 0; j < N; j++) sums.observation[j] = 0.0;
    sums.noise = 0.0;
    back.clear_run();
    end.read(ends, i, count);
    for (int j = 0; j < N; j++) b.r[j] = end.a[j];
    for (int j = 0; j < TRIANGLE; j++) b.N0[j] = end.P[j];
    long long first = i * length, last = min(first + length, samples);
    for (long long t = last - 1; t >= (i ? first : -1); t--) {
        bool changed, moves = false;
        if (t + 1 < samples) {
            double gap = dt[t + 1];
            moves = motion.to(record, t + 1, gap, changed);
            if (moves) back.turn(TABLES == PACKED ? 0.0 : gap);
        }
        double a[N], P[TRIANGLE];
        Seen o;
        if (t < 0) {
            o.v = 0.0;
            for (int j = 0; j < N; j++) {
                o.m[j] = o.k[j] = 0.0;
                a[j] = mean[j];
                for (int k = j; k < N; k++) P[at(j, k)] = covariance[j * N + k];
            }
            if (moves) back_over_transition<MOVES>(b, motion.A, a, P, o, sums);
        } else {
            const double *step = memory.step(t - first);
            int status = memory.read_mark(step) % 4;
            double row[N], noise = 0.0, by_this[N];
            memory.read_moments(step, a, P);
            record.row(t, row);
            recall(o, a, P, row, record.noise(t), y[t], status);
            if (moves) back_over_transition<MOVES>(b, motion.A, a, P, o, sums);
#pragma unroll
            for (int j = 0; j < N; j++) by_this[j] = 0.0;
            if (status == SEEN) back_over_observation<BY_OBSERVATION>(b, o, row, a, P, noise, by_this);
            if (EACH_R) by_noise[t] = noise;
            sums.noise += noise;
            if (BY_OBSERVATION)
#pragma unroll
                for (int j = 0; j < N; j++) {
                    if (EACH_H) by_row[t * N + j] = by_this[j];
                    sums.observation[j] += by_this[j];
                }
        }
        if (t + 1 < samples) back.leave_tables(t + 1, moves);
    }
    back.turn(-1.0);
    double *out = totals + i * SUMS;
    for (int j = 0; j < PARAMETERS; j++) *out++ = sums.parameters[j];
    for (int j = 0; j < N; j++) *out++ = sums.observation[j];
    *out++ = sums.noise;
    if (i) return;
    for (int j = 0; j < N; j++) {
        origin[j] = b.r[j];
        for (int k = 0; k < N; k++) origin[N + j * N + k] = 0.5 * (b.r[j] * b.r[k] - b.N0[at(j, k)]);
    }
}
