// Convolution and correlation of many records with the kernels of their channels, as products in rings.
//
// LENGTH numbers in shared memory make one transform. A longer one, of ROOTS · LENGTH, is split into ROOTS rings first, a
// TILE of columns at a time, through a scratch array (records, ROOTS, LENGTH). A record is cut into ``blocks`` of ``size``
// samples. What the kernels of a launch treat are the blocks of channels first_channel … of records first_record ….
//
// REAL, PAIR, SAMPLE, KIND, LENGTH, ROOTS, TILE, THREADS, COLUMN_THREADS.
#include "ring.cuh"
#include "samples.cuh"

constexpr long long HALF = (long long)ROOTS * LENGTH;
extern __shared__ char memory[];

// Which block of which channel of which record an index means.
struct Place {
    long long record, channel, block;

    __device__ __forceinline__ Place(
        long long index, long long channels, long long blocks, long long first_channel, long long first_record
    ) {
        block = index % blocks;
        channel = first_channel + index / blocks % channels;
        record = first_record + index / blocks / channels;
    }
};

__device__ __forceinline__ Shared<1> row_memory() {
    return Shared<1>{(PAIR *)memory + threadIdx.y * (LENGTH + (LENGTH >> (sizeof(REAL) == 4 ? 4 : 3)))};
}

// Products with the constants of a kernel's transform, or with their conjugates.
struct Product {
    const PAIR *spectrum;
    bool conjugate;

    __device__ __forceinline__ PAIR operator()(int position, PAIR x) const {
        PAIR k = spectrum[lane<LENGTH>(position)];
        return conjugate ? times_conjugate(x, k) : times(x, k);
    }
};

// A sink that leaves the constants of a transform.
struct Constants {
    PAIR *numbers;
    REAL scale;

    __device__ __forceinline__ void put(int at, int, PAIR x) const { numbers[lane<LENGTH>(at)] = scaled(x, scale); }
};

// Σ ĝ conj(û), and on the way back to the gradient of u the product with the conjugate kernel.
struct Correlation {
    PAIR *sum;
    const PAIR *other, *spectrum;
    bool first;

    __device__ __forceinline__ PAIR add(int position, PAIR g) const {
        long long at = lane<LENGTH>(position);
        PAIR own = times_conjugate(g, other[at]);
        sum[at] = first ? own : plus(sum[at], own);
        return spectrum ? times_conjugate(g, spectrum[at]) : g;
    }
    __device__ __forceinline__ PAIR operator()(int position, PAIR g) const { return add(position, g); }
    __device__ __forceinline__ void put(int at, int, PAIR g) const { add(at, g); }
};

// A source: the sums of ``parts`` transforms.
struct Sums {
    const PAIR *sums;
    long long parts, stride;

    __device__ __forceinline__ PAIR get(int at, int) const {
        const PAIR *own = sums + lane<LENGTH>(at);
        PAIR total = own[0];
        for (long long i = 1; i < parts; i++) total = plus(total, own[i * stride]);
        return total;
    }
};

template <class Source> __device__ __forceinline__ void leave_constants(
    const Source &source, const Twiddles &twiddles, PAIR *numbers, REAL scale
) {
    constexpr int R = last_radix(LENGTH, LENGTH);
    Shared<1> shared = row_memory();
    split_first<LENGTH, 1>(source, shared, twiddles);
    pass<LENGTH, R, 1, false>(shared, Constants{numbers, scale}, twiddles);
    __syncthreads();
}

template <class Source, class Sink> __device__ __forceinline__ void multiply(
    const Source &source, const Sink &sink, const Twiddles &twiddles, const Product &product
) {
    Shared<1> shared = row_memory();
    split_first<LENGTH, 1>(source, shared, twiddles);
    turn<LENGTH>(shared, twiddles, product);
    join_rest<LENGTH, 1>(shared, sink, twiddles);
}

