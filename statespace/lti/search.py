"""The search for the parameters that minimise a criterion of prediction errors.

The Hessian is replaced by Fisher's information, damped as by Levenberg and Marquardt (Ljung 1999, System
Identification, 2nd ed., section 10.2). Where that converges slowly, in the flat valleys of noise models, BFGS steps
follow, which start from it. Every step has coordinates of its own, in which no direction only changes the basis of the
state.
"""

from typing import NamedTuple

import numpy as np

from statespace.lti.parametrization import Parameters, directions
from statespace.lti.prediction_error import states

# Steps from each start, and the number of starts, before the best is followed.
_TRIAL, _N_TRIALS = 12, 4
# Gauss-Newton steps before the Hessian is learned instead (BFGS), and steps of that between new coordinates.
_SCORING, _CHART = 15, 40
_DAMPING = (1e-12, 1e12)


class Fit(NamedTuple):
    """What `refine` found.

    Attributes
    ----------
    parameters : Parameters
    value : float
        V, without the constant ½ log 2π of each output.
    information : ndarray of shape (q, q)
        Fisher's information about the ``directions``.
    directions : list of dict
    n_iter : int
    converged : bool
    """

    parameters: Parameters
    value: float
    information: np.ndarray
    directions: list
    n_iter: int
    converged: bool


def refine(parameters, criterion, *, feedthrough, intercept, stable, max_iter, tol):
    """The parameters that minimise a criterion, from a start.

    Parameters
    ----------
    parameters : Parameters
        The start.
    criterion : OutputError or Innovations
    feedthrough, intercept : bool
        Whether D and the offset are free.
    stable : bool
        Whether only stable systems are looked at.
    max_iter : int
    tol : float
        The search has converged when a step promises to lower V by less, or when three in a row did.

    Returns
    -------
    Fit
    """
    free = {"feedthrough": feedthrough, "intercept": intercept, "innovations": criterion.innovations}
    value, damping, converged, n_iter, small = criterion.value(parameters), 1e-3, False, 0, 0
    while n_iter < max_iter and not converged:
        parameters = _well_scaled(parameters, criterion.data)
        along = directions(parameters, **free)
        with np.errstate(all="ignore"):
            gradient, information = criterion.expansion(parameters, along)
        if not (np.isfinite(gradient).all() and np.isfinite(information).all()):
            break
        sizes = np.sqrt(np.diag(information))
        sizes = np.maximum(sizes, 1e-8 * sizes.max()) if sizes.max() > 0 else np.ones_like(sizes)
        eigenvalues, vectors = np.linalg.eigh(information / np.outer(sizes, sizes))
        eigenvalues = np.maximum(eigenvalues, 0.0)
        slopes = vectors.T @ (gradient / sizes)
        n_iter += 1
        if n_iter > _SCORING:
            axes = vectors / np.sqrt(eigenvalues + 1e-6) / sizes[:, np.newaxis]
            steps = min(_CHART, max_iter - n_iter)
            parameters, value, used, converged = _quasi_newton(
                parameters, value, criterion, along, axes, axes.T @ gradient, stable, steps, tol
            )
            n_iter += used
            continue
        while True:
            step = -slopes / (eigenvalues + damping)
            promised = -float(slopes @ step + 0.5 * eigenvalues @ step**2)
            candidate = parameters.combined(along, (vectors @ step) / sizes)
            lowered = value - criterion.value(candidate) if _allowed(candidate, criterion.data, stable) else -np.inf
            if lowered > 0:
                parameters, value = candidate, value - lowered
                factor = 0.1 if lowered > 0.5 * promised else 2.0 if lowered < 0.1 * promised else 1.0
                damping = max(factor * damping, _DAMPING[0])
                small = small + 1 if lowered < tol else 0
                converged = promised < tol or small == 3
                break
            converged = promised < tol
            damping *= 10.0
            if converged or damping > _DAMPING[1]:
                converged = True
                break
    parameters = criterion.settled(_well_scaled(parameters, criterion.data))
    along = directions(parameters, **free)
    with np.errstate(all="ignore"):
        _, information = criterion.expansion(parameters, along)
    return Fit(parameters, value, information, along, n_iter, converged)


