"""Systems from their impulse response: the eigensystem realisation algorithm.

Above: who uses `statespace.lti`. Below: NumPy.
"""

import numpy as np

from statespace.lti.systems import LinearSystem

__all__ = ["era", "observer_markov_parameters"]


def era(impulse_response, order=None, dt=None, n_rows=None, n_columns=None, tol=1e-10):
    """The discrete system with a given impulse response, by the eigensystem realisation algorithm.

    The Markov parameters Y₀ = D, Y_k = C A^{k−1} B fill the block Hankel matrices H₀ = [Y_{i+j+1}] and
    H₁ = [Y_{i+j+2}]. With the n largest singular values of H₀ ≈ U S Vᵀ,

        A = S^{−1/2} Uᵀ H₁ V S^{−1/2},  B and C the first blocks of S^{1/2} Vᵀ and U S^{1/2}.

    Parameters
    ----------
    impulse_response : array-like of shape (n_times,) or (n_times, n_outputs, n_inputs)
        Y₀, Y₁, …: the output at each sample to a pulse of 1 at sample 0. Two-dimensional: (n_times, n_outputs), of one
        input.
    order : int, optional
        The number of states. None: the singular values above ``tol`` times the first.
    dt : float, optional
        The time between two samples; 1 by default.
    n_rows, n_columns : int, optional
        Blocks of the Hankel matrices, at most n_times − 1 together. By default as square as they can be.
    tol : float, default=1e-10

    Returns
    -------
    LinearSystem
        In discrete time, in balanced coordinates.

    Raises
    ------
    ValueError
        If the response has fewer than 3 samples or is not finite, or if there are not ``order`` singular values.

    References
    ----------
    Juang, J.-N. & Pappa, R. S. (1985), An eigensystem realization algorithm for modal parameter identification and
    model reduction, Journal of Guidance 8. Ho, B. L. & Kalman, R. E. (1966), for responses without noise.

    Examples
    --------
    The Fibonacci numbers are the impulse response of a system whose poles are the golden ratio and its conjugate:

    >>> from statespace.lti import era
    >>> era([0, 1, 1, 2, 3, 5, 8, 13, 21], order=2).poles.real.round(6)
    array([ 1.618034, -0.618034])
    """
    Y = _as_response(impulse_response)
    n_times, p, m = Y.shape
    if n_times < 3:
        raise ValueError(f"impulse_response must have at least 3 samples. Got {n_times}.")
    rows = (n_times - 1) // 2 if n_rows is None and n_columns is None else n_rows
    rows = n_times - 1 - n_columns if rows is None else rows
    columns = n_times - 1 - rows if n_columns is None else n_columns
    for name, value in {"n_rows": rows, "n_columns": columns}.items():
        if isinstance(value, bool) or value != int(value) or value < 1:
            raise ValueError(f"{name} must be an int >= 1. Got {value!r}.")
    if rows + columns > n_times - 1:
        raise ValueError(
            f"n_rows + n_columns must be at most n_times - 1 = {n_times - 1}. Got {rows} + {columns}."
        )
    index = np.arange(rows)[:, np.newaxis] + np.arange(columns)
    H0 = Y[index + 1].transpose(0, 2, 1, 3).reshape(rows * p, columns * m)
    H1 = Y[index + 2].transpose(0, 2, 1, 3).reshape(rows * p, columns * m)
    U, s, Vt = np.linalg.svd(H0, full_matrices=False)
    available = int((s > np.finfo(float).eps * max(H0.shape) * s[0]).sum())
    if order is None:
        order = max(int((s > tol * s[0]).sum()), 1)
    if isinstance(order, bool) or order != int(order) or not 1 <= order <= len(s):
        raise ValueError(f"order must be an int between 1 and {len(s)}, the size of the Hankel matrix. Got {order!r}.")
    if order > available:
        raise ValueError(
            f"order must be at most {available}: the Hankel matrix of this response has no more singular values above "
            f"rounding. Got {order}."
        )
    root = np.sqrt(s[:order])
    U, V = U[:, :order], Vt[:order].T
    A = (U / root).T @ H1 @ (V / root)
    return LinearSystem(A, (V * root)[:m].T, (U * root)[:p], Y[0], dt=1.0 if dt is None else dt)


