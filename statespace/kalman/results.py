"""What filters and smoothers return: named tuples with ``mean``, ``covariance`` and ``log_likelihood``.

Above: `statespace.kalman.LinearGaussianModel` and its relatives. Letters: T samples, n states, p observations.
"""

from typing import NamedTuple

import numpy as np


class FilterResult(NamedTuple):
    """Moments given the samples so far. Variances that the data leave unbounded (diffuse start) are infinite.

    Attributes
    ----------
    mean : ndarray of shape (T, n)
        E[x_t | y_1 … y_t].
    covariance : ndarray of shape (T, n, n)
    predicted_mean : ndarray of shape (T, n)
        E[x_t | y_1 … y_{t−1}].
    predicted_covariance : ndarray of shape (T, n, n)
    innovation : ndarray of shape (T, p)
        y_t − E[y_t | y_1 … y_{t−1}]; NaN where y is missing.
    innovation_covariance : ndarray of shape (T, p, p)
        Of all p observations, also of those that are missing.
    log_likelihood : float
        Full convention of Durbin & Koopman (2012, section 7.2): every observed number is counted.

    Examples
    --------
    >>> from statespace.kalman import LinearGaussianModel
    >>> LinearGaussianModel([[1.0]], [[1.0]], [[0.5]], [[1.0]]).filter([1.0, 2.0]).mean.round(6)
    array([[1. ],
           [1.6]])
    """

    mean: np.ndarray
    covariance: np.ndarray
    predicted_mean: np.ndarray
    predicted_covariance: np.ndarray
    innovation: np.ndarray
    innovation_covariance: np.ndarray
    log_likelihood: float


class SmootherResult(NamedTuple):
    """Moments given all samples.

    Attributes
    ----------
    mean : ndarray of shape (T, n)
        E[x_t | y].
    covariance : ndarray of shape (T, n, n)
        Infinite variances where the data leave a diffuse direction unresolved.
    log_likelihood : float
    lag_one_covariance : ndarray of shape (T − 1, n, n)
        cov[x_{t+1}, x_t | y].
    state_disturbance : ndarray of shape (T − 1, n)
        E[w_t | y], w_t leading from x_t to x_{t+1}.
    state_disturbance_covariance : ndarray of shape (T − 1, n, n)
    observation_disturbance : ndarray of shape (T, p)
        E[ε_t | y].
    observation_disturbance_covariance : ndarray of shape (T, p, p)

    Examples
    --------
    >>> from statespace.kalman import LinearGaussianModel
    >>> result = LinearGaussianModel([[1.0]], [[1.0]], [[0.5]], [[1.0]]).smooth([1.0, 2.0])
    >>> result.mean.round(6).ravel(), result.lag_one_covariance.round(6).ravel()
    (array([1.4, 1.6]), array([0.4]))
    """

    mean: np.ndarray
    covariance: np.ndarray
    log_likelihood: float
    lag_one_covariance: np.ndarray
    state_disturbance: np.ndarray
    state_disturbance_covariance: np.ndarray
    observation_disturbance: np.ndarray
    observation_disturbance_covariance: np.ndarray


class ForecastResult(NamedTuple):
    """Moments of the ``steps`` samples after the last.

    Attributes
    ----------
    mean : ndarray of shape (steps, p)
        E[y_{T+h} | y].
    covariance : ndarray of shape (steps, p, p)
        Of the observations, noise included.
    state_mean : ndarray of shape (steps, n)
    state_covariance : ndarray of shape (steps, n, n)
    log_likelihood : float
        Of the record.

    Examples
    --------
    >>> from statespace.kalman import LinearGaussianModel
    >>> model = LinearGaussianModel([[1.0]], [[1.0]], [[0.5]], [[1.0]])
    >>> model.forecast([1.0, 2.0], steps=2).covariance.round(6).ravel()
    array([2.1, 2.6])
    """

    mean: np.ndarray
    covariance: np.ndarray
    state_mean: np.ndarray
    state_covariance: np.ndarray
    log_likelihood: float


class Sample(NamedTuple):
    """Draws of a model, or of its posterior.

    Attributes
    ----------
    state : ndarray of shape (n_samples, T, n)
    observation : ndarray of shape (n_samples, T, p)
        Given a record, its own numbers where it has any.

    Examples
    --------
    >>> from statespace.kalman import LinearGaussianModel
    >>> model = LinearGaussianModel([[0.5]], [[1.0]], [[1.0]], [[1.0]], initial_covariance="stationary")
    >>> model.sample(4, n_samples=3, random_state=0).state.shape
    (3, 4, 1)
    """

    state: np.ndarray
    observation: np.ndarray
