"""What filters and smoothers return: named tuples whose first fields are the same for all."""

from typing import Any, NamedTuple

import numpy as np


class FilterResult(NamedTuple):
    """The state at each sample given the samples up to it.

    Attributes
    ----------
    mean : ndarray of shape (T, n)
    covariance : ndarray of shape (T, n, n)
    predicted_mean : ndarray of shape (T, n)
        Given the samples before it.
    predicted_covariance : ndarray of shape (T, n, n)
    innovation : ndarray of shape (T, p)
        y − its prediction, NaN where y is missing.
    innovation_covariance : ndarray of shape (T, p, p)
    log_likelihood : float
        Of the whole record, with all constants.
    extra : dict
        What the method adds: for particles "effective_size", "ancestors", "particles"; for several models
        "mode_probability".
    """

    mean: np.ndarray
    covariance: np.ndarray
    predicted_mean: np.ndarray
    predicted_covariance: np.ndarray
    innovation: np.ndarray
    innovation_covariance: np.ndarray
    log_likelihood: float
    extra: dict[str, Any] = {}


class SmootherResult(NamedTuple):
    """The state at each sample given all samples.

    Attributes
    ----------
    mean : ndarray of shape (T, n)
    covariance : ndarray of shape (T, n, n)
    log_likelihood : float
    lag_one_covariance : ndarray of shape (T − 1, n, n) or None
        cov(x_{k+1}, x_k) given all samples.
    extra : dict
        What the method adds: "trajectories" or "ensemble", "mode_probability".
    """

    mean: np.ndarray
    covariance: np.ndarray
    log_likelihood: float
    lag_one_covariance: np.ndarray | None = None
    extra: dict[str, Any] = {}


class Simulation(NamedTuple):
    """Draws from a model.

    Attributes
    ----------
    states : ndarray of shape ([n_samples,] T, n)
    observations : ndarray of shape ([n_samples,] T, p)
    """

    states: np.ndarray
    observations: np.ndarray


class GaussianState(NamedTuple):
    """A state N(mean, root rootᵀ) and where it stands.

    Attributes
    ----------
    mean : ndarray of shape (n,)
    root : ndarray of shape (n, n)
    time : float
    n_samples : int
        Samples read so far.
    log_likelihood : float
        Of these samples.
    innovation : ndarray of shape (p,) or None
        Of the last one.
    innovation_covariance : ndarray of shape (p, p) or None
    u : ndarray of shape (n_inputs,) or None
        The input since then.
    """

    mean: np.ndarray
    root: np.ndarray
    time: float = 0.0
    n_samples: int = 0
    log_likelihood: float = 0.0
    innovation: np.ndarray | None = None
    innovation_covariance: np.ndarray | None = None
    u: np.ndarray | None = None

    @property
    def covariance(self):
        """ndarray of shape (n, n)."""
        return self.root @ self.root.T


class Kernel(NamedTuple):
    """The state before a gap given the state after it and no later sample: N(mean + gain (x − predicted), ZZᵀ).

    Attributes
    ----------
    mean : ndarray of shape (n,)
        Filtered, before the gap.
    predicted : ndarray of shape (n,)
        Its prediction over the gap.
    gain : ndarray of shape (n, n)
    remainder : ndarray of shape (n, n)
        Z.
    """

    mean: np.ndarray
    predicted: np.ndarray
    gain: np.ndarray
    remainder: np.ndarray
