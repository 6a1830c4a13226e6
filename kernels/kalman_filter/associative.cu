// The filter of one long record, parallel in time: ``length`` samples make a stretch, ``group`` stretches a group.
#include "associative.cuh"

// The elements of the stretches: a filter that starts at a known state, and how all of it depends on that state.
extern "C" __global__ void __launch_bounds__(THREADS) summarize(
    const double* y, const double* dt, const double* h, const double* R, const double* parameters,
    const double* transition, const double* process_noise, const long long* gap_index, const double* mean,
    const double* covariance, const double* diffuse, long long samples, long long length, long long count,
    double* elements) {
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= count) return;
    Record record = {y, dt, h, R, parameters, transition, process_noise, gap_index, mean, covariance, diffuse};
    Motion motion;
    Element e;
    e.begin();
    for (long long t = i * length; t < min((i + 1) * length, samples); t++) {
        bool changed;
        if (motion.to(record, t, dt[t], changed)) {
            for (int j = 0; j < N; j++) multiply<false>(motion.A, e.Phi[j]);
            multiply<false>(motion.A, e.b);
            congruence<false>(motion.A, e.C);
            add_blocks(motion.Q, e.C);
        }
        double row[N], m[N], k[N];
        record.row(t, row);
        double v = y[t] - dot(row, e.b), noise = record.noise(t);
        if (isnan(v)) continue;
        symmetric_product(e.C, row, m);
        double F = max(dot(row, m), 0.0) + noise, g[N];
        for (int j = 0; j < N; j++) {
            g[j] = dot(e.Phi[j], row);
            e.eta[j] += g[j] * v / F;
        }
        correct(e.b, e.C, m, F, noise, v, k);
        for (int j = 0; j < N; j++) {
            for (int q = 0; q < N; q++) e.Phi[j][q] -= k[q] * g[j];
            for (int q = 0; q <= j; q++) e.J[at(q, j)] += g[q] * g[j] / F;
        }
    }
    e.write(elements, i, count);
}

// The elements of the groups.
extern "C" __global__ void __launch_bounds__(THREADS) fold_groups(
    const double* elements, long long count, long long group, long long groups, double* folded) {
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= groups) return;
    Element e, next;
    e.read(elements, i * group, count);
    for (long long j = i * group + 1; j < min((i + 1) * group, count); j++) {
        next.read(elements, j, count);
        append(e, next);
    }
    e.write(folded, i, groups);
}

// The moments before each group, by one thread, and the information of the whole record on the state before it.
extern "C" __global__ void __launch_bounds__(THREADS) lead(
    const double* folded, long long groups, const double* mean, const double* covariance, double* starts,
    double* information) {
    if (threadIdx.x) return;
    Moments s;
    Element e, whole;
    for (int i = 0; i < N; i++) {
        s.a[i] = mean[i];
        for (int j = i; j < N; j++) s.P[at(i, j)] = covariance[i * N + j];
    }
    for (long long g = 0; g < groups; g++) {
        s.write(starts, g, groups);
        e.read(folded, g, groups);
        carry(s, e);
        if (!information) continue;
        if (g)
            append(whole, e);
        else
            whole = e;
    }
    if (!information) return;
    for (int i = 0; i < N; i++) {
        information[i] = whole.eta[i];
        for (int j = 0; j < N; j++) information[N + i * N + j] = whole.J[at(i, j)];
    }
}

// The moments before each stretch.
extern "C" __global__ void __launch_bounds__(THREADS) descend(
    const double* elements, long long count, long long group, long long groups, const double* before_groups,
    double* starts) {
    long long g = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (g >= groups) return;
    Moments s;
    Element e;
    s.read(before_groups, g, groups);
    for (long long i = g * group; i < min((g + 1) * group, count); i++) {
        s.write(starts, i, count);
        e.read(elements, i, count);
        carry(s, e);
    }
}

// The filter itself, every stretch from its own start; ``means`` and the others are null where only ``values`` are wanted.
extern "C" __global__ void __launch_bounds__(THREADS) filter_stretches(
    const double* y, const double* dt, const double* h, const double* R, const double* parameters,
    const double* transition, const double* process_noise, const long long* gap_index, const double* mean,
    const double* covariance, const double* diffuse, long long samples, long long length, long long count,
    const double* starts, double* values, double* means, double* covariances, double* innovations,
    double* variances) {
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= count) return;
    Record record = {y, dt, h, R, parameters, transition, process_noise, gap_index, mean, covariance, diffuse};
    Motion motion;
    Moments start;
    State state;
    Totals totals;
    start.read(starts, i, count);
    state.begin(record);
    for (int j = 0; j < N; j++) state.a[j] = start.a[j];
    for (int j = 0; j < TRIANGLE; j++) state.P[j] = start.P[j];
    forward(record, motion, state, totals, 0, i * length, min((i + 1) * length, samples), [](long long) {},
            [&](long long t, const Observation &o) {
                if (!means) return;
                innovations[t] = o.v;
                variances[t] = o.F;
#pragma unroll
                for (int j = 0; j < N; j++) {
                    means[t * N + j] = state.a[j];
#pragma unroll
                    for (int k = 0; k < N; k++) covariances[(t * N + j) * N + k] = state.P[at(j, k)];
                }
            });
    values[i] = totals.log_likelihood();
}
