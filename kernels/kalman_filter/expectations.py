"""What a start known up to δ gives: expectations over δ | y of a backend's own results (``known_start.py``)."""

import numpy as np

from statespace.kernels.kalman_filter.known_start import least_squares, mix_moments
from statespace.kernels.kalman_filter.results import Gradient, SmootherResult

# ``kernels`` is a backend's module, ``fixed`` y, Δ, blocks, h, R; the moments and directions are those of the start.


def known_start(kernels, fixed, mean, covariance, diffuse):
    """A KnownStart, or None where not even the whole record tells the directions apart."""
    columns = [flat.innovation for flat in _responses(kernels, fixed, covariance, diffuse)]
    plain = kernels.kalman_filter(*fixed, mean, covariance, _nothing(mean))
    return least_squares(plain.innovation, np.column_stack(columns), plain.innovation_variance)


def write_filtered(kernels, kept, first, fixed, mean, covariance, diffuse):
    """The filtered moments after the diffuse start, into ``kept``; returns how many samples belong to that."""
    columns = list(_responses(kernels, fixed, covariance, diffuse))
    filtered = kernels.kalman_filter(*fixed, mean, covariance, _nothing(mean))
    end = len(fixed[0])
    for t, moments in mix_moments(first, fixed[3], filtered, columns):
        end = min(end, t)
        kept.mean[t], kept.covariance[t], kept.innovation[t], kept.variance[t] = moments
    kept.variance[first:end] = np.inf
    return end


def gradient_of(kernels, known, fixed, mean, covariance, diffuse, free_parameters, by_observation):
    points, by_diffuse, totals = known.points(), np.zeros_like(diffuse), []
    for point in points:
        _, gradient = kernels.kalman_gradient(
            *fixed, mean + diffuse @ point, covariance, _nothing(mean), free_parameters, by_observation
        )
        by_diffuse += np.outer(gradient.mean, point)
        totals.append(gradient[:-1])
    means = [sum(parts) / len(points) for parts in zip(*totals, strict=True)]
    return known.log_likelihood, Gradient(*means, by_diffuse / len(points))


def smoothed_of(kernels, known, fixed, mean, covariance, diffuse, readout):
    none = _nothing(mean)
    _, means, spread = kernels.kalman_smoother(*fixed, mean + diffuse @ known.delta, covariance, none, readout)
    y, *rest = fixed
    flat = np.where(np.isnan(y), np.nan, 0.0)
    for shift in (diffuse @ known.root).T:
        _, moved, _ = kernels.kalman_smoother(flat, *rest, np.ascontiguousarray(shift), covariance, none, readout)
        spread += moved**2 if spread.ndim == 2 else moved[:, :, np.newaxis] * moved[:, np.newaxis, :]
    return SmootherResult(known.log_likelihood, means, spread)


def _nothing(mean):
    return np.zeros((len(mean), 0))


def _responses(kernels, fixed, covariance, diffuse):
    """Results of the filters that start at the columns of ``diffuse``, y = 0."""
    y, *rest = fixed
    flat = np.where(np.isnan(y), np.nan, 0.0)
    for column in diffuse.T:
        yield kernels.kalman_filter(flat, *rest, np.ascontiguousarray(column), covariance, _nothing(column))
