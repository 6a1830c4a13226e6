// Transforms of polynomials: C[x]/(x^N - c) split into N rings of constants, and joined again.
//
// x^S - c = Π_q (x^{S/4} - t_q), t_q the fourth roots of c: a reduction multiplies the four parts of a polynomial by
// 1, t, t², t³ and takes their DFT. So a twiddle belongs to a ring, not to a position in it, and no weight, padding or
// permutation is left: the N constants stand in the order in which the rings were split. A pass takes two levels, 16
// numbers in a thread's registers; where N is no power of 4 the first pass splits into 2 · 4.
//
// REAL, PAIR: float and float2, or double and double2. THREADS: of a block. WIDTH transforms may lie side by side.

__device__ __forceinline__ PAIR pair(REAL x, REAL y) {
    PAIR z;
    z.x = x;
    z.y = y;
    return z;
}
__device__ __forceinline__ PAIR plus(PAIR a, PAIR b) { return pair(a.x + b.x, a.y + b.y); }
__device__ __forceinline__ PAIR minus(PAIR a, PAIR b) { return pair(a.x - b.x, a.y - b.y); }
__device__ __forceinline__ PAIR times(PAIR a, PAIR b) { return pair(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x); }
__device__ __forceinline__ PAIR times_conjugate(PAIR a, PAIR b) {
    return pair(a.x * b.x + a.y * b.y, a.y * b.x - a.x * b.y);
}
__device__ __forceinline__ PAIR scaled(PAIR a, REAL s) { return pair(a.x * s, a.y * s); }

__host__ __device__ constexpr int logarithm(int n) { return n > 1 ? 1 + logarithm(n / 2) : 0; }
__host__ __device__ constexpr bool is_odd(int n) { return logarithm(n) % 2; }

// How many rings a pass makes of one of size S.
__host__ __device__ constexpr int radix(int N, int S) { return S == N && is_odd(N) ? 8 : S >= 16 ? 16 : S; }
__host__ __device__ constexpr int last_radix(int N, int S) { return S == radix(N, S) ? S : last_radix(N, S / radix(N, S)); }

// Where the twiddles of the level that begins with n rings stand, for one root.
__host__ __device__ constexpr int level(int N, int n) { return is_odd(N) ? (n == 1 ? 0 : 1 + (n - 1) / 3) : (n - 1) / 3; }

// The twiddles of one of ``roots`` transforms, whose rings are x^N - c with a c of each.
struct Twiddles {
    const PAIR *table;
    long long roots, root;

    template <int N> __device__ __forceinline__ PAIR get(int n, int ring) const {
        return table[roots * level(N, n) + root * n + ring];
    }
};

__device__ __forceinline__ void split_four(PAIR &a, PAIR &b, PAIR &c, PAIR &d, PAIR t) {
    PAIR t2 = times(t, t);
    b = times(b, t);
    c = times(c, t2);
    d = times(d, times(t2, t));
    PAIR even = plus(a, c), odd = plus(b, d), left = minus(a, c), right = minus(b, d);
    a = plus(even, odd);
    c = minus(even, odd);
    b = pair(left.x - right.y, left.y + right.x);
    d = pair(left.x + right.y, left.y - right.x);
}

__device__ __forceinline__ void join_four(PAIR &a, PAIR &b, PAIR &c, PAIR &d, PAIR t) {
    PAIR t2 = times(t, t);
    PAIR even = plus(a, c), odd = plus(b, d), left = minus(a, c), right = minus(b, d);
    a = plus(even, odd);
    c = times_conjugate(minus(even, odd), t2);
    b = times_conjugate(pair(left.x + right.y, left.y - right.x), t);
    d = times_conjugate(pair(left.x - right.y, left.y + right.x), times(t2, t));
}

// Ring ``b`` of n, its R parts in x, becomes R rings.
template <int N, int R> __device__ __forceinline__ void split(PAIR *x, const Twiddles &twiddles, int n, int b) {
    PAIR t = twiddles.get<N>(n, b);
    if constexpr (R == 4) {
        split_four(x[0], x[1], x[2], x[3], t);
    } else {
        constexpr int Q = R / 4;
#pragma unroll
        for (int p = 0; p < 4; p++) {
            if constexpr (R == 16) {
                split_four(x[p], x[4 + p], x[8 + p], x[12 + p], t);
            } else {
                PAIR turned = times(x[4 + p], t);
                x[4 + p] = minus(x[p], turned);
                x[p] = plus(x[p], turned);
            }
        }
#pragma unroll
        for (int q = 0; q < Q; q++)
            split_four(x[4 * q], x[4 * q + 1], x[4 * q + 2], x[4 * q + 3], twiddles.get<N>(Q * n, Q * b + q));
    }
}

