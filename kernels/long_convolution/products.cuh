// Products of transforms between splitting and joining, for transforms of LENGTH numbers in shared memory.
//
// A longer one, of ROOTS · LENGTH, is split into ROOTS rings first (``columns.cu``), through a scratch array (rows, ROOTS,
// LENGTH). A record is cut into ``blocks`` of ``size`` samples; the rows of a launch are the blocks of some records from
// first_record on, channel after channel from first_channel on.
#include "ring.cuh"
#include "samples.cuh"

constexpr long long HALF = (long long)ROOTS * LENGTH;

// Which block of which record and channel an index means: what shares a kernel is near in time.
struct Place {
    long long record, channel, block;

    __device__ __forceinline__ Place(
        long long index, long long records, long long blocks, long long first_channel, long long first_record
    ) {
        block = index % blocks;
        record = first_record + index / blocks % records;
        channel = first_channel + index / blocks / records;
    }
};

__device__ __forceinline__ Shared<1> row_memory() {
    extern __shared__ PAIR rows[];
    return Shared<1>{rows + threadIdx.y * (LENGTH + (LENGTH >> (sizeof(REAL) == 4 ? 4 : 3)))};
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

