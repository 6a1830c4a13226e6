"""The modes of a real matrix: z' = λ z for each eigenvalue, where the eigenvectors are well-conditioned.

Above: ``systems`` and ``filters``. Below: NumPy and SciPy.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import matrix_balance

# The modes' rounding errors are amplified by no more than this; what is worse is stepped as a whole.
_WORST_CONDITION = 1e4


class Modes(NamedTuple):
    """x = Re(V z) and z = W x, with one λ of each conjugate pair.

    Attributes
    ----------
    rate : ndarray of shape (n_modes,), complex
        λ, imaginary parts not negative.
    V : ndarray of shape (n, n_modes), complex
    W : ndarray of shape (n_modes, n), complex

    Examples
    --------
    >>> from statespace.lti.modes import modes
    >>> modes([[0.0, 1.0], [-1.0, 0.0]]).rate
    array([0.+1.j])
    """

    rate: np.ndarray
    V: np.ndarray
    W: np.ndarray


def modes(A):
    """The `Modes` of a real matrix, or None if its eigenvectors are too nearly dependent.

    Parameters
    ----------
    A : array-like of shape (n, n)

    Returns
    -------
    Modes or None

    Examples
    --------
    >>> from statespace.lti.modes import modes
    >>> modes([[-1.0, 1.0], [0.0, -1.0]]) is None  # defective
    True
    """
    A = np.asarray(A, dtype=np.float64)
    if len(A) == 0:
        return Modes(np.zeros(0, complex), np.zeros((0, 0), complex), np.zeros((0, 0), complex))
    balanced, (scale, _) = matrix_balance(A, permute=False, separate=True)
    rate, V = np.linalg.eig(balanced)
    if not np.linalg.cond(V) <= _WORST_CONDITION:
        return None
    W = np.linalg.inv(V)
    kept = rate.imag >= 0.0
    pairs = np.where(rate.imag[kept] > 0.0, 2.0, 1.0)
    return Modes(
        rate[kept].astype(complex), scale[:, np.newaxis] * V[:, kept] * pairs, (W / scale)[kept].astype(complex)
    )
