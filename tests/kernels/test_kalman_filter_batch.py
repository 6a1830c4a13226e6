"""Many records in one call: equal to a loop over them, and independent of the number of threads."""

from importlib import import_module
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from statespace.kernels import threads
from statespace.kernels.kalman_filter import (
    Blocks,
    kalman_filter,
    kalman_gradient,
    kalman_log_likelihood,
    kalman_smoother,
)
from statespace.kernels.kalman_filter.blocks import MATERN32, OU, RANDOM_WALK, ROTATION, SHO, SIZES, TABLE, TREND

MODELS = {
    "level": [(RANDOM_WALK, 0.4, 0.0)],
    "trend": [(TREND, 0.2, 0.1)],
    "Matern32": [(MATERN32, 0.9, 1.3)],
    "seasonal": [(TREND, 0.2, 0.1), (ROTATION, 1.7, 0.1), (OU, 0.6, 0.5)],
    "table": [(TABLE, 0.0, 0.0), (SHO, 1.1, 0.8, 2.0)],
}
LENGTHS = [5, 1, 17, 2, 30, 3, 1, 9, 11, 7, 4, 6]


def problem(model, varying=True, lengths=LENGTHS, seed=0):
    """Ragged records of one model; the first of their samples come after gaps, some are missing."""
    rng = np.random.default_rng(seed)
    items = [(*item, 0.0)[:4] for item in MODELS[model]]
    size = np.array([SIZES.get(item[0], 1) for item in items])
    starts = np.append(0, np.cumsum(lengths))
    T, n = int(starts[-1]), int(size.sum())
    blocks = Blocks(np.array([item[0] for item in items]), size, np.array([item[1:] for item in items], dtype=float))
    if model == "table":
        blocks = blocks._replace(
            transition=np.array([[0.9], [-0.4]]), process_noise=np.array([[0.3], [0.2]]),
            gap_index=rng.integers(-1, 2, size=T),
        )  # fmt: skip
    y = rng.normal(size=T)
    y[rng.random(T) < 0.1] = np.nan
    h = rng.normal(size=(T, n)) if varying else rng.normal(size=n)
    R = rng.uniform(0.2, 1.0, size=T) if varying else 0.3
    diffuse = np.eye(n)[:, : min(n, 2)] if model in ("level", "trend", "seasonal") else None
    return (y, rng.exponential(size=T), blocks, h, R, rng.normal(size=n), np.eye(n), diffuse), starts


def one_by_one(given, starts):
    y, dt, blocks, h, R, *start = given
    for first, last in pairwise(starts):
        cut = slice(first, last)
        yield cut, (
            y[cut], dt[cut], blocks._replace(gap_index=blocks.gap_index[cut]), h[cut] if h.ndim == 2 else h,
            R[cut] if np.ndim(R) else R, *start,
        )  # fmt: skip


def assert_near(found, expected, **options):
    assert_allclose(found, expected, rtol=1e-12, atol=1e-13, **options)


