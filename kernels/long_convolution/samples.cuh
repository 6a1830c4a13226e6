// Samples of a record as numbers of a ring, and back.
//
// Modulo x^{2M} + 1 a real polynomial of 2M coefficients is the complex one of x_j + i x_{j+M} modulo x^M - i. What
// passes the end of 2M samples comes back at their beginning, negative.
//
// SAMPLE: the type in memory; KIND 0: REAL itself, 1: bfloat16, 2: float16, both as short.

union Bits {
    float number;
    unsigned word;
};

__device__ __forceinline__ REAL widened(SAMPLE x) {
#if KIND == 0
    return x;
#else
    Bits bits;
    unsigned given = (unsigned short)x;
#if KIND == 1
    bits.word = given << 16;
#else
    bits.word = (given & 0x7fff) << 13;
    // 2^112: exponents of float16 become those of float32, subnormal numbers too
    bits.number *= 5.192296858534828e33f;
    if ((given & 0x7c00) == 0x7c00) bits.word |= 0x7f800000;
    bits.word |= (given & 0x8000) << 16;
#endif
    return bits.number;
#endif
}

__device__ __forceinline__ SAMPLE narrowed(REAL x) {
#if KIND == 0
    return x;
#else
    Bits bits;
    bits.number = x;
    unsigned sign = bits.word >> 16 & 0x8000, size = bits.word & 0x7fffffff;
#if KIND == 1
    if (size > 0x7f800000) return (short)(sign | 0x7fc0);
    return (short)(sign | (size + 0x7fff + (size >> 16 & 1)) >> 16);
#else
    if (size > 0x7f800000) return (short)(sign | 0x7e00);
    if (size >= 0x477ff000) return (short)(sign | 0x7c00);
    if (size < 0x38800000) {
        // subnormal: the addition rounds to multiples of 2^-24
        bits.word = size;
        bits.number += 0.5f;
        return (short)(sign | (bits.word - 0x3f000000));
    }
    return (short)(sign | (size - 0x38000000 + 0xfff + (size >> 13 & 1)) >> 13);
#endif
#endif
}

__device__ __forceinline__ REAL number(const SAMPLE *x, long long t) { return widened(x[t]); }
__device__ __forceinline__ void write(SAMPLE *x, long long t, REAL value) { x[t] = narrowed(value); }
#if KIND != 0
__device__ __forceinline__ REAL number(const REAL *x, long long t) { return x[t]; }
__device__ __forceinline__ void write(REAL *x, long long t, REAL value) { x[t] = value; }
#endif

// ``width`` samples from time ``begin`` on, zeros where there are none; ``start`` and ``step``: where columns lie.
template <class T> struct Window {
    const T *record;
    long long length, begin, width, half, start, step;

    __device__ __forceinline__ REAL sample(long long p) const {
        long long t = begin + p;
        return p < width && t >= 0 && t < length ? number(record, t) : REAL(0);
    }
    __device__ __forceinline__ PAIR get(int at, int column) const {
        long long p = start + at * step + column;
        return pair(sample(p), sample(p + half));
    }
};

// The same on the way back: the numbers from ``skip`` on are those of the times from ``begin`` on.
template <class T> struct Crop {
    T *record;
    long long length, begin, width, skip, half, start, step;
    REAL scale;

    __device__ __forceinline__ void sample(long long p, REAL x) const {
        long long q = p - skip;
        if (q >= 0 && q < width && begin + q < length) write(record, begin + q, x * scale);
    }
    __device__ __forceinline__ void put(int at, int column, PAIR x) const {
        long long p = start + at * step + column;
        sample(p, x.x);
        sample(p + half, x.y);
    }
};

// Numbers in global memory: of one transform, or of the columns from ``start`` on.
struct Plane {
    PAIR *numbers;
    long long start, step;

    __device__ __forceinline__ PAIR get(int at, int column) const { return numbers[start + at * step + column]; }
    __device__ __forceinline__ void put(int at, int column, PAIR x) const { numbers[start + at * step + column] = x; }
};
