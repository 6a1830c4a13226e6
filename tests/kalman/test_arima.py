"""Seasonal ARIMA models against published estimates, statsmodels' likelihood and dense conditioning."""

import numpy as np
import pytest
import statsmodels.api as sm
from sklearn.exceptions import NotFittedError

from statespace.kalman import arima
from statespace.kalman.arima_likelihood import ArimaLikelihood, coefficients_to_partial, partial_to_coefficients
from tests.oracles.dense_gaussian import DenseGaussian

AIRLINE = ((0, 1, 1), (0, 1, 1, 12))


@pytest.fixture(scope="module")
def airline():
    from sktime.datasets import load_airline

    return np.log(load_airline().to_numpy(dtype=float))


def test_airline_has_the_published_estimates(airline):
    """Box & Jenkins' series G; Durbin & Koopman and R's arima report these figures."""
    model = arima(*AIRLINE).fit(airline)
    params = model.params_["estimate"]
    assert params["ma[1]"] == pytest.approx(-0.4018, abs=5e-5)
    assert params["seasonal_ma[1]"] == pytest.approx(-0.5569, abs=5e-5)
    assert model.log_likelihood_ == pytest.approx(244.6965, abs=5e-5)
    assert model.log_likelihood(airline) == pytest.approx(model.log_likelihood_, abs=1e-8)
    # R's standard errors, from the observed information
    np.testing.assert_allclose(model.params_["standard_error"].iloc[:2], [0.0896, 0.0731], atol=1e-4)
    assert model.converged_
    # R's arima reports AIC −483.4; the package forecast for the same fit AICc −483.21 and BIC −474.77
    assert (model.n_observed_, model.n_estimated_) == (131, 3)
    assert model.aic_ == pytest.approx(-483.39, abs=0.005)
    assert model.aicc_ == pytest.approx(-483.21, abs=0.01)
    assert model.bic_ == pytest.approx(-474.77, abs=0.005)


SPECIFICATIONS = [
    ((2, 0, 1), (0, 0, 0, 0), {"ar": [0.5, 0.2], "ma": [0.4]}),
    ((0, 1, 1), (0, 1, 1, 12), {"ma": [-0.4], "seasonal_ma": [-0.55]}),
    ((1, 1, 0), (1, 0, 1, 4), {"ar": [-0.3], "seasonal_ar": [0.6], "seasonal_ma": [0.2]}),
    ((1, 2, 2), (0, 1, 0, 3), {"ar": [0.4], "ma": [-0.5, 0.1]}),
    ((3, 0, 0), (0, 0, 0, 0), {"ar": [0.4, -0.3, 0.2]}),
]


def names(params):
    return {"ar": (), "ma": (), "seasonal_ar": (), "seasonal_ma": ()} | params


@pytest.mark.parametrize(("order", "seasonal", "params"), SPECIFICATIONS, ids=str)
def test_likelihood_equals_statsmodels(order, seasonal, params):
    rng = np.random.default_rng(0)
    y, X = rng.normal(size=80).cumsum(), rng.normal(size=(80, 2))
    params = names(params)
    given = np.concatenate([params[key] for key in ("ar", "ma", "seasonal_ar", "seasonal_ma")] + [[1.3]])
    for u, beta in ((None, []), (X, [0.7, -2.0])):
        peer = sm.tsa.SARIMAX(y, u, order=order, seasonal_order=seasonal, simple_differencing=True)
        model = arima(order, seasonal).with_params(**params, variance=1.3, regression=beta)
        assert model.log_likelihood(y, u) == pytest.approx(peer.loglike(np.append(beta, given)), rel=1e-9)
    root = arima(order, seasonal, form="square_root").with_params(**params, variance=1.3)
    assert root.log_likelihood(y) == pytest.approx(peer_without(y, order, seasonal, given), rel=1e-9)


def peer_without(y, order, seasonal, given):
    return sm.tsa.SARIMAX(y, order=order, seasonal_order=seasonal, simple_differencing=True).loglike(given)


