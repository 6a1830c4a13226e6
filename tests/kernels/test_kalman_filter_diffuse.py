"""Diffuse directions that the first samples hardly tell apart: yearly harmonics on daily samples."""

import numpy as np
import pytest

from statespace import KalmanRegressor
from statespace.kalman import LocalLevel, LocalTrend, Seasonal
from statespace.kernels.kalman_filter import (
    cpu,
    kalman_filter,
    kalman_gradient,
    kalman_log_likelihood,
    kalman_smoother,
)
from tests.oracles.dense_gaussian import DenseGaussian

LEVEL, WEEK = LocalLevel(0.01), Seasonal(7.0, 3, variance=1e-4)
PROCESSES = {
    "3": LEVEL + Seasonal(365.25, 3, variance=1e-4),
    "6": LEVEL + Seasonal(365.25, 6, variance=1e-5),
    "still": LEVEL + Seasonal(365.25, 3, variance=1e-12),
    "week": LocalTrend(0.01, 1e-6) + Seasonal(365.25, 3, variance=1e-5) + WEEK,
    "week, 6": LocalTrend(0.01, 1e-6) + Seasonal(365.25, 6, variance=1e-5) + WEEK,
}


def case(name, T=300, irregular=True, seed=0):
    rng = np.random.default_rng(seed)
    dt = rng.uniform(0.4, 1.6, T) if irregular else np.ones(T)
    dt[0] = 0.0
    t = np.cumsum(dt)
    y = 5.0 + 3.0 * np.sin(2 * np.pi * t / 365.25) + rng.normal(size=T) + np.cumsum(0.1 * rng.normal(size=T))
    y[20:25] = np.nan
    y[T - 5 :: 2] = np.nan
    process = PROCESSES[name]
    start = process.initial()
    blocks = process.blocks(dt)._replace(gap_index=np.zeros(0, dtype=np.int64))
    return process, (y, dt, blocks, process.observation(), 0.8, start.mean, start.covariance, start.diffuse)


def oracle(process, arguments, T=None):
    y, dt, _, h, R, mean, covariance, diffuse = arguments
    y, gaps = y[:T], dt[1:T]
    return DenseGaussian(
        y[:, np.newaxis], process.transition(gaps), h[np.newaxis, np.newaxis], process.process_noise(gaps),
        np.full((1, 1, 1), R), mean, covariance, diffuse,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["3", "6", "week"])
def test_moments_are_those_of_the_dense_posterior(name):
    T = 160
    process, arguments = case(name, T)
    dense, h = oracle(process, arguments), arguments[3]
    assert kalman_log_likelihood(*arguments) == pytest.approx(dense.log_likelihood, abs=1e-7)
    smoothed, read = kalman_smoother(*arguments), kalman_smoother(*arguments, h[np.newaxis])
    filtered = kalman_filter(*arguments)
    assert filtered.log_likelihood == smoothed.log_likelihood == read.log_likelihood
    for t in (0, 3, 22, 90, T - 1):
        mean, covariance = dense.state(t)
        size = np.sqrt(np.diag(covariance))
        np.testing.assert_allclose((smoothed.mean[t] - mean) / size, 0.0, atol=1e-6)
        np.testing.assert_allclose((smoothed.covariance[t] - covariance) / np.outer(size, size), 0.0, atol=1e-6)
        np.testing.assert_allclose(read.mean[t], h @ mean, rtol=1e-7)
        np.testing.assert_allclose(read[2][t], h @ covariance @ h, rtol=1e-7)
    np.testing.assert_allclose((filtered.mean[-1] - mean) / size, 0.0, atol=1e-6)
    np.testing.assert_allclose((filtered.covariance[-1] - covariance) / np.outer(size, size), 0.0, atol=1e-6)