def observer_markov_parameters(u, y, n_times, n_lags=None):
    """The impulse response from records of input and output, through an observer (OKID).

    The observer's Markov parameters Ȳ are the coefficients of the autoregression with inputs

        y_k = D u_k + Σ_i (Ȳ_i⁽¹⁾ u_{k−i} + Ȳ_i⁽²⁾ y_{k−i}),    i = 1 … n_lags,

    by least squares; the system's are Y_k = Ȳ_k⁽¹⁾ + Σ_i Ȳ_i⁽²⁾ Y_{k−i}.

    Parameters
    ----------
    u : array-like of shape (n_samples,) or (n_samples, n_inputs)
    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        On a regular grid.
    n_times : int
        How many samples of the impulse response to return.
    n_lags : int, optional
        By default as many as leave four equations for each unknown, at most 30.

    Returns
    -------
    ndarray of shape (n_times, n_outputs, n_inputs)
        For `era`.

    Raises
    ------
    ValueError
        If u and y are not finite, differ in length, or are too short for ``n_lags``.

    References
    ----------
    Juang, J.-N., Phan, M., Horta, L. G. & Longman, R. W. (1993), Identification of observer/Kalman filter Markov
    parameters, Journal of Guidance 16.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.lti import era, observer_markov_parameters
    >>> u = np.random.default_rng(0).normal(size=200)
    >>> y = np.convolve(u, 0.8 ** np.arange(200))[:200]
    >>> era(observer_markov_parameters(u, y, 20), order=1).poles.round(6)
    array([0.8])
    """
    u, y = _as_record(u, "u"), _as_record(y, "y")
    if len(u) != len(y):
        raise ValueError(f"u and y must have the same number of samples. Got {len(u)} and {len(y)}.")
    m, p = u.shape[1], y.shape[1]
    if n_lags is None:
        n_lags = int(np.clip((len(u) // 4 - m) // (m + p), 1, 30))
    if len(u) - n_lags < m + n_lags * (m + p):
        raise ValueError(
            f"n_lags={n_lags} has {m + n_lags * (m + p)} unknowns an output, and the record {len(u) - n_lags} "
            "equations. Lower n_lags."
        )
    both = np.hstack([u, y])
    lagged = [both[n_lags - i : len(u) - i] for i in range(1, n_lags + 1)]
    regressors = np.hstack([u[n_lags:], *lagged])
    found = np.linalg.lstsq(regressors, y[n_lags:], rcond=1e-13)[0].T
    observer = found[:, m:].reshape(p, n_lags, m + p).transpose(1, 0, 2)
    Y = np.zeros((n_times, p, m))
    Y[:1] = found[:, :m]
    for k in range(1, n_times):
        if k <= n_lags:
            Y[k] = observer[k - 1, :, :m]
        for i in range(1, min(k, n_lags) + 1):
            Y[k] += observer[i - 1, :, m:] @ Y[k - i]
    return Y


def _as_response(given):
    Y = np.asarray(given, dtype=float)
    if Y.ndim not in (1, 2, 3) or Y.size == 0:
        raise ValueError(
            "impulse_response must have shape (n_times,), (n_times, n_outputs) or (n_times, n_outputs, n_inputs). "
            f"Got {Y.shape}."
        )
    if not np.isfinite(Y).all():
        raise ValueError("impulse_response must be finite; it contains NaN or infinity.")
    return Y.reshape(*Y.shape, *[1] * (3 - Y.ndim))


def _as_record(given, name):
    array = np.asarray(given, dtype=float)
    array = array[:, np.newaxis] if array.ndim == 1 else array
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"{name} must have shape (n_samples,) or (n_samples, channels). Got {array.shape}.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite; it contains NaN or infinity.")
    return array
