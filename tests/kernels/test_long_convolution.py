"""The FFT convolution against the sum, with gradients, at every kind of length."""

import numpy as np
import pytest
import torch

from statespace.kernels import long_convolution

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("length", "kernel_length"), [(1, 1), (1, 5), (2, 1), (61, 61), (127, 40), (40, 127), (4999, 13), (10007, 300)]
)
def test_equals_the_reference(dtype, length, kernel_length):
    u, k = RNG.normal(size=(2, 3, length)).astype(dtype), RNG.normal(size=(3, kernel_length)).astype(dtype)
    expected = long_convolution(u, k, backend="reference")
    tolerance = {np.float32: 3e-6, np.float64: 1e-13}[dtype] * np.abs(expected).max()
    got = long_convolution(u, k)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance)
    tensors = long_convolution(torch.from_numpy(u), torch.from_numpy(k))
    np.testing.assert_array_equal(tensors.numpy(), got)


@pytest.mark.parametrize(("length", "kernel_length"), [(1, 1), (7, 7), (11, 4), (5, 9)])
def test_gradients(length, kernel_length):
    u = torch.randn(2, 3, length, dtype=torch.float64, requires_grad=True)
    k = torch.randn(3, kernel_length, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(long_convolution, (u, k))


def test_gradients_of_the_blocked_form():
    u = torch.randn(1, 2, 5003, dtype=torch.float64, requires_grad=True)
    k = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(1, 2, 5003, dtype=torch.float64)
    direct = torch.nn.functional.conv1d(torch.nn.functional.pad(u, (4, 0)), k.flip(-1).unsqueeze(1), groups=2)
    expected = torch.autograd.grad((direct * weights).sum(), (u, k))
    got = torch.autograd.grad((long_convolution(u, k) * weights).sum(), (u, k))
    for x, y in zip(got, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-10)


def test_half_precision_is_summed_in_float32():
    u, k = torch.ones(1, 1, 1000, dtype=torch.bfloat16), torch.ones(1, 1000, dtype=torch.bfloat16)
    y = long_convolution(u, k)
    assert y.dtype == torch.bfloat16
    assert y[0, 0, -1].item() == 1000


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
