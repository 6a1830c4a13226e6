"""The matrices of an explicit model, checked once. Each has a leading time axis, of length 1 where it is constant.

    x_{t+1} = A_t x_t + c_t + B_t u_t + G_t w_t,   w_t ~ N(0, Q_t),
    y_t     = H_t x_t + d_t + D_t u_t + ε_t,       ε_t ~ N(0, R_t),

cov(w_t, ε_t) = S_t, and x_1 ~ N(m, P + κ Δ Δᵀ), κ → ∞. Above: `model`; below: `sequential`, which turns it into a
sequence of scalar observations.
"""

from typing import NamedTuple

import numpy as np

BETWEEN = ("transition", "process_noise", "state_intercept", "input_matrix", "cross_covariance", "selection")
AT = ("observation", "observation_noise", "observation_intercept", "feedthrough")
# Squarings of A after which a stable one must have vanished: a spectral radius of 1 − 1e-12.
_DOUBLINGS = 60


class System(NamedTuple):
    """Arrays (1 or K, …): K covers the steps t → t+1 for `BETWEEN`, the samples for `AT`.

    ``stationary`` counts the leading states that start in their own stationary distribution; ``initial_mean`` and
    ``initial_covariance`` then hold it.
    """

    transition: np.ndarray  # (K, n, n)
    observation: np.ndarray  # (K, p, n)
    process_noise: np.ndarray  # (K, r, r)
    observation_noise: np.ndarray  # (K, p, p)
    state_intercept: np.ndarray  # (K, n)
    observation_intercept: np.ndarray  # (K, p)
    input_matrix: np.ndarray  # (K, n, k)
    feedthrough: np.ndarray  # (K, p, k)
    cross_covariance: np.ndarray | None  # (K, r, p)
    selection: np.ndarray | None  # (K, n, r); None: the identity
    initial_mean: np.ndarray  # (n,)
    initial_covariance: np.ndarray  # (n, n)
    initial_diffuse: np.ndarray  # (n, d)
    stationary: int = 0

    @property
    def n_states(self):
        return self.transition.shape[1]

    @property
    def n_outputs(self):
        return self.observation.shape[1]

    @property
    def n_inputs(self):
        return self.input_matrix.shape[2]

    def state_noise(self):
        """G Q Gᵀ of shape (1 or K, n, n)."""
        if self.selection is None:
            return self.process_noise
        return self.selection @ self.process_noise @ np.swapaxes(self.selection, 1, 2)

    def state_cross_covariance(self):
        """G S of shape (1 or K, n, p)."""
        return self.cross_covariance if self.selection is None else self.selection @ self.cross_covariance

    def push(self, u):
        """c + B u, what moves the state from outside, of shape (1 or T − 1, n); u (T, k) or None."""
        if u is None or not self.input_matrix.any():
            return self.state_intercept
        steps = u[: max(len(u) - 1, 1)]
        return self.state_intercept + (self.input_matrix @ steps[..., np.newaxis])[..., 0]

    def offset(self, u):
        """d + D u, what is added to the observations, of shape (1 or T, p)."""
        if u is None:
            return self.observation_intercept
        return self.observation_intercept + (self.feedthrough @ u[..., np.newaxis])[..., 0]

    def part(self, n_times):
        """The system of the first ``n_times`` samples: time-varying arrays are cut to them."""
        parts = {}
        for names, stop in ((BETWEEN, max(n_times - 1, 1)), (AT, n_times)):
            for name in names:
                array = getattr(self, name)
                if array is not None and len(array) > 1:
                    parts[name] = array[:stop]
        return self._replace(**parts)


def checked(name, array, shape, varying):
    """``array`` as float64 with a leading time axis; ``shape`` is that of one time, None where any length will do."""
    array = np.asarray(array, dtype=float)
    dimensions = len(shape)
    words = "(" + ", ".join("any" if s is None else str(s) for s in shape) + ("," if dimensions == 1 else "") + ")"
    if array.ndim not in (dimensions, dimensions + 1) or any(
        s is not None and s != given for s, given in zip(shape, array.shape[-dimensions:], strict=True)
    ):
        raise ValueError(
            f"{name} must have shape {words}, or one more axis in front if it changes from time to time. Got shape "
            f"{array.shape}."
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite; entry {np.argwhere(~np.isfinite(array))[0].tolist()} is not.")
    if array.ndim > dimensions:
        if len(array) == 0:
            raise ValueError(f"the time axis of {name} is empty. Got shape {array.shape}.")
        varying.add(name)
        return array
    return array[np.newaxis]


def check_covariance(name, array):
    """ValueError unless every matrix of ``array`` (..., k, k) is symmetric and positive semi-definite."""
    if array.shape[-1] == 0:
        return
    scale = np.abs(array).max(axis=(-2, -1))
    if (np.abs(array - np.swapaxes(array, -2, -1)).max(axis=(-2, -1)) > 1e-8 * scale).any():
        raise ValueError(f"{name} must be symmetric. Replace it by (V + V.T) / 2 if only rounding disturbs it.")
    # of the correlations: what is far below another entry in size must be as good
    deviation = np.sqrt(np.maximum(np.diagonal(array, axis1=-2, axis2=-1), 0.0))
    deviation = np.where(deviation > 0.0, deviation, 1.0)
    least = np.linalg.eigvalsh(array / (deviation[..., :, np.newaxis] * deviation[..., np.newaxis, :])).min()
    if least < -1e-8:
        raise ValueError(
            f"{name} must be positive semi-definite; the least eigenvalue of its correlations is {least:.3g}."
        )


def stationary_covariance(A, Q):
    """P = A P Aᵀ + Q by doubling: a sum of positive terms, exact for every stable A.

    Parameters
    ----------
    A, Q : ndarray of shape (n, n)

    Returns
    -------
    ndarray of shape (n, n)

    Raises
    ------
    ValueError
        A is not stable.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman.system import stationary_covariance
    >>> stationary_covariance(np.array([[0.5]]), np.array([[3.0]]))
    array([[4.]])
    """
    P, power = Q, A
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(_DOUBLINGS):
            P = P + power @ P @ power.T
            power = power @ power
            size = np.abs(power).max()
            if size < 1e-40:
                return 0.5 * (P + P.T)
            if not size < 1e100:
                break
    raise ValueError(
        "transition has an eigenvalue on or outside the unit circle, so there is no stationary distribution (largest "
        f"modulus {np.abs(np.linalg.eigvals(A)).max():.6g}). Start with initial_covariance='diffuse' or a matrix."
    )


def unit_triangular(R):
    """L, d with R = L diag(d) Lᵀ, L unit lower triangular; a pivot that is rounding noise counts as 0.

    Parameters
    ----------
    R : ndarray of shape (..., k, k)

    Returns
    -------
    L : ndarray of shape (..., k, k)
    d : ndarray of shape (..., k)
    """
    k = R.shape[-1]
    rest, L, d = R.copy(), np.zeros_like(R), np.zeros(R.shape[:-1])
    for j in range(k):
        pivot = rest[..., j, j]
        d[..., j] = np.where(pivot > 1e-14 * R[..., j, j], pivot, 0.0)
        pivot = np.where(d[..., j] > 0.0, pivot, np.inf)
        column = rest[..., j:, j] / pivot[..., np.newaxis]
        rest[..., j:, j:] -= column[..., :, np.newaxis] * rest[..., np.newaxis, j, j:]
        L[..., j:, j] = column
        L[..., j, j] = 1.0
    return L, d
