"""HiPPO: the papers' matrices, their normal plus low-rank forms, and the projections that they stand for."""

import numpy as np
import pytest
from scipy.integrate import quad_vec
from scipy.linalg import expm

from statespace.lti import hippo

PROJECTIONS = ("legs", "legt", "lagt", "fourier")
RANKS = {"legs": 1, "legt": 2, "lagt": 1, "fourier": 1, "legsd": 0, "foud": 0}


def test_the_five_dimensional_matrix_of_s4():
    # Efficiently Modeling Long Sequences, equation 2, written out.
    A, B = hippo.matrices("legs", 5)
    squares = -np.array(
        [[1, 0, 0, 0, 0], [3, 4, 0, 0, 0], [5, 15, 9, 0, 0], [7, 21, 35, 16, 0], [9, 27, 45, 63, 25]], dtype=float
    )
    np.testing.assert_allclose(A, -np.sqrt(-squares), rtol=1e-15, atol=0)
    np.testing.assert_allclose(B[:, 0] ** 2, [1, 3, 5, 7, 9], rtol=1e-15)


def test_the_three_dimensional_matrices_of_the_other_measures():
    legt, B = hippo.matrices("legt", 3)
    root = np.sqrt([1.0, 3.0, 5.0])
    signs = np.array([[1, -1, 1], [1, 1, -1], [1, 1, 1]])
    np.testing.assert_allclose(legt, -np.outer(root, root) * signs, rtol=1e-15)
    np.testing.assert_allclose(B[:, 0], root)
    lagt, B = hippo.matrices("lagt", 3)
    np.testing.assert_allclose(lagt, [[-1, 0, 0], [-1, -1, 0], [-1, -1, -1]], rtol=1e-15)
    np.testing.assert_array_equal(B, np.ones((3, 1)))
    np.testing.assert_allclose(hippo.matrices("lagt", 3, beta=0.0)[0], lagt + np.eye(3) / 2, rtol=1e-15)
    fourier, B = hippo.matrices("fourier", 3)
    r, w = 2 * np.sqrt(2), 2 * np.pi
    np.testing.assert_allclose(fourier, [[-2, -r, 0], [-r, -4, -w], [0, w, 0]], rtol=1e-15)
    np.testing.assert_allclose(B[:, 0], [2, r, 0])
    for a, b in zip(hippo.matrices("fout", 3), (fourier, B), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 64, 101])
@pytest.mark.parametrize("measure", hippo.MEASURES)
def test_normal_plus_low_rank(measure, n):
    A, B = hippo.matrices(measure, n)
    form = hippo.nplr(measure, n)
    assert form.P.shape == (RANKS[measure], n)
    rebuilt = form.V @ (np.diag(form.Lambda) - form.P.conj().T @ form.P) @ form.V.conj().T
    np.testing.assert_allclose(rebuilt, A, rtol=0, atol=1e-10)
    np.testing.assert_allclose(form.V.conj().T @ form.V, np.eye(n), rtol=0, atol=1e-13)
    np.testing.assert_allclose(form.V @ form.B, B[:, 0], rtol=0, atol=1e-12)
    half = n // 2
    for whole in (form.Lambda, form.P, form.B, form.V):
        np.testing.assert_array_equal(whole[..., half : 2 * half], whole[..., :half].conj())
    assert (form.Lambda.real <= 0).all()
    assert (np.diff(form.Lambda.imag[:half]) > 0).all()
    assert (form.Lambda.imag[:half] >= 0).all()
    assert n % 2 == 0 or form.Lambda[-1].imag == 0


@pytest.mark.parametrize("measure", hippo.MEASURES)
def test_halves_of_conjugate_pairs(measure):
    A, B = hippo.matrices(measure, 12)
    half = hippo.dplr(measure, 12)
    assert [part.shape for part in half] == [(6,), (RANKS[measure], 6), (6,), (12, 6)]
    # The real system's response, from the halves alone: 2 Re(V z) with z' = Λ z − P*(P z + its conjugate) + B u.
    C = np.random.default_rng(0).normal(size=12)
    s = 0.3 + 2.0j
    resolvent = np.diag(1 / (s - np.concatenate([half.Lambda, half.Lambda.conj()])))
    P = np.concatenate([half.P, half.P.conj()], axis=1)
    V = np.concatenate([half.V, half.V.conj()], axis=1)
    b = np.concatenate([half.B, half.B.conj()])
    inner = np.eye(len(P)) + P @ resolvent @ P.conj().T
    woodbury = resolvent - resolvent @ P.conj().T @ np.linalg.solve(inner, P @ resolvent)
    np.testing.assert_allclose(C @ V @ woodbury @ b, C @ np.linalg.solve(s * np.eye(12) - A, B[:, 0]), rtol=1e-11)


def test_a_rank_may_be_padded_but_not_lowered():
    form = hippo.nplr("legs", 8, rank=2)
    assert form.P.shape == (2, 8)
    np.testing.assert_array_equal(form.P[1], 0)
    with pytest.raises(ValueError, match="rank must be an integer of at least 2 for measure 'legt'"):
        hippo.nplr("legt", 8, rank=1)


