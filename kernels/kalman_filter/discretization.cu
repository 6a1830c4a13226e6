// Dense A(Δ) and Q(Δ) of many gaps, and what a gradient by them is by the parameters: one thread a gap.
#include "processes.cuh"

extern "C" __global__ void discretize_each(
    const double* dt, const double* parameters, const double* transition, const double* process_noise,
    const long long* gap_index, long long count, double* A_out, double* Q_out) {
    long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (t >= count) return;
    double A[PACKED], Q[PACKED];
    long long row = TABLES ? gap_index[t] : -1;
    discretize(parameters, dt[t], row < 0 ? nullptr : transition + row * TABLES,
               row < 0 ? nullptr : process_noise + row * TABLES, A, Q);
    each<0, UNITS>([&](auto unit) {
        using Own = Unit<decltype(unit)::value>;
        for (int i = 0; i < Own::size; i++)
            for (int j = 0; j < Own::size; j++) {
                long long to = (t * N + Own::first + i) * N + Own::first + j;
                A_out[to] = A[Own::packed + i * Own::size + j];
                Q_out[to] = Q[Own::packed + i * Own::size + j];
            }
    });
}

// ``out`` (count, PARAMETERS)
extern "C" __global__ void contract_each(
    const double* dt, const double* parameters, const double* A_bar, const double* Q_bar, long long count,
    double* out) {
    long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (t >= count) return;
    double A[PACKED], Q[PACKED], found[PARAMETERS];
    for (int i = 0; i < PARAMETERS; i++) found[i] = 0.0;
    each<0, UNITS>([&](auto unit) {
        using Own = Unit<decltype(unit)::value>;
        for (int i = 0; i < Own::size; i++)
            for (int j = 0; j < Own::size; j++) {
                long long from = (t * N + Own::first + i) * N + Own::first + j;
                A[Own::packed + i * Own::size + j] = A_bar[from];
                Q[Own::packed + i * Own::size + j] = Q_bar[from];
            }
    });
    contract(parameters, dt[t], A, Q, found);
    for (int i = 0; i < PARAMETERS; i++) out[t * PARAMETERS + i] = found[i];
}
