"""What the functions of this primitive return."""

from typing import NamedTuple

import numpy as np


class FilterResult(NamedTuple):
    """What ``kalman_filter`` returns; κ → ∞ is the variance of the diffuse directions.

    Attributes
    ----------
    log_likelihood : float
        The full exact diffuse log-likelihood (see ``kalman_filter``).
    mean : ndarray of shape (n_times, n_states)
        E[x_t | y_1 … y_t].
    covariance : ndarray of shape (n_times, n_states, n_states)
        Their finite part P∗: all of cov[x_t | y_1 … y_t] once the start is resolved.
    innovation : ndarray of shape (n_times,)
        v_t = y_t − H_t E[x_t | y_1 … y_{t−1}]; NaN where y is missing.
    innovation_variance : ndarray of shape (n_times,)
        Its variance F_t; infinite where the sample sees a diffuse direction.
    diffuse : ndarray of shape (n_states, d)
        The diffuse directions that remain after the last sample, d = 0 when the start is resolved.
    n_diffuse : int
        How many samples, from the first, began with a diffuse direction left.

    Examples
    --------
    >>> from statespace.kernels.kalman_filter import Blocks, kalman_filter
    >>> from statespace.kernels.kalman_filter.blocks import RANDOM_WALK
    >>> level = Blocks([RANDOM_WALK], [1], [[0.5, 0.0]])
    >>> result = kalman_filter([1.0, 2.0], [0.0, 1.0], level, [1.0], 1.0, [0.0], [[0.0]], [[1.0]])
    >>> result.innovation_variance
    array([inf, 2.5])
    """

    log_likelihood: float
    mean: np.ndarray
    covariance: np.ndarray
    innovation: np.ndarray
    innovation_variance: np.ndarray
    diffuse: np.ndarray
    n_diffuse: int

    @property
    def diffuse_covariance(self):
        """P∞ after the last sample: the covariance there is ``covariance[-1] + κ diffuse_covariance``."""
        return self.diffuse @ np.swapaxes(self.diffuse, -1, -2)


class SmootherResult(NamedTuple):
    """What ``kalman_smoother`` returns.

    Attributes
    ----------
    log_likelihood : float
        As ``kalman_log_likelihood``.
    mean : ndarray of shape (n_times, n_states), or (n_times, r) with ``readout``
        E[x_t | all y], or of the linear combinations read out.
    covariance : ndarray of shape (n_times, n_states, n_states), or variances (n_times, r) with ``readout``
        Infinite variances where the data leave a diffuse direction unresolved.

    Examples
    --------
    >>> from statespace.kernels.kalman_filter import Blocks, kalman_smoother
    >>> from statespace.kernels.kalman_filter.blocks import RANDOM_WALK
    >>> level = Blocks([RANDOM_WALK], [1], [[0.5, 0.0]])
    >>> kalman_smoother([1.0, 2.0], [0.0, 1.0], level, [1.0], 1.0, [0.0], [[0.0]], [[1.0]]).mean.round(6)
    array([[1.4],
           [1.6]])
    """

    log_likelihood: float
    mean: np.ndarray
    covariance: np.ndarray


class Gradient(NamedTuple):
    """∂ log-likelihood / ∂ each input of the filter, each with the shape in which that input was given.

    Attributes
    ----------
    parameters : ndarray of shape (n_blocks, 3)
        With respect to ``blocks.parameters``; 0 where a kind has no such parameter.
    transition, process_noise : ndarray of shape (n_gaps, Σ s²)
        With respect to the tables of TABLE blocks.
    noise_variance : float or ndarray of shape (n_times,)
    observation : ndarray of shape (n_states,) or (n_times, n_states)
    mean : ndarray of shape (n_states,)
    covariance : ndarray of shape (n_states, n_states)
        Symmetric: the derivative along a symmetric dP is Σ covariance · dP.
    diffuse : ndarray of shape (n_states, d)

    Examples
    --------
    >>> from statespace.kernels.kalman_filter import Blocks, kalman_gradient
    >>> from statespace.kernels.kalman_filter.blocks import RANDOM_WALK
    >>> level = Blocks([RANDOM_WALK], [1], [[0.5, 0.0, 0.0]])
    >>> value, gradient = kalman_gradient([1.0, 2.0], [0.0, 1.0], level, [1.0], 1.0, [0.0], [[0.0]], [[1.0]])
    >>> gradient.parameters.shape
    (1, 3)
    """

    parameters: np.ndarray
    transition: np.ndarray
    process_noise: np.ndarray
    noise_variance: np.ndarray
    observation: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    diffuse: np.ndarray


class Step(NamedTuple):
    """What ``kalman_step`` returns: the state after the sample, and what was expected of the sample before it.

    Attributes
    ----------
    mean : ndarray of shape (n_states,)
    covariance : ndarray of shape (n_states, n_states)
    diffuse : ndarray of shape (n_states, d)
        The diffuse directions that remain.
    innovation : float
        v = y − H E[x | the past]; NaN if y is missing.
    innovation_variance : float
        Its variance; infinite if the sample sees a diffuse direction.

    Examples
    --------
    >>> from statespace.kernels.kalman_filter import Blocks, kalman_step
    >>> from statespace.kernels.kalman_filter.blocks import RANDOM_WALK
    >>> level = Blocks([RANDOM_WALK], [1], [[0.5, 0.0]])
    >>> kalman_step(2.0, 1.0, level, [1.0], 1.0, [1.0], [[0.5]]).mean
    array([1.5])
    """

    mean: np.ndarray
    covariance: np.ndarray
    diffuse: np.ndarray
    innovation: float
    innovation_variance: float