@pytest.mark.parametrize(("order", "seasonal", "params"), SPECIFICATIONS[1:4], ids=str)
def test_missing_values_equal_dense_conditioning(order, seasonal, params):
    rng = np.random.default_rng(1)
    # short, because the oracle inverts the covariance of integrated noise
    y = rng.normal(size=30).cumsum()
    y[[0, 4, 5, 18, 21]] = np.nan
    model = arima(order, seasonal).with_params(**names(params), variance=0.7)
    s = model.system_
    longer = np.append(y, [np.nan] * 6)[:, np.newaxis]
    dense = DenseGaussian(
        longer, s.transition, s.observation, s.process_noise, s.observation_noise, s.initial_mean,
        s.initial_covariance, s.initial_diffuse,
    )  # fmt: skip
    m = s.initial_diffuse.shape[1]
    expected = dense.log_likelihood + 0.5 * m * np.log(2 * np.pi)
    assert model.log_likelihood(y) == pytest.approx(expected, rel=1e-9)
    result = model.forecast(y, 6)
    for h in range(6):
        mean, V = dense.output(30 + h)
        np.testing.assert_allclose(result.mean[h], mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(result.covariance[h], V, rtol=1e-5)
    likelihood = ArimaLikelihood(arima(order, seasonal), y[:, np.newaxis], np.zeros((30, 0)))
    assert likelihood.gradient(theta_of(params, 0.7))[0] == pytest.approx(expected, rel=1e-9)


def theta_of(params, variance):
    params = names(params)
    parts = [coefficients_to_partial(np.array(params[key]) * (1 if key.endswith("ar") else -1))
             for key in ("ar", "ma", "seasonal_ar", "seasonal_ma")]  # fmt: skip
    return np.append(np.concatenate(parts), 0.5 * np.log(variance))


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize(("order", "seasonal", "params"), SPECIFICATIONS, ids=str)
def test_gradient_equals_central_differences(order, seasonal, params, missing):
    rng = np.random.default_rng(2)
    y, X = rng.normal(size=(60, 1)).cumsum(axis=0), rng.normal(size=(60, 1))
    y += 3 * X
    if missing:
        y[[2, 20, 21]] = np.nan
    likelihood = ArimaLikelihood(arima(order, seasonal), y, X)
    theta = theta_of(params, 1.2)
    _, gradient = likelihood.gradient(theta)
    for j in range(len(theta)):
        shift = np.zeros(len(theta))
        shift[j] = 1e-3
        values = [likelihood.gradient(theta + k * shift)[0] for k in (1, -1, 2, -2)]
        assert gradient[j] == pytest.approx(np.dot(values, [8, -8, -1, 1]) / 12e-3, rel=1e-8, abs=1e-7)


def test_fits_are_at_least_as_good_as_statsmodels():
    import warnings

    rng = np.random.default_rng(3)
    e = rng.normal(size=300)
    y = np.cumsum(e[1:] + 0.6 * e[:-1]) + 0.02 * np.arange(299)
    X = rng.normal(size=(299, 2))
    for order, seasonal, u in (
        ((1, 1, 1), (0, 0, 0, 0), None),
        ((2, 1, 1), (1, 0, 0, 4), X),
        ((0, 1, 2), (0, 0, 0, 0), X),
    ):
        model = arima(order, seasonal).fit(y, u)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peer = sm.tsa.SARIMAX(y, u, order=order, seasonal_order=seasonal, simple_differencing=True).fit(disp=False)
        assert model.converged_
        assert model.log_likelihood_ >= peer.llf - 1e-6


def test_regression_and_trend_are_recovered():
    rng = np.random.default_rng(4)
    X = rng.normal(size=(400, 2)) * [1.0, 1e-3]
    y = 0.5 * np.arange(1, 401) + X @ [2.0, 3000.0] + rng.normal(size=400).cumsum()
    y[[7, 100]] = np.nan
    model = arima((0, 1, 0), trend="c").fit(y, X)
    params = model.params_
    assert list(params.index) == ["trend", "u[0]", "u[1]", "variance"]
    gap = (params["estimate"] - [0.5, 2.0, 3000.0, 1.0]) / params["standard_error"]
    assert (gap.abs() < 3).all()
    assert params["standard_error"].notna().all()
    assert model.log_likelihood(y, X) == pytest.approx(model.log_likelihood_, abs=1e-7)
    ahead = model.forecast(y, 2, np.vstack([X, [[0.0, 0.0], [1.0, 0.0]]]))
    step = ahead.mean[1, 0] - ahead.mean[0, 0]
    assert step == pytest.approx(params["estimate"]["trend"] + params["estimate"]["u[0]"], rel=1e-9)


def test_simple_differencing_loses_what_follows_a_missing_value(airline):
    y = airline.copy()
    y[60] = np.nan
    exact, simple = arima(*AIRLINE).fit(y), arima(*AIRLINE, differencing="simple").fit(y)
    assert abs(exact.params_["estimate"]["ma[1]"] - simple.params_["estimate"]["ma[1]"]) > 1e-4
    whole, same = arima(*AIRLINE).fit(airline), arima(*AIRLINE, differencing="simple").fit(airline)
    np.testing.assert_array_equal(whole.params_, same.params_)


def test_the_unit_of_y_only_changes_the_variance(airline):
    plain, large = arima(*AIRLINE).fit(airline), arima(*AIRLINE).fit(airline * 1e6 + 1e9)
    np.testing.assert_allclose(large.params_["estimate"].iloc[:2], plain.params_["estimate"].iloc[:2], atol=1e-4)
    assert large.params_["estimate"].iloc[2] == pytest.approx(1e12 * plain.params_["estimate"].iloc[2], rel=1e-4)


def test_partial_autocorrelations_and_back():
    rng = np.random.default_rng(0)
    for p in range(7):
        x = rng.normal(size=p)
        coefficients = partial_to_coefficients(x)
        roots = np.roots(np.append(1.0, -coefficients))
        assert (np.abs(roots) < 1).all()
        np.testing.assert_allclose(coefficients_to_partial(coefficients), x, rtol=1e-9)


def test_wrong_input_is_refused(airline):
    for arguments, message in (
        (((1, -1, 0),), "order must hold"),
        (((1, 0),), "order must hold"),
        (((0, 1, 1), (0, 1, 1, 1)), "period"),
    ):
        with pytest.raises(ValueError, match=message):
            arima(*arguments)
    for options, message in (({"trend": "t"}, "trend must"), ({"differencing": "no"}, "differencing must")):
        with pytest.raises(ValueError, match=message):
            arima((1, 0, 0), **options)
    with pytest.raises(NotFittedError, match="fit"):
        arima(*AIRLINE).forecast(airline, 3)
    with pytest.raises(ValueError, match="unit circle"):
        arima((1, 0, 0)).with_params(ar=[1.2], variance=1.0)
    with pytest.raises(ValueError, match="too few"):
        arima(*AIRLINE).fit(airline[:14])
    with pytest.raises(ValueError, match="constant"):
        arima((1, 0, 0)).fit(np.ones(50))
    with pytest.raises(ValueError, match="collinear"):
        arima((0, 1, 1)).fit(airline, np.ones(144))
    with pytest.raises(ValueError, match="regressors: give"):
        arima((0, 1, 1)).fit(airline).forecast(airline, 1, np.ones(145))


@pytest.mark.parametrize(("order", "seasonal", "params"), SPECIFICATIONS, ids=str)
def test_the_quick_recursion_equals_the_filter(order, seasonal, params):
    rng = np.random.default_rng(5)
    y, X = rng.normal(size=(120, 1)).cumsum(axis=0), rng.normal(size=(120, 2))
    quick, general = (ArimaLikelihood(arima(order, seasonal), y, X) for _ in range(2))
    general._complete = False
    theta = theta_of(params, 1.7)
    assert quick._quick(theta) is not None
    (value, slope), (expected, expected_slope) = quick.gradient(theta), general.gradient(theta)
    assert value == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(slope, expected_slope, rtol=1e-9, atol=1e-9)
    for ours, theirs in zip(quick.regression(theta), general.regression(theta), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    assert quick._concentrated(theta)[0] == pytest.approx(general._concentrated(theta)[0], rel=1e-10)
