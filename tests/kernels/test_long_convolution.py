"""The convolution against the sum, with gradients: every kind of length, by transforms, in blocks and directly."""

import importlib

import numpy as np
import pytest
import torch
from scipy.signal import fftconvolve

from statespace.kernels import long_convolution

RNG = np.random.default_rng(0)
BACKENDS = ["cpu", "pytorch"]
LENGTHS = [
    (1, 1), (1, 5), (2, 1), (7, 3), (61, 61), (127, 40), (40, 127), (257, 8), (300, 200), (1009, 193), (4999, 13),
    (10007, 300),
]  # fmt: skip
by_fft = importlib.import_module("statespace.kernels.long_convolution.pytorch")


def problem(length, kernel_length, dtype=np.float64, B=2, H=3):
    return RNG.normal(size=(B, H, length)).astype(dtype), RNG.normal(size=(H, kernel_length)).astype(dtype)


@pytest.fixture(params=[None, 2048], ids=["whole", "in pieces"])
def pieces(request, monkeypatch):
    """Transforms as they come, or in small pieces and computed again for the backward pass."""
    if request.param:
        monkeypatch.setattr(by_fft, "PIECE", request.param)
        monkeypatch.setattr(by_fft, "KEPT", 0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("length", "kernel_length"), LENGTHS)
def test_equals_the_reference(backend, dtype, length, kernel_length, pieces):
    u, k = problem(length, kernel_length, dtype)
    expected = long_convolution(u, k, backend="reference")
    tolerance = {np.float32: 3e-6, np.float64: 1e-13}[dtype] * np.abs(expected).max()
    got = long_convolution(u, k, backend=backend)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance)
    tensors = long_convolution(torch.from_numpy(u), torch.from_numpy(k), backend=backend)
    np.testing.assert_array_equal(tensors.numpy(), got)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("B", "H"), [(1, 1), (3, 16), (2, 33)])
def test_any_number_of_channels(backend, B, H):
    u, k = problem(50, 9, B=B, H=H)
    expected = long_convolution(u, k, backend="reference")
    np.testing.assert_allclose(long_convolution(u, k, backend=backend), expected, atol=1e-12)
    # Channels may come last in memory.
    other = torch.from_numpy(np.ascontiguousarray(u.swapaxes(1, 2))).transpose(1, 2)
    np.testing.assert_allclose(long_convolution(other, torch.from_numpy(k), backend=backend), expected, atol=1e-12)


@pytest.mark.parametrize(("length", "kernel_length"), [(100_003, 100_003), (131_072, 5000), (200_000, 150)])
def test_long_records(length, kernel_length):
    u, k = problem(length, kernel_length, np.float32, B=1, H=2)
    expected = fftconvolve(u.astype(np.float64), k[None].astype(np.float64), axes=-1)[..., :length]
    np.testing.assert_allclose(long_convolution(u, k), expected, rtol=0, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("length", "kernel_length"), [(1, 1), (7, 7), (11, 4), (5, 9), (19, 9)])
def test_gradients(backend, length, kernel_length):
    u, k = (torch.from_numpy(x).requires_grad_() for x in problem(length, kernel_length))
    assert torch.autograd.gradcheck(lambda u, k: long_convolution(u, k, backend=backend), (u, k))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("length", "kernel_length"), [(5003, 5), (1500, 170), (4001, 300), (2500, 2500)])
def test_gradients_of_longer_records(backend, length, kernel_length, pieces):
    u, k = (torch.from_numpy(x).requires_grad_() for x in problem(length, kernel_length))
    weights = torch.randn(2, 3, length, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(u, (kernel_length - 1, 0))
    direct = torch.nn.functional.conv1d(padded, k.flip(-1).unsqueeze(1), groups=3)
    expected = torch.autograd.grad((direct * weights).sum(), (u, k))
    got = torch.autograd.grad((long_convolution(u, k, backend=backend) * weights).sum(), (u, k))
    for x, y in zip(got, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("frozen", [0, 1])
def test_one_gradient_alone(frozen):
    for kernel_length in (4, 300):
        arguments = [torch.from_numpy(x) for x in problem(400, kernel_length)]
        arguments[1 - frozen].requires_grad_()
        long_convolution(*arguments).sum().backward()
        assert arguments[frozen].grad is None
        assert torch.isfinite(arguments[1 - frozen].grad).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kernel_length", [100, 1000])
def test_half_precision_is_summed_in_float32(dtype, kernel_length):
    u, k = torch.ones(1, 1, 1000, dtype=dtype), torch.ones(1, kernel_length, dtype=dtype)
    y = long_convolution(u, k)
    assert y.dtype == dtype
    assert y[0, 0, -1].item() == kernel_length


def test_an_infinity_spoils_nothing_before_it():
    u = np.ones((1, 1, 20))
    u[0, 0, 10] = np.inf
    y = long_convolution(u, np.ones((1, 3)))
    np.testing.assert_array_equal(y[0, 0, :10], [1, 2, *[3] * 8])
    u = np.full((1, 1, 5), np.inf)
    np.testing.assert_array_equal(long_convolution(u, np.ones((1, 3))), np.inf)


def test_blocks_cost_less_than_one_transform():
    size, n = by_fft.block_size(100_000, 1000)
    assert 1000 <= size < n < 20_000
    assert by_fft.block_size(1000, 1000) == (1000, 2000)


@pytest.mark.parametrize(
    ("u", "k", "message"),
    [
        (np.ones((2, 3)), np.ones((3, 4)), "u must have shape"),
        (np.ones((2, 3, 5)), np.ones((2, 5)), "u must have shape"),
        (np.ones((0, 3, 5)), np.ones((3, 5)), "no axis empty"),
        (torch.ones(2, 3, 5), np.ones((3, 5)), "one of each"),
    ],
)
def test_bad_arguments(u, k, message):
    with pytest.raises(ValueError, match=message):
        long_convolution(u, k)
