// Log-likelihoods and filtered moments: one thread a record.
#include "forward.cuh"

extern "C" __global__ void __launch_bounds__(THREADS) log_likelihood(
    const double* y, const double* dt, const double* h, const double* R, const double* parameters,
    const double* transition, const double* process_noise, const long long* gap_index, const double* mean,
    const double* covariance, const double* diffuse, const long long* starts, const long long* order,
    long long records, double* values, double* sizes) {
    long long thread = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (thread >= records) return;
    long long i = order[thread];
    Record record = {y, dt, h, R, parameters, transition, process_noise, gap_index, mean, covariance, diffuse};
    Motion motion;
    State state;
    Totals totals;
    state.begin(record);
    forward(record, motion, state, totals, starts[i], starts[i], starts[i + 1], [](long long) {},
            [](long long, const Observation &) {});
    values[i] = totals.log_likelihood();
    sizes[i] = totals.size;
}

// Results of sample t: means (T, N), covariances (T, N, N), v and F (T); of record i: the directions left
// (records, DIRECTIONS, N), zeros for those that are resolved, and how many samples began with one left.
extern "C" __global__ void __launch_bounds__(THREADS) filter(
    const double* y, const double* dt, const double* h, const double* R, const double* parameters,
    const double* transition, const double* process_noise, const long long* gap_index, const double* mean,
    const double* covariance, const double* diffuse, const long long* starts, const long long* order,
    long long records, double* values, double* sizes, double* means, double* covariances, double* innovations,
    double* variances, double* left, long long* began_diffuse, long long* last_diffuse) {
    long long thread = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (thread >= records) return;
    long long i = order[thread];
    Record record = {y, dt, h, R, parameters, transition, process_noise, gap_index, mean, covariance, diffuse};
    Motion motion;
    State state;
    Totals totals;
    state.begin(record);
    forward(record, motion, state, totals, starts[i], starts[i], starts[i + 1], [](long long) {},
            [&](long long t, const Observation &o) {
                innovations[t] = o.v;
                variances[t] = o.F_inf > 0.0 ? infinity() : o.F;
#pragma unroll
                for (int j = 0; j < N; j++) {
                    means[t * N + j] = state.a[j];
#pragma unroll
                    for (int k = 0; k < N; k++) covariances[(t * N + j) * N + k] = state.P[at(j, k)];
                }
            });
    values[i] = totals.log_likelihood();
    sizes[i] = totals.size;
    began_diffuse[i] = totals.began_diffuse;
    last_diffuse[i] = totals.last_diffuse;
    for (int c = 0; c < DIRECTIONS; c++)
        for (int j = 0; j < N; j++) left[(i * DIRECTIONS + c) * N + j] = c < state.alive ? state.D[c][j] : 0.0;
}