def test_eigenvalues_of_legs_are_those_of_a_dense_solver():
    root = np.sqrt(2 * np.arange(32) + 1.0)
    A, _ = hippo.matrices("legs", 32)
    expected = np.linalg.eigvals(A + np.outer(root, root) / 2)
    expected = np.sort(expected.imag[expected.imag > 0])
    np.testing.assert_allclose(hippo.nplr("legs", 32).Lambda.imag[:16], expected, rtol=1e-9)


def quadrature(measure, integrand, beta):
    """∫ integrand(s) ω(s) ds; on the half-line in the clock in which the measure is uniform."""
    if measure in ("legt", "fourier"):
        return quad_vec(integrand, 0, 1, epsabs=1e-13, epsrel=1e-12)[0]
    if measure == "lagt":
        return quad_vec(lambda s: integrand(s) * np.exp(-beta * s), 0, 200, epsabs=1e-13, epsrel=1e-12)[0]
    return quad_vec(lambda p: integrand(-np.log(p)), 0, 1, epsabs=1e-13, epsrel=1e-12)[0]


@pytest.mark.parametrize(("measure", "beta"), [("legs", 1), ("legt", 1), ("lagt", 1), ("lagt", 0), ("fourier", 1)])
def test_the_basis_is_orthonormal_under_the_measure(measure, beta):
    gram = quadrature(
        measure, lambda s: np.multiply.outer(*2 * [hippo.basis(measure, 7, s, beta=beta)]), beta if beta else 0
    )
    np.testing.assert_allclose(gram, np.eye(7), atol=1e-10)
    ages = np.array([0.0, 0.3, 1.0])
    expected = np.exp(-beta * ages) if measure in ("legs", "lagt") else np.ones(3)
    np.testing.assert_allclose(hippo.weight(measure, ages, beta=beta), expected, rtol=1e-15)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("measure", ["legs", "lagt"])
def test_the_impulse_response_is_the_basis_times_the_measure(measure, beta):
    # Exact where no past value has to be approximated: exp(A s) B = g(s) ω(s).
    A, B = hippo.matrices(measure, 9, beta=beta)
    for s in (0.0, 0.4, 3.0):
        expected = hippo.basis(measure, 9, s, beta=beta) * hippo.weight(measure, s, beta=beta)
        np.testing.assert_allclose(expm(A * s) @ B[:, 0], expected, atol=1e-12)


@pytest.mark.parametrize("measure", ["legt", "fourier"])
def test_the_impulse_response_of_a_window_comes_close_to_the_basis(measure):
    # There the value that leaves the window is read from the state; the error falls as n grows.
    inside, errors = np.linspace(0.05, 0.9, 30), []
    for n in (17, 129):
        A, B = hippo.matrices(measure, n)
        kernels = np.stack([expm(A * s) @ B[:, 0] for s in inside])[:, :3]
        errors.append(np.sqrt(np.mean((kernels - hippo.basis(measure, n, inside)[:, :3]) ** 2)))
        after = expm(A * 1.2) @ B[:, 0]
    assert errors[1] < 0.03
    assert errors[1] < errors[0] / 3
    assert np.abs(after[:3]).max() < 0.02


def test_an_even_fourier_basis_leaves_its_last_coefficient_at_rest():
    A, B = hippo.matrices("fourier", 6)
    odd, b = hippo.matrices("fourier", 5)
    np.testing.assert_array_equal(A[:5, :5], odd)
    np.testing.assert_array_equal(B[:5], b)
    np.testing.assert_array_equal(np.concatenate([A[5], A[:, 5], B[5]]), 0)
    ages = np.linspace(0, 1, 5)
    np.testing.assert_array_equal(hippo.basis("fourier", 6, ages)[:, 5], 0)
    np.testing.assert_array_equal(hippo.basis("fourier", 6, ages)[:, :5], hippo.basis("fourier", 5, ages))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hippo.matrices("legz", 4), "measure must be one of 'legs', 'legt'.* Got 'legz'"),
        (lambda: hippo.matrices(None, 4), "measure must be one of"),
        (lambda: hippo.matrices("legs", 0), "positive integer. Got 0"),
        (lambda: hippo.matrices("legs", 2.0), "positive integer. Got 2.0"),
        (lambda: hippo.matrices("lagt", 2, beta=2.0), r"beta must lie in \[0, 1\]. Got 2.0"),
        (lambda: hippo.dplr("legs", 5), "n must be even for halves of conjugate pairs. Got 5"),
        (lambda: hippo.basis("legsd", 5, 0.0), "no basis. Use 'legs'"),
        (lambda: hippo.basis("legt", 5, [0.5, 1.5]), r"ages must lie in \[0, 1\] for measure 'legt'. Got 0.5 to 1.5"),
        (lambda: hippo.weight("legs", [-1.0]), r"ages must lie in \[0, inf\]"),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