@pytest.mark.parametrize("varying", [True, False])
@pytest.mark.parametrize("model", MODELS)
def test_equals_a_loop(model, varying):
    given, starts = problem(model, varying)
    values = kalman_log_likelihood(*given, starts=starts)
    whole = kalman_filter(*given, starts=starts)
    smoothed = kalman_smoother(*given, starts=starts)
    n = len(given[5])
    readout = np.random.default_rng(1).normal(size=(len(given[0]), 2, n))
    read = kalman_smoother(*given, readout=readout, starts=starts)
    same, gradient = kalman_gradient(*given, starts=starts)
    total = {name: np.zeros_like(part) for name, part in zip(gradient._fields, gradient, strict=True)}
    for i, (cut, one) in enumerate(one_by_one(given, starts)):
        alone = kalman_filter(*one)
        # Not to the last bit: the loops are compiled twice, and fuse other multiplications with additions.
        found = [values[i], same[i], whole.log_likelihood[i], smoothed.log_likelihood[i], kalman_log_likelihood(*one)]
        assert_allclose(found, alone.log_likelihood, rtol=1e-12)
        for name in ("mean", "covariance", "innovation", "innovation_variance"):
            assert_near(getattr(whole, name)[cut], getattr(alone, name), err_msg=name)
        assert whole.n_diffuse[i] == alone.n_diffuse
        assert_near(whole.diffuse[i, :, : alone.diffuse.shape[1]], alone.diffuse)
        assert_array_equal(whole.diffuse[i, :, alone.diffuse.shape[1] :], 0.0)
        assert_near(smoothed.mean[cut], kalman_smoother(*one).mean)
        assert_near(smoothed.covariance[cut], kalman_smoother(*one).covariance)
        assert_near(read.covariance[cut], kalman_smoother(*one, readout=readout[cut]).covariance)
        _, part = kalman_gradient(*one)
        for name, array in zip(part._fields, part, strict=True):
            by_sample = varying and name in ("noise_variance", "observation")
            if by_sample:
                total[name][cut] = array
            else:
                total[name] += array
    for name, array in zip(gradient._fields, gradient, strict=True):
        assert_allclose(array, total[name], rtol=1e-12, atol=1e-11, err_msg=name)
    _, without = kalman_gradient(*given, starts=starts, by_observation=False)
    assert_allclose(without.parameters, gradient.parameters, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("model", ["trend", "table"])
def test_equals_the_reference(model):
    given, starts = problem(model, lengths=[4, 1, 6])
    truth = kalman_filter(*given, starts=starts, backend="reference")
    whole = kalman_filter(*given, starts=starts)
    for name in ("log_likelihood", "mean", "covariance", "n_diffuse", "diffuse_covariance"):
        assert_allclose(getattr(whole, name), getattr(truth, name), rtol=1e-9, atol=1e-10, err_msg=name)
    smoothed = kalman_smoother(*given, starts=starts)
    assert_allclose(smoothed.mean, kalman_smoother(*given, starts=starts, backend="reference").mean, atol=1e-9)
    values, gradient = kalman_gradient(*given, starts=starts)
    true_values, expected = kalman_gradient(*given, starts=starts, backend="reference")
    assert_allclose(values, true_values, rtol=1e-10)
    for name, ours, theirs in zip(gradient._fields, gradient, expected, strict=True):
        assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6 * max(1.0, np.abs(theirs).max(initial=0)), err_msg=name)


@pytest.mark.parametrize("model", ["trend", "seasonal"])
def test_threads_change_nothing(model, monkeypatch):
    given, starts = problem(model, lengths=LENGTHS * 20, varying=False)
    monkeypatch.setattr(threads, "OPERATIONS_OF_A_THREAD", 1)
    before = torch.get_num_threads()
    results = []
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            results.append(
                (*kalman_filter(*given, starts=starts), *kalman_smoother(*given, starts=starts),
                 kalman_log_likelihood(*given, starts=starts), *kalman_gradient(*given, starts=starts)[1])
            )  # fmt: skip
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for ours, theirs in zip(other, results[0], strict=True):
            assert_array_equal(ours, theirs)


def test_records_longer_than_a_segment(monkeypatch):
    cpu = import_module("statespace.kernels.kalman_filter.cpu")
    given, starts = problem("seasonal")
    value, gradient = kalman_gradient(*given, starts=starts)
    smoothed = kalman_smoother(*given, starts=starts)
    monkeypatch.setattr(cpu, "SEGMENT_BYTES", 1)
    monkeypatch.setattr(cpu, "SHORTEST_SEGMENT", 4)
    assert_allclose(kalman_gradient(*given, starts=starts)[0], value, rtol=1e-12)
    for ours, theirs in zip(kalman_gradient(*given, starts=starts)[1], gradient, strict=True):
        assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10)
    assert_allclose(kalman_smoother(*given, starts=starts).covariance, smoothed.covariance, rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"starts": [0, 2, 2, 5]}, r"record 1 has no sample: starts\[1\] = 2, starts\[2\] = 2"),
        ({"starts": [0, 3]}, "lead from 0 to n_times = 5; got 0 to 3"),
        ({"starts": [0.0, 5.0]}, "whole numbers"),
        ({"starts": [5]}, r"shape \(n_records \+ 1,\)"),
        ({"y": [1.0, 2.0, 3.0, np.inf, 1.0]}, r"y\[3\] \(sample 1 of record 1\) is infinite"),
        ({"dt": [1.0, 1.0, 1.0, 1.0, -2.0]}, r"dt\[4\] \(sample 2 of record 1\) = -2.0"),
        ({"noise_variance": [1.0, 1.0, -1.0, 1.0, 1.0]}, r"noise_variance\[2\] \(sample 0 of record 1\) is -1.0"),
    ],
)
def test_errors_name_the_record(change, message):
    given = {
        "y": np.ones(5), "dt": np.ones(5), "blocks": Blocks([OU], [1], [[1.0, 1.0]]), "observation": [1.0],
        "noise_variance": 1.0, "mean": [0.0], "covariance": [[1.0]], "starts": [0, 2, 5],
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        kalman_filter(**(given | change))
