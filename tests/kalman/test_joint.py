"""The joint covariance against what further samples would teach, one row after the other."""

import numpy as np
import pytest

from statespace import KalmanRegressor
from statespace.kalman import LocalLevel, LocalTrend, Matern, Regression, Seasonal
from statespace.kalman import joint as joint_module

MODELS = {
    "trend": (LocalTrend(0.5, 0.1) + Matern(1.5, 2.0, 3.0), 0),
    "season": (LocalLevel(0.3) + Seasonal(5.0, harmonics=2, variance=0.1), 0),
    "covariates": (LocalLevel(0.3) + Regression(variance=0.1), 1),
}


def fitted(name, noise=0.4, n=50, **options):
    rng = np.random.default_rng(2)
    process, n_covariates = MODELS[name]
    X = np.column_stack([np.sort(rng.uniform(0, 30, n)), rng.normal(size=(n, n_covariates))])
    y = rng.normal(size=n)
    y[[3, 4, 20]] = np.nan
    rows = np.column_stack([rng.uniform(1, 33, 9), rng.normal(size=(9, n_covariates))])
    rows[4] = X[10]
    gp = KalmanRegressor(process, noise_variance=noise, optimizer=None, **options)
    return gp.fit(X, y), rows, X, y


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("noise", [0.4, 1e-6])
def test_equals_what_a_further_sample_teaches(name, noise):
    gp, rows, X, y = fitted(name, noise)
    mean, covariance = gp.predict(rows, return_cov=True)
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), gp.predict(rows, return_std=True)[1], rtol=1e-6)
    for j in (0, 3, 4):
        # Given another sample at row j, the mean moves by cov(., j) / (var(j) + R) times what it is off.
        more = gp.condition(np.vstack([X, rows[j]]), np.append(y, mean[j] + 1.0))
        moved = (more.predict(rows) - mean) * (covariance[j, j] + noise)
        np.testing.assert_allclose(covariance[:, j], moved, atol=1e-6 * covariance[j, j], rtol=1e-5)


def test_equals_itself_in_chunks(monkeypatch):
    gp, rows, *_ = fitted("trend")
    whole = gp.predict(rows, return_cov=True)[1]
    monkeypatch.setattr(joint_module, "_CHUNK", 7)
    np.testing.assert_allclose(gp.predict(rows, return_cov=True)[1], whole, rtol=1e-12)


def test_what_is_open_is_infinite_and_the_rest_is_known():
    t = np.arange(48.0)
    y = np.sin(t) + np.random.default_rng(0).normal(size=48)
    gp = KalmanRegressor(LocalLevel(0.3) + Seasonal(12, harmonics=6, variance=0.1), noise_variance=0.4, optimizer=None)
    gp.fit(t[:, None], y)
    # Between the points of the grid the harmonic at period/2 is open.
    covariance = gp.predict([[10.0], [20.5], [50.0]], return_cov=True)[1]
    assert np.isinf(covariance[1, 1])
    assert np.isnan(covariance[1, [0, 2]]).all()
    alone = gp.predict([[10.0], [50.0]], return_cov=True)[1]
    np.testing.assert_allclose(covariance[np.ix_([0, 2], [0, 2])], alone, rtol=1e-8)
    assert np.isfinite(alone).all()


def test_without_noise_what_was_seen_is_known():
    gp, _, X, y = fitted("trend", noise=0.0)
    seen = np.flatnonzero(np.isfinite(y))[[5, 9]]
    covariance = gp.predict(np.vstack([X[seen], [[31.0]]]), return_cov=True)[1]
    np.testing.assert_allclose(covariance[:2], 0.0, atol=1e-8)
    assert covariance[2, 2] > 0.1
