// The forward sweep of one record: what a thread reads, carries and does with a sample.
#pragma once
#include "diffuse.cuh"
#include "processes.cuh"

enum { MISSING, SEEN, DIFFUSE, CERTAIN };

__device__ __forceinline__ double infinity() { return __longlong_as_double(0x7ff0000000000000LL); }

// y, Δ, h (1, N) or (T, N), R (1) or (T), parameters (blocks, 3), tables; the state before the first sample
struct Record {
    const double *y, *dt, *h, *R, *parameters, *transition, *process_noise;
    const long long *gap_index;
    const double *mean, *covariance, *diffuse;

    __device__ __forceinline__ void row(long long t, double *out) const {
#pragma unroll
        for (int i = 0; i < N; i++) out[i] = __ldg(h + (EACH_H ? t * N : 0) + i);
    }
    __device__ __forceinline__ double noise(long long t) const { return __ldg(R + (EACH_R ? t : 0)); }
};

// A(Δ) and Q(Δ) of the gap met last
struct Motion {
    double A[PACKED], Q[PACKED], gap = -1.0;
    long long row = -2;

    // Whether the state moves on the way to sample t; A and Q are then those of its gap, ``changed`` if others before.
    __device__ __forceinline__ bool to(const Record &record, long long t, double dt, bool &changed) {
        constexpr bool every = TABLES == PACKED;
        long long index = TABLES ? record.gap_index[t] : -1;
        if (every) dt = 0.0;
        changed = false;
        if (index < 0 && (every || dt == 0.0)) return false;
        if (dt != gap || index != row) {
            const double *first = index < 0 ? nullptr : record.transition + index * TABLES;
            const double *second = index < 0 ? nullptr : record.process_noise + index * TABLES;
            discretize(record.parameters, dt, first, second, A, Q);
            gap = dt;
            row = index;
            changed = true;
        }
        return true;
    }
};

struct State {
    double a[N], P[TRIANGLE];
    // in memory: it is read and written in loops over the directions that are left
    double D[ROOM][N];
    int alive;
    // of the last observation: F
    double before;

    __device__ __forceinline__ void begin(const Record &record) {
#pragma unroll
        for (int i = 0; i < N; i++) {
            a[i] = __ldg(record.mean + i);
#pragma unroll
            for (int j = i; j < N; j++) P[at(i, j)] = __ldg(record.covariance + i * N + j);
        }
        for (int c = 0; c < DIRECTIONS; c++)
            for (int i = 0; i < N; i++) D[c][i] = record.diffuse[i * DIRECTIONS + c];
        alive = DIRECTIONS;
        before = 0.0;
    }

    __device__ __forceinline__ void move(const Motion &motion) {
        multiply<false>(motion.A, a);
        congruence<false>(motion.A, P);
        add_blocks(motion.Q, P);
        if constexpr (DIRECTIONS > 0)
            for (int c = 0; c < alive; c++) {
                double x[N];
#pragma unroll
                for (int i = 0; i < N; i++) x[i] = D[c][i];
                multiply<false>(motion.A, x);
#pragma unroll
                for (int i = 0; i < N; i++) D[c][i] = x[i];
            }
    }
};

// Sums of one record's likelihood, and what is told of its diffuse start.
struct Totals {
    double logs = 0.0, product = 1.0, squares = 0.0, size = 0.0;
    long long count = 0, began_diffuse = 0, last_diffuse = 0;

    __device__ __forceinline__ void factor(double F) {
        product *= F;
        if (!(product > 1e-140 && product < 1e140)) {
            logs += log(product);
            product = 1.0;
        }
        count++;
    }
    __device__ __forceinline__ double log_likelihood() const {
        return -0.5 * (logs + log(product) + squares + count * 1.8378770664093454836);
    }
};

struct Observation {
    double v, F, F_inf;
    int status;
};

// From predicted to filtered moments, a ← a + m v/F, P ← P − m mᵀ/F; leaves m and k = m/F.
__device__ __forceinline__ void
correct(double *a, double *P, const double *m, double F, double R, double v, double *k) {
    double inverse = 1.0 / F;
#pragma unroll
    for (int i = 0; i < N; i++) k[i] = m[i] * inverse;
    if (F >= 1e4 * R) {
        // little is left of P: what cancels must cancel to the last digit
#pragma unroll
        for (int i = 0; i < N; i++) k[i] = m[i] / F;
    }
#pragma unroll
    for (int i = 0; i < N; i++) {
        a[i] += k[i] * v;
#pragma unroll
        for (int j = i; j < N; j++) P[at(i, j)] -= k[i] * m[j];
    }
}

// One observation: updates the state; the status says what it was.
__device__ __forceinline__ Observation observe(State &s, Totals &totals, double y, const double *h, double R) {
    double m[N], k[N];
    symmetric_product(s.P, h, m);
    double signal = max(dot(h, m), 0.0);
    Observation o = {y - dot(h, s.a), signal + R, 0.0, SEEN};
    if (isnan(o.v)) o.status = MISSING;
    if constexpr (DIRECTIONS > 0) {
        if (s.alive > 0) {
            totals.began_diffuse++;
            double g[ROOM], row[N], gain[N];
#pragma unroll
            for (int i = 0; i < N; i++) row[i] = h[i];
            o.F_inf = visible(row, s.D, s.alive, g);
            if (o.status == SEEN && o.F_inf > 0.0) {
                o.status = DIFFUSE;
                diffuse_gain(s.D, s.alive, g, o.F_inf, gain);
#pragma unroll
                for (int i = 0; i < N; i++) k[i] = gain[i];
                correct_diffuse(s.a, s.P, m, o.F, k, o.v);
                eliminate(s.D, s.alive, g);
                s.alive--;
                totals.factor(o.F_inf);
                double P[TRIANGLE];
#pragma unroll
                for (int i = 0; i < TRIANGLE; i++) P[i] = s.P[i];
                totals.size = max(totals.size, exposure(row, P));
                return o;
            }
        }
    }
    if (o.status == MISSING) return o;
    if (R == 0.0 && signal <= 1e-14 * s.before) {
        // a noise-free observation of what is known already adds nothing, or contradicts
        o.status = CERTAIN;
        if (o.v * o.v > 1e-14 * s.before + 1e-16 * y * y) totals.squares = infinity();
        return o;
    }
    correct(s.a, s.P, m, o.F, R, o.v, k);
    totals.squares += o.v * o.v / o.F;
    totals.factor(o.F);
    s.before = o.F;
    return o;
}

// Samples first … last − 1; ``predicted(t)`` is called before, and ``filtered(t, observation)`` after each observation.
template <class Before, class After>
__device__ __forceinline__ void forward(
    const Record &record, Motion &motion, State &s, Totals &totals, long long begin, long long first, long long last,
    Before predicted, After filtered) {
    // a sample is read while the one before is computed with
    double y = record.y[first], dt = record.dt[first];
    for (long long t = first; t < last; t++) {
        double now = y, gap = dt;
        if (t + 1 < last) {
            y = record.y[t + 1];
            dt = record.dt[t + 1];
        }
        double h[N];
        record.row(t, h);
        bool changed;
        if (motion.to(record, t, gap, changed)) s.move(motion);
        predicted(t);
        Observation o = observe(s, totals, now, h, record.noise(t));
        if (o.status == DIFFUSE) totals.last_diffuse = t + 1 - begin;
        filtered(t, o);
    }
}
