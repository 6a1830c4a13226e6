"""A system in continuous time over gaps Δ: transitions, input integrals and noise, for all gaps at once.

    x(t + Δ) = A(Δ) x(t) + B₀(Δ) u(t) + B₁(Δ) u(t + Δ),    Q(Δ) = ∫₀^Δ exp(A s) S exp(A s)ᴴ ds

Above: ``systems`` and ``filters``; the Kalman models take `transition` and `process_noise`. Below: NumPy and SciPy.

Everything exact is made by step doubling. On h = Δ/2ᵏ with ‖A‖ h ≤ 1/2 a Taylor polynomial in A is exact to rounding,
and its powers of A are common to all gaps, so that one matrix product serves them all. Then k times

    A ← A A,   Q ← Q + A Q Aᴴ,   B₁ ← (A B₁ + B₁ + G)/2,   B₀ ← (A (B₀ + G) + B₀)/2,   G ← G + A G,

where G is the integral of a constant input: sums, in which nothing cancels however short or long the gap is.
"""

from math import factorial
from typing import NamedTuple

import numpy as np
from scipy.linalg import matrix_balance

_DEGREE = 16
_INVERSE = np.array([1.0 / factorial(k) for k in range(_DEGREE + 2)])
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)
_NODES, _WEIGHTS = (_NODES + 1.0) / 2.0, _WEIGHTS / 2.0
# Entries of one batch of matrices: gaps are taken in pieces, so that memory stays bounded.
_BATCH = 2_000_000
METHODS = ("zoh", "foh", "bilinear", "impulse", "euler", "backward_euler")


class Steps(NamedTuple):
    """x_k = A_k x_{k−1} + B0_k u_{k−1} + B1_k u_k over gaps Δ_k of any shape (...).

    Attributes
    ----------
    A : ndarray of shape (..., n_states, n_states)
    B0, B1 : ndarray of shape (..., n_states, n_inputs)
        The weights of the input at the beginning and at the end of the gap.

    Examples
    --------
    >>> from statespace.lti import input_weights
    >>> steps = input_weights([[-1.0]], [[1.0]], [0.0, 1.0], method="foh")
    >>> (steps.A[1] + steps.B0[1] + steps.B1[1]).round(12)  # a constant 1 stays where it is
    array([[1.]])
    """

    A: np.ndarray
    B0: np.ndarray
    B1: np.ndarray


def transition(A, dt):
    """The transition A(Δ) = exp(A Δ) over gaps.

    Parameters
    ----------
    A : array-like of shape (n, n)
        Real or complex; it may be stiff, defective or unstable.
    dt : float or array-like of shape (...)
        Gaps Δ ≥ 0. Equal ones are computed once.

    Returns
    -------
    ndarray of shape (..., n, n)

    Raises
    ------
    ValueError
        A is not square or not finite, a gap is negative or not finite, or exp(A Δ) is too large for a float.

    Examples
    --------
    >>> from statespace.lti import transition
    >>> transition([[0.0, 1.0], [0.0, 0.0]], [0.0, 2.0])[1]
    array([[1., 2.],
           [0., 1.]])
    """
    return _over_gaps(A, dt, (), ())[0]


def process_noise(A, S, dt):
    """The covariance that white noise adds to the state over gaps, Q(Δ) = ∫₀^Δ exp(A s) S exp(A s)ᴴ ds.

    Parameters
    ----------
    A : array-like of shape (n, n)
        Real or complex; it may be stiff, defective or unstable.
    S : array-like of shape (n, n)
        The noise's spectral density, Hermitian: L Q Lᵀ for x' = A x + L w with E w(t) w(s)ᵀ = Q δ(t − s).
    dt : float or array-like of shape (...)
        Gaps Δ ≥ 0. Equal ones are computed once.

    Returns
    -------
    ndarray of shape (..., n, n)
        Hermitian, and positive semi-definite if S is.

    Raises
    ------
    ValueError
        As for `transition`, or if S has another shape than A or is not Hermitian.

    Notes
    -----
    Step doubling from a Gauss-Legendre sum of terms W S Wᴴ: positive by construction. Van Loan's block exponential
    (1978) loses all digits once ‖A‖Δ exceeds some tens, and P − A P Aᵀ with the stationary P does where Δ is short.

    Examples
    --------
    >>> from statespace.lti import process_noise
    >>> Q = process_noise([[0.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]], 1e-4)
    >>> f"{Q[0, 0]:.6e}"  # Δ³/3
    '3.333333e-13'
    """
    A = _square(A)
    S = np.asarray(S)
    if S.shape != A.shape or not np.isfinite(S).all():
        raise ValueError(f"S must be finite and have the shape of A, {A.shape}. Got shape {S.shape}.")
    if not np.allclose(S, S.conj().T, rtol=1e-10, atol=1e-10 * np.abs(S).max(initial=0.0)):
        raise ValueError("S must be symmetric (Hermitian if complex), as a spectral density is. Give (S + S.T) / 2.")
    return _over_gaps(A, dt, (), (0.5 * (S + S.conj().T),))[1]


