"""Transitions, input integrals and noise over gaps, against mpmath from λΔ = 1e-8 to 1e5, and against SciPy."""

import mpmath
import numpy as np
import pytest
import scipy.linalg
import scipy.signal

from statespace.lti import input_weights, process_noise, transition

GAPS = [1e-8, 1e-4, 0.3, 1.0, 20.0, 400.0, 1e5]
DRIFTS = {
    "scalar": [[-1.0]],
    "Matérn 3/2": [[0.0, 1.0], [-1.0, -2.0]],
    "oscillator": [[0.0, 1.0], [-1.0, -0.02]],
    "integrator": [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]],
    "stiff": [[-1e4, 3.0], [1e-3, -1e-2]],
    "defective": [[-0.5, 1.0, 0.0], [0.0, -0.5, 1.0], [0.0, 0.0, -0.5]],
    "badly scaled": [[0.0, 1.0], [-1e8, -1e4]],
    "complex": [[-0.5 + 2j, 0.3], [0.1j, -1.0 - 1j]],
}


def exact(A, gap, S=None, B=None):
    """exp(AΔ), ∫ exp(As) S exp(As)ᴴ ds and ∫ exp(A(Δ − s)) [1 − s/Δ, s/Δ] ds B with enough digits for Van Loan."""
    n = len(A)
    with mpmath.workdps(60 + int(2 * np.abs(A).sum(axis=1).max() * gap)):
        A = mpmath.matrix(A)
        gap = mpmath.mpf(gap)
        E = mpmath.expm(A * gap, method="taylor")
        if S is not None:
            block = mpmath.zeros(2 * n)
            block[:n, :n], block[:n, n:], block[n:, n:] = -A, mpmath.matrix(S), A.H
            F = mpmath.expm(block * gap, method="taylor")
            return F[n:, n:].H * F[:n, n:]
        if B is not None:
            m = len(B[0])
            block = mpmath.zeros(n + 2 * m)
            block[:n, :n], block[:n, n : n + m] = A * gap, mpmath.matrix(B) * gap
            for i in range(m):
                block[n + i, n + m + i] = 1
            F = mpmath.expm(block, method="taylor")
            G, M = F[:n, n : n + m], F[:n, n + m :]
            return G - M, M
        return E


def as_array(matrix):
    array = np.array(matrix.tolist(), dtype=complex)
    return array if np.any(array.imag) else array.real


def error(found, truth):
    """Relative to the largest entry, after every row is given its own unit."""
    return np.abs(found - truth).max() / max(np.abs(truth).max(), 1e-300)


def noise_error(found, truth):
    """Each entry relative to the standard deviations of its row and its column."""
    unit = np.sqrt(np.abs(np.diag(truth)))
    return (np.abs(found - truth) / np.outer(unit, unit)).max()


# mpmath needs thousands of digits for exp(ΔA) once ‖A‖Δ is large, so these gaps end where it takes a second.
CASES = [(name, gap) for name, A in DRIFTS.items() for gap in GAPS if np.abs(A).sum(axis=1).max() * gap <= 500.0]


@pytest.mark.parametrize(("name", "gap"), CASES)
def test_against_mpmath(name, gap):
    A = np.array(DRIFTS[name])
    n = len(A)
    S = np.zeros((n, n))
    S[-1, -1] = 2.0
    B = np.linspace(1.0, 2.0, 2 * n).reshape(n, 2)
    assert error(transition(A, gap), as_array(exact(A, gap))) < 1e-12
    Q = as_array(exact(A, gap, S=S))
    assert noise_error(process_noise(A, S, gap), Q) < 1e-11
    B0, B1 = exact(A, gap, B=B)
    steps = input_weights(A, B, gap, method="foh")
    assert error(steps.B0, as_array(B0)) < 1e-12
    assert error(steps.B1, as_array(B1)) < 1e-12
    held = input_weights(A, B, gap, method="zoh")
    assert error(held.B0, as_array(B0 + B1)) < 1e-12
    assert not held.B1.any()


@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("rate", [1.0, 1e-3])
def test_noise_in_closed_form(rate, gap):
    """Ornstein-Uhlenbeck: Q = (1 − exp(−2λΔ))/(2λ), beside a process 1e5 times as fast."""
    A = np.diag([-rate, -1e5])
    Q = process_noise(A, np.ones((2, 2)), gap)
    sums = -np.add.outer(np.diag(A), np.diag(A))
    np.testing.assert_allclose(Q, -np.expm1(-sums * gap) / sums, rtol=1e-13)
    np.testing.assert_allclose(np.diag(transition(A, gap)), np.exp(np.diag(A) * gap), rtol=1e-11)


def test_undamped_oscillation_over_a_long_gap():
    """‖A‖Δ = 1e5, on which rounding the angle alone costs 1e-11."""
    Q = process_noise([[0.0, 1.0], [-1.0, 0.0]], np.diag([0.0, 1.0]), 1e5)
    with mpmath.workdps(30):
        s, c = mpmath.sin(2 * mpmath.mpf(1e5)), mpmath.cos(2 * mpmath.mpf(1e5))
        truth = [[1e5 / 2 - s / 4, (1 - c) / 4], [(1 - c) / 4, 1e5 / 2 + s / 4]]
    truth = np.array([[float(value) for value in row] for row in truth])
    assert noise_error(Q, truth) < 1e-11


