// Convolution and correlation in the rings that ``columns.cu`` has split: rows of LENGTH numbers.
//
// REAL, PAIR, SAMPLE, KIND, LENGTH, ROOTS, THREADS.
#include "products.cuh"

// One ring (gridDim.x) of each row (gridDim.y): the constants of a kernel's transform, in place.
extern "C" __global__ void __launch_bounds__(THREADS) transform_rings(PAIR *scratch, const PAIR *twiddles) {
    PAIR *own = scratch + ((long long)blockIdx.y * ROOTS + blockIdx.x) * LENGTH;
    leave_constants(Plane{own, 0, 1}, Twiddles{twiddles, ROOTS, blockIdx.x}, own, REAL(1) / HALF);
}

extern "C" __global__ void __launch_bounds__(THREADS) multiply_rings(
    PAIR *scratch, const PAIR *spectrum, const PAIR *twiddles, long long records, long long blocks,
    long long first_channel, long long conjugate
) {
    Place place(blockIdx.y, records, blocks, first_channel, 0);
    Plane row{scratch + ((long long)blockIdx.y * ROOTS + blockIdx.x) * LENGTH, 0, 1};
    const PAIR *kernel = spectrum + (place.channel * ROOTS + blockIdx.x) * LENGTH;
    multiply(row, row, Twiddles{twiddles, ROOTS, blockIdx.x}, Product{kernel, conjugate != 0});
}

// For one ring (gridDim.x) of every channel (gridDim.y), all its rows in ``u`` and ``grad``: Σ ĝ conj(û) into ``sums``;
// with a ``spectrum``, what becomes the gradient of u stays in ``grad``.
extern "C" __global__ void __launch_bounds__(THREADS) correlate_rings(
    PAIR *sums, PAIR *u, PAIR *grad, const PAIR *spectrum, const PAIR *twiddles, long long records, long long blocks,
    long long first_channel, long long first_record
) {
    Twiddles constants{twiddles, ROOTS, blockIdx.x};
    long long own = ((first_channel + blockIdx.y) * ROOTS + blockIdx.x) * LENGTH;
    for (long long i = 0; i < records * blocks; i++) {
        long long row = blockIdx.y * records * blocks + i;
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