def input_weights(A, B, dt, method="zoh", prewarp=None):
    """One step over each gap, x(t + Δ) = A(Δ) x(t) + B₀(Δ) u(t) + B₁(Δ) u(t + Δ).

    Parameters
    ----------
    A : array-like of shape (n_states, n_states)
    B : array-like of shape (n_states, n_inputs)
    dt : float or array-like of shape (...)
        Gaps Δ ≥ 0.
    method : {"zoh", "foh", "bilinear", "impulse", "euler", "backward_euler"}, default="zoh"
        What the input does between samples: "zoh" holds it and "foh" draws a line, both exactly; "impulse" makes each
        sample an impulse of area Δ u at the end of its gap. "bilinear" (trapezoidal) and the two Euler rules
        approximate.
    prewarp : float, optional
        For "bilinear": the frequency, in cycles per unit of time, at which its response is exact.

    Returns
    -------
    Steps

    Raises
    ------
    ValueError
        As for `transition`; for an unknown method; for a frequency that is not between 0 and 1/(2Δ).

    Examples
    --------
    >>> from statespace.lti import input_weights
    >>> input_weights([[0.0]], [[1.0]], 0.5, method="foh").B1
    array([[0.25]])
    """
    A, B = _square(A), np.asarray(B)
    if B.ndim != 2 or len(B) != len(A):
        raise ValueError(f"B must have shape (n_states, n_inputs) with n_states = {len(A)}. Got {B.shape}.")
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(map(repr, METHODS))}. Got {method!r} instead.")
    if prewarp is not None and method != "bilinear":
        raise ValueError(f"prewarp belongs to method='bilinear'. Got method={method!r}; leave prewarp out.")
    if method == "zoh":
        A_dt, G = _over_gaps(A, dt, (B,), ())
        return Steps(A_dt, G, np.zeros_like(G))
    if method == "foh":
        return Steps(*_over_gaps(A, dt, (B, B), ()))
    gaps = _gaps(dt)[..., np.newaxis, np.newaxis]
    if method == "impulse":
        B1 = gaps * B
        return Steps(_over_gaps(A, dt, (), ())[0], np.zeros_like(B1), B1)
    alpha = {"euler": 0.0, "bilinear": 0.5, "backward_euler": 1.0}[method]
    if prewarp is not None:
        gaps = _prewarped(gaps, prewarp)
    P = implicit(A, gaps, alpha)
    eye = np.eye(len(A))
    PB = P @ (gaps * B)
    return Steps(P @ (eye + (1.0 - alpha) * gaps * A), (1.0 - alpha) * PB, alpha * PB)


def implicit(A, gaps, alpha):
    """(I − α Δ A)⁻¹ for gaps of shape (..., 1, 1)."""
    try:
        return np.linalg.inv(np.eye(len(A)) - alpha * gaps * A)
    except np.linalg.LinAlgError:
        raise ValueError("I − αΔA is singular for one of the gaps: take another dt, or method='zoh'.") from None


def _prewarped(gaps, frequency):
    angle = np.pi * frequency * gaps
    if not frequency > 0.0 or (angle >= np.pi / 2).any():
        raise ValueError(
            f"prewarp must be a frequency between 0 and 1/(2Δ), in cycles per unit of time. Got {frequency} with a gap "
            f"of {gaps.max()}."
        )
    return np.tan(angle) / (np.pi * frequency)


def _square(A):
    A = np.asarray(A)
    if A.ndim != 2 or A.shape[0] != A.shape[1]:
        raise ValueError(f"A must be a square matrix, got shape {A.shape}.")
    if A.dtype.kind not in "fiuc" or not np.isfinite(A).all():
        raise ValueError("A must hold finite numbers.")
    return A.astype(np.result_type(A, np.float64), copy=False)


def _gaps(dt):
    gaps = np.asarray(dt, dtype=np.float64)
    if not (np.isfinite(gaps) & (gaps >= 0.0)).all():
        wrong = gaps[~(np.isfinite(gaps) & (gaps >= 0.0))].flat[0]
        raise ValueError(f"dt must be finite and >= 0: the time that passes. Got {wrong}.")
    return gaps