@pytest.mark.parametrize("name", DRIFTS)
def test_noise_is_hermitian_and_positive(name):
    A = np.array(DRIFTS[name])
    S = np.zeros((len(A), len(A)))
    S[-1, -1] = 1.0
    Q = process_noise(A, S, GAPS if name != "integrator" else GAPS[:-1])
    np.testing.assert_array_equal(Q, Q.conj().swapaxes(-1, -2))
    unit = np.sqrt(np.einsum("kii->ki", Q).real)
    scaled = Q / (unit[:, :, None] * unit[:, None, :])
    assert np.linalg.eigvalsh(scaled).min() > -1e-14


def test_unstable():
    A = np.array([[0.3, 1.0], [0.0, 0.1]])
    np.testing.assert_allclose(transition(A, 20.0), scipy.linalg.expm(20 * A), rtol=1e-13)
    assert noise_error(process_noise(A, np.eye(2), 20.0), as_array(exact(A, 20.0, S=np.eye(2)))) < 1e-12
    with pytest.raises(ValueError, match=r"too large for a float at the gap 10000.0.*real part 0.3"):
        transition(A, [1.0, 1e4])


def test_shapes_and_equal_gaps():
    A = np.array(DRIFTS["oscillator"])
    gaps = np.array([[0.5, 0.0, 0.5], [2.0, 0.5, 1e3]])
    E = transition(A, gaps)
    assert E.shape == (2, 3, 2, 2)
    np.testing.assert_array_equal(E[0, 1], np.eye(2))
    np.testing.assert_array_equal(E[0, 0], E[1, 1])
    np.testing.assert_allclose(E[1, 0], transition(A, 2.0), rtol=1e-14)
    assert transition(A, np.zeros(0)).shape == (0, 2, 2)
    assert transition(np.zeros((0, 0)), [1.0]).shape == (1, 0, 0)
    assert not process_noise(A, np.eye(2), 0.0).any()


@pytest.mark.parametrize("name", DRIFTS)
def test_a_gap_can_be_cut_anywhere(name):
    """A(s + t) = A(t) A(s), Q(s + t) = Q(t) + A(t) Q(s) A(t)ᴴ."""
    A = np.array(DRIFTS[name])
    s, t = 0.7, 0.013
    S = np.eye(len(A))
    E = transition(A, [s, t, s + t])
    Q = process_noise(A, S, [s, t, s + t])
    assert error(E[1] @ E[0], E[2]) < 1e-12
    assert noise_error(Q[1] + E[1] @ Q[0] @ E[1].conj().T, Q[2]) < 1e-12


@pytest.mark.parametrize("method", ["zoh", "foh", "bilinear", "impulse", "euler", "backward_euler"])
def test_against_scipy(method):
    A, B = np.array(DRIFTS["Matérn 3/2"]), np.array([[1.0, 0.0], [0.5, 2.0]])
    C, D = np.eye(2), np.zeros((2, 2))
    theirs = {"backward_euler": "backward_diff"}.get(method, method)
    Ad, Bd, Cd, Dd, _ = scipy.signal.cont2discrete((A, B, C, D), 0.4, method=theirs)
    steps = input_weights(A, B, 0.4, method=method)
    np.testing.assert_allclose(steps.A, Ad, atol=1e-14)
    # The state before and after the input that arrives with the sample.
    z = np.exp(0.7j)
    ours = C @ np.linalg.solve(z * np.eye(2) - steps.A, steps.B0 + z * steps.B1) + D
    np.testing.assert_allclose(ours, Cd @ np.linalg.solve(z * np.eye(2) - Ad, Bd) + Dd, atol=1e-13)


def test_prewarping_is_exact_at_its_frequency():
    A, B = np.array(DRIFTS["oscillator"]), np.array([[0.0], [1.0]])
    f, gap = 0.3, 0.8
    steps = input_weights(A, B, gap, method="bilinear", prewarp=f)
    z = np.exp(2j * np.pi * f * gap)
    digital = np.linalg.solve(z * np.eye(2) - steps.A, steps.B0 + z * steps.B1)
    np.testing.assert_allclose(digital, np.linalg.solve(2j * np.pi * f * np.eye(2) - A, B), rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: transition(np.ones((2, 3)), 1.0), "square"),
        (lambda: transition([[np.nan]], 1.0), "finite"),
        (lambda: transition([[1.0]], [1.0, -2.0]), "Got -2.0"),
        (lambda: transition([[1.0]], np.nan), "finite and >= 0"),
        (lambda: process_noise(np.eye(2), np.eye(3), 1.0), r"shape of A, \(2, 2\)"),
        (lambda: process_noise(np.eye(2), [[1.0, 2.0], [0.0, 1.0]], 1.0), "symmetric"),
        (lambda: input_weights(np.eye(2), np.eye(2), 1.0, method="tustin"), "'tustin'"),
        (lambda: input_weights(np.eye(2), np.ones(2), 1.0), "n_inputs"),
        (lambda: input_weights(np.eye(2), np.eye(2), 1.0, prewarp=0.1), "bilinear"),
        (lambda: input_weights(np.eye(2), np.eye(2), 1.0, method="bilinear", prewarp=0.5), "between 0 and"),
        (lambda: input_weights([[2.0]], [[1.0]], 1.0, method="bilinear"), "singular"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
