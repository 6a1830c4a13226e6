"""Innovations of a stationary ARMA process without missing values, in O(T r) instead of O(T r²), and their derivatives.

In Harvey's form, with transition A (φ in its first column, ones above the diagonal), y_t = x_t[0] and a stationary
start, the predicted covariance changes by a matrix of rank one from sample to sample, P_{t+1} − P_t = μ w wᵀ. So only

    F' = F + μ ω²,   k' = k + μ ω A w,   w' = A w − k' ω/F',   μ' = μ F'/F,       ω = w[0],

has to be carried (Morf, Sidhu & Kailath 1974; Herbst 2015, "Using the Chandrasekhar recursions for likelihood
evaluation of DSGE models"), from F = c[0], k = w = A c, μ = −1/F, where c = cov(x_t, y_t). Derivatives go forward
beside it.

Above: `seasonal_arima`. The general filter is `statespace.kernels.kalman_filter`.
"""

import numpy as np
from numba import njit


def state_output_covariance(phi, theta):
    """c = cov(x_t, y_t) of Harvey's state for innovations of variance 1, from the autocovariances of y.

    Parameters
    ----------
    phi : ndarray of shape (r,)
        Autoregressive coefficients, padded with zeros; real or complex.
    theta : ndarray of shape (r,)
        Moving-average coefficients from lag 0 on, the first being 1.

    Returns
    -------
    ndarray of shape (r,)

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman.innovations import state_output_covariance
    >>> state_output_covariance(np.array([0.0, 0.0]), np.array([1.0, 0.5]))
    array([1.25, 0.5 ])
    """
    r = len(phi)
    psi = theta.astype(np.result_type(phi, theta))
    last = int(np.flatnonzero(phi)[-1]) + 1 if phi.any() else 0
    if last:
        psi = psi.copy()
        for j in range(1, r):
            psi[j] += phi[: min(j, last)] @ psi[j - 1 :: -1][:last] if j > 0 else 0.0
    moving = np.array([theta[j:] @ psi[: r - j] for j in range(r)])
    c = moving
    if last:
        # γ_k − Σ φ_i γ_|k−i| = Σ_j θ_j ψ_{j−k} for k = 0 … p, and onwards without a system
        system = np.eye(last + 1, dtype=phi.dtype)
        for k in range(last + 1):
            for i in range(1, last + 1):
                system[k, abs(k - i)] -= phi[i - 1]
        right = np.zeros(last + 1, dtype=phi.dtype)
        right[: min(r, last + 1)] = moving[: last + 1]
        gamma = np.zeros(r + 1, dtype=phi.dtype)
        gamma[: last + 1] = np.linalg.solve(system, right)
        for k in range(last + 1, r + 1):
            gamma[k] = phi[:last] @ gamma[k - 1 :: -1][:last] + (moving[k] if k < r else 0.0)
        c = np.array([phi[i:] @ gamma[1 : r - i + 1] for i in range(r)]) + moving
    return c


