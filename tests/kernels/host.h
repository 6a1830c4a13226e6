// CUDA's words for the processor: the kernels of a source run here block by block, the threads of a block by turns.
//
// A thread is a context of its own with its own stack, so that it can wait (__syncthreads, __syncwarp, shuffles) while
// the others go on; none runs at the same time as another. Kernels that never wait run as plain loops.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ucontext.h>
#include <vector>

using std::fma;
using std::isfinite;
using std::isinf;
using std::isnan;
using std::max;
using std::min;

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __shared__ static
#define __constant__ static const
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

struct float2 { float x, y; };
struct float4 { float x, y, z, w; };
struct double2 { double x, y; };
struct int2 { int x, y; };
struct int4 { int x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }
inline int2 make_int2(int x, int y) { return {x, y}; }

namespace host {

struct Thread {
    ucontext_t context;
    std::vector<char> stack;
    bool done = false;
    unsigned char slot[16];
    unsigned index = 0;
    // how often it has waited for its block, and for its warp
    long waits[2] = {0, 0};
};

inline dim3 grid, block;
inline std::vector<Thread> threads;
inline Thread *self;
inline ucontext_t scheduler;
inline bool moved;
inline void *dynamic_shared;
inline void (*body)();

}  // namespace host

inline dim3 threadIdx, blockIdx, blockDim, gridDim;
constexpr int warpSize = 32;

namespace host {

inline void place(unsigned i) {
    threadIdx.x = i % block.x;
    threadIdx.y = i / block.x % block.y;
    threadIdx.z = i / block.x / block.y;
}

inline bool arrived(unsigned first, unsigned last, int kind, long turn) {
    for (unsigned i = first; i < last; i++)
        if (!threads[i].done && threads[i].waits[kind] < turn) return false;
    return true;
}

// Give way until every thread of the block (0) or warp (1) that still runs has come here as often as this one.
inline void wait(int kind) {
    Thread *me = self;
    unsigned first = kind ? me->index / 32 * 32 : 0;
    unsigned last = kind ? std::min<unsigned>(first + 32, threads.size()) : threads.size();
    long turn = ++me->waits[kind];
    moved = true;
    while (!arrived(first, last, kind, turn)) swapcontext(&me->context, &scheduler);
    moved = true;
}

template <class T> T exchange(T value, unsigned from) {
    static_assert(sizeof(T) <= 16, "a shuffle moves one number");
    std::memcpy(self->slot, &value, sizeof(T));
    wait(1);
    T found = value;
    if (from < threads.size()) std::memcpy(&found, threads[from].slot, sizeof(T));
    wait(1);
    return found;
}

inline unsigned lane() { return self->index % 32; }
inline unsigned first_lane() { return self->index / 32 * 32; }

inline void enter() {
    body();
    self->done = true;
    moved = true;
    swapcontext(&self->context, &scheduler);
}

// Run a kernel over the whole grid; false where the threads of a block wait for one another forever.
inline bool run(dim3 given_grid, dim3 given_block, std::size_t shared, bool waiting, void (*kernel)()) {
    gridDim = grid = given_grid;
    blockDim = block = given_block;
    body = kernel;
    unsigned count = block.x * block.y * block.z;
    // what a kernel does not write before it reads is not a number
    std::vector<double> memory(shared / sizeof(double) + 2);
    dynamic_shared = memory.data();
    if (waiting) {
        threads = std::vector<Thread>(count);
        for (auto &thread : threads) thread.stack.resize(256 * 1024);
    }
    for (blockIdx.z = 0; blockIdx.z < grid.z; blockIdx.z++)
        for (blockIdx.y = 0; blockIdx.y < grid.y; blockIdx.y++)
            for (blockIdx.x = 0; blockIdx.x < grid.x; blockIdx.x++) {
                std::memset(memory.data(), 0xff, memory.size() * sizeof(double));
                if (!waiting) {
                    for (unsigned i = 0; i < count; i++) {
                        place(i);
                        body();
                    }
                    continue;
                }
                for (unsigned i = 0; i < count; i++) {
                    Thread &thread = threads[i];
                    thread.done = false;
                    thread.index = i;
                    thread.waits[0] = thread.waits[1] = 0;
                    getcontext(&thread.context);
                    thread.context.uc_stack.ss_sp = thread.stack.data();
                    thread.context.uc_stack.ss_size = thread.stack.size();
                    thread.context.uc_link = nullptr;
                    makecontext(&thread.context, enter, 0);
                }
                for (unsigned left = count; left;) {
                    left = 0;
                    moved = false;
                    for (unsigned i = 0; i < count; i++) {
                        if (threads[i].done) continue;
                        self = &threads[i];
                        place(i);
                        swapcontext(&scheduler, &self->context);
                        left += !threads[i].done;
                    }
                    if (left && !moved) return false;
                }
            }
    return true;
}

}  // namespace host

inline void __syncthreads() { host::wait(0); }
inline void __syncwarp(unsigned = 0xffffffffu) { host::wait(1); }
inline void __threadfence() {}
inline void __threadfence_block() {}

template <class T> T __shfl_sync(unsigned, T v, int from, int width = 32) {
    unsigned base = host::lane() / width * width;
    return host::exchange(v, host::first_lane() + base + (unsigned)from % width);
}
template <class T> T __shfl_up_sync(unsigned, T v, unsigned delta, int width = 32) {
    unsigned own = host::lane(), base = own / width * width;
    return host::exchange(v, host::first_lane() + (own < base + delta ? own : own - delta));
}
template <class T> T __shfl_down_sync(unsigned, T v, unsigned delta, int width = 32) {
    unsigned own = host::lane(), base = own / width * width;
    return host::exchange(v, host::first_lane() + (own + delta >= base + width ? own : own + delta));
}
template <class T> T __shfl_xor_sync(unsigned, T v, unsigned mask, int width = 32) {
    unsigned own = host::lane(), base = own / width * width, other = own ^ mask;
    return host::exchange(v, host::first_lane() + (other >= base + width ? own : other));
}
inline unsigned __ballot_sync(unsigned, int predicate) {
    unsigned found = 0;
    unsigned first = host::first_lane();
    int own = predicate != 0;
    std::memcpy(host::self->slot, &own, sizeof own);
    host::wait(1);
    for (unsigned i = first; i < std::min<std::size_t>(first + 32, host::threads.size()); i++) {
        int other = 0;
        if (!host::threads[i].done) std::memcpy(&other, host::threads[i].slot, sizeof other);
        found |= (unsigned)other << (i - first);
    }
    host::wait(1);
    return found;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, !predicate) == 0; }
inline int __syncthreads_or(int predicate) {
    std::memcpy(host::self->slot, &predicate, sizeof predicate);
    host::wait(0);
    int found = 0;
    for (auto &thread : host::threads) {
        int other = 0;
        if (!thread.done) std::memcpy(&other, thread.slot, sizeof other);
        found |= other != 0;
    }
    host::wait(0);
    return found;
}

template <class T> T atomicAdd(T *p, T v) {
    T old = *p;
    *p += v;
    return old;
}
template <class T> T __ldg(const T *p) { return *p; }
inline double rsqrt(double x) { return 1 / std::sqrt(x); }
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline double __longlong_as_double(long long x) {
    double y;
    std::memcpy(&y, &x, 8);
    return y;
}
inline long long __double_as_longlong(double x) {
    long long y;
    std::memcpy(&y, &x, 8);
    return y;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
