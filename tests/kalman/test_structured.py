"""Vector autoregressions and dynamic factors against statsmodels' likelihoods at given parameters."""

import numpy as np
import pytest
import statsmodels.api as sm
from sklearn.exceptions import NotFittedError

from statespace.kalman import dynamic_factor, vector_autoregression


def series(missing=0.0, seed=0, T=150):
    rng = np.random.default_rng(seed)
    A = np.array([[0.5, 0.1], [-0.2, 0.6]])
    x, y = np.zeros(2), []
    for _ in range(T):
        x = A @ x + rng.normal(size=2) * [1.0, 2.0] + [1.0, 0.0]
        y.append(x)
    y = np.array(y)
    y[rng.random(y.shape) < missing] = np.nan
    return y


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_autoregression_has_the_likelihood_of_statsmodels(missing):
    y = series(missing)
    coefficients = np.array([[[0.5, 0.1], [-0.1, 0.3]], [[0.1, 0.0], [0.05, 0.2]]])
    L = np.array([[1.1, 0.0], [0.3, 1.9]])
    intercept = np.array([0.7, -0.1])
    peer = sm.tsa.VARMAX(y, order=(2, 0), trend="c", measurement_error=True)
    given = np.concatenate(
        [intercept, np.concatenate(list(coefficients), axis=1).ravel(), L[np.tril_indices(2)], [0.2, 0.3]]
    )
    model = vector_autoregression(2, measurement_noise=True).with_params(
        coefficients, L @ L.T, intercept=intercept, noise_variance=[0.2, 0.3]
    )
    # statsmodels parametrises measurement errors by their standard deviations' squares in this order
    peer_value = peer.loglike(given)
    assert model.log_likelihood(y) == pytest.approx(peer_value, rel=1e-8)


@pytest.mark.parametrize("error_order", [0, 1])
def test_factors_have_the_likelihood_of_statsmodels(error_order):
    rng = np.random.default_rng(1)
    y = rng.normal(size=(80, 3))
    y[rng.random(y.shape) < 0.1] = np.nan
    loadings, coefficients = np.array([[1.0, 0.0], [0.5, 0.7], [-0.4, 0.2]]), np.array([[[0.5, 0.1], [0.0, -0.3]]])
    variances, own = np.array([0.5, 0.8, 1.2]), np.array([[0.3, -0.2, 0.5]])[:error_order]
    peer = sm.tsa.DynamicFactor(y, k_factors=2, factor_order=1, error_order=error_order)
    given = np.concatenate([loadings.ravel(), variances, coefficients.ravel(), own.ravel()])
    model = dynamic_factor(2, error_order=error_order, trend=None).with_params(
        loadings, coefficients, variances, error_coefficients=own
    )
    assert model.log_likelihood(y) == pytest.approx(peer.loglike(given), rel=1e-8)


@pytest.mark.parametrize("options", [{}, {"start": "diffuse"}, {"measurement_noise": True}], ids=str)
def test_autoregression_fits(options):
    y = series(0.05, T=300)
    model = vector_autoregression(1, **options).fit(y)
    assert model.converged_
    assert model.log_likelihood(y) == pytest.approx(model.log_likelihood_, rel=1e-10)
    np.testing.assert_allclose(model.coefficients_[0], [[0.5, 0.1], [-0.2, 0.6]], atol=0.25)
    assert model.params_["standard_error"].notna().all()
    ahead = model.forecast(y, 200)
    np.testing.assert_allclose(ahead.mean[-1], np.nanmean(y, axis=0), atol=1.5)


def test_autoregression_by_em_ends_at_maximum_likelihood():
    y = series(0.1)
    ml = vector_autoregression(1, start="diffuse").fit(y, standard_errors=False)
    em = vector_autoregression(1, start="diffuse").fit(
        y, method="em", tolerance=1e-12, max_iter=5000, standard_errors=False
    )
    assert np.diff(em.history_).min() > -1e-8
    assert em.log_likelihood_ == pytest.approx(ml.log_likelihood_, abs=1e-5)


@pytest.mark.parametrize("error_order", [0, 1])
def test_factors_fit_whatever_the_units(error_order):
    rng = np.random.default_rng(2)
    f = rng.normal(size=250)
    for t in range(1, 250):
        f[t] += 0.8 * f[t - 1]
    y = np.outer(f, [1.0, 2.0, -1.0, 0.5]) + rng.normal(size=(250, 4))
    y[rng.random(y.shape) < 0.1] = np.nan
    units = np.array([1.0, 1e3, 1e-3, 10.0])
    plain = dynamic_factor(1, error_order=error_order).fit(y)
    other = dynamic_factor(1, error_order=error_order).fit(y * units + [0.0, 1e4, 0.0, -5.0])
    assert plain.converged_
    assert other.converged_
    np.testing.assert_allclose(plain.loadings_[:, 0], [1.0, 2.0, -1.0, 0.5], atol=0.35)
    np.testing.assert_allclose(other.loadings_[:, 0], plain.loadings_[:, 0] * units, rtol=1e-3)
    if error_order == 0:
        peer = sm.tsa.DynamicFactor(y - np.nanmean(y, axis=0), k_factors=1, factor_order=1).fit(disp=False)
        assert plain.log_likelihood_ >= peer.llf - 1e-6


def test_wrong_input_is_refused():
    y = series()
    for call, message in (
        (lambda: vector_autoregression(0), "order must"),
        (lambda: dynamic_factor(0), "n_factors must"),
        (lambda: vector_autoregression(1, start="vague"), "start must"),
        (lambda: dynamic_factor(3).fit(y), "as many series"),
        (lambda: dynamic_factor(1, error_order=-1), "error_order must"),
        (lambda: vector_autoregression(1).fit(y * [1.0, np.nan]), "series 1 of y has no observation"),
        (lambda: vector_autoregression(2).with_params(np.eye(2), np.eye(2)), "coefficients must have shape"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(NotFittedError):
        vector_autoregression(1).forecast(y, 3)


def test_models_survive_a_file(tmp_path):
    import statespace
    from statespace.kalman import LinearGaussianModel, arima
    from statespace.persistence import save

    y = series(0.1)
    explicit = LinearGaussianModel([[0.5]], [[1.0]], [[1.0]], [[1.0]], initial_covariance="stationary")
    for model, record in (
        (explicit, y[:, 0]),
        (explicit.fit(y[:, 0]), y[:, 0]),
        (LinearGaussianModel(np.ones((149, 1, 1)), [[1.0]], [[1.0]], [[1.0]]), y[:, 0]),
        (vector_autoregression(1).fit(y), y),
        (dynamic_factor(1, error_order=1).fit(y), y),
        (arima((1, 1, 1), trend="c").fit(y[:, 0]), y[:, 0]),
    ):
        save(model, tmp_path / "model")
        again = statespace.load(tmp_path / "model")
        assert type(again) is type(model)
        for ours, theirs in zip(again.filter(record), model.filter(record), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        if "params_" in vars(model):
            assert again.params_.equals(model.params_)
    with pytest.raises(NotFittedError, match="fit first"):
        save(arima((1, 0, 0)), tmp_path / "model")
