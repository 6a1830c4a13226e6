"""CUDA sources: macros, neighbours, arguments, what stands for a GPU in these tests, and code compiled for GPUs."""

import shutil

import numpy as np
import pytest

from statespace.kernels import cuda
from tests.kernels.host import Host, compile_for_gpus

SUMS = """
#include "doubled.cuh"
extern "C" __global__ void __launch_bounds__(64) sums(const double* x, double* totals, long long n, double scale) {
    extern __shared__ double parts[];
    __shared__ int warps;
    double total = 0;
    for (long long i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) total += x[i];
    for (int d = 16; d; d /= 2) total += __shfl_down_sync(0xffffffffu, total, d);
    if (threadIdx.x == 0) warps = blockDim.x / 32;
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = total;
    __syncthreads();
    if (threadIdx.x) return;
    for (int w = 1; w < warps; w++) total += parts[w];
    if (totals) totals[blockIdx.x] = FACTOR * scale * total;
}
extern "C" __global__ void scanned(const float* x, float* y, unsigned char* odd) {
    float v = x[threadIdx.x];
    for (int d = 1; d < 32; d *= 2) {
        float w = __shfl_up_sync(0xffffffffu, v, d);
        if (threadIdx.x >= d) v = doubled(w) / 2 + v;
    }
    y[threadIdx.x] = __shfl_xor_sync(0xffffffffu, v, 1);
    unsigned votes = __ballot_sync(0xffffffffu, threadIdx.x & 1);
    odd[threadIdx.x] = __popc(votes) + __any_sync(0xffffffffu, threadIdx.x > 40) - __all_sync(0xffffffffu, 1);
}
extern "C" __global__ void stuck(double* x) {
    if (threadIdx.x) __syncwarp();
    else __syncthreads();
    x[threadIdx.x] = 1;
}
"""


@pytest.fixture
def sums(tmp_path, cuda_runtime):
    (tmp_path / "doubled.cuh").write_text("__device__ float doubled(float x) { return 2 * x; }\n")
    (tmp_path / "sums.cu").write_text(SUMS)
    return tmp_path / "sums.cu"


def test_macros_and_arguments(sums, cuda_runtime):
    xp = cuda_runtime.arrays
    kernels, x = cuda.load("", sums, FACTOR=3), xp.arange(1000.0)
    assert cuda.load("", sums, FACTOR=3) is kernels
    totals = xp.full(4, xp.nan)
    kernels.launch("sums", 4, 64, x, totals, 900, 0.5, shared=16)
    assert float(totals.sum()) == 1.5 * 899 * 450
    kernels.launch("sums", 4, 64, x, None, 900, 0.5, shared=16)
    once = xp.full(1, xp.nan)
    cuda.load("", sums, FACTOR=1).launch("sums", 1, 32, x, once, 1, 1.0, shared=16)
    assert float(once[0]) == 0


def test_shuffles_and_votes(sums, cuda_runtime):
    xp = cuda_runtime.arrays
    x, y, odd = xp.arange(32, dtype="float32"), xp.empty(32, "float32"), xp.empty(32, "uint8")
    cuda.load("", sums, FACTOR=1).launch("scanned", 1, 32, x, y, odd)
    expected = np.cumsum(np.arange(32)).reshape(-1, 2)[:, ::-1].ravel()
    np.testing.assert_array_equal(cuda_runtime.fetched(y), expected)
    np.testing.assert_array_equal(cuda_runtime.fetched(odd), 15)


def test_arrays_pass_without_a_copy(cuda_runtime):
    torch = pytest.importorskip("torch")
    tensor = torch.arange(4.0, device=cuda_runtime.device)
    shared = cuda.borrowed(tensor)
    shared[0] = 7
    assert float(tensor[0]) == 7
    back = cuda.returned(shared, tensor)
    assert back.data_ptr() == tensor.data_ptr()
    array = cuda.borrowed(np.arange(3), np.float64)
    assert array.dtype == np.float64
    assert isinstance(cuda.returned(array, [1.0]), np.ndarray)


def test_the_stand_in_refuses_what_a_gpu_would_misread(sums, monkeypatch):
    if shutil.which("g++") is None:
        pytest.skip("there is no g++")
    monkeypatch.setattr(cuda, "runtime", Host())
    kernels = cuda.load("", sums, FACTOR=5)
    with pytest.raises(TypeError, match=r"x is double\*.*float32"):
        kernels.launch("sums", 1, 32, np.ones(2, np.float32), np.ones(1), 2, 1.0, shared=16)
    with pytest.raises(TypeError, match="n is long long"):
        kernels.launch("sums", 1, 32, np.ones(2), np.ones(1), 2.0, 1.0, shared=16)
    with pytest.raises(TypeError, match="takes 4 arguments"):
        kernels.launch("sums", 1, 32, np.ones(2))
    with pytest.raises(RuntimeError, match="forever"):
        kernels.launch("stuck", 1, 2, np.zeros(2))
    with pytest.raises(ValueError, match="NAN"):
        Host().compiled('extern "C" __global__ void f(double* x) { x[0] = NAN; }')


def test_it_compiles_for_gpus(sums, nvcc):
    found = compile_for_gpus(cuda.source("", sums, FACTOR=2))
    assert {(entry["kernel"], entry["architecture"]) for entry in found} == {
        (kernel, architecture) for kernel in ("sums", "scanned", "stuck") for architecture in ("sm_80", "sm_90")
    }
    assert all(entry["registers"] > 0 and entry["spilled"] == 0 for entry in found)


def test_a_missing_gpu_is_a_reason():
    reason = cuda.CuPy().missing()
    if reason is None:
        pytest.skip("CuPy has a GPU here")
    assert "pip install" in reason or "CUDA device" in reason
    assert cuda.unusable(np.ones(1)) == reason
