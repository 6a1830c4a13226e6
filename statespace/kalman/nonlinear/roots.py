"""Covariances by their square roots, P = S Sᵀ: what keeps them positive semi-definite through every step.

A joint Gaussian is handed about as *deviations*: columns D with covariance D Dᵀ. A joint prediction of two vectors
shares its columns, so that cov(x, z) = Dx Dzᵀ, and one orthogonal triangularisation conditions one on the other:

    [ Dz  √R ]            [ √F  0  ]
    [ Dx  0  ]  Θ   =     [ G   √P⁺ ]       F = Dz Dzᵀ + R,  gain K = G √F⁻¹,  P⁺ = Dx Dxᵀ − K F Kᵀ.

Nothing is subtracted, so nothing can become negative. Source: Kailath, Sayed and Hassibi, *Linear Estimation*, ch. 12.
"""

from functools import lru_cache

import numpy as np
from scipy.linalg.lapack import dgeqrf, dpotrf, dtrtrs

# The eigenvalues of a given covariance may be negative by rounding, relative to the largest after scaling.
_ROUNDING = 1e-10


@lru_cache(maxsize=64)
def _lower(n):
    return np.tri(n)


def triangular(deviations):
    """The lower triangular L with L Lᵀ = D Dᵀ.

    Parameters
    ----------
    deviations : ndarray of shape (n, m)

    Returns
    -------
    ndarray of shape (n, n)
    """
    n, m = deviations.shape
    if m < n:
        deviations = np.concatenate([deviations, np.zeros((n, n - m))], axis=1)
    r = dgeqrf(deviations.T)[0]
    return r[:n].T * _lower(n)


def condition(root_noise, observed, deviations):
    """Condition x on z = observed part + noise.

    Parameters
    ----------
    root_noise : ndarray of shape (p, r)
        √R: any root, not only a square one.
    observed : ndarray of shape (p, m)
        Deviations of z without the noise.
    deviations : ndarray of shape (n, m)
        Those of x, in the same columns.

    Returns
    -------
    root_total : ndarray of shape (p, p)
        √F, lower triangular.
    cross : ndarray of shape (n, p)
        G = cov(x, z) √F⁻ᵀ.
    root : ndarray of shape (n, n)
        √P⁺, lower triangular.
    """
    p, r = root_noise.shape
    n, m = deviations.shape
    table = np.zeros((p + n, max(r + m, p + n)))
    table[:p, :r] = root_noise
    table[:p, r : r + m] = observed
    table[p:, r : r + m] = deviations
    result = dgeqrf(table.T)[0][: p + n].T * _lower(p + n)
    return result[:p, :p], result[p:, :p], result[p:, p:]


def solve_lower(lower, values, transposed=False):
    """L⁻¹ values, or L⁻ᵀ values.

    Parameters
    ----------
    lower : ndarray of shape (n, n)
    values : ndarray of shape (n,) or (n, m)
    transposed : bool

    Returns
    -------
    ndarray
        NaN where L is singular.
    """
    result, info = dtrtrs(lower, values, lower=1, trans=int(transposed))
    return result if info == 0 else np.full(np.shape(values), np.nan)


def root_of(covariance, name="covariance"):
    """A square root of a positive semi-definite matrix: its Cholesky factor if it has one.

    Parameters
    ----------
    covariance : ndarray of shape (n, n)
    name : str
        What it is, for the error message.

    Returns
    -------
    ndarray of shape (n, n)
        S with S Sᵀ = covariance.

    Raises
    ------
    ValueError
        If the matrix is not finite, symmetric and positive semi-definite.
    """
    root, info = dpotrf(covariance, lower=1, clean=1)
    if info == 0 and np.isfinite(root).all():
        return root
    if not np.isfinite(covariance).all():
        raise ValueError(f"{name} must be finite. Got {_brief(covariance)}.")
    # Scaled to a unit diagonal first: the units of two states may differ by many powers of ten.
    scale = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    scale[scale == 0.0] = 1.0
    values, vectors = np.linalg.eigh((covariance + covariance.T) / (2 * np.outer(scale, scale)))
    if values.size and values[0] < -_ROUNDING * max(values[-1], 0.0) * len(values):
        raise ValueError(f"{name} must be positive semi-definite. Got {_brief(covariance)}.")
    return scale[:, None] * vectors * np.sqrt(np.maximum(values, 0.0))


def check_covariance(covariance, size, name):
    """A covariance as it is given, as a matrix.

    Parameters
    ----------
    covariance : float, array-like of shape (size,) or (size, size)
        A number is the variance of each, a vector the diagonal.
    size : int
    name : str

    Returns
    -------
    ndarray of shape (size, size)

    Raises
    ------
    ValueError
        For other shapes, and for matrices that are not symmetric.
    """
    matrix = np.asarray(covariance, dtype=float)
    if matrix.ndim == 0:
        matrix = matrix * np.eye(size)
    elif matrix.shape == (size,):
        matrix = np.diag(matrix)
    if matrix.shape != (size, size):
        raise ValueError(
            f"{name} must be a variance, ({size},) variances or a ({size}, {size}) matrix. Got shape {matrix.shape}."
        )
    if not np.allclose(matrix, matrix.T, rtol=1e-8, atol=0.0, equal_nan=True):
        raise ValueError(f"{name} must be symmetric. Got {_brief(matrix)}.")
    return matrix


def _brief(matrix):
    return np.array2string(np.asarray(matrix), precision=4, threshold=16, separator=", ").replace("\n", "")
