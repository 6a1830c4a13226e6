"""Prediction-error refinement: maximum likelihood by Gauss-Newton steps with exact derivatives, on the true times.

With innovations e_k(θ) and their covariances S_k(θ), the value to be minimised is

    V(θ) = ½ Σ_k (log det S_k + e_kᵀ S_k⁻¹ e_k).

In an output-error model the state has no noise: e is the error of a simulation, and S, the same for all samples and
diagonal, is its variance, so that V = ½ Σ_j N_j (1 + log(mean of e_j²)). In an innovations model a Kalman filter
predicts each sample from all earlier ones over the gap there really was; its gain and covariance belong to the sample.

The Hessian is replaced by Fisher's information, Σ_k (∂e_kᵀ S_k⁻¹ ∂e_k + ½ tr S_k⁻¹ ∂S_k S_k⁻¹ ∂S_k), damped as by
Levenberg and Marquardt (Ljung 1999, System Identification, 2nd ed., sections 7.2-7.4 and 10.2).
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from statespace.lti.parametrization import Parameters, derivative, directions, linear_directions
from statespace.lti.recursions import DEGREE, kalman, over_gaps, simulate

# Mean squares below this, of outputs of variance 1, are rounding.
_ROUNDING = 1e-28
# Added to the variance of v, so that the likelihood of data without noise is bounded.
_LEAST_NOISE = 1e-12
# Steps from each start, and the number of starts, before the best is followed.
_TRIAL, _N_TRIALS = 12, 4
_DAMPING = (1e-12, 1e12)


class Data(NamedTuple):
    """Records, one after the other.

    Attributes
    ----------
    u : ndarray of shape (n_samples, m)
    y : ndarray of shape (n_samples, p)
        NaN where missing.
    gaps : ndarray of shape (n_gaps,)
        The different gaps.
    gap_index : ndarray of shape (n_samples,)
        Which of them lies between a sample and the next; 0 at the end of a record.
    starts : ndarray of shape (n_records + 1,)
    linear : bool
        Whether the input changes linearly between samples, rather than being held.
    discrete : bool
        Whether A is a matrix per sample rather than per unit of time.
    """

    u: np.ndarray
    y: np.ndarray
    gaps: np.ndarray
    gap_index: np.ndarray
    starts: np.ndarray
    linear: bool
    discrete: bool


class Transitions(NamedTuple):
    """E, F, H and W of `statespace.lti.recursions` for every different gap."""

    E: np.ndarray
    F: np.ndarray
    H: np.ndarray
    W: np.ndarray


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


def transitions(parameters, data, noisy):
    """The matrices over all gaps, real or complex as the parameters are."""
    A, L = np.ascontiguousarray(parameters.A), parameters.L
    n = len(A)
    if data.discrete:
        return Transitions(A[np.newaxis], np.eye(n, dtype=A.dtype)[np.newaxis], np.zeros_like(A)[np.newaxis],
                           (L @ L.T)[np.newaxis])  # fmt: skip
    E, F, H = (np.empty((len(data.gaps), n, n), A.dtype) for _ in range(3))
    W = np.zeros((len(data.gaps) if noisy else 1, n, n), A.dtype)
    room = np.empty((2 * DEGREE + 7, n, n), A.dtype)
    over_gaps(A, np.ascontiguousarray(L @ L.T), data.gaps, noisy, room, E, F, H, W)
    return Transitions(E, F, H, W)


def states(parameters, data, over=None):
    """The states of a simulation at every sample, of shape (n_samples, n)."""
    E, F, H, _ = transitions(parameters, data, False) if over is None else over
    dtype = np.result_type(E, parameters.B, parameters.x0)
    E, F, H, w, x0 = (
        np.ascontiguousarray(part, dtype) for part in (E, F, H, data.u @ parameters.B.T, parameters.x0)
    )
    x = np.zeros((len(data.u), len(parameters.A)), dtype)
    simulate(E, F, H, data.gap_index, data.starts, data.linear, w, x0, x)
    return x


def simulated(parameters, data, over=None):
    """The outputs of a simulation, of shape (n_samples, p)."""
    x = states(parameters, data, over)
    return x @ parameters.C.T + data.u @ parameters.D.T + parameters.offset


def measurement_noise(parameters):
    """The covariance of v."""
    return parameters.G @ parameters.G.T + _LEAST_NOISE * np.eye(len(parameters.G))


class Filtered(NamedTuple):
    """A pass of the Kalman filter: −V, innovations, their covariances, filtered states, each record's last P."""

    value: float
    e: np.ndarray
    S: np.ndarray
    x: np.ndarray
    P: np.ndarray


def filtered(parameters, data, over=None):
    """The Kalman filter over all records."""
    over = transitions(parameters, data, True) if over is None else over
    dtype, (p, n) = parameters.A.dtype, parameters.C.shape
    N = len(data.y)
    e, S, x = np.empty((N, p), dtype), np.empty((N, p, p), dtype), np.empty((N, n), dtype)
    P = np.empty((len(data.starts) - 1, n, n), dtype)
    fed = data.u @ parameters.D.T + parameters.offset
    R = np.ascontiguousarray(measurement_noise(parameters))
    w = np.ascontiguousarray(data.u @ parameters.B.T)
    room = np.zeros((8, max(n, p, 2), max(n, p, 2)), dtype)
    value = kalman(
        *over, data.gap_index, data.starts, data.linear, w, np.ascontiguousarray(parameters.C), fed, R,
        np.ascontiguousarray(parameters.x0), np.ascontiguousarray(parameters.P0), data.y, room, np.empty(p, bool),
        e, S, x, P,
    )  # fmt: skip
    return Filtered(value, e, S, x, P)


