"""Subspace identification: order, A and C of a discrete system from records on a regular grid.

With f block rows of past and future inputs and outputs as the columns of a matrix, one LQ decomposition

    [U_f; W_p; Y_f] = [L₁₁ 0 0; L₂₁ L₂₂ 0; L₃₁ L₃₂ L₃₃] Qᵀ,    W_p = [U_p; Y_p],

holds all that is needed. The extended observability matrix Γ = [C; C A; …; C A^{f−1}] is read from a singular value
decomposition of W₁ (L₃₂ …), weighted by the method (Van Overschee & De Moor 1996, Subspace Identification for Linear
Systems, chapter 4):

    n4sid   the oblique projection of Y_f along U_f on W_p, L₃₂ L₂₂⁺ [L₂₁ L₂₂]
    moesp   L₃₂: the same, seen in the complement of U_f (Verhaegen 1994, Automatica 30)
    cva     W₁ L₃₂ with W₁ = (L₃₂ L₃₂ᵀ + L₃₃ L₃₃ᵀ)^(−1/2): canonical correlations (Larimore 1990, CDC)
"""

from typing import NamedTuple

import numpy as np

METHODS = ("n4sid", "moesp", "cva")
_ROWS = 65536  # of the data matrix at a time: a long record is triangularised part by part


class Subspace(NamedTuple):
    """A decomposed data matrix, from which systems of any order can be read.

    Attributes
    ----------
    observability : ndarray of shape (f p, f p)
        W₁⁻¹ times the left singular vectors.
    singular_values : ndarray of shape (f p,)
    projection : ndarray of shape (f p, f (m + p))
        L₃₂ L₂₂⁺: what the past says about the future.
    n_outputs : int
    """

    observability: np.ndarray
    singular_values: np.ndarray
    projection: np.ndarray
    n_outputs: int


