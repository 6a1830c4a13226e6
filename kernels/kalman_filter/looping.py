"""Many records one after the other, in Python: what the reference does, and the fast path for very long records."""

from itertools import pairwise

import numpy as np

from statespace.kernels.kalman_filter.results import FilterResult, Gradient, SmootherResult


def each_record(starts, y, dt, blocks, observation, noise_variance, *start):
    """The arguments of every record, and the slice of its samples."""
    for first, last in pairwise(starts.tolist()):
        here = slice(first, last)
        yield here, (
            y[here], dt[here], blocks._replace(gap_index=blocks.gap_index[here]),
            observation[here] if len(observation) > 1 else observation,
            noise_variance[here] if len(noise_variance) > 1 else noise_variance, *start,
        )  # fmt: skip


def likelihood_each(kalman_log_likelihood, starts, *arguments):
    return np.array([kalman_log_likelihood(*given) for _, given in each_record(starts, *arguments)])


def filter_each(kalman_filter, starts, *arguments):
    results = [kalman_filter(*given) for _, given in each_record(starts, *arguments)]
    n, d = arguments[-1].shape
    left = np.zeros((len(results), n, d))
    for here, result in zip(left, results, strict=True):
        here[:, : result.diffuse.shape[1]] = result.diffuse
    moments = [np.concatenate([result[i] for result in results]) for i in range(1, 5)]
    values = np.array([result.log_likelihood for result in results])
    return FilterResult(values, *moments, left, np.array([result.n_diffuse for result in results]))


def smooth_each(kalman_smoother, starts, *arguments):
    *given, readout = arguments
    results = []
    for here, one in each_record(starts, *given):
        results.append(kalman_smoother(*one, readout[here] if readout is not None and len(readout) > 1 else readout))
    values = np.array([result.log_likelihood for result in results])
    return SmootherResult(values, *(np.concatenate([result[i] for result in results]) for i in (1, 2)))


def gradient_each(kalman_gradient, starts, *arguments):
    *given, free_parameters, by_observation = arguments
    inputs = (*given[2][2:5], given[4], given[3], *given[5:])
    total = Gradient(*(np.zeros_like(array) for array in inputs))
    values = []
    for here, one in each_record(starts, *given):
        value, gradient = kalman_gradient(*one, free_parameters, by_observation)
        values.append(value)
        for name, array, part in zip(total._fields, total, gradient, strict=True):
            by_sample = name in ("noise_variance", "observation") and len(array) > 1
            (array[here] if by_sample else array)[:] += part
    return np.array(values), total