// ``scratch`` takes û. Without ``correlation.spectrum`` nothing is written to ``sink``.
template <class U, class G, class Sink> __device__ __forceinline__ void correlate_one(
    const U &u, const G &g, const Sink &sink, const Twiddles &twiddles, const Correlation &correlation, PAIR *scratch
) {
    constexpr int R = last_radix(LENGTH, LENGTH);
    Shared<1> shared = row_memory();
    leave_constants(u, twiddles, scratch, REAL(1));
    split_first<LENGTH, 1>(g, shared, twiddles);
    if (correlation.spectrum) {
        turn<LENGTH>(shared, twiddles, correlation);
        join_rest<LENGTH, 1>(shared, sink, twiddles);
    } else {
        pass<LENGTH, R, 1, false>(shared, correlation, twiddles);
    }
    __syncthreads();
}

template <class Sink> __device__ __forceinline__ void join_sums(
    const Sums &sums, const Sink &sink, const Twiddles &twiddles
) {
    constexpr int R = last_radix(LENGTH, LENGTH);
    Shared<1> shared = row_memory();
    pass<LENGTH, R, 1, true>(sums, shared, twiddles);
    __syncthreads();
    join_rest<LENGTH, 1>(shared, sink, twiddles);
}

#if ROOTS == 1
// The transforms of the kernels, 1 / LENGTH of them.
extern "C" __global__ void __launch_bounds__(THREADS) transform_kernels(
    PAIR *spectrum, const REAL *k, const PAIR *twiddles, long long K
) {
    Window<REAL> window{k + blockIdx.x * K, K, 0, K, HALF, 0, 1};
    leave_constants(window, Twiddles{twiddles, 1, 0}, spectrum + blockIdx.x * HALF, REAL(1) / HALF);
}

// y of ``size`` samples a block from those and ``before`` before and ``after`` after them.
extern "C" __global__ void __launch_bounds__(THREADS) convolve(
    SAMPLE *y, const SAMPLE *u, const PAIR *spectrum, const PAIR *twiddles, long long count, long long channels,
    long long length, long long blocks, long long size, long long before, long long after, long long conjugate
) {
    // of the last rows some may be computed twice
    long long index = min((long long)blockIdx.x * blockDim.y + threadIdx.y, count - 1);
    Place place(index, channels, blocks, 0, 0);
    long long own = (place.record * channels + place.channel) * length, begin = place.block * size;
    Window<SAMPLE> window{u + own, length, begin - before, before + size + after, HALF, 0, 1};
    Crop<SAMPLE> crop{y + own, length, begin, size, before, HALF, 0, 1, REAL(1)};
    multiply(window, crop, Twiddles{twiddles, 1, 0}, Product{spectrum + place.channel * HALF, conjugate != 0});
}

