// Convolution and correlation of blocks of records, each in one pass through shared memory.
//
// REAL, PAIR, SAMPLE, KIND, LENGTH, THREADS; ROOTS is 1.
#include "products.cuh"

// short rows share a block of threads
constexpr int MOST = THREADS > 128 ? THREADS : 128;
// Blocks of a multiprocessor, so that one loads while another computes: as many as have their numbers in registers.
constexpr int RESIDENT = sizeof(REAL) == 8 || LENGTH > 8192 ? 1 : MOST == 512 || KIND ? 2 : MOST == 256 ? 3 : 4;

// The transforms of the kernels, 1 / LENGTH of them.
extern "C" __global__ void __launch_bounds__(THREADS) transform_kernels(
    PAIR *spectrum, const REAL *k, const PAIR *twiddles, long long K
) {
    Window<REAL> window{k + blockIdx.x * K, K, 0, K, HALF, 0, 1};
    leave_constants(window, Twiddles{twiddles, 1, 0}, spectrum + blockIdx.x * HALF, REAL(1) / HALF);
}

// y of ``size`` samples a block from those and ``before`` before and ``after`` after them.
extern "C" __global__ void __launch_bounds__(MOST, RESIDENT) convolve(
    SAMPLE *y, const SAMPLE *u, const PAIR *spectrum, const PAIR *twiddles, long long records, long long channels,
    long long length, long long blocks, long long size, long long before, long long after, long long conjugate
) {
    // of the last rows some may be computed twice
    long long index = min((long long)blockIdx.x * blockDim.y + threadIdx.y, records * channels * blocks - 1);
    Place place(index, records, blocks, 0, 0);
    long long own = (place.record * channels + place.channel) * length, begin = place.block * size;
    Window<SAMPLE> window{u + own, length, begin - before, before + size + after, HALF, 0, 1};
    Crop<SAMPLE> crop{y + own, length, begin, size, before, HALF, 0, 1, REAL(1)};
    multiply(window, crop, Twiddles{twiddles, 1, 0}, Product{spectrum + place.channel * HALF, conjugate != 0});
}

// For every channel (gridDim.x) and part of its blocks (gridDim.y): Σ ĝ conj(û), and if wanted the gradient of u.
extern "C" __global__ void __launch_bounds__(THREADS) correlate(
    PAIR *sums, PAIR *scratch, SAMPLE *grad_u, const SAMPLE *u, const SAMPLE *grad, const PAIR *spectrum,
    const PAIR *twiddles, long long records, long long channels, long long length, long long blocks, long long size,
    long long after
) {
    long long channel = blockIdx.x, own = (channel * gridDim.y + blockIdx.y) * HALF;
    Twiddles constants{twiddles, 1, 0};
    for (long long i = blockIdx.y; i < records * blocks; i += gridDim.y) {
        long long at = (i / blocks * channels + channel) * length, begin = i % blocks * size;
        Window<SAMPLE> inputs{u + at, length, begin, size, HALF, 0, 1};
        Window<SAMPLE> outputs{grad + at, length, begin, size + after, HALF, 0, 1};
        Crop<SAMPLE> crop{grad_u + at, length, begin, size, 0, HALF, 0, 1, REAL(1)};
        const PAIR *kernel = grad_u ? spectrum + channel * HALF : nullptr;
        Correlation correlation{sums + own, scratch + own, kernel, i == blockIdx.y};
        correlate_one(inputs, outputs, crop, constants, correlation, scratch + own);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) join_kernels(
    REAL *grad_k, const PAIR *sums, const PAIR *twiddles, long long K, long long parts
) {
    Crop<REAL> crop{grad_k + blockIdx.x * K, K, 0, K, 0, HALF, 0, 1, REAL(1) / HALF};
    join_sums(Sums{sums + blockIdx.x * parts * HALF, parts, HALF}, crop, Twiddles{twiddles, 1, 0});
}