def _over_gaps(A, dt, inputs, noises):
    """[A(Δ)] + [G] or [B₀, B₁] + [Q], each of shape (..., rows, columns).

    ``inputs`` is (), (B,) for a constant input or (B, B) for one that follows a line.
    """
    A, gaps = _square(A), _gaps(dt)
    n = len(A)
    different, place = np.unique(gaps, return_inverse=True)
    # Powers of two on the diagonal: exact, and ‖A‖ is then as small as a change of units can make it.
    balanced, (scale, _) = matrix_balance(A, permute=False, separate=True) if n else (A, (np.ones(0), None))
    unscale = 1.0 / scale[:, np.newaxis]
    inputs = tuple(unscale * B for B in inputs)
    noises = tuple(unscale * S * unscale.T for S in noises)
    powers = np.empty((_DEGREE + 1, n, n), dtype=balanced.dtype)
    powers[0] = np.eye(n)
    for k in range(_DEGREE):
        powers[k + 1] = powers[k] @ balanced
    size = max(1, _BATCH // max(1, n * n * (1 + len(_NODES) * len(noises))))
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        parts = [
            _doubled(powers, different[i : i + size], inputs, noises) for i in range(0, max(1, len(different)), size)
        ]
    result = [np.concatenate(arrays) if len(parts) > 1 else arrays[0] for arrays in zip(*parts, strict=True)]
    outer = scale[:, np.newaxis]
    factors = [outer * unscale.T] + [outer] * len(inputs) + [outer * outer.T] * len(noises)
    result = [factor * array for factor, array in zip(factors, result, strict=True)]
    finite = np.logical_and.reduce([np.isfinite(array).all(axis=(-2, -1)) for array in result])
    if not finite.all():
        raise ValueError(
            f"exp(A Δ) is too large for a float at the gap {different[~finite][0]}: A has an eigenvalue of real part "
            f"{np.linalg.eigvals(A).real.max():.3g}. Give shorter gaps, or a stable A."
        )
    return [array[place.reshape(gaps.shape)] for array in result]


def _doubled(powers, gaps, inputs, noises):
    """`_over_gaps` for different gaps in increasing order and a balanced A."""
    n = powers.shape[1]
    norm = np.abs(powers[1]).sum(axis=0).max(initial=0.0)
    doublings = np.ceil(np.log2(np.maximum(2.0 * norm * gaps, 1.0))).astype(int)
    h = np.ldexp(gaps, -doublings)
    polynomial = h[:, np.newaxis] ** np.arange(_DEGREE + 1)
    k = np.arange(_DEGREE + 1)

    def series(coefficients, columns=None):
        terms = powers if columns is None else powers @ columns
        flat = (polynomial * coefficients) @ terms.reshape(_DEGREE + 1, -1)
        return flat.reshape(len(h), *terms.shape[1:])

    # A(Δ) as e on the diagonal, e − 1 as f, and the rest: neither 1 − ε nor exp(−30) then loses its digits.
    off = series(np.where(k == 0, 0.0, _INVERSE[:-1]))
    diagonal = np.arange(n)
    f = off[:, diagonal, diagonal].copy()
    e = 1.0 + f
    off[:, diagonal, diagonal] = 0.0
    G = [h[:, np.newaxis, np.newaxis] * series(_INVERSE[1:], B) for B in inputs[:1]]
    if len(inputs) == 2:
        second = _INVERSE[1:] / (k + 2)
        B0, B1 = (h[:, np.newaxis, np.newaxis] * series(c, inputs[0]) for c in (second * (k + 1), second))
    Q = [_quadrature(powers, polynomial, h, S) for S in noises]

    for i in range(doublings.max(initial=0)):
        # Gaps increase, so those that are not there yet are the last ones.
        rest = slice(int(np.searchsorted(doublings, i, side="right")), None)
        W = off[rest].copy()
        W[:, diagonal, diagonal] = e[rest]
        for q in Q:
            q[rest] += W @ q[rest] @ W.conj().swapaxes(-1, -2)
            q[rest] = 0.5 * (q[rest] + q[rest].conj().swapaxes(-1, -2))
        if len(inputs) == 2:
            B0[rest], B1[rest] = (
                0.5 * (W @ (B0[rest] + G[0][rest]) + B0[rest]),
                0.5 * (W @ B1[rest] + B1[rest] + G[0][rest]),
            )
        for g in G:
            g[rest] += W @ g[rest]
        square = off[rest] @ off[rest]
        d = square[:, diagonal, diagonal]
        off[rest] = off[rest] * (e[rest, :, np.newaxis] + e[rest, np.newaxis, :]) + square
        off[rest, diagonal, diagonal] = 0.0
        f_next, e_next = f[rest] * (2.0 + f[rest]) + d, e[rest] * e[rest] + d
        near = np.abs(f_next) < 0.5
        f[rest], e[rest] = np.where(near, f_next, e_next - 1.0), np.where(near, 1.0 + f_next, e_next)

    off[:, diagonal, diagonal] = e
    return [off, *((B0, B1) if len(inputs) == 2 else G), *Q]


def _quadrature(powers, polynomial, h, S):
    """Q(h) as a sum of W S Wᴴ over Gauss-Legendre nodes, W = exp(A h ξ), exact to rounding while ‖A‖ h ≤ 1/2."""
    flat = powers.reshape(_DEGREE + 1, -1)
    Q = np.zeros((len(h), *S.shape), dtype=np.result_type(powers, S))
    for node, weight in zip(_NODES, _WEIGHTS, strict=True):
        coefficients = polynomial * (_INVERSE[:-1] * node ** np.arange(_DEGREE + 1))
        W = (coefficients @ flat).reshape(len(h), *S.shape)
        Q += weight * (W @ S @ W.conj().swapaxes(-1, -2))
    Q *= h[:, np.newaxis, np.newaxis]
    return 0.5 * (Q + Q.conj().swapaxes(-1, -2))
