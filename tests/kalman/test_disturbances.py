"""Innovations and smoothed disturbances against what they are: predictions that leave samples out."""

import numpy as np
import pytest

from statespace.kalman import LocalLevel, LocalTrend, Matern, Regression, Seasonal, disturbances
from statespace.kalman.disturbances import Innovations
from statespace.kalman.posterior import Posterior, Record
from statespace.kalman.scale import Scale

PROCESSES = {
    "level": LocalLevel(2.0),
    "matern": Matern(1.5, 2.0, 3.0),
    "sum": LocalTrend(0.5, 0.1) + Seasonal(5.0, harmonics=2, variance=0.3) + Matern(2.5, 2.0, 3.0),
    "covariates": LocalLevel(2.0) + Regression(),
}


def posterior(name, noise=0.4, n=40, missing=(4, 17, 18), columns=2):
    rng = np.random.default_rng(3)
    t = np.cumsum(rng.exponential(size=n))
    t[7] = t[6]
    y = np.sin(t)[:, None] + rng.normal(size=(n, columns))
    y[list(missing), 0] = np.nan
    # Without noise two values of one time would contradict each other.
    y[7, -1] = np.nan if noise == 0.0 else y[7, -1]
    x = rng.normal(size=(n, 2)) if name == "covariates" else np.zeros((n, 0))
    known = np.linspace(0.1, 1.0, n) if noise == "each" else noise
    record = Record(t, x, y, known)
    return Posterior(PROCESSES[name], known, record, Scale(2.0, 0.7, 30.0, tuple(range(x.shape[1])), np.ones(2)), "D")


def without(given, k, column):
    """Mean and variance of the signal at sample k, without that sample."""
    y = given.record.y.copy()
    y[k, column] = np.nan
    record = given.record._replace(y=y)
    other = Posterior(given.process, given.noise, record, given.scale, given.unit)
    mean, variance = other.at(record.times[[k]], record.covariates[[k]])
    return mean[0, 0, column], variance[0, 0, column]


@pytest.mark.parametrize("noise", [0.4, 0.0, "each"])
@pytest.mark.parametrize("name", PROCESSES)
def test_leaving_one_out(name, noise):
    given = posterior(name, noise, missing=(7, 17, 18))
    result = disturbances.disturbances(given)
    R = np.broadcast_to(given.noise, 40)
    for k in (0, 1, 3, 12, 39):
        mean, variance = without(given, k, 1)
        u, D = result.observation[k, 1], result.observation_variance[k, 1]
        assert u / D == pytest.approx(given.record.y[k, 1] - mean, rel=1e-7)
        assert pytest.approx(variance + R[k], rel=1e-7) == 1 / D
    assert np.isnan(result.observation[[17, 18], 0]).all()


@pytest.mark.parametrize("name", PROCESSES)
def test_a_shock_to_a_state_is_a_t_statistic(name):
    """r/√N squared is twice what the likelihood gains if a state may jump at one time by an unknown amount."""
    given = posterior(name, columns=1)
    result = disturbances.disturbances(given)
    binding, y, noise, _ = disturbances._bound(given)
    base = binding.log_likelihood(y[:, 0], noise)
    for k in (3, 12, 25):
        for i in range(len(binding.initial.mean)):
            # A jump of size δ at sample k adds δ H A(t − t_k) e_i to all later samples: the best δ by a line search.
            effect = response(binding, k, i)
            values = [binding.log_likelihood(y[:, 0] - d * effect, noise) for d in (-1.0, 0.0, 1.0)]
            curvature = values[0] - 2 * values[1] + values[2]
            if -curvature < 1e-9:
                continue
            slope = (values[2] - values[0]) / 2
            assert result.state[k, i, 0] == pytest.approx(slope, rel=1e-5, abs=1e-7)
            assert result.state_variance[k, i, 0] == pytest.approx(-curvature, rel=1e-5)
            t = result.state[k, i, 0] / np.sqrt(result.state_variance[k, i, 0])
            best = binding.log_likelihood(y[:, 0] + slope / curvature * effect, noise)
            assert t**2 / 2 == pytest.approx(best - base, rel=1e-4, abs=1e-7)


def response(binding, k, i):
    from statespace.kernels.kalman_filter import discretize_blocks

    A, _ = discretize_blocks(binding.blocks, binding.gaps)
    rows = np.broadcast_to(binding.rows, (len(binding), A.shape[1]))
    x, effect = np.zeros(A.shape[1]), np.zeros(len(binding))
    x[i] = 1.0
    for t in range(k, len(binding)):
        x = A[t] @ x if t > k else x
        effect[t] = rows[t] @ x
    return effect


@pytest.mark.parametrize("name", PROCESSES)
def test_innovations_are_one_step_ahead(name):
    given = posterior(name)
    result = disturbances.innovations(given)
    assert isinstance(result, Innovations)
    for k in (9, 20, 39):
        y = given.record.y.copy()
        y[k:] = np.nan
        record = given.record._replace(y=y)
        mean, variance = Posterior(given.process, 0.4, record, given.scale, "D").at(
            record.times[[k]], record.covariates[[k]]
        )
        np.testing.assert_allclose(result.innovation[k], given.record.y[k] - mean[0, 0], rtol=1e-8)
        np.testing.assert_allclose(result.innovation_variance[k], variance[0, 0] + 0.4, rtol=1e-8)
    assert np.isnan(result.innovation[[4, 17, 18], 0]).all()


def test_parts_make_the_whole(monkeypatch):
    given = posterior("sum")
    whole, ahead = disturbances.disturbances(given), disturbances.innovations(given)
    # Short enough to cut the diffuse start too.
    monkeypatch.setattr(disturbances, "_CHUNK", 3)
    for part, expected in zip(disturbances.disturbances(given), whole, strict=True):
        np.testing.assert_allclose(part, expected, rtol=1e-7, atol=1e-9)
    for part, expected in zip(disturbances.innovations(given), ahead, strict=True):
        np.testing.assert_allclose(part, expected, rtol=1e-9, atol=1e-12)


def test_a_direction_that_is_never_seen_stays_open():
    t = np.arange(30.0)
    y = np.random.default_rng(0).normal(size=(30, 1))
    # The sine of the harmonic at period/2 is invisible on a unit grid.
    given = Posterior(LocalLevel(1.0) + Seasonal(4, 2, 0.1), 0.4, Record(t, np.zeros((30, 0)), y, None),
                      Scale(1.0, 1.0, 29.0), "D")  # fmt: skip
    result = disturbances.disturbances(given)
    for k in (0, 2, 11, 29):
        mean, variance = without(given, k, 0)
        u, D = result.observation[k, 0], result.observation_variance[k, 0]
        assert u / D == pytest.approx(y[k, 0] - mean, rel=1e-7)
        assert pytest.approx(variance + 0.4, rel=1e-7) == 1 / D
