"""Both fast linear scans against the reference: values, every gradient, hard factors, any shape."""

import numpy as np
import pytest
import torch

from statespace.kernels import BackendError, linear_scan

BACKENDS = ["cpu", "pytorch"]
RNG = np.random.default_rng(0)
TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12, np.complex64: 2e-5, np.complex128: 1e-12}


def draw(shape, dtype):
    x = RNG.normal(size=shape)
    if np.issubdtype(dtype, np.complexfloating):
        x = x + 1j * RNG.normal(size=shape)
    return x.astype(dtype)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shape", [(1,), (2, 1), (3, 257), (2, 3, 61), (0, 5)])
def test_equals_the_reference(backend, dtype, reverse, shape):
    b, initial = draw(shape, dtype), draw(shape[:-1], dtype)
    a = draw(shape, dtype)
    a = a / np.maximum(1, 1.001 * np.abs(a))
    expected = linear_scan(a, b, initial, reverse, backend="reference")
    got = linear_scan(a, b, initial, reverse, backend=backend)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


SHARED = [(5, 61), (1, 61), (3, 1, 61), (2, 1, 1, 61), (5, 1), (3, 5, 1), (61,), (1,), ()]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", SHARED, ids=str)
def test_factors_that_rows_or_steps_share(backend, shape):
    """Values and every gradient equal those of the factors written out."""
    b, initial, weights = (torch.from_numpy(draw((2, 3, 5, 61)[:n], np.complex128)) for n in (4, 3, 4))
    a = torch.from_numpy(np.asarray(0.5 * draw(shape, np.complex128)))
    for reverse in (False, True):
        results = []
        for factors in (a, a.expand(b.shape).clone()):
            inputs = [x.clone().requires_grad_() for x in (factors, b, initial)]
            x = linear_scan(*inputs, reverse=reverse, backend=backend)
            grad_a, *others = torch.autograd.grad((x * weights).real.sum(), inputs)
            results.append([x, grad_a.sum_to_size(a.shape), *others])
        for got, expected in zip(*results, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("factors", [*range(1, 18), 49, 98])
@pytest.mark.parametrize("each", [2, 5])
def test_rows_are_counted_to_their_own_factor(factors, each):
    a = torch.full((factors, 1, 3), 0.5, dtype=torch.float64, requires_grad=True)
    b = torch.arange(factors, dtype=torch.float64).view(-1, 1, 1).expand(factors, each, 3)
    (gradient,) = torch.autograd.grad(linear_scan(a, b, backend="cpu").sum(), a)
    unit = torch.autograd.grad(linear_scan(a[0, 0], torch.ones(3, dtype=a.dtype), backend="pytorch").sum(), a)[0][0, 0]
    torch.testing.assert_close(gradient[:, 0], each * torch.arange(factors).double().unsqueeze(-1) * unit)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_threads_change_nothing(n_threads):
    b = torch.from_numpy(draw((7, 30_011), np.float64))
    a = torch.full((1, 30_011), 0.9, dtype=torch.float64).requires_grad_()
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        x = linear_scan(a, b)
        (gradient,) = torch.autograd.grad(x.sum(), a)
    finally:
        torch.set_num_threads(before)
    expected = linear_scan(a, b, backend="pytorch")
    torch.testing.assert_close(x, expected, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.sum(), a)[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("radius", [0.0, 1e-30, 0.999, 1.0])
def test_hard_radii(backend, radius):
    b = RNG.normal(size=(2, 1009))
    a = np.full((2, 1), radius)
    expected = linear_scan(a, b, backend="reference")
    np.testing.assert_allclose(linear_scan(a, b, backend=backend), expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gradients(backend, reverse, dtype):
    b = torch.randn(2, 7, dtype=dtype, requires_grad=True)
    a = (0.9 * torch.randn(7, dtype=dtype)).requires_grad_()  # broadcast over the rows
    initial = torch.randn(2, dtype=dtype, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *x: linear_scan(*x, reverse=reverse, backend=backend), (a, b, initial))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("steps", [1, 3])
def test_second_derivatives(reverse, steps):
    a = (0.9 * torch.randn(2, steps, dtype=torch.complex128)).requires_grad_()
    b, initial = (torch.randn(2, n, dtype=torch.complex128, requires_grad=True) for n in (3, 1))
    scan = lambda a, b, x: linear_scan(a, b, x[:, 0], reverse=reverse, backend="pytorch")  # noqa: E731
    assert torch.autograd.gradgradcheck(scan, (a, b, initial))


def test_mixed_real_and_complex():
    a, b = torch.rand(5, dtype=torch.float64, requires_grad=True), torch.randn(3, 5, dtype=torch.complex128)
    assert torch.autograd.gradcheck(lambda x: linear_scan(x, b), (a,))


def test_half_precision_is_summed_in_float32():
    a, b = torch.full((4000,), 0.999, dtype=torch.bfloat16), torch.ones(4000, dtype=torch.bfloat16)
    x = linear_scan(a, b)
    assert x.dtype == torch.bfloat16
    assert x[-1].item() == pytest.approx(linear_scan(a.double(), b.double())[-1].item(), rel=1e-2)
    with pytest.raises(BackendError, match=r"cpu.*bfloat16.*Usable here: (triton, )?pytorch"):
        linear_scan(a, b, backend="cpu")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones(3), np.ones(4)), r"a must broadcast to shape \(4,\)"),
        ((np.ones(4), np.ones((2, 4)), np.ones(3)), r"initial must broadcast to shape \(2,\)"),
        ((np.ones(()), np.ones((2, 0))), "at least one step"),
        ((torch.ones(()), np.ones(2)), "all be torch tensors"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        linear_scan(*arguments)
