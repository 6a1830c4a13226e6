// Convolution with a short kernel by the sum itself, and its gradient by the taps: eight at a time in registers.
//
// REAL, PAIR, SAMPLE, KIND; TAPS: of the kernel; THREADS.
#include "ring.cuh"
#include "samples.cuh"

constexpr int FILLED = (TAPS + 7) / 8 * 8;

// Gaps between every ``per`` numbers keep threads that are ``per`` apart on different banks.
__device__ __forceinline__ int place(int p, int per) { return p + p / per; }

template <class T> __device__ __forceinline__ void copy(
    REAL *shared, int count, int per, const T *record, long long length, long long begin, long long last
) {
    for (int p = threadIdx.x; p < count; p += THREADS) {
        long long t = begin + p;
        shared[place(p, per)] = t >= 0 && t < length && t < last ? number(record, t) : REAL(0);
    }
}

// y_t = Σ_j k_j u_{t-j}, or backwards Σ_j k_j u_{t+j}: gridDim.x stretches of eight outputs a thread, gridDim.y rows.
extern "C" __global__ void __launch_bounds__(THREADS) convolve_directly(
    SAMPLE *y, const SAMPLE *u, const REAL *k, long long rows, long long channels, long long length,
    long long backwards
) {
    __shared__ REAL taps[TAPS];
    __shared__ REAL inputs[(8 * THREADS + FILLED) / 8 * 9 + 1];
    long long start = blockIdx.x * (8LL * THREADS);
    for (long long row = blockIdx.y; row < rows; row += gridDim.y) {
        __syncthreads();
        for (int j = threadIdx.x; j < TAPS; j += THREADS)
            taps[j] = k[row % channels * TAPS + (backwards ? j : TAPS - 1 - j)];
        copy(inputs, 8 * THREADS + FILLED, 8, u + row * length, length, backwards ? start : start - TAPS + 1, length);
        __syncthreads();
        REAL x[16], sums[8];
#pragma unroll
        for (int i = 0; i < 8; i++) {
            x[i] = inputs[place(8 * threadIdx.x + i, 8)];
            sums[i] = 0;
        }
#pragma unroll
        for (int j = 0; j < TAPS; j += 8) {
#pragma unroll
            for (int i = 0; i < 8; i++) x[8 + i] = inputs[place(8 * threadIdx.x + j + 8 + i, 8)];
#pragma unroll
            for (int q = 0; q < 8; q++) {
#pragma unroll
                for (int i = 0; i < 8; i++)
                    if (j + q < TAPS) sums[i] += taps[j + q] * x[q + i];
            }
#pragma unroll
            for (int i = 0; i < 8; i++) x[i] = x[8 + i];
        }
#pragma unroll
        for (int i = 0; i < 8; i++) {
            long long t = start + 8 * threadIdx.x + i;
            if (t < length) write(y, row * length + t, sums[i]);
        }
    }
}

// sums (channels, parts, FILLED) of grad_t u_{t-s}: a warp for eight taps, a lane for 32 of 1024 samples.
extern "C" __global__ void __launch_bounds__(THREADS) correlate_directly(
    REAL *sums, const SAMPLE *u, const SAMPLE *grad, long long records, long long channels, long long length
) {
    __shared__ REAL inputs[(1024 + FILLED) / 32 * 33 + 33];
    __shared__ REAL outputs[1024 / 32 * 33];
    int channel = blockIdx.x, lane = threadIdx.x % 32, first = threadIdx.x / 32 * 8;
    long long stretches = (length + 1023) / 1024;
    REAL total[8];
#pragma unroll
    for (int q = 0; q < 8; q++) total[q] = 0;
    for (long long i = blockIdx.y; i < records * stretches; i += gridDim.y) {
        long long row = (i / stretches * channels + channel) * length, start = i % stretches * 1024;
        __syncthreads();
        copy(inputs, 1024 + FILLED, 32, u + row, length, start - FILLED, length);
        copy(outputs, 1024, 32, grad + row, length, start, length);
        __syncthreads();
        // x[(c - q) mod 8] is the input of time c - first - q
        REAL x[8];
#pragma unroll
        for (int q = 1; q < 8; q++) x[8 - q] = inputs[place(32 * lane + FILLED - first - q, 32)];
        for (int c = 0; c < 32; c += 8) {
#pragma unroll
            for (int s = 0; s < 8; s++) {
                x[s] = inputs[place(32 * lane + c + s + FILLED - first, 32)];
                REAL g = outputs[place(32 * lane + c + s, 32)];
#pragma unroll
                for (int q = 0; q < 8; q++) total[q] += g * x[(s - q) & 7];
            }
        }
    }
#pragma unroll
    for (int q = 0; q < 8; q++) {
        for (int d = 16; d; d /= 2) total[q] += __shfl_xor_sync(0xffffffffu, total[q], d);
        if (lane == 0) sums[((long long)channel * gridDim.y + blockIdx.y) * FILLED + first + q] = total[q];
    }
}

// The sums of the parts, in their order: THREADS of the (channels, TAPS) in a block.
extern "C" __global__ void __launch_bounds__(THREADS) add_parts(
    REAL *grad_k, const REAL *sums, long long channels, long long parts
) {
    long long i = blockIdx.x * (long long)THREADS + threadIdx.x, channel = i / TAPS;
    if (channel >= channels) return;
    REAL total = 0;
    for (long long part = 0; part < parts; part++) total += sums[(channel * parts + part) * FILLED + i % TAPS];
    grad_k[i] = total;
}