// For every channel (gridDim.y) and part of its blocks (gridDim.x): Σ ĝ conj(û), and if wanted the gradient of u.
extern "C" __global__ void __launch_bounds__(THREADS) correlate(
    PAIR *sums, PAIR *scratch, SAMPLE *grad_u, const SAMPLE *u, const SAMPLE *grad, const PAIR *spectrum,
    const PAIR *twiddles, long long records, long long channels, long long length, long long blocks, long long size,
    long long after
) {
    long long channel = blockIdx.y, own = (channel * gridDim.x + blockIdx.x) * HALF;
    Twiddles constants{twiddles, 1, 0};
    for (long long i = blockIdx.x; i < records * blocks; i += gridDim.x) {
        long long at = (i / blocks * channels + channel) * length, begin = i % blocks * size;
        Window<SAMPLE> inputs{u + at, length, begin, size, HALF, 0, 1};
        Window<SAMPLE> outputs{grad + at, length, begin, size + after, HALF, 0, 1};
        Crop<SAMPLE> crop{grad_u + at, length, begin, size, 0, HALF, 0, 1, REAL(1)};
        const PAIR *kernel = grad_u ? spectrum + channel * HALF : nullptr;
        Correlation correlation{sums + own, scratch + own, kernel, i == blockIdx.x};
        correlate_one(inputs, outputs, crop, constants, correlation, scratch + own);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) join_kernels(
    REAL *grad_k, const PAIR *sums, const PAIR *twiddles, long long K, long long parts
) {
    Crop<REAL> crop{grad_k + blockIdx.x * K, K, 0, K, 0, HALF, 0, 1, REAL(1) / HALF};
    join_sums(Sums{sums + blockIdx.x * parts * HALF, parts, HALF}, crop, Twiddles{twiddles, 1, 0});
}
#else
template <class Source, class Sink> __device__ __forceinline__ void split_columns(
    const Source &source, const Sink &sink, const PAIR *twiddles
) {
    constexpr int R = last_radix(ROOTS, ROOTS);
    Twiddles constants{twiddles, 1, 0};
    Shared<TILE> shared{(PAIR *)memory};
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
    Shared<TILE> shared{(PAIR *)memory};
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
    PAIR *scratch, const SAMPLE *x, const PAIR *twiddles, long long all_channels, long long length, long long channels,
    long long blocks, long long size, long long first_channel, long long first_record, long long before, long long after
) {
    Place place(blockIdx.y, channels, blocks, first_channel, first_record);
    long long own = (place.record * all_channels + place.channel) * length, column = blockIdx.x * TILE;
    Window<SAMPLE> window{x + own, length, place.block * size - before, before + size + after, HALF, column, LENGTH};
    split_columns(window, Plane{scratch + blockIdx.y * HALF, column, LENGTH}, twiddles);
}

extern "C" __global__ void __launch_bounds__(THREADS) join_samples(
    SAMPLE *y, const PAIR *scratch, const PAIR *twiddles, long long all_channels, long long length, long long channels,
    long long blocks, long long size, long long first_channel, long long first_record, long long before
) {
    Place place(blockIdx.y, channels, blocks, first_channel, first_record);
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

// One ring (gridDim.x) of each row (gridDim.y): the constants of a kernel's transform, in place.
extern "C" __global__ void __launch_bounds__(THREADS) transform_rings(PAIR *scratch, const PAIR *twiddles) {
    PAIR *own = scratch + ((long long)blockIdx.y * ROOTS + blockIdx.x) * LENGTH;
    leave_constants(Plane{own, 0, 1}, Twiddles{twiddles, ROOTS, blockIdx.x}, own, REAL(1) / HALF);
}

extern "C" __global__ void __launch_bounds__(THREADS) multiply_rings(
    PAIR *scratch, const PAIR *spectrum, const PAIR *twiddles, long long channels, long long blocks,
    long long first_channel, long long conjugate
) {
    Place place(blockIdx.y, channels, blocks, first_channel, 0);
    Plane row{scratch + ((long long)blockIdx.y * ROOTS + blockIdx.x) * LENGTH, 0, 1};
    const PAIR *kernel = spectrum + (place.channel * ROOTS + blockIdx.x) * LENGTH;
    multiply(row, row, Twiddles{twiddles, ROOTS, blockIdx.x}, Product{kernel, conjugate != 0});
}

// For one ring (gridDim.x) of every channel (gridDim.y), all its rows in ``u`` and ``grad``: Σ ĝ conj(û) into ``sums``;
// with a ``spectrum``, what becomes the gradient of u stays in ``grad``.
extern "C" __global__ void __launch_bounds__(THREADS) correlate_rings(
    PAIR *sums, PAIR *u, PAIR *grad, const PAIR *spectrum, const PAIR *twiddles, long long records, long long channels,
    long long blocks, long long first_channel, long long first_record
) {
    Twiddles constants{twiddles, ROOTS, blockIdx.x};
    long long own = ((first_channel + blockIdx.y) * ROOTS + blockIdx.x) * LENGTH;
    for (long long i = 0; i < records * blocks; i++) {
        long long row = (i / blocks * channels + blockIdx.y) * blocks + i % blocks;
        PAIR *inputs = u + (row * ROOTS + blockIdx.x) * LENGTH;
        Plane outputs{grad + (row * ROOTS + blockIdx.x) * LENGTH, 0, 1};
        Correlation correlation{sums + own, inputs, spectrum ? spectrum + own : nullptr, first_record == 0 && i == 0};
        correlate_one(Plane{inputs, 0, 1}, outputs, outputs, constants, correlation, inputs);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) join_rings(PAIR *sums, const PAIR *twiddles) {
    PAIR *own = sums + ((long long)blockIdx.y * ROOTS + blockIdx.x) * LENGTH;
    join_sums(Sums{own, 1, 0}, Plane{own, 0, 1}, Twiddles{twiddles, ROOTS, blockIdx.x});
}
#endif