def longest_horizon(lengths, m, p):
    """The number f of block rows beyond which a data matrix has fewer columns than rows; 1 at the least."""
    total, f = int(np.sum(lengths)), 1
    while f < 200 and np.maximum(np.asarray(lengths) - 2 * (f + 1) + 1, 0).sum() >= (2 * m + 2 * p) * (f + 1):
        f += 1
    return min(f, max(total // 2, 1))


def decompose(u, y, horizon, method):
    """The subspace of records on a common regular grid.

    Parameters
    ----------
    u : list of ndarray of shape (n_times_i, m)
    y : list of ndarray of shape (n_times_i, p)
    horizon : int
        The number f of block rows of past and of future.
    method : {"n4sid", "moesp", "cva"}

    Returns
    -------
    Subspace

    Raises
    ------
    ValueError
        If no record has 2 f samples.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.lti.subspace import decompose, system
    >>> u = np.random.default_rng(0).normal(size=(200, 1))
    >>> y = np.zeros((200, 1))
    >>> for k in range(199):
    ...     y[k + 1] = 0.5 * y[k] + u[k]
    >>> A, C = system(decompose([u], [y], 4, "moesp"), 1)
    >>> A.round(6)
    array([[0.5]])
    """
    m, p, f = u[0].shape[1], y[0].shape[1], horizon
    if max(len(record) for record in u) < 2 * f:
        raise ValueError(
            f"horizon={f} needs a record of at least {2 * f} samples, and the longest has {max(map(len, u))}. "
            f"Lower horizon."
        )
    L = _triangular(u, y, f).T
    a, b = m * f, (m + p) * f
    L21, L22 = L[a : a + b, :a], L[a : a + b, a : a + b]
    L32, L33 = L[a + b :, a : a + b], L[a + b :, a + b :]
    projection = np.linalg.lstsq(L22.T, L32.T, rcond=1e-10)[0].T
    if method == "n4sid":
        unweighted, weight, unweight = projection @ np.hstack([L21, L22]), None, None
    elif method == "moesp":
        unweighted, weight, unweight = L32, None, None
    else:
        unweighted = L32
        eigenvalues, vectors = np.linalg.eigh(L32 @ L32.T + L33 @ L33.T)
        roots = np.sqrt(np.maximum(eigenvalues, 1e-14 * eigenvalues[-1] + np.finfo(float).tiny))
        weight, unweight = (vectors / roots) @ vectors.T, (vectors * roots) @ vectors.T
    U, S, _ = np.linalg.svd(unweighted if weight is None else weight @ unweighted)
    values = np.zeros(len(U))
    values[: len(S)] = S
    return Subspace(U if unweight is None else unweight @ U, values, projection, p)


def _triangular(u, y, f):
    """R of the QR decomposition of the data matrix with a row for each window of 2 f samples."""
    R = np.zeros((0, 2 * f * (u[0].shape[1] + y[0].shape[1])))
    for inputs, outputs in zip(u, y, strict=True):
        for first in range(0, len(inputs) - 2 * f + 1, _ROWS):
            last = min(first + _ROWS, len(inputs) - 2 * f + 1)
            windows = [
                np.lib.stride_tricks.sliding_window_view(array[first : last + 2 * f - 1], 2 * f, axis=0)
                for array in (inputs, outputs)
            ]
            past, future = slice(None, f), slice(f, None)
            blocks = [windows[0][..., future], windows[0][..., past], windows[1][..., past], windows[1][..., future]]
            rows = [block.transpose(0, 2, 1).reshape(last - first, -1) for block in blocks]
            R = np.linalg.qr(np.vstack([R, np.hstack(rows)]), mode="r")
    missing = R.shape[1] - len(R)
    return np.pad(R, ((0, max(missing, 0)), (0, 0)))


def system(subspace, order):
    """A and C of a system of the given order, by the shift invariance of Γ.

    Parameters
    ----------
    subspace : Subspace
    order : int

    Returns
    -------
    A : ndarray of shape (order, order)
    C : ndarray of shape (p, order)
    """
    p = subspace.n_outputs
    scale = np.sqrt(np.maximum(subspace.singular_values[:order], np.finfo(float).tiny))
    G = subspace.observability[:, :order] * scale
    return np.linalg.lstsq(G[:-p], G[p:], rcond=1e-12)[0], G[:p]


def predictor(subspace, order, u, y):
    """The one-step predictor whose state is read from the past (Larimore's regression).

    The state x̂ = Γ⁺ L₃₂ L₂₂⁺ w_p of the past w_p; then y = C x̂ + D u + e and x̂₊ = A x̂ + B u + K e by least squares.

    Parameters
    ----------
    subspace : Subspace
    order : int
    u : list of ndarray of shape (n_times_i, m)
    y : list of ndarray of shape (n_times_i, p)

    Returns
    -------
    K : ndarray of shape (order, p)
        In the basis of `system`.
    covariance : ndarray of shape (p, p)
        Of the innovations e.
    n_samples : int
        How many there are.
    """
    p = subspace.n_outputs
    f = len(subspace.observability) // p
    scale = np.sqrt(np.maximum(subspace.singular_values[:order], np.finfo(float).tiny))
    reading = np.linalg.pinv(subspace.observability[:, :order] * scale) @ subspace.projection
    now, after, inputs, outputs = [], [], [], []
    for u_record, y_record in zip(u, y, strict=True):
        if len(u_record) < f + 2:
            continue
        windows = [np.lib.stride_tricks.sliding_window_view(array, f, axis=0) for array in (u_record, y_record)]
        past = np.hstack([w.transpose(0, 2, 1).reshape(len(w), -1) for w in windows])
        x = past @ reading.T
        now.append(x[:-2]), after.append(x[1:-1]), inputs.append(u_record[f:-1]), outputs.append(y_record[f:-1])
    x, x_next, u_now, y_now = (np.concatenate(part) for part in (now, after, inputs, outputs))
    regressors = np.hstack([x, u_now, np.ones((len(x), 1))])
    e = y_now - regressors @ np.linalg.lstsq(regressors, y_now, rcond=1e-12)[0]
    K = np.linalg.lstsq(np.hstack([regressors, e]), x_next, rcond=1e-12)[0][-p:].T
    return K, e.T @ e / len(e), len(e)