// The inverse of ``split``, R times as large.
template <int N, int R> __device__ __forceinline__ void join(PAIR *x, const Twiddles &twiddles, int n, int b) {
    PAIR t = twiddles.get<N>(n, b);
    if constexpr (R == 4) {
        join_four(x[0], x[1], x[2], x[3], t);
    } else {
        constexpr int Q = R / 4;
#pragma unroll
        for (int q = 0; q < Q; q++)
            join_four(x[4 * q], x[4 * q + 1], x[4 * q + 2], x[4 * q + 3], twiddles.get<N>(Q * n, Q * b + q));
#pragma unroll
        for (int p = 0; p < 4; p++) {
            if constexpr (R == 16) {
                join_four(x[p], x[4 + p], x[8 + p], x[12 + p], t);
            } else {
                PAIR difference = minus(x[p], x[4 + p]);
                x[p] = plus(x[p], x[4 + p]);
                x[4 + p] = times_conjugate(difference, t);
            }
        }
    }
}

// Numbers in shared memory; one gap after every 16 (8 of double) keeps the threads of a pass on different banks.
template <int WIDTH> struct Shared {
    PAIR *memory;

    static __device__ __forceinline__ int place(int at, int column) {
        return WIDTH == 1 ? at + (at >> (sizeof(REAL) == 4 ? 4 : 3)) : at * WIDTH + column;
    }
    __device__ __forceinline__ PAIR get(int at, int column) const { return memory[place(at, column)]; }
    __device__ __forceinline__ void put(int at, int column, PAIR x) const { memory[place(at, column)] = x; }
};

// One pass over rings of size S: ``source.get(position, column)``, ``sink.put(position, column, number)``.
template <int N, int S, int WIDTH, bool JOINING, class Source, class Sink>
__device__ __forceinline__ void pass(const Source &source, const Sink &sink, const Twiddles &twiddles) {
    constexpr int R = radix(N, S), step = S / R;
    for (int i = threadIdx.x; i < N / R * WIDTH; i += THREADS) {
        int column = i % WIDTH, own = i / WIDTH, ring = own / step, begin = ring * S + own % step;
        PAIR x[R];
#pragma unroll
        for (int p = 0; p < R; p++) x[p] = source.get(begin + p * step, column);
        if constexpr (JOINING)
            join<N, R>(x, twiddles, N / S, ring);
        else
            split<N, R>(x, twiddles, N / S, ring);
#pragma unroll
        for (int p = 0; p < R; p++) sink.put(begin + p * step, column, x[p]);
    }
}

// The passes over rings of size S and smaller but the last one, in shared memory.
template <int N, int S, int WIDTH>
__device__ __forceinline__ void split_between(const Shared<WIDTH> &shared, const Twiddles &twiddles) {
    if constexpr (S > radix(N, S)) {
        pass<N, S, WIDTH, false>(shared, shared, twiddles);
        __syncthreads();
        split_between<N, S / radix(N, S), WIDTH>(shared, twiddles);
    }
}

template <int N, int S, int WIDTH>
__device__ __forceinline__ void join_between(const Shared<WIDTH> &shared, const Twiddles &twiddles) {
    if constexpr (S > radix(N, S)) {
        join_between<N, S / radix(N, S), WIDTH>(shared, twiddles);
        pass<N, S, WIDTH, true>(shared, shared, twiddles);
        __syncthreads();
    }
}

// From a source to shared memory, but for the last pass.
template <int N, int WIDTH, class Source>
__device__ __forceinline__ void split_first(const Source &source, const Shared<WIDTH> &shared, const Twiddles &twiddles) {
    pass<N, N, WIDTH, false>(source, shared, twiddles);
    __syncthreads();
    split_between<N, N / radix(N, N), WIDTH>(shared, twiddles);
}

// From what the last pass left in shared memory to a sink.
template <int N, int WIDTH, class Sink>
__device__ __forceinline__ void join_rest(const Shared<WIDTH> &shared, const Sink &sink, const Twiddles &twiddles) {
    join_between<N, N / radix(N, N), WIDTH>(shared, twiddles);
    pass<N, N, WIDTH, true>(shared, sink, twiddles);
}

// The last split and the first join, with ``change(position, number)`` between them.
template <int N, class Change>
__device__ __forceinline__ void turn(const Shared<1> &shared, const Twiddles &twiddles, const Change &change) {
    constexpr int R = last_radix(N, N);
    for (int i = threadIdx.x; i < N / R; i += THREADS) {
        PAIR x[R];
#pragma unroll
        for (int p = 0; p < R; p++) x[p] = shared.get(i * R + p, 0);
        split<N, R>(x, twiddles, N / R, i);
#pragma unroll
        for (int p = 0; p < R; p++) x[p] = change(i * R + p, x[p]);
        join<N, R>(x, twiddles, N / R, i);
#pragma unroll
        for (int p = 0; p < R; p++) shared.put(i * R + p, 0, x[p]);
    }
    __syncthreads();
}

// Constants of a transform in global memory, neighbours in the last pass one after the other.
template <int N> __device__ __forceinline__ long long lane(int position) {
    constexpr int R = last_radix(N, N);
    return (long long)(position % R) * (N / R) + position / R;
}
