// Predicted moments for the way back: kept for one segment of a record at a time, and computed again from the state at
// its beginning. A field's numbers of all threads lie side by side, so that a warp reads and writes whole lines.
#pragma once
#include "forward.cuh"

// a, P, the status and the directions left, D
constexpr int FIELDS = N + TRIANGLE + 1 + DIRECTIONS * N;
// and the last F
constexpr int CHECKPOINT = FIELDS + 1;

struct Memory {
    // (segments, CHECKPOINT, threads) and (length of a segment, FIELDS, threads)
    double *checkpoints, *steps;
    long long thread, threads;

    __device__ __forceinline__ double *checkpoint(long long segment) const {
        return checkpoints + segment * CHECKPOINT * threads + thread;
    }
    __device__ __forceinline__ double *step(long long i) const { return steps + i * FIELDS * threads + thread; }

    __device__ __forceinline__ void write_moments(double *to, const State &s) const {
#pragma unroll
        for (int i = 0; i < N; i++) to[i * threads] = s.a[i];
#pragma unroll
        for (int i = 0; i < TRIANGLE; i++) to[(N + i) * threads] = s.P[i];
        if constexpr (DIRECTIONS > 0)
            for (int c = 0; c < s.alive; c++)
                for (int i = 0; i < N; i++) to[(N + TRIANGLE + 1 + c * N + i) * threads] = s.D[c][i];
    }
    __device__ __forceinline__ void write_mark(double *to, int status, int alive) const {
        to[(N + TRIANGLE) * threads] = status + 4 * alive;
    }
    __device__ __forceinline__ int read_mark(const double *from) const { return (int)from[(N + TRIANGLE) * threads]; }
    __device__ __forceinline__ void read_moments(const double *from, double *a, double *P) const {
#pragma unroll
        for (int i = 0; i < N; i++) a[i] = from[i * threads];
#pragma unroll
        for (int i = 0; i < TRIANGLE; i++) P[i] = from[(N + i) * threads];
    }
    __device__ __forceinline__ void read_directions(const double *from, double (*D)[N], int alive) const {
        for (int c = 0; c < alive; c++)
            for (int i = 0; i < N; i++) D[c][i] = from[(N + TRIANGLE + 1 + c * N + i) * threads];
    }
    __device__ __forceinline__ void write_state(long long segment, const State &s) const {
        double *to = checkpoint(segment);
        write_moments(to, s);
        write_mark(to, 0, s.alive);
        to[FIELDS * threads] = s.before;
    }
    __device__ __forceinline__ void read_state(long long segment, State &s) const {
        const double *from = checkpoint(segment);
        read_moments(from, s.a, s.P);
        s.alive = read_mark(from) / 4;
        read_directions(from, s.D, s.alive);
        s.before = from[FIELDS * threads];
    }
};

// Filter samples first … last − 1 and keep each one's predicted moments.
__device__ __forceinline__ void forward_keeping(
    const Record &record, Motion &motion, State &s, Totals &totals, long long begin, long long first, long long last,
    const Memory &memory) {
    int alive = 0;
    forward(
        record, motion, s, totals, begin, first, last,
        [&](long long t) {
            memory.write_moments(memory.step(t - first), s);
            alive = s.alive;
        },
        [&](long long t, const Observation &o) { memory.write_mark(memory.step(t - first), o.status, alive); });
}

// The whole record forth: its totals, a checkpoint for every segment, and the moments of the last one. Returns how many
// segments there are.
__device__ __forceinline__ long long forth(
    const Record &record, Motion &motion, State &s, Totals &totals, long long begin, long long end, long long length,
    const Memory &memory) {
    long long segments = (end - begin + length - 1) / length;
    for (long long segment = 0; segment < segments; segment++) {
        long long first = begin + segment * length, last = min(first + length, end);
        memory.write_state(segment, s);
        if (segment + 1 < segments)
            forward(record, motion, s, totals, begin, first, last, [](long long) {},
                    [](long long, const Observation &) {});
        else
            forward_keeping(record, motion, s, totals, begin, first, last, memory);
    }
    return segments;
}

// Once more over a segment, for its moments.
__device__ __forceinline__ void again(
    const Record &record, Motion &motion, long long begin, long long first, long long last, long long segment,
    const Memory &memory) {
    State s;
    Totals unused;
    memory.read_state(segment, s);
    forward_keeping(record, motion, s, unused, begin, first, last, memory);
}
