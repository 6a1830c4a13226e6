"""The convolution in CUDA, on a GPU or as host code: every path, outputs and gradients; the code compiled for GPUs."""

import importlib

import numpy as np
import pytest
import torch

from statespace.kernels import BackendError, cuda, long_convolution
from statespace.kernels.long_convolution import gpu_cupy
from tests.kernels import device_arrays
from tests.kernels.host import compile_for_gpus

plan = importlib.import_module("statespace.kernels.long_convolution.plan")

TOLERANCE = {torch.float64: 1e-13, torch.float32: 3e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}
# length, kernel, records, channels
DIRECT = [(1, 3, 1, 1), (37, 8, 2, 3), (2300, 31, 2, 3)]
SINGLE = [(61, 61, 3, 2), (50, 127, 1, 1), (300, 40, 2, 3), (470, 40, 3, 5)]
# with rows of 64 numbers: one ring or several, blocks, records and channels in pieces
LONG = [(257, 40, 2, 3), (900, 901, 3, 2), (2900, 2700, 1, 2)]


@pytest.fixture
def device(cuda_runtime):
    return cuda_runtime.device


@pytest.fixture
def short_rows(monkeypatch):
    """Rings of a few numbers, so that records of some hundred samples are split."""
    monkeypatch.setattr(plan, "ROW_BYTES", 64 * 16)
    monkeypatch.setattr(gpu_cupy, "PIECE", 40_000)


def problem(L, K, B, H, dtype, device):
    generator = torch.Generator().manual_seed(L + K)
    sizes = (B, H, L), (H, K)
    return [torch.randn(s, generator=generator, dtype=torch.float64).to(device, dtype).requires_grad_() for s in sizes]


def with_gradients(arguments, backend):
    y = long_convolution(*arguments, backend=backend)
    weights = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(y)
    return y, *torch.autograd.grad((y * weights).sum(), arguments)


def compare(shape, dtype, device):
    arguments = problem(*shape, dtype, device)
    exact = [x.detach().double().requires_grad_() for x in arguments]
    for name, got, expected in zip(
        ("y", "u", "k"), with_gradients(arguments, "cupy"), with_gradients(exact, "pytorch"), strict=True
    ):
        assert got.dtype == dtype
        largest = expected.abs().max()
        torch.testing.assert_close(
            got.double() / largest, expected / largest, rtol=0, atol=TOLERANCE[dtype], msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("shape", [*DIRECT, *SINGLE], ids=str)
def test_outputs_and_gradients(shape, device):
    compare(shape, torch.float64, device)


@pytest.mark.parametrize("shape", LONG, ids=str)
def test_records_that_are_split_into_rings(shape, device, short_rows):
    assert plan.plan(*shape[:2], 8).roots > 1 or plan.plan(*shape[:2], 8).blocks > 1
    compare(shape, torch.float64, device)


def test_blocks_of_a_record_in_rings(device, short_rows, monkeypatch):
    monkeypatch.setattr(plan, "ROOTS", (16,))
    assert plan.plan(2500, 600, 8)[1:] == (16, 1449, 2)
    compare((2500, 600, 2, 3), torch.float64, device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(300, 40, 2, 3), (37, 8, 2, 3)], ids=str)
def test_types(shape, dtype, device):
    compare(shape, dtype, device)


def test_half_precision_at_its_ends(device):
    """Identity: every half-precision number comes back, subnormal, infinite or not a number, and float32 is rounded."""
    for dtype in (torch.float16, torch.bfloat16):
        u = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype).reshape(1, 1, -1).to(device)
        y = long_convolution(u, torch.ones(1, 1, dtype=dtype, device=device), backend="cupy")
        torch.testing.assert_close(y, u, rtol=0, atol=0, equal_nan=True)
        u = torch.tensor([1, 2, torch.inf, 4], dtype=dtype, device=device).reshape(1, 1, 4)
        expected = torch.tensor([1, 3, torch.inf, torch.inf], dtype=dtype, device=device)
        y = long_convolution(u, torch.ones(1, 2, dtype=dtype, device=device), backend="cupy")
        assert torch.equal(y[0, 0], expected)
        k = torch.tensor([[2.0, 1.0]], dtype=dtype, device=device)
        u = torch.arange(2**15, dtype=torch.int32).to(torch.int16).view(dtype).reshape(1, 1, -1).to(device)
        u = u[:, :, torch.isfinite(u[0, 0])]
        expected = (2 * u.float() + torch.nn.functional.pad(u.float(), (1, -1))).to(dtype)
        assert torch.equal(long_convolution(u, k, backend="cupy"), expected)


