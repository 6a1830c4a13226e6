"""Every Cauchy product against the sum as it is written: values, gradients in all three arguments, any shape."""

import numpy as np
import pytest
import torch

from statespace.kernels import BackendError, cauchy

BACKENDS = ["cpu", "pytorch"]
# Shapes of v, z and w: one sum, several sums over the same poles, poles or nodes of their own, the states broadcast.
SHAPES = [
    ((1,), (1,), (1,)),
    ((5,), (17,), (5,)),
    ((3, 4, 5), (21,), (3, 1, 5)),
    ((2, 3, 4, 5), (16,), (5,)),
    ((3, 4, 5), (4, 33), (3, 4, 5)),
    ((2, 2, 2, 3), (2, 1, 1, 40), (2, 1, 1, 3)),
    ((5,), (3, 9), (5,)),
    ((2, 1, 1), (1, 3, 9), (5,)),
]


def problem(shapes):
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape) + 1j * rng.normal(size=shape) for shape in shapes]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("conjugate", [False, True])
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_equals_the_reference(backend, conjugate, shapes):
    arguments = problem(shapes)
    expected = cauchy(*arguments, conjugate=conjugate, backend="reference")
    got = cauchy(*arguments, conjugate=conjugate, backend=backend)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-13 * np.abs(expected).max())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("conjugate", [False, True])
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_gradients(backend, conjugate, shapes):
    arguments = [torch.from_numpy(x).requires_grad_() for x in problem(shapes)]
    assert torch.autograd.gradcheck(
        lambda *x: cauchy(*x, conjugate=conjugate, backend=backend), arguments, fast_mode=True
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_digits_stay_near_a_pole(backend):
    """On the imaginary axis, at distances from 1e-9 of a pole whose conjugate is far away."""
    import mpmath

    pole, distance = complex(-1e-6, 300.0), 10.0 ** np.arange(-9.0, 3.0)
    z = 1j * (300.0 + distance)
    got = cauchy(np.array([0.3 - 0.7j]), z, np.array([pole]), conjugate=True, backend=backend)
    v, w = mpmath.mpc(0.3, -0.7), mpmath.mpc(pole)
    expected = [complex(v / (mpmath.mpc(x) - w) + mpmath.conj(v) / (mpmath.mpc(x) - mpmath.conj(w))) for x in z]
    np.testing.assert_allclose(got, expected, rtol=1e-13)


def test_the_chunks_of_nodes_are_seamless():
    v, z, w = problem([(700,), (4000,), (700,)])
    np.testing.assert_allclose(cauchy(v, z, w, backend="pytorch"), cauchy(v, z, w, backend="cpu"), rtol=1e-9)


def test_single_precision_is_summed_in_double():
    v, z, w = problem([(3, 4, 50), (70,), (3, 1, 50)])
    got = cauchy(*(torch.from_numpy(x).to(torch.complex64) for x in (v, z, w)))
    assert got.dtype == torch.complex64
    single = (x.astype(np.complex64).astype(np.complex128) for x in (v, z, w))
    expected = cauchy(*single, backend="reference")
    np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=1e-7 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((3,), (4,), (2,)), "that broadcast"),
        (((2, 3), (3, 4), (3,)), "that broadcast"),
        (((0,), (4,), (1,)), "v must have an axis and no empty one"),
        (((3,), (), (3,)), "z must have an axis"),
    ],
    ids=str,
)
def test_bad_shapes(shapes, message):
    with pytest.raises(ValueError, match=message):
        cauchy(*(np.ones(shape, complex) for shape in shapes))


def test_what_is_refused():
    x = np.ones(3, complex)
    with pytest.raises(ValueError, match="Got both"):
        cauchy(x, torch.from_numpy(2 * x), x)
    with pytest.raises(BackendError, match="not torch tensors"):
        cauchy(*(torch.from_numpy(a) for a in (x, 2 * x, x)), backend="reference")
