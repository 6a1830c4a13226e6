"""The two-level product against the sum of powers: float32 as accurate as its type, at any length."""

import numpy as np
import pytest
import torch

from statespace.kernels import vandermonde

RNG = np.random.default_rng(0)


def system(shape=(3, 8)):
    c = RNG.normal(size=shape) + 1j * RNG.normal(size=shape)
    return c, -(10 ** RNG.uniform(-7, 2, shape)) + 1j * 10 ** RNG.uniform(-6, 1.5, shape)


@pytest.mark.parametrize("L", [1, 2, 3, 61, 64, 1009, 4096])
@pytest.mark.parametrize("log_nodes", [False, True])
@pytest.mark.parametrize("real", [False, True])
def test_equals_the_reference(L, log_nodes, real):
    c, rate = system()
    x = rate if log_nodes else np.exp(rate)
    expected = vandermonde(c, x, L, log_nodes=log_nodes, real=real, backend="reference")
    got = vandermonde(c, x, L, log_nodes=log_nodes, real=real)
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-11 * np.abs(expected).max())
    tensors = torch.from_numpy(c).to(torch.complex64), torch.from_numpy(x)
    single = vandermonde(tensors[0].cdouble(), tensors[1], L, log_nodes=log_nodes, real=real)
    np.testing.assert_allclose(single.numpy(), expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("L", [4096, 65_536])
def test_float32_logarithms_keep_their_digits(L):
    c, rate = np.array([1.0 + 0j]), np.array([-1e-5 + 2.5j]).astype(np.complex64)
    expected = (c[0] * np.exp(rate.astype(np.complex128)[0] * np.arange(L))).real
    got = vandermonde(c.astype(np.complex64), rate, L, log_nodes=True, real=True)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=0, atol=5e-7)


def test_extreme_decay_gives_no_nan():
    rate = torch.tensor([[-1e6 + 1e3j, -1e-12 + 0j]], requires_grad=True)
    kernel = vandermonde(torch.ones(1, 2, dtype=torch.complex64), rate, 1000, log_nodes=True, real=True)
    torch.testing.assert_close(kernel[0, 1:], torch.ones(999))
    kernel.sum().backward()
    assert torch.isfinite(torch.view_as_real(rate.grad)).all()


@pytest.mark.parametrize("log_nodes", [False, True])
@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("L", [1, 5, 16])
def test_gradients(log_nodes, real, L):
    c = torch.randn(2, 3, dtype=torch.complex128, requires_grad=True)
    x = (torch.randn(3, dtype=torch.complex128) * 0.3).requires_grad_()
    assert torch.autograd.gradcheck(lambda c, x: vandermonde(c, x, L, log_nodes=log_nodes, real=real), (c, x))


def test_gradient_at_a_node_of_zero():
    x = torch.zeros(1, dtype=torch.complex128, requires_grad=True)
    vandermonde(torch.ones(1, dtype=torch.complex128), x, 7, real=True)[1].backward()
    assert x.grad.item() == 1


@pytest.mark.parametrize(
    ("c", "x", "L", "message"),
    [
        (np.ones(2), np.ones(2), 0, "L must be a positive integer"),
        (np.ones(2), np.ones(3), 4, "x must broadcast against c"),
        (np.ones((2, 0)), np.ones((2, 0)), 4, "no axis empty"),
        (torch.ones(2), np.ones(2), 4, "one of each"),
    ],
)
def test_bad_arguments(c, x, L, message):
    with pytest.raises(ValueError, match=message):
        vandermonde(c, x, L)
