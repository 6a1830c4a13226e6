// Log-likelihoods and the exact gradient of their sum: records in turns, one thread each.
//
// MOVES: whether the gradient by A(Δ) is wanted; BY_OBSERVATION: whether that by h is.
#include "backward.cuh"
#include "checkpoints.cuh"

// a thread's sums, one after the other: by parameters, h (1, N), R (1), a, P (N, N), D (N, DIRECTIONS)
constexpr int SUMS = PARAMETERS + N + 1 + N + N * N + N * DIRECTIONS;

extern "C" __global__ void __launch_bounds__(THREADS) gradient(
    const double* y, const double* dt, const double* h, const double* R, const double* parameters,
    const double* transition, const double* process_noise, const long long* gap_index, const double* mean,
    const double* covariance, const double* diffuse, const long long* starts, const long long* order,
    long long records, double* values, double* sizes, long long length, double* checkpoints, double* steps,
    double* totals_by_thread, double* table_sums, double* by_noise, double* by_row) {
    long long thread = blockIdx.x * (long long)blockDim.x + threadIdx.x, threads = gridDim.x * (long long)blockDim.x;
    Record record = {y, dt, h, R, parameters, transition, process_noise, gap_index, mean, covariance, diffuse};
    Memory memory = {checkpoints, steps, thread, threads};
    double by_mean[N], by_covariance[N * N], by_diffuse[N * ROOM];
    for (int i = 0; i < N; i++) by_mean[i] = 0.0;
    for (int i = 0; i < N * N; i++) by_covariance[i] = 0.0;
    for (int i = 0; i < N * ROOM; i++) by_diffuse[i] = 0.0;
    Back back = {record, {}, -1.0, table_sums};
    Sums &sums = back.sums;
    for (int i = 0; i < PARAMETERS; i++) sums.parameters[i] = 0.0;
    for (int i = 0; i < N; i++) sums.observation[i] = 0.0;
    sums.noise = 0.0;
    back.clear_run();
    for (long long q = thread; q < records; q += threads) {
        long long index = order[q], begin = starts[index], end = starts[index + 1], segments;
        Motion motion;
        Totals totals;
        {
            State state;
            state.begin(record);
            segments = forth(record, motion, state, totals, begin, end, length, memory);
        }
        values[index] = totals.log_likelihood();
        sizes[index] = totals.size;
        Adjoint b;
        Late late;
        for (int i = 0; i < N; i++) b.r[i] = late.r1[i] = 0.0;
        for (int i = 0; i < TRIANGLE; i++) b.N0[i] = late.N1[i] = late.N2[i] = 0.0;
        long long last_diffuse = begin + totals.last_diffuse;
        for (long long segment = segments - 1; segment >= 0; segment--) {
            long long first = begin + segment * length, last = min(first + length, end);
            if (segment + 1 < segments) again(record, motion, begin, first, last, segment, memory);
            // t = begin − 1 stands for the state that the first transition leaves
            for (long long t = last - 1; t >= (segment ? first : first - 1); t--) {
                bool origin = t < begin, changed, moves = false;
                if (t + 1 < end) {
                    double gap = dt[t + 1];
                    moves = motion.to(record, t + 1, gap, changed);
                    if (moves) back.turn(TABLES == PACKED ? 0.0 : gap);
                }
                const double *step = memory.step(t - first);
                Seen o;
                double row[N];
                if (DIRECTIONS > 0 && t < last_diffuse) {
                    Step s;
                    Adjoint copy = b;
                    Sums found;
                    double by_this = 0.0, by_that[N];
                    for (int i = 0; i < N; i++) by_that[i] = 0.0;
                    for (int i = 0; i < PACKED; i++) found.A[i] = found.Q[i] = 0.0;
                    if (origin) {
                        State state;
                        state.begin(record);
                        for (int i = 0; i < N; i++) s.a[i] = state.a[i];
                        for (int i = 0; i < TRIANGLE; i++) s.P[i] = state.P[i];
                        for (int c = 0; c < DIRECTIONS; c++)
                            for (int i = 0; i < N; i++) s.D[c][i] = state.D[c][i];
                        s.status = MISSING;
                        s.alive = DIRECTIONS;
                        s.R = s.y = 0.0;
                        for (int i = 0; i < N; i++) s.h[i] = 0.0;
                    } else {
                        int mark = memory.read_mark(step);
                        memory.read_moments(step, s.a, s.P);
                        s.status = mark % 4;
                        s.alive = mark / 4;
                        memory.read_directions(step, s.D, s.alive);
                        s.R = record.noise(t);
                        s.y = y[t];
                        record.row(t, s.h);
                    }
                    for (int i = 0; i < PACKED; i++) s.A[i] = motion.A[i];
                    s.moves = moves;
                    s.contracts = true;
                    late_step(copy, late, s, found, by_this, by_that);
                    b = copy;
                    for (int i = 0; i < PACKED; i++) {
                        sums.A[i] += found.A[i];
                        sums.Q[i] += found.Q[i];
                    }
                    if (!origin) {
                        if (EACH_R) by_noise[t] = by_this;
                        sums.noise += by_this;
                        for (int i = 0; i < N; i++) {
                            if (EACH_H) by_row[t * N + i] = by_that[i];
                            sums.observation[i] += by_that[i];
                        }
                    }
                } else if (origin) {
                    if (moves) {
                        double P[TRIANGLE];
                        o.v = 0.0;
#pragma unroll
                        for (int i = 0; i < N; i++) {
                            o.m[i] = o.k[i] = 0.0;
#pragma unroll
                            for (int j = i; j < N; j++) P[at(i, j)] = covariance[i * N + j];
                        }
                        back_over_transition<MOVES>(b, motion.A, mean, P, o, sums);
                    }
                } else {
                    double a[N], P[TRIANGLE];
                    int status = memory.read_mark(step) % 4;
                    memory.read_moments(step, a, P);
                    record.row(t, row);
                    recall(o, a, P, row, record.noise(t), y[t], status);
                    if (moves) back_over_transition<MOVES>(b, motion.A, a, P, o, sums);
                    double noise = 0.0, by_this[N];
#pragma unroll
                    for (int i = 0; i < N; i++) by_this[i] = 0.0;
                    if (status == SEEN) back_over_observation<BY_OBSERVATION>(b, o, row, a, P, noise, by_this);
                    if (EACH_R) by_noise[t] = noise;
                    sums.noise += noise;
                    if (BY_OBSERVATION)
#pragma unroll
                        for (int i = 0; i < N; i++) {
                            if (EACH_H) by_row[t * N + i] = by_this[i];
                            sums.observation[i] += by_this[i];
                        }
                }
                if (t + 1 < end) back.leave_tables(t + 1, moves);
            }
        }
        back.turn(-1.0);
        for (int i = 0; i < N; i++) {
            by_mean[i] += b.r[i];
            for (int j = 0; j < N; j++) {
                by_covariance[i * N + j] += 0.5 * (b.r[i] * b.r[j] - b.N0[at(i, j)]);
                double c = b.r[i] * late.r1[j] + late.r1[i] * b.r[j] - late.N1[at(i, j)];
                for (int k = 0; k < DIRECTIONS; k++) by_diffuse[i * ROOM + k] += c * diffuse[j * DIRECTIONS + k];
            }
        }
    }
    double *out = totals_by_thread + thread * SUMS;
    for (int i = 0; i < PARAMETERS; i++) *out++ = sums.parameters[i];
    for (int i = 0; i < N; i++) *out++ = sums.observation[i];
    *out++ = sums.noise;
    for (int i = 0; i < N; i++) *out++ = by_mean[i];
    for (int i = 0; i < N * N; i++) *out++ = by_covariance[i];
    for (int i = 0; i < N; i++)
        for (int k = 0; k < DIRECTIONS; k++) *out++ = by_diffuse[i * ROOM + k];
}

// Sums over the samples of each row of a table, in the order of ``samples``; a block a row of ``first``'s intervals.
extern "C" __global__ void sum_by_row(
    const double* table_sums, const long long* samples, const long long* first, double* out) {
    for (int i = threadIdx.x; i < 2 * TABLES; i += blockDim.x) {
        double total = 0.0;
        for (long long q = first[blockIdx.x]; q < first[blockIdx.x + 1]; q++)
            total += table_sums[2 * samples[q] * TABLES + i];
        out[2 * (long long)blockIdx.x * TABLES + i] = total;
    }
}
