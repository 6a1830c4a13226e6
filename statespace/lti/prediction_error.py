"""Criteria of prediction errors on the true times, their exact gradients and the information about the parameters.

With innovations e_k(θ) and their covariances S_k(θ), the value to be minimised is

    V(θ) = ½ Σ_k (log det S_k + e_kᵀ S_k⁻¹ e_k).

In an output-error model the state has no noise: e is the error of a simulation, and S, the same for all samples and
diagonal, is its variance, so that V = ½ Σ_j N_j (1 + log(mean of e_j²)). In an innovations model a Kalman filter
predicts each sample from all earlier ones over the gap there really was; its gain and covariance belong to the sample.

Fisher's information is Σ_k (∂e_kᵀ S_k⁻¹ ∂e_k + ½ tr S_k⁻¹ ∂S_k S_k⁻¹ ∂S_k) (Ljung 1999, System Identification, 2nd
ed., sections 7.2-7.4 and 9.4).
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from statespace.lti.parametrization import derivative, linear_directions
from statespace.lti.recursions import DEGREE, kalman, over_gaps, simulate

# Mean squares below this, of outputs of variance 1, are rounding.
_ROUNDING = 1e-28
# Added to the variance of v, so that the likelihood of data without noise is bounded.
_LEAST_NOISE = 1e-12


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
        gradient = np.empty(len(along))
        de, dS = np.empty((N, p, len(along))), np.empty((N, p * p, len(along)))
        for j, direction in enumerate(along):
            moved = parameters.displaced(direction)
            same = not {"A", "L"} & direction.keys()
            change = filtered(moved, self.data, Transitions(*(m.astype(complex) for m in over)) if same else None)
            gradient[j] = -derivative(change.value)
            de[..., j], dS[..., j] = derivative(change.e), derivative(change.S).reshape(N, -1)
        # W dS Wᵀ, row by row, is (W ⊗ W) times the rows of dS.
        both = np.einsum("kab,kcd->kacbd", whiten, whiten).reshape(N, p * p, p * p)
        J = np.concatenate([(whiten @ de).reshape(N * p, -1), (both @ dS).reshape(N * p * p, -1) * np.sqrt(0.5)])
        return gradient, J.T @ J

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
    return parameters.combined(along, lengths)