def _quasi_newton(parameters, value, criterion, along, axes, slopes, stable, max_iter, tol):
    """BFGS steps in coordinates z, the parameters being the given ones moved by ``axes @ z`` along the directions.

    In them the information is the identity, which is where the approximation of the Hessian begins.
    """
    base, z, inverse = parameters, np.zeros(axes.shape[1]), np.eye(axes.shape[1])
    for k in range(max_iter):
        step = -inverse @ slopes
        descent = float(slopes @ step)
        if not descent < 0:
            inverse, step, descent = np.eye(len(z)), -slopes, -float(slopes @ slopes)
        if -0.5 * descent < tol:
            return parameters, value, k, True
        for halvings in range(30):
            moved = z + 0.5**halvings * step
            candidate = base.combined(along, axes @ moved)
            found = criterion.value(candidate) if _allowed(candidate, criterion.data, stable) else np.inf
            if found <= value + 1e-4 * 0.5**halvings * descent:
                break
        else:
            return parameters, value, k, k > 0
        with np.errstate(all="ignore"):
            changed = axes.T @ criterion.expansion(candidate, along)[0]
        if not np.isfinite(changed).all():
            return parameters, value, k, False
        s, d = moved - z, changed - slopes
        curvature = float(s @ d)
        if curvature > 1e-10 * np.linalg.norm(s) * np.linalg.norm(d):
            turned = np.eye(len(z)) - np.outer(s, d) / curvature
            inverse = turned @ inverse @ turned.T + np.outer(s, s) / curvature
        parameters, value, z, slopes = candidate, found, moved, changed
    return parameters, value, max_iter, False


def trial(candidates, criterion, **options):
    """The best `Fit` that a few steps from each of the first candidates reach."""
    fits = [refine(start, criterion, max_iter=_TRIAL, **options) for start in candidates[:_N_TRIALS]]
    return min(fits, key=lambda fit: fit.value)


def refine_best(candidates, criterion, *, max_iter, **options):
    """`refine` from the most promising of several starts, the best first among them."""
    if max_iter <= _TRIAL or len(candidates) == 1:
        return refine(candidates[0], criterion, max_iter=max_iter, **options)
    best = trial(candidates, criterion, **options)
    if best.converged:
        return best
    rest = refine(best.parameters, criterion, max_iter=max_iter - _TRIAL, **options)
    return rest._replace(n_iter=rest.n_iter + _TRIAL)


def _allowed(parameters, data, stable):
    if not all(np.isfinite(part).all() for part in (parameters.A, parameters.B, parameters.C, parameters.x0)):
        return False
    return not stable or is_stable(parameters.A, data.discrete)


def is_stable(A, discrete):
    """Whether no pole lies outside the unit circle (``discrete``), or to the right of the imaginary axis."""
    poles = np.linalg.eigvals(A)
    return bool((np.abs(poles) <= 1).all() if discrete else (poles.real <= 0).all())


def _well_scaled(parameters, data):
    """The same system in a basis in which the simulated states have unit mean squares and do not correlate."""
    with np.errstate(all="ignore"):
        x = states(parameters, data)
        moments = x.T @ x / len(x)
    if not np.isfinite(moments).all():
        return parameters
    eigenvalues, vectors = np.linalg.eigh(moments)
    if not eigenvalues[-1] > 0:
        return parameters
    eigenvalues = np.maximum(eigenvalues, 1e-12 * eigenvalues[-1])
    if eigenvalues[-1] < 4 and eigenvalues[0] > 0.25:
        return parameters
    return parameters.in_basis(vectors.T / np.sqrt(eigenvalues)[:, np.newaxis])
