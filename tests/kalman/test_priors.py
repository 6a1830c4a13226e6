"""Priors: their density, the posterior's gradient, and standard errors from its curvature."""

import numpy as np
import pytest
import scipy.stats
from sklearn.base import clone

import statespace
from statespace import KalmanRegressor
from statespace.kalman import LocalLevel, LogNormal, Matern

RNG = np.random.default_rng(0)
T = np.cumsum(RNG.exponential(size=60))
Y = np.sin(T) + 0.1 * RNG.normal(size=60)
PRIORS = {"length_scale": LogNormal(3.0, 0.2), "noise_variance": LogNormal(0.02, 1.0)}


def test_the_density_is_the_lognormals():
    prior = LogNormal(median=2.0, sigma=0.5)
    values = np.array([0.3, 2.0, 9.0])
    # That of the logarithm: without the 1/v.
    expected = scipy.stats.lognorm(s=0.5, scale=2.0).logpdf(values) + np.log(values)
    np.testing.assert_allclose([prior.log_density(np.log(v)) for v in values], expected)


def test_the_maximum_is_that_of_the_posterior():
    gp = KalmanRegressor(Matern(1.5), priors=PRIORS).fit(T[:, None], Y)
    plain = KalmanRegressor(Matern(1.5)).fit(T[:, None], Y)
    value, gradient = gp.log_marginal_likelihood(gp.theta_, eval_gradient=True)
    # What is reported is the likelihood.
    assert value == gp.log_marginal_likelihood_value_ == pytest.approx(plain.log_marginal_likelihood(gp.theta_))
    assert value < plain.log_marginal_likelihood_value_
    pull = np.zeros(3)
    for j, prior in ((0, PRIORS["length_scale"]), (2, PRIORS["noise_variance"])):
        pull[j] = (np.log(prior.median) - gp.theta_[j]) / prior.sigma**2
    np.testing.assert_allclose(gradient + pull, 0.0, atol=1e-2)
    between = np.sort([plain.process_.length_scale, 3.0])
    assert between[0] < gp.process_.length_scale < between[1]
    errors = gp.params_["standard_error"] / gp.params_["estimate"]
    assert errors["length_scale"] < 0.2


def test_the_gradient_of_the_objective():
    gp = KalmanRegressor(Matern(1.5), priors=PRIORS).fit(T[:, None], Y)
    objective = gp._estimation.objective
    theta = gp.theta_ - gp._estimation.shift + 0.3
    _, ours = objective.gradient(theta)
    step = 1e-3 * np.eye(3)
    f = objective.value
    truth = [(8 * (f(theta + h) - f(theta - h)) - f(theta + 2 * h) + f(theta - 2 * h)) / 12e-3 for h in step]
    np.testing.assert_allclose(ours, truth, rtol=1e-7)


def test_without_data_the_median_is_the_estimate():
    gp = KalmanRegressor(LocalLevel(), noise_variance=1.0, priors={"variance": LogNormal(4.0, 0.7)}).fit([[0.0]], [1.0])
    assert gp.process_.variance == pytest.approx(4.0, rel=1e-4)
    assert gp.params_.loc["variance", "standard_error"] == pytest.approx(4.0 * 0.7, rel=1e-3)


def test_clones_and_files_keep_them(tmp_path):
    gp = KalmanRegressor(Matern(1.5), priors=PRIORS)
    assert clone(gp).priors == PRIORS
    gp.fit(T[:, None], Y).save(tmp_path / "model")
    again = statespace.load(tmp_path / "model")
    assert again.priors == PRIORS
    np.testing.assert_allclose(again.params_["standard_error"], gp.params_["standard_error"], rtol=1e-10)


@pytest.mark.parametrize(
    ("priors", "words"),
    [
        ({"lengthscale": LogNormal(1.0, 1.0)}, "no free parameter 'lengthscale'.*'length_scale', 'variance'"),
        ({"variance": 3.0}, r"must be LogNormal\(median, sigma\). Got 3.0"),
        ({"variance": LogNormal(-1.0, 1.0)}, "median of the prior of variance must be a positive number"),
        ([1.0], "priors must be a dict"),
    ],
)
def test_bad_priors_are_refused(priors, words):
    with pytest.raises(ValueError, match=words):
        KalmanRegressor(Matern(1.5), priors=priors).fit(T[:, None], Y)
