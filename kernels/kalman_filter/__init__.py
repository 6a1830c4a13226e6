"""Filter, smoother and exact gradient of a linear-Gaussian model on irregular times."""

from functools import cache
from typing import NamedTuple

import numpy as np

from statespace.kernels.dispatch import choose
from statespace.kernels.kalman_filter.blocks import Blocks, behaved, check_blocks

_backend = cache(lambda name: choose("kalman_filter", name))


class FilterResult(NamedTuple):
    log_likelihood: float
    mean: np.ndarray
    covariance: np.ndarray
    innovation: np.ndarray
    innovation_variance: np.ndarray
    diffuse: np.ndarray
    n_diffuse: int

    @property
    def diffuse_covariance(self):
        return self.diffuse @ self.diffuse.T


def _check(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse):
    """Every argument as the backends take it: C-contiguous float64, h (1, n) or (T, n), R (1,) or (T,), D (n, d)."""
    y, dt = behaved(y), behaved(dt)
    blocks = check_blocks(blocks, len(y))
    mean, covariance = behaved(mean), behaved(covariance)
    observation, noise_variance = behaved(observation), behaved(noise_variance)
    if observation.ndim == 1:
        observation = observation[None]
    if noise_variance.ndim == 0:
        noise_variance = noise_variance[None]
    diffuse = np.zeros((len(mean), 0)) if diffuse is None else behaved(diffuse)
    return y, dt, blocks, observation, noise_variance, mean, covariance, diffuse


def discretize_blocks(blocks, dt, *, backend=None):
    dt = behaved(np.atleast_1d(dt))
    return _backend(backend).discretize_blocks(check_blocks(blocks, len(dt)), dt)


def kalman_filter(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse=None, *, backend=None):
    arguments = _check(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse)
    return _backend(backend).kalman_filter(*arguments)


def kalman_log_likelihood(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse=None, *, backend=None):
    arguments = _check(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse)
    return _backend(backend).kalman_log_likelihood(*arguments)