def test_filtered_moments_are_those_of_the_samples_so_far():
    process, arguments = case("3", 140)
    filtered = kalman_filter(*arguments)
    for t in (90, 130):
        before, after = oracle(process, arguments, t), oracle(process, arguments, t + 1)
        mean, covariance = after.state(t)
        size = np.sqrt(np.diag(covariance))
        np.testing.assert_allclose((filtered.mean[t] - mean) / size, 0.0, atol=1e-5)
        np.testing.assert_allclose((filtered.covariance[t] - covariance) / np.outer(size, size), 0.0, atol=1e-5)
        v, F = filtered.innovation[t], filtered.innovation_variance[t]
        gained = after.log_likelihood - before.log_likelihood
        assert -0.5 * (np.log(2 * np.pi * F) + v * v / F) == pytest.approx(gained, abs=1e-5)


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("irregular", [False, True])
def test_the_gradient_is_that_of_the_likelihood(name, irregular):
    _, (y, dt, blocks, h, R, mean, covariance, diffuse) = case(name, 400, irregular)
    rng = np.random.default_rng(1)
    value, gradient = kalman_gradient(y, dt, blocks, h, R, mean, covariance, diffuse)
    assert value == kalman_log_likelihood(y, dt, blocks, h, R, mean, covariance, diffuse)
    root = rng.normal(size=covariance.shape) / 10
    moves = {
        "parameters": blocks.parameters * rng.uniform(0.5, 1.0, blocks.parameters.shape),
        "noise_variance": np.array(0.5), "observation": h * rng.normal(size=h.shape), "mean": rng.normal(size=h.shape),
        "covariance": root @ root.T, "diffuse": 0.1 * rng.normal(size=diffuse.shape),
    }  # fmt: skip
    for field, move in moves.items():
        # from a covariance that may fall as well
        start = covariance + (root @ root.T if field == "covariance" else 0.0)
        slope = getattr(kalman_gradient(y, dt, blocks, h, R, mean, start, diffuse)[1], field)

        def at(step, field=field, move=move, start=start):
            now = {"parameters": blocks.parameters, "observation": h, "noise_variance": R, "mean": mean,
                   "covariance": start, "diffuse": diffuse}  # fmt: skip
            now[field] = now[field] + step * move
            return kalman_log_likelihood(y, dt, blocks._replace(parameters=now.pop("parameters")), *now.values())

        e = 1e-5
        numeric = (8 * (at(e) - at(-e)) - at(2 * e) + at(-2 * e)) / (12 * e)
        assert np.sum(slope * move) == pytest.approx(numeric, rel=1e-6, abs=1e-6), field
    assert np.isfinite(gradient.parameters).all()


def test_many_records_are_each_as_alone():
    one, other = case("3", 200)[1], case("3", 150, seed=3)[1]
    starts = [0, 200, 350]
    y, dt = (np.concatenate([one[i], other[i]]) for i in (0, 1))
    given = (y, dt, *one[2:])
    alone = [kalman_log_likelihood(*one), kalman_log_likelihood(*other)]
    np.testing.assert_array_equal(kalman_log_likelihood(*given, starts=starts), alone)
    np.testing.assert_array_equal(kalman_filter(*given, starts=starts).log_likelihood, alone)
    np.testing.assert_array_equal(kalman_smoother(*given, starts=starts).log_likelihood, alone)
    values, gradient = kalman_gradient(*given, starts=starts)
    np.testing.assert_array_equal(values, alone)
    apart = kalman_gradient(*one)[1].parameters + kalman_gradient(*other)[1].parameters
    np.testing.assert_allclose(gradient.parameters, apart, rtol=1e-12)


def test_both_ways_agree_where_both_are_exact(monkeypatch):
    """Coarse samples tell the harmonics apart at once."""
    _, (y, dt, *rest) = case("3", 200)
    arguments = (y, 30.0 * dt, *rest)
    usual = kalman_log_likelihood(*arguments), kalman_gradient(*arguments)[1], kalman_smoother(*arguments)
    monkeypatch.setattr(cpu, "TAME", 0.0)
    other = kalman_log_likelihood(*arguments), kalman_gradient(*arguments)[1], kalman_smoother(*arguments)
    assert usual[0] != other[0] == pytest.approx(usual[0], abs=1e-8)
    np.testing.assert_allclose(other[1].parameters, usual[1].parameters, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(other[2].mean, usual[2].mean, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(other[2].covariance, usual[2].covariance, rtol=1e-5, atol=1e-6)


def test_a_daily_record_with_a_year():
    t, rng = np.arange(800.0), np.random.default_rng(0)
    year = 3.0 * np.sin(2 * np.pi * t / 365.25)
    y = year + rng.normal(size=800)
    gp = KalmanRegressor(PROCESSES["3"], noise_variance=1.0, optimizer=None).fit(t[:, np.newaxis], y)
    assert -1300.0 < gp.log_marginal_likelihood_value_ < -1100.0
    assert np.sqrt(np.mean((gp.predict(t[:, np.newaxis]) - year) ** 2)) < 0.4
    ahead = t[-1] + np.arange(1.0, 31.0)
    mean, std = gp.predict(ahead[:, np.newaxis], return_std=True)
    assert (np.abs(mean - 3.0 * np.sin(2 * np.pi * ahead / 365.25)) < 4.0 * std).all()
