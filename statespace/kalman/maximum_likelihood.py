"""Maximum likelihood by L-BFGS with the exact gradient, and standard errors from the observed information.

Above: `estimation`. Below: `sequential`, whose gradient comes from the kernel's backward sweep.
"""

import numpy as np
from scipy.optimize import minimize

# What stands for "no likelihood at all", finite because a line search must be able to subtract it.
_IMPOSSIBLE = 1e25
# With no more parameters than this the curvature at the start is measured, one gradient each.
_MEASURED = 40


def climb(gradient, theta, bounds, n_observed, max_iter, tolerance, curvature=None):
    """The maximum near ``theta`` of a log-likelihood.

    Parameters
    ----------
    gradient : callable
        θ → the log-likelihood (−inf where there is none) and its gradient.
    theta : ndarray of shape (k,)
    bounds : ndarray of shape (k, 2)
    n_observed : int
        The number of observations, which tells how sharp a maximum to expect.
    max_iter : int
    tolerance : float
        The largest entry of the gradient, in units of its standard deviation, at which the search has arrived.
    curvature : ndarray of shape (k,), optional
        Minus the likely second derivatives, which give the parameters their scales. None measures them at the start.

    Returns
    -------
    theta : ndarray of shape (k,)
    log_likelihood : float
    history : list of float
        The log-likelihood after each iteration.
    converged : bool
    """
    value, slope = gradient(theta)
    if not np.isfinite(value):
        raise ValueError(
            "the log-likelihood is not finite at the start values. Give start values at which the record is possible "
            "(noise above 0, a stable transition for a stationary start)."
        )
    guess = np.full(len(theta), max(n_observed, 1) / 10.0)
    if curvature is None and len(theta) <= _MEASURED:
        curvature = guess.copy()
        for j in range(len(theta)):
            shift = np.zeros(len(theta))
            shift[j] = 1e-4 * max(1.0, abs(theta[j]))
            moved_value, moved = gradient(theta + shift)
            if np.isfinite(moved_value):
                # far from the maximum the likelihood may bend upwards: its size still is a scale
                curvature[j] = max(abs(slope[j] - moved[j]) / shift[j], 1e-4 * abs(slope[j]))
    unit = 1.0 / np.sqrt(guess if curvature is None else np.maximum(curvature, 1e-6 * guess))

    best = [value, theta]
    history = [value]

    def scaled(z):
        value, slope = gradient(z * unit)
        if not np.isfinite(value):
            return _IMPOSSIBLE, np.zeros(len(z))
        if value > best[0]:
            best[:] = value, z * unit
        return -value, -slope * unit

    def after(_):
        history.append(best[0])

    converged = False
    with np.errstate(all="ignore"):
        for _ in range(3):
            z = best[1] / unit
            result = minimize(
                scaled, z, jac=True, method="L-BFGS-B", bounds=bounds / unit[:, np.newaxis], callback=after,
                options={
                    "ftol": 1e-15, "gtol": tolerance, "maxiter": max_iter, "maxfun": 20 * max_iter, "maxls": 40,
                    "maxcor": 20,
                },
            )  # fmt: skip
            ends = np.abs(result.jac[_inside(result, bounds / unit[:, np.newaxis])])
            converged = bool(ends.max(initial=0.0) <= 100 * tolerance)
            # a line search that met an impossible point gives up; from the best point on it is another one
            if converged or result.nit >= max_iter or len(history) < 2:
                break
    return best[1], best[0], history, converged


def _inside(result, bounds):
    held = ((result.x <= bounds[:, 0]) & (result.jac > 0)) | ((result.x >= bounds[:, 1]) & (result.jac < 0))
    return ~held


def standard_errors(gradient, theta, natural):
    """Standard errors of ``natural(θ)`` from the observed information, by differences of the exact gradient.

    Parameters
    ----------
    gradient : callable
    theta : ndarray of shape (k,)
    natural : callable
        θ → ndarray of shape (m,).

    Returns
    -------
    ndarray of shape (m,)
        NaN where the likelihood does not bend.
    """
    k = len(theta)
    information, jacobian = np.empty((k, k)), np.empty((len(natural(theta)), k))
    slope = gradient(theta)[1]
    for j in range(k):
        shift = np.zeros(k)
        # the gradient is exact to ten digits, so that one side and a small step leave five
        shift[j] = 1e-5 * max(1.0, abs(theta[j]))
        information[j] = (slope - gradient(theta + shift)[1]) / shift[j]
        jacobian[:, j] = (natural(theta + shift) - natural(theta - shift)) / (2.0 * shift[j])
    information = 0.5 * (information + information.T)
    if not np.isfinite(information).all():
        return np.full(len(jacobian), np.nan)
    # parameters have units of their own
    size = np.sqrt(np.maximum(np.abs(np.diag(information)), 1e-300))
    values, vectors = np.linalg.eigh(information / np.outer(size, size))
    known = values > 1e-8
    directions = jacobian / size @ vectors
    variance = (directions[:, known] ** 2 / values[known]).sum(axis=1)
    lost = (directions[:, ~known] ** 2).sum(axis=1) > 1e-6 * (directions**2).sum(axis=1)
    return np.where(lost, np.nan, np.sqrt(variance))
