"""A record and a model, checked once, of which only some numbers change from call to call, as in a search.

`kalman_log_likelihood` and `kalman_gradient` check every argument each time, which takes longer than to filter some
tens of samples.
"""

import numpy as np

from statespace.kernels.dispatch import on_gpu
from statespace.kernels.kalman_filter.blocks import at_hand


class Prepared:
    """The log-likelihood of one record, or many, and its gradient; the arguments are those of ``kalman_gradient``.

    Parameters
    ----------
    y, dt, blocks, observation, noise_variance, mean, covariance, diffuse, free_parameters, starts, backend
        As in ``kalman_gradient``.
    rough : bool, default=False
        Leave out what costs much where diffuse directions are told apart badly, unless all would be lost; the
        log-likelihood may then err by some thousandths.

    Attributes
    ----------
    parameters : ndarray of shape (n_blocks, 3)
    noise_variance : ndarray of shape (1,) or (n_times,)
    covariance : ndarray of shape (n_states, n_states)
        Copies of what was given, for whoever made this object to write into; nothing else may change.

    Raises
    ------
    ValueError
        As ``kalman_gradient``. What is written later is not checked: numbers, variances not negative.

    Examples
    --------
    >>> from statespace.kernels.kalman_filter import Blocks
    >>> from statespace.kernels.kalman_filter.blocks import RANDOM_WALK
    >>> from statespace.kernels.kalman_filter.prepared import Prepared
    >>> level = Blocks([RANDOM_WALK], [1], [[0.5, 0.0]])
    >>> prepared = Prepared([1.0, 2.0], [0.0, 1.0], level, [1.0], 1.0, [0.0], [[0.0]], [[1.0]])
    >>> round(prepared.log_likelihood(), 6)
    -2.496022
    >>> prepared.parameters[0, 0], prepared.noise_variance[0] = 1.0, 2.0
    >>> round(prepared.log_likelihood(), 6)
    -2.742596
    """

    def __init__(
        self, y, dt, blocks, observation, noise_variance, mean, covariance, diffuse=None, *, free_parameters=None,
        starts=None, backend=None, rough=False,
    ):  # fmt: skip
        # the package's own door, which imports this file
        from statespace.kernels.kalman_filter import _backend, _check, _record

        arguments, self._starts = _check(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse, starts)
        y, dt, blocks, observation, noise_variance, mean, covariance, diffuse = arguments
        self.parameters, self.noise_variance = blocks.parameters.copy(), at_hand(noise_variance).copy()
        self.covariance = covariance.copy()
        blocks = blocks._replace(parameters=self.parameters)
        self._free = np.ones(self.parameters.shape, dtype=bool)
        if free_parameters is not None:
            self._free = np.array(free_parameters, dtype=bool)
        self._backend = _backend(backend, *_record(arguments))
        resident = getattr(self._backend, "resident", None)
        if resident is not None:
            y, dt, blocks, observation, self._starts = resident(y, dt, blocks, observation, self._starts)
        self._arguments = (y, dt, blocks, observation, self.noise_variance, mean, self.covariance, diffuse)
        threshold = getattr(self._backend, "ROUGHLY_TAME", None)
        self._options = {"tame": threshold} if rough and threshold is not None else {}

    def log_likelihood(self):
        """The log-likelihood, a float, or that of each record."""
        value = self._backend.kalman_log_likelihood(*self._arguments, starts=self._starts, **self._options)
        return at_hand(value) if on_gpu(value) else value

    def gradient(self):
        """The log-likelihood and a `Gradient`, but for that by ``observation``."""
        given = *self._arguments, self._free, False
        value, gradient = self._backend.kalman_gradient(*given, starts=self._starts, **self._options)
        if on_gpu(value, *gradient):
            return at_hand(value) if on_gpu(value) else value, type(gradient)(*map(at_hand, gradient))
        return value, gradient