@pytest.mark.parametrize("frozen", [0, 1])
@pytest.mark.parametrize("K", [8, 60])
def test_one_gradient_alone(frozen, K, device):
    arguments = problem(60, K, 2, 2, torch.float64, device)
    expected = with_gradients(arguments, "pytorch")[2 - frozen]
    arguments[frozen].requires_grad_(False)
    long_convolution(*arguments, backend="cupy")
    weights = torch.randn(2, 2, 60, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(device)
    (long_convolution(*arguments, backend="cupy") * weights).sum().backward()
    assert arguments[frozen].grad is None
    torch.testing.assert_close(arguments[1 - frozen].grad, expected, rtol=0, atol=1e-11)


def test_what_is_not_written_is_not_read(device, monkeypatch):
    """Scratch and results begin as NaN."""
    empty = torch.empty

    def filled(*sizes, **options):
        return empty(*sizes, **options).fill_(torch.nan)

    monkeypatch.setattr(torch, "empty", filled)
    compare((300, 40, 2, 3), torch.float64, device)


def test_it_is_one_piece_of_a_compiled_program(device):
    arguments = problem(61, 61, 3, 2, torch.float32, device)
    compiled = torch.compile(lambda u, k: long_convolution(u, k, backend="cupy"), fullgraph=True, backend="aot_eager")
    expected = with_gradients(arguments, "cupy")
    y = compiled(*arguments)
    weights = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(y)
    for x, z in zip((y, *torch.autograd.grad((y * weights).sum(), arguments)), expected, strict=True):
        torch.testing.assert_close(x, z, rtol=0, atol=0)


def test_arrays(cuda_runtime):
    """NumPy's come back as NumPy's, those of the GPU stay there."""
    u, k = (x.detach().numpy() for x in problem(300, 40, 2, 3, torch.float32, "cpu"))
    expected = long_convolution(u, k, backend="reference")
    y = long_convolution(u, k, backend="cupy")
    assert type(y) is np.ndarray
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, expected, rtol=0, atol=3e-6 * np.abs(expected).max())
    xp = cuda_runtime.arrays
    there = long_convolution(xp.asarray(u), xp.asarray(k), backend="cupy")
    assert type(there) is xp.ndarray
    np.testing.assert_array_equal(cuda_runtime.fetched(there), y)
    # a record that runs backwards, in channels that come last
    other = long_convolution(xp.asarray(u)[:, :, ::-1], xp.asarray(k), backend="cupy")
    expected = long_convolution(u[:, :, ::-1], k, backend="reference")
    np.testing.assert_allclose(cuda_runtime.fetched(other), expected, rtol=0, atol=3e-6 * np.abs(expected).max())


def test_channels_may_come_last(device):
    u, k = problem(300, 40, 2, 3, torch.float64, device)
    last = u.detach().transpose(1, 2).contiguous().transpose(1, 2)
    expected = long_convolution(u, k, backend="cupy")
    torch.testing.assert_close(long_convolution(last, k, backend="cupy"), expected, rtol=0, atol=0)


def test_refusals(cuda_runtime):
    with pytest.raises(BackendError, match="not for complex64"):
        long_convolution(np.ones((1, 1, 3), np.complex64), np.ones((1, 3), np.complex64), backend="cupy")
    assert gpu_cupy.unusable(device_arrays.DeviceArray(np.ones((1, 1, 3))), np.ones((1, 3))) is None
    record, kernel = (torch.empty(1, 1, 1, device="meta").expand(*s) for s in ((1, 1, 1 << 24), (1, 1, 1 << 24)))
    assert "on meta" in gpu_cupy.unusable(record, kernel[0])


def test_without_a_gpu():
    if cuda.runtime.missing() is None:
        pytest.skip("there is a GPU")
    with pytest.raises(BackendError, match=r"CuPy|cupy"):
        long_convolution(np.ones((1, 1, 3)), np.ones((1, 3)), backend="cupy")


def test_plans():
    # as long as the record: no padding; one transform holds two samples a number
    assert plan.plan(16384, 16384, 4) == (16384, 1, 16384, 1)
    # beyond shared memory the record of a short kernel is cut, that of a long one is split
    assert plan.plan(1 << 20, 5000, 4).roots == 1
    assert plan.plan(1 << 20, 1 << 20, 4) == (4096, 256, 1 << 20, 1)
    assert plan.plan(1 << 25, 1 << 25, 4) is None
    assert plan.plan(1 << 25, 1 << 20, 4) is not None


FLOAT = dict(REAL="float", PAIR="float2", SAMPLE="float", KIND=0)
BFLOAT16 = dict(REAL="float", PAIR="float2", SAMPLE="short", KIND=1)


@pytest.mark.parametrize(
    ("file", "sizes", "allowed"),
    [
        ("single.cu", FLOAT | dict(LENGTH=16384, ROOTS=1, THREADS=512), 0),
        ("single.cu", BFLOAT16 | dict(LENGTH=4096, ROOTS=1, THREADS=256), 16),
        ("rings.cu", FLOAT | dict(LENGTH=4096, ROOTS=256, THREADS=256), 0),
        ("columns.cu", BFLOAT16 | dict(LENGTH=4096, ROOTS=256, TILE=16, THREADS=256), 0),
        ("sums.cu", FLOAT | dict(TAPS=32, THREADS=128), 0),
    ],
    ids=["one step", "one step of half precision", "rings", "columns", "sums"],
)
def test_it_compiles_for_gpus_without_spilling(file, sizes, allowed, nvcc):
    for kernel in compile_for_gpus(cuda.source("long_convolution", file, **sizes)):
        assert kernel["spilled"] <= allowed, kernel


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "shape",
    [(1024, 1024, 8, 64), (16384, 16384, 4, 64), (65536, 65536, 2, 32), (1 << 20, 1 << 20, 1, 16),
     (1 << 20, 900, 1, 16), (1 << 20, 16, 2, 16), (200_003, 150_001, 1, 8)],
    ids=str,
)  # fmt: skip
def test_long_records(shape, dtype, device):
    compare(shape, dtype, device)


@pytest.mark.gpu
def test_more_than_two_to_the_31_samples(device):
    """The last record beyond 2^31 equals itself alone."""
    u, k = torch.randn(2100, 1, 1 << 20, device=device, dtype=torch.bfloat16), torch.randn(1, 600, device=device)
    y = long_convolution(u, k.bfloat16(), backend="cupy")
    assert torch.equal(y[-1:], long_convolution(u[-1:], k.bfloat16(), backend="cupy"))
    y = long_convolution(u, k[:, :8].bfloat16(), backend="cupy")
    assert torch.equal(y[-1:], long_convolution(u[-1:], k[:, :8].bfloat16(), backend="cupy"))
