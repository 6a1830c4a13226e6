"""Matrices A, B, C, D from polynomials, and from zeros and poles, in coordinates that keep their digits.

Above: ``conversion`` and ``filters``. Below: NumPy.
"""

import numpy as np

from statespace.lti.reduction import state_scale


def from_polynomials(numerator, denominator):
    """A companion form of H(s) = numerator/denominator whose states are rescaled by powers of two.

    Examples
    --------
    >>> from statespace.lti.realization import from_polynomials
    >>> from_polynomials([3.0], [1.0, 2.0])[0]
    array([[-2.]])
    """
    numerator = np.atleast_2d(np.asarray(numerator, dtype=np.float64))
    denominator = np.atleast_1d(np.asarray(denominator, dtype=np.float64))
    if not denominator.any():
        raise ValueError("The denominator must not be zero.")
    denominator = np.trim_zeros(denominator, "f")
    while numerator.shape[1] > 1 and not numerator[:, 0].any():
        numerator = numerator[:, 1:]
    n = len(denominator) - 1
    if numerator.shape[1] > n + 1:
        raise ValueError(
            f"The numerator's degree, {numerator.shape[1] - 1}, must not exceed the denominator's, {n}: a system that "
            "differentiates its input has no state-space form."
        )
    numerator = np.pad(numerator, ((0, 0), (n + 1 - numerator.shape[1], 0))) / denominator[0]
    denominator = denominator / denominator[0]
    D = numerator[:, :1]
    A = np.eye(n, k=-1)
    if n:
        A[0] = -denominator[1:]
    B, C = np.eye(n, 1), numerator[:, 1:] - D * denominator[1:]
    return _rescaled(A, B, C, D)


def _rescaled(A, B, C, D):
    scale = state_scale(A, B, C)
    column = scale[:, np.newaxis]
    return A * scale / column, B / column, C * scale, D


def from_zpk(zeros, poles, gain):
    """A cascade of sections of one or two states, each of about unit gain at its own frequency.

    Examples
    --------
    >>> from statespace.lti.realization import from_zpk
    >>> from_zpk([], [-3.0], 6.0)[0]
    array([[-3.]])
    """
    zeros, poles = np.atleast_1d(np.asarray(zeros, complex)), np.atleast_1d(np.asarray(poles, complex))
    if len(zeros) > len(poles):
        raise ValueError(f"There must not be more zeros than poles. Got {len(zeros)} and {len(poles)}.")
    groups = list(zip(_pairs(poles, "poles"), _assigned(_pairs(zeros, "zeros"), _pairs(poles, "poles")), strict=True))
    A, B, C, D = np.zeros((0, 0)), np.zeros((0, 1)), np.zeros((1, 0)), np.ones((1, 1))
    rest = float(gain)
    for own_poles, own_zeros in groups:
        # Each section passes its own frequency at about its size, so that no state is much larger than the others.
        size = np.abs(own_poles).mean() or 1.0
        unit = float(2.0 ** np.round(np.log2(size) * (len(own_poles) - len(own_zeros))))
        rest /= unit
        a, b, c, d = _section(own_zeros, own_poles, unit)
        A = np.block([[A, np.zeros((len(A), len(a)))], [b @ C, a]])
        B, C, D = np.concatenate([B, b @ D]), np.concatenate([d @ C, c], axis=1), d @ D
    return _rescaled(A, B, C * rest, D * rest)


def _section(zeros, poles, gain):
    """One or two poles with no more zeros: a real mode, or a rotation."""
    numerator = np.zeros(len(poles) + 1)
    numerator[len(poles) - len(zeros) :] = np.real(np.poly(zeros)) if len(zeros) else 1.0
    denominator = np.real(np.poly(poles))
    D = np.array([[gain * numerator[0]]])
    rest = gain * (numerator[1:] - numerator[0] * denominator[1:])
    if len(poles) == 1:
        return np.array([[poles[0].real]]), np.ones((1, 1)), rest[np.newaxis], D
    if poles[0].imag:
        sigma, omega = poles[0].real, abs(poles[0].imag)
        A = np.array([[sigma, omega], [-omega, sigma]])
        # The states answer to B = (0, 1) with ω and s − σ over the denominator.
        B = np.array([[0.0], [1.0]])
        return A, B, np.array([[(rest[1] + sigma * rest[0]) / omega, rest[0]]]), D
    p, q = poles.real
    # 1/((s − p)(s − q)) and 1/(s − q): a triangle, which a double pole does not harm.
    return np.array([[p, 1.0], [0.0, q]]), np.array([[0.0], [1.0]]), np.array([[rest[1] + p * rest[0], rest[0]]]), D


def _pairs(roots, name):
    """Conjugate pairs, then pairs of real roots by size, the last alone if their number is odd."""
    size = np.abs(roots).max(initial=0.0)
    real = np.sort(roots[np.abs(roots.imag) <= 1e-12 * size].real)
    upper = roots[roots.imag > 1e-12 * size]
    lower = roots[roots.imag < -1e-12 * size]
    if len(upper) != len(lower):
        raise ValueError(f"{name} must be real or come in conjugate pairs. Got {roots}.")
    pairs = []
    for root in upper:
        k = int(np.argmin(np.abs(lower - root.conj())))
        if np.abs(lower[k] - root.conj()) > 1e-8 * size:
            raise ValueError(f"{name} must be real or come in conjugate pairs: {root} has no partner.")
        lower = np.delete(lower, k)
        pairs.append(np.array([root, root.conj()]))
    single = [real[k : k + 2].astype(complex) for k in range(0, len(real), 2)]
    return pairs + single


def _assigned(zeros, poles):
    """For every group of poles no more zeros than it has poles, in pairs where they are complex, the nearest first."""
    result = [np.zeros(0, complex) for _ in poles]
    order = np.argsort([-np.abs(group[0]) for group in poles], kind="stable")
    pairs = [pair for pair in zeros if len(pair) == 2 and pair[0].imag]
    single = [z for group in zeros if not group[0].imag for z in group]
    room = {int(k): len(poles[k]) for k in order}
    for pair in pairs:
        free = [k for k in order if room[int(k)] == 2]
        if not free:
            raise ValueError("Complex zeros need as many pairs of poles.")
        k = min(free, key=lambda k: np.abs(poles[k][0] - pair[0]))
        result[k], room[int(k)] = pair, 0
    for z in single:
        k = min((k for k in order if room[int(k)]), key=lambda k: np.abs(poles[k][0] - z))
        result[k], room[int(k)] = np.append(result[k], z), room[int(k)] - 1
    return result
