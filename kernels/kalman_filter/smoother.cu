// Smoothed moments, or those of linear combinations of the state: records in turns, one thread each.
//
// READ: rows of the readout, 0 for all moments; EACH_READ: whether each sample has its own.
#include "backward.cuh"
#include "checkpoints.cuh"

constexpr int ROWS = READ > 0 ? READ : N;

// Whether the data leave z·x without any bound: see smoothing.unresolved.
__device__ __noinline__ bool unresolved(const double *z, const double (*D)[N], int alive, const double *N1) {
    double along[N], w[N], scale = 0.0, total = 0.0;
    for (int i = 0; i < N; i++) along[i] = 0.0;
    for (int c = 0; c < alive; c++) {
        double x = dot(D[c], z);
        for (int i = 0; i < N; i++) along[i] += x * D[c][i];
        each<0, UNITS>([&](auto unit) {
            using Own = Unit<decltype(unit)::value>;
            constexpr bool mixes = Own::kind == ROTATION || Own::kind == TABLE;
            double zz = 0.0, dd = 0.0;
            for (int i = Own::first; i < Own::first + Own::size; i++) {
                zz += z[i] * z[i];
                dd += D[c][i] * D[c][i];
                if (!mixes) scale += fabs(z[i] * D[c][i]);
            }
            if (mixes) scale += sqrt(zz * dd);
        });
    }
    symmetric_product(N1, along, w);
    for (int c = 0; c < alive; c++) {
        double x = dot(D[c], z) - dot(D[c], w);
        total += x * x;
    }
    return sqrt(total) > 1e-8 * scale;
}

// V − P∗N₁P∞ − P∞N₁P∗ − P∞N₂P∞
__device__ __noinline__ void
reduce_late(double *V, const double *P, const double (*D)[N], int alive, const Late &l) {
    for (int j = 0; j < N; j++) {
        double infinite[N], w[N], x[N], y[N];
        for (int i = 0; i < N; i++) infinite[i] = 0.0;
        for (int c = 0; c < alive; c++)
            for (int i = 0; i < N; i++) infinite[i] += D[c][i] * D[c][j];
        // a column of P∞, and of (P∗N₁ + ½ P∞N₂) P∞
        symmetric_product(l.N1, infinite, w);
        symmetric_product(P, w, x);
        symmetric_product(l.N2, infinite, w);
        for (int i = 0; i < N; i++) y[i] = 0.0;
        for (int c = 0; c < alive; c++) {
            double along = dot(D[c], w);
            for (int i = 0; i < N; i++) y[i] += 0.5 * along * D[c][i];
        }
        for (int i = 0; i < N; i++) V[at(i, j)] -= (i == j ? 2.0 : 1.0) * (x[i] + y[i]);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) smoother(
    const double* y, const double* dt, const double* h, const double* R, const double* parameters,
    const double* transition, const double* process_noise, const long long* gap_index, const double* mean,
    const double* covariance, const double* diffuse, const long long* starts, const long long* order,
    long long records, double* values, double* sizes, long long length, double* checkpoints, double* steps,
    const double* readout, double* means, double* covariances) {
    long long thread = blockIdx.x * (long long)blockDim.x + threadIdx.x, threads = gridDim.x * (long long)blockDim.x;
    Record record = {y, dt, h, R, parameters, transition, process_noise, gap_index, mean, covariance, diffuse};
    Memory memory = {checkpoints, steps, thread, threads};
    for (long long q = thread; q < records; q += threads) {
        long long index = order[q], begin = starts[index], end = starts[index + 1], segments;
        Motion motion;
        Totals totals;
        bool open;
        {
            State state;
            state.begin(record);
            segments = forth(record, motion, state, totals, begin, end, length, memory);
            open = state.alive > 0;
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
            for (long long t = last - 1; t >= first; t--) {
                bool changed, moves = t + 1 < end && motion.to(record, t + 1, dt[t + 1], changed);
                const double *step = memory.step(t - first);
                int mark = memory.read_mark(step), status = mark % 4, alive = mark / 4;
                double a[N], P[TRIANGLE], D[ROOM][N];
                memory.read_moments(step, a, P);
                if (DIRECTIONS > 0) memory.read_directions(step, D, alive);
                if (DIRECTIONS > 0 && t < last_diffuse) {
                    Step s;
                    Adjoint copy = b;
                    Sums unused;
                    double by_noise = 0.0, by_row[N];
                    for (int i = 0; i < N; i++) s.a[i] = a[i];
                    for (int i = 0; i < TRIANGLE; i++) s.P[i] = P[i];
                    for (int c = 0; c < alive; c++)
                        for (int i = 0; i < N; i++) s.D[c][i] = D[c][i];
                    for (int i = 0; i < PACKED; i++) s.A[i] = motion.A[i];
                    record.row(t, s.h);
                    s.status = status;
                    s.alive = alive;
                    s.R = record.noise(t);
                    s.y = y[t];
                    s.moves = moves;
                    s.contracts = false;
                    late_step(copy, late, s, unused, by_noise, by_row);
                    b = copy;
                } else {
                    if (moves) {
                        multiply<true>(motion.A, b.r);
                        congruence<true>(motion.A, b.N0);
                    }
                    if (status == SEEN) {
                        Seen o;
                        double row[N], unused = 0.0;
                        record.row(t, row);
                        recall(o, a, P, row, record.noise(t), y[t], status);
                        back_over_observation<false>(b, o, row, a, P, unused, row);
                    }
                }
                double x[N];
                symmetric_product(P, b.r, x);
#pragma unroll
                for (int i = 0; i < N; i++) a[i] += x[i];
                bool is_late = DIRECTIONS > 0 && t < last_diffuse;
                if (is_late)
                    for (int c = 0; c < alive; c++) {
                        double along = dot(D[c], late.r1);
                        for (int i = 0; i < N; i++) a[i] += along * D[c][i];
                    }
                double V[TRIANGLE];
#pragma unroll
                for (int i = 0; i < TRIANGLE; i++) V[i] = P[i];
                reduce(V, b.N0);
                if (is_late) {
                    double W[TRIANGLE], spread[TRIANGLE];
                    for (int i = 0; i < TRIANGLE; i++) {
                        W[i] = V[i];
                        spread[i] = P[i];
                    }
                    reduce_late(W, spread, D, alive, late);
                    for (int i = 0; i < TRIANGLE; i++) V[i] = W[i];
                }
                if (READ == 0) {
#pragma unroll
                    for (int i = 0; i < N; i++) {
                        means[t * N + i] = a[i];
#pragma unroll
                        for (int j = 0; j < N; j++)
                            covariances[(t * N + i) * N + j] = i == j ? max(V[at(i, i)], 0.0) : V[at(i, j)];
                    }
                }
                for (int r = 0; r < ROWS; r++) {
                    double z[N], w[N];
                    if (READ > 0) {
#pragma unroll
                        for (int i = 0; i < N; i++) z[i] = readout[((EACH_READ ? t : 0) * READ + r) * N + i];
                        symmetric_product(V, z, w);
                        means[t * READ + r] = dot(z, a);
                        covariances[t * READ + r] = max(dot(z, w), 0.0);
                    }
                    if (DIRECTIONS > 0 && open) {
                        double direction[N];
                        for (int i = 0; i < N; i++) direction[i] = READ > 0 ? z[i] : i == r ? 1.0 : 0.0;
                        if (unresolved(direction, D, alive, late.N1))
                            covariances[READ > 0 ? t * READ + r : (t * N + r) * N + r] = infinity();
                    }
                }
            }
        }
    }
}
