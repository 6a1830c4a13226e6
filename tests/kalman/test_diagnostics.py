"""Residual tests: the textbook's numbers, statsmodels, and what is missing."""

import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from statespace.kalman import LocalLevel
from statespace.kalman.binding import Binding
from statespace.kalman.diagnostics import (
    autocorrelation,
    heteroscedasticity,
    jarque_bera,
    ljung_box,
    standardized_innovations,
)
from statespace.kernels.kalman_filter import kalman_filter

E = np.random.default_rng(0).normal(size=99)


def innovations(y, gaps):
    return standardized_innovations(Binding(LocalLevel(1469.1), gaps)._call(kalman_filter, y, 15099.0))


def test_nile(data_path):
    y = pd.read_csv(data_path("classic_univariate/nile.csv"))["volume"].to_numpy(float)
    e = innovations(y, np.r_[0.0, np.ones(99)])
    assert np.isnan(e[0])
    assert np.isfinite(e[1:]).all()
    # Durbin & Koopman (2012), section 2.12.3, as printed there.
    normal, q, h = jarque_bera(e), ljung_box(e, 9), heteroscedasticity(e)
    assert [round(normal.skewness, 2), round(normal.kurtosis - 3, 2), round(normal.statistic, 2)] == [-0.03, 0.09, 0.05]
    assert (round(q.statistic, 2), q.degrees_of_freedom) == (8.84, 9)
    assert (round(h.statistic, 2), h.degrees_of_freedom) == (0.61, (33, 33))
    assert ljung_box(e).degrees_of_freedom == 9


def test_splitting_a_gap_by_missing_samples_changes_nothing():
    rng = np.random.default_rng(1)
    gaps = np.r_[0.0, rng.exponential(size=59)]
    y = 100 * np.cumsum(rng.normal(size=60))
    y[[7, 8, 30]] = np.nan
    whole = innovations(y, gaps)
    split_gaps = np.insert(gaps / 2, np.arange(60), gaps / 2)
    split = innovations(np.insert(y, np.arange(60), np.nan), split_gaps)
    np.testing.assert_allclose(split[1::2], whole, rtol=1e-12)
    for test in (ljung_box, jarque_bera, heteroscedasticity):
        np.testing.assert_allclose(np.hstack(test(split)), np.hstack(test(whole)), rtol=1e-9)


def test_equal_statsmodels_and_scipy():
    diagnostic = pytest.importorskip("statsmodels.stats.diagnostic")
    lags = [1, 5, 12]
    theirs = diagnostic.acorr_ljungbox(E, lags=lags, model_df=1)
    ours = ljung_box(E, lags, n_parameters=1)
    np.testing.assert_allclose(ours.statistic, theirs["lb_stat"], rtol=1e-12)
    np.testing.assert_allclose(ours.p_value, theirs["lb_pvalue"], rtol=1e-12)
    np.testing.assert_array_equal(ours.degrees_of_freedom, [0, 4, 11])
    assert np.isnan(ours.p_value[0])
    normal = jarque_bera(E)
    np.testing.assert_allclose(normal[:2], stats.jarque_bera(E), rtol=1e-12)
    assert normal.skewness == pytest.approx(stats.skew(E), rel=1e-12)
    assert normal.kurtosis == pytest.approx(stats.kurtosis(E, fisher=False), rel=1e-12)


def test_heteroscedasticity_is_tested_to_both_sides():
    one, other = heteroscedasticity(E, 20), heteroscedasticity(E[::-1], 20)
    assert one.statistic == pytest.approx(1 / other.statistic)
    assert one.p_value == pytest.approx(other.p_value)
    rng = np.random.default_rng(3)
    p_values = [heteroscedasticity(rng.normal(size=60)).p_value for _ in range(2000)]
    assert np.mean(np.array(p_values) < 0.1) == pytest.approx(0.1, abs=0.02)


def test_long_series_take_the_same_autocorrelation():
    long = np.random.default_rng(2).normal(size=5001)
    d = long - long.mean()
    expected = [d[j:] @ d[:-j] / (d @ d) for j in range(1, 31)]
    np.testing.assert_allclose(autocorrelation(long, 30), expected, atol=1e-13)


def test_vector_innovations_become_independent():
    rng = np.random.default_rng(4)
    root = rng.normal(size=(3, 3))
    F = np.stack([root @ root.T, root @ root.T, np.diag([np.inf, 1.0, 4.0])])
    v = np.array([[1.0, 2.0, 3.0], [1.0, np.nan, 3.0], [5.0, 1.0, 4.0]])
    e = standardized_innovations(SimpleNamespace(innovation=v, innovation_covariance=F))
    assert e[0] @ e[0] == pytest.approx(v[0] @ np.linalg.solve(F[0], v[0]))
    kept = [0, 2]
    assert np.isnan(e[1, 1])
    assert e[1, kept] @ e[1, kept] == pytest.approx(v[1, kept] @ np.linalg.solve(F[1][np.ix_(kept, kept)], v[1, kept]))
    np.testing.assert_allclose(e[2], [np.nan, 1.0, 2.0])


def test_constant_residuals_say_nothing_and_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(ljung_box(np.full(20, 0.1)).statistic)
        assert np.isnan(jarque_bera(np.full(20, 0.1)).statistic)
        assert np.isnan(heteroscedasticity(np.zeros(20)).p_value)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ljung_box(E, 99), "between 1 and n − 1 = 98"),
        (lambda: ljung_box(E, [0, 3]), "Got 0"),
        (lambda: ljung_box(E, 2.5), "whole number or a sequence"),
        (lambda: ljung_box(E, n_parameters=-1), "n_parameters must be"),
        (lambda: ljung_box(E[:, np.newaxis]), "one series at a time"),
        (lambda: jarque_bera([1.0, np.inf, 0.0]), r"residuals\[1\] is not"),
        (lambda: jarque_bera([1.0]), "needs two residuals"),
        (lambda: heteroscedasticity(E, 50), "between 1 and n/2 = 49.5"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