@njit(cache=True, nogil=True)
def _sweep(values, phi, c, phi_dot, c_dot, white, totals, slopes):
    """Standardised innovations of each row of ``values``; for the first row sums and their derivatives.

    ``totals``: Σ log F, Σ v²/F. ``slopes`` (2, k): their derivatives along phi_dot, c_dot (k, r).
    """
    n_series, T = values.shape
    r = len(phi)
    n_slopes = len(phi_dot)
    F = c[0]
    mu = -1.0 / F
    k = np.empty(r)
    a = np.zeros((n_series, r))
    F_dot = np.empty(n_slopes)
    mu_dot = np.empty(n_slopes)
    k_dot = np.empty((n_slopes, r))
    a_dot = np.zeros((n_slopes, r))
    for i in range(r):
        k[i] = phi[i] * c[0] + (c[i + 1] if i + 1 < r else 0.0)
    for j in range(n_slopes):
        F_dot[j] = c_dot[j, 0]
        mu_dot[j] = F_dot[j] / (F * F)
        for i in range(r):
            k_dot[j, i] = phi_dot[j, i] * c[0] + phi[i] * c_dot[j, 0] + (c_dot[j, i + 1] if i + 1 < r else 0.0)
    w = k.copy()
    w_dot = k_dot.copy()
    settled = False
    for t in range(T):
        root = np.sqrt(F)
        totals[0] += np.log(F)
        for s in range(n_series):
            a0 = a[s, 0]
            v = values[s, t] - a0
            white[s, t] = v / root
            gain = v / F
            if s == 0:
                totals[1] += v * gain
                for j in range(n_slopes):
                    a0_dot = a_dot[j, 0]
                    gain_dot = (-a0_dot - gain * F_dot[j]) / F
                    slopes[0, j] += F_dot[j] / F
                    slopes[1, j] += v * gain_dot - a0_dot * gain
                    for i in range(r):
                        following = a_dot[j, i + 1] if i + 1 < r else 0.0
                        a_dot[j, i] = (
                            phi_dot[j, i] * a0 + phi[i] * a0_dot + following + k_dot[j, i] * gain + k[i] * gain_dot
                        )
            for i in range(r):
                a[s, i] = phi[i] * a0 + (a[s, i + 1] if i + 1 < r else 0.0) + k[i] * gain
        if settled:
            continue
        omega = w[0]
        step = mu * omega
        F_next = F + step * omega
        ratio = omega / F_next
        scale = F_next / F
        for j in range(n_slopes):
            omega_dot = w_dot[j, 0]
            step_dot = mu_dot[j] * omega + mu * omega_dot
            F_next_dot = F_dot[j] + step_dot * omega + step * omega_dot
            ratio_dot = (omega_dot - ratio * F_next_dot) / F_next
            for i in range(r):
                moved = phi[i] * omega + (w[i + 1] if i + 1 < r else 0.0)
                following = w_dot[j, i + 1] if i + 1 < r else 0.0
                moved_dot = phi_dot[j, i] * omega + phi[i] * omega_dot + following
                k_dot[j, i] += step_dot * moved + step * moved_dot
                w_dot[j, i] = moved_dot - k_dot[j, i] * ratio - (k[i] + step * moved) * ratio_dot
            mu_dot[j] = mu_dot[j] * scale + mu * (F_next_dot - scale * F_dot[j]) / F
            F_dot[j] = F_next_dot
        size = 0.0
        for i in range(r):
            moved = phi[i] * omega + (w[i + 1] if i + 1 < r else 0.0)
            k[i] += step * moved
            w[i] = moved - k[i] * ratio
            size = max(size, abs(w[i]))
        mu *= scale
        F = F_next
        # what the covariance still changes by is far below its rounding, and so are the derivatives of that
        settled = size * size * -mu < 1e-28 * F


def whiten(values, phi, c, phi_dot=None, c_dot=None):
    """Standardised innovations of series that share an ARMA process with innovations of variance 1.

    Parameters
    ----------
    values : ndarray of shape (n_series, T)
    phi, c : ndarray of shape (r,)
        See `state_output_covariance`.
    phi_dot, c_dot : ndarray of shape (k, r), optional
        Directions in which the first series' sums are differentiated.

    Returns
    -------
    white : ndarray of shape (n_series, T)
        v_t / √F_t.
    totals : ndarray of shape (2,)
        Σ log F_t, and Σ v_t²/F_t of the first series.
    slopes : ndarray of shape (2, k)
        Their derivatives.
    """
    phi_dot = np.zeros((0, len(phi))) if phi_dot is None else phi_dot
    c_dot = np.zeros((0, len(phi))) if c_dot is None else c_dot
    white, totals, slopes = np.empty(values.shape), np.zeros(2), np.zeros((2, len(phi_dot)))
    _sweep(np.ascontiguousarray(values), phi, c, phi_dot, c_dot, white, totals, slopes)
    return white, totals, slopes
