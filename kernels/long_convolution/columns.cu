// Blocks of records split into ROOTS rings, and joined again: a TILE of columns of (ROOTS, LENGTH) at a time.
//
// REAL, PAIR, SAMPLE, KIND, LENGTH, ROOTS, TILE, THREADS.
#include "products.cuh"

template <class Source, class Sink> __device__ __forceinline__ void split_columns(
    const Source &source, const Sink &sink, const PAIR *twiddles
) {
    constexpr int R = last_radix(ROOTS, ROOTS);
    Twiddles constants{twiddles, 1, 0};
    extern __shared__ PAIR columns[];
    Shared<TILE> shared{columns};
    if constexpr (R == ROOTS) {
        pass<ROOTS, R, TILE, false>(source, sink, constants);
    } else {
        split_first<ROOTS, TILE>(source, shared, constants);
        pass<ROOTS, R, TILE, false>(shared, sink, constants);
    }
}

template <class Source, class Sink> __device__ __forceinline__ void join_columns(
    const Source &source, const Sink &sink, const PAIR *twiddles
) {
    constexpr int R = last_radix(ROOTS, ROOTS);
    Twiddles constants{twiddles, 1, 0};
    extern __shared__ PAIR columns[];
    Shared<TILE> shared{columns};
    if constexpr (R == ROOTS) {
        pass<ROOTS, R, TILE, true>(source, sink, constants);
    } else {
        pass<ROOTS, R, TILE, true>(source, shared, constants);
        __syncthreads();
        join_rest<ROOTS, TILE>(shared, sink, constants);
    }
}

// Columns (gridDim.x tiles) of the samples of a block, or of a kernel, become ROOTS rings in ``scratch``.
extern "C" __global__ void __launch_bounds__(THREADS) split_samples(
    PAIR *scratch, const SAMPLE *x, const PAIR *twiddles, long long all_channels, long long length, long long records,
    long long blocks, long long size, long long first_channel, long long first_record, long long before, long long after
) {
    Place place(blockIdx.y, records, blocks, first_channel, first_record);
    long long own = (place.record * all_channels + place.channel) * length, column = blockIdx.x * TILE;
    Window<SAMPLE> window{x + own, length, place.block * size - before, before + size + after, HALF, column, LENGTH};
    split_columns(window, Plane{scratch + blockIdx.y * HALF, column, LENGTH}, twiddles);
}

extern "C" __global__ void __launch_bounds__(THREADS) join_samples(
    SAMPLE *y, const PAIR *scratch, const PAIR *twiddles, long long all_channels, long long length, long long records,
    long long blocks, long long size, long long first_channel, long long first_record, long long before
) {
    Place place(blockIdx.y, records, blocks, first_channel, first_record);
    long long own = (place.record * all_channels + place.channel) * length, column = blockIdx.x * TILE;
    Crop<SAMPLE> crop{y + own, length, place.block * size, size, before, HALF, column, LENGTH, REAL(1)};
    join_columns(Plane{(PAIR *)scratch + blockIdx.y * HALF, column, LENGTH}, crop, twiddles);
}

extern "C" __global__ void __launch_bounds__(THREADS) split_kernels(
    PAIR *scratch, const REAL *k, const PAIR *twiddles, long long K
) {
    long long column = blockIdx.x * TILE;
    Window<REAL> window{k + blockIdx.y * K, K, 0, K, HALF, column, LENGTH};
    split_columns(window, Plane{scratch + blockIdx.y * HALF, column, LENGTH}, twiddles);
}

extern "C" __global__ void __launch_bounds__(THREADS) join_kernel_columns(
    REAL *grad_k, const PAIR *scratch, const PAIR *twiddles, long long K
) {
    long long column = blockIdx.x * TILE;
    Crop<REAL> crop{grad_k + blockIdx.y * K, K, 0, K, 0, HALF, column, LENGTH, REAL(1) / HALF};
    join_columns(Plane{(PAIR *)scratch + blockIdx.y * HALF, column, LENGTH}, crop, twiddles);
}