class OutputError:
    """The criterion of a model without noise in the state."""

    innovations = False

    def __init__(self, data):
        self.data = data
        self.seen = ~np.isnan(data.y)
        self.counts = self.seen.sum(axis=0)

    def residuals(self, parameters):
        """y less its simulation, 0 where y is missing."""
        return np.where(self.seen, self.data.y - simulated(parameters, self.data), 0.0)

    def variances(self, e):
        """The mean squares of the outputs' errors."""
        return (e**2).sum(axis=0) / np.maximum(self.counts, 1) + _ROUNDING

    def value(self, parameters):
        """V, or infinity where it is no number."""
        with np.errstate(all="ignore"):
            value = 0.5 * float(self.counts @ (np.log(self.variances(self.residuals(parameters))) + 1))
        return value if np.isfinite(value) else np.inf

    def sensitivities(self, parameters, along):
        """Derivatives of the simulated outputs, of shape (q, n_samples, p), 0 where y is missing."""
        over = transitions(parameters, self.data, False)
        J = np.empty((len(along), *self.data.y.shape))
        for j, direction in enumerate(along):
            moved = parameters.displaced(direction)
            J[j] = derivative(simulated(moved, self.data, None if "A" in direction else over))
        J *= self.seen
        return J

    def expansion(self, parameters, along):
        """Gradient and information of V along the directions."""
        e, J = self.residuals(parameters), self.sensitivities(parameters, along)
        weight = 1 / np.sqrt(self.variances(e))
        J, e = (J * weight).reshape(len(along), -1), (e * weight).ravel()
        return -J @ e, J @ J.T

    def settled(self, parameters):
        """With the noise that belongs to the parameters: G from the errors' variances."""
        return replace(parameters, G=np.diag(np.sqrt(self.variances(self.residuals(parameters)))))


class Innovations:
    """The criterion of a model with noise in the state, by the Kalman filter."""

    innovations = True

    def __init__(self, data):
        self.data = data
        self.seen = ~np.isnan(data.y)

    def value(self, parameters):
        """V, or infinity where it is no number."""
        with np.errstate(all="ignore"):
            value = -float(filtered(parameters, self.data).value)
        return value if np.isfinite(value) else np.inf

    def expansion(self, parameters, along):
        """Gradient and information of V along the directions."""
        over, base = transitions(parameters, self.data, True), filtered(parameters, self.data)
        whiten = np.linalg.inv(np.linalg.cholesky(base.S))
        N, p = base.e.shape
        gradient, J = np.empty(len(along)), np.empty((len(along), N, p + p * p))
        for j, direction in enumerate(along):
            moved = parameters.displaced(direction)
            same = not {"A", "L"} & direction.keys()
            change = filtered(moved, self.data, Transitions(*(m.astype(complex) for m in over)) if same else None)
            gradient[j] = -derivative(change.value)
            de, dS = derivative(change.e), derivative(change.S)
            J[j, :, :p] = (whiten @ de[..., np.newaxis])[..., 0]
            J[j, :, p:] = (whiten @ dS @ whiten.transpose(0, 2, 1)).reshape(N, -1) * np.sqrt(0.5)
        J = J.reshape(len(along), -1)
        return gradient, J @ J.T

    def settled(self, parameters):
        """The parameters as they are: their noise is among them."""
        return parameters


def solve_linear(parameters, data, feedthrough, intercept):
    """B, D, offset and x₀ by least squares for given A and C: the simulated output is linear in them.

    Parameters
    ----------
    parameters : Parameters
        Their B, D, offset and x₀ are not used.
    data : Data
    feedthrough, intercept : bool
        Whether D and the offset are free; else 0.

    Returns
    -------
    Parameters
    """
    criterion = OutputError(data)
    zero = {name: np.zeros_like(getattr(parameters, name)) for name in ("B", "D", "offset", "x0")}
    parameters = replace(parameters, **zero)
    along = linear_directions(parameters, feedthrough, intercept)
    J = criterion.sensitivities(parameters, along).reshape(len(along), -1).T
    sizes = np.linalg.norm(J, axis=0)
    sizes[sizes == 0] = 1.0
    lengths = np.linalg.lstsq(J / sizes, criterion.residuals(parameters).ravel(), rcond=1e-12)[0] / sizes
    return _along(parameters, along, lengths)


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
        while True:
            step = -slopes / (eigenvalues + damping)
            promised = -float(slopes @ step + 0.5 * eigenvalues @ step**2)
            candidate = _along(parameters, along, (vectors @ step) / sizes)
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


def _along(parameters, along, lengths):
    total = {}
    for direction, length in zip(along, lengths, strict=True):
        for name, part in direction.items():
            total[name] = total.get(name, 0.0) + length * part
    return parameters.moved(total, 1.0)


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
