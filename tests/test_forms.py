"""Forms in which data come: what a masked array hides is missing at every door, and what cannot be read is named."""

import warnings

import numpy as np
import pandas as pd
import pytest

from statespace import HiPPOMemory, KalmanRegressor, S4DClassifier, S4DRegressor, SeriesCollection
from statespace.forecasting import KalmanForecaster, S4DForecaster
from statespace.kalman import LinearGaussianModel, LocalLevel, LocalTrend, Matern, arima
from statespace.kalman.nonlinear import ExtendedKalmanFilter, NonlinearModel
from statespace.lti import LTIFilter, LTIRegressor
from statespace.transformations import KalmanSmoother

TINY = {"d_model": 4, "n_layers": 1, "d_state": 4, "max_epochs": 1, "random_state": 0, "device": "cpu"}
rng = np.random.default_rng(0)
TIMES = np.cumsum(rng.exponential(size=(8, 10)) + 0.1, axis=1)
VALUES = rng.normal(size=(8, 10))
HIDDEN = rng.uniform(size=(8, 10)) < 0.3
MASKED, MISSING = np.ma.array(VALUES, mask=HIDDEN), np.where(HIDDEN, np.nan, VALUES)


def walk():
    return NonlinearModel(
        drift=lambda x: -x, diffusion=[[0.5]], observation=lambda x: x, observation_noise=[0.1], initial_mean=[0.0],
        initial_covariance=[[1.0]],
    )  # fmt: skip


DOORS = {
    "regressor, X": lambda v: S4DRegressor(**TINY).fit(v, np.arange(8.0)).predict(v),
    "regressor, X of channels": lambda v: S4DRegressor(**TINY).fit(v[:, :, None], np.arange(8.0)).predict(MISSING),
    "regressor, list": lambda v: S4DRegressor(**TINY).fit(list(v[:, :, None]), np.arange(8.0)).predict(MISSING),
    "regressor, y": lambda v: S4DRegressor(**TINY).fit(VALUES, v).predict(VALUES),
    "classifier, y": lambda v: S4DClassifier(**TINY).fit(VALUES, np.sign(v)).predict_proba(VALUES),
    "collection": lambda v: np.concatenate(SeriesCollection(v).values),
    "Kalman, y": lambda v: KalmanRegressor(Matern()).fit(TIMES[0][:, None], v[0]).predict(TIMES[0][:, None]),
    "matrices": lambda v: LinearGaussianModel([[1.0]], [[1.0]], [[0.1]], [[0.1]]).filter(v[0]).log_likelihood,
    "functions": lambda v: ExtendedKalmanFilter(walk()).filter(v[0], times=TIMES[0]).log_likelihood,
    "filter": lambda v: LTIFilter(order=2, cutoff=0.1).fit_transform(v, times=TIMES),
    "memory": lambda v: HiPPOMemory(n_coefficients=4).fit_transform(v, times=TIMES),
    "identification, y": lambda v: LTIRegressor(1, max_iter=2).fit(VALUES.reshape(-1, 1), v.ravel()).poles_,
}


@pytest.mark.parametrize("door", DOORS)
def test_what_a_mask_hides_is_missing(door):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(DOORS[door](MASKED), DOORS[door](MISSING))


def test_masked_times_are_refused():
    with pytest.raises(ValueError, match=r"`times` of series 1 must be finite: times\[2\] is masked"):
        SeriesCollection(VALUES[:2], times=[TIMES[0], np.ma.array(TIMES[1], mask=np.arange(10) == 2)])
    with pytest.raises(ValueError, match=r"X\[2, 0\], which is a time"):
        KalmanRegressor().fit(np.ma.array(TIMES[0], mask=np.arange(10) == 2)[:, None], VALUES[0])


def test_more_axes_than_series_times_and_channels():
    with pytest.raises(ValueError, match=r"at most 3 axes, .*, got shape \(1, 8, 10, 1\)"):
        S4DRegressor(**TINY).fit(VALUES[None, :, :, None], np.arange(8.0))


def test_series_in_cells_are_no_table():
    nested = pd.DataFrame({"a": [pd.Series(row) for row in VALUES]})
    with pytest.raises(ValueError, match=r"nested format.*convert_to\(X, 'pd-multiindex'\)"):
        S4DRegressor(**TINY).fit(nested, np.arange(8.0))


@pytest.mark.parametrize("index", [pd.date_range("2024", periods=8), np.linspace(0.0, 3.0, 8)])
@pytest.mark.parametrize("fit", [LTIFilter().fit, lambda X: S4DRegressor(**TINY).fit(X, np.arange(8.0))])
def test_a_table_over_time_is_one_series(fit, index):
    """To scikit-learn it would be eight samples: eight series of ten steps, where one of eight steps was meant."""
    with pytest.raises(ValueError, match=r"X is a DataFrame with a.* which is one series. Give a list of them, \[X\]"):
        fit(pd.DataFrame(VALUES, index=index))


@pytest.mark.parametrize(
    "fit",
    [
        lambda y: LinearGaussianModel([[1.0]], [[1.0]], [[1.0]], [[1.0]]).filter(y),
        lambda y: arima((0, 1, 1)).fit(y),
        lambda y: LTIRegressor(1).fit(VALUES[0][:, None], y),
        lambda y: KalmanRegressor(LocalLevel()).fit(np.arange(10.0)[:, None], y),
        lambda y: KalmanRegressor(LocalLevel()).fit(np.arange(10.0)[:, None], VALUES[0]).stream().extend(y),
    ],
)
@pytest.mark.parametrize("y", [VALUES[0].astype(str), np.arange(10).astype("datetime64[D]")])
def test_text_and_datetimes_are_no_numbers(fit, y):
    with pytest.raises(ValueError, match=r"y must hold numbers|Convert your data to numeric values"):
        fit(y)


def test_columns_of_times_in_the_wrong_place_or_as_text():
    clock = pd.date_range("2024", periods=10)
    with pytest.raises(ValueError, match=r"the column 'when' holds them. Give X.set_index\('when'\)"):
        KalmanRegressor(LocalLevel()).fit(pd.DataFrame({"u": VALUES[0], "when": clock}), VALUES[0])
    with pytest.raises(ValueError, match="text such as '2024-01-01' in the first column of X"):
        KalmanRegressor(LocalLevel()).fit(pd.DataFrame({"when": clock.astype(str)}), VALUES[0])


def test_targets_that_name_the_series_in_another_order():
    index = pd.MultiIndex.from_product([list("badc"), range(5)])
    X = pd.DataFrame({"u": np.arange(20.0)}, index=index)
    y = pd.Series(np.arange(4.0), index=list("abcd"))
    for estimator, targets in ((S4DRegressor(**TINY), y), (S4DClassifier(**TINY), y.astype(str))):
        with pytest.raises(ValueError, match=r"y\[0\] is of series 'a', X\[0\] of 'b'. Give y.loc\[\['b', 'a'"):
            estimator.fit(X, targets)
    S4DRegressor(**TINY).fit(X, y.loc[list("badc")])
    S4DRegressor(**TINY).fit(X, y.reset_index(drop=True))  # an index of other names says nothing


EMPTY = pd.Series([], index=pd.DatetimeIndex([]), dtype=float)
FINITE = pd.Series(np.arange(12.0), index=pd.date_range("2024", periods=12))


@pytest.mark.parametrize("fit", [
    KalmanForecaster(LocalTrend()).fit, S4DForecaster(**TINY).fit, KalmanSmoother(LocalLevel()).fit_transform,
])  # fmt: skip
def test_series_without_samples(fit):
    with pytest.raises(ValueError, match="a series without samples"):
        fit(EMPTY)


def test_infinities_are_refused_before_training():
    y = FINITE.copy()
    y.iloc[3] = np.inf
    with pytest.raises(ValueError, match="Input y contains infinity"):
        S4DForecaster(**TINY).fit(y)
    with pytest.raises(ValueError, match="Input X contains infinity"):
        S4DForecaster(**TINY).fit(FINITE, X=y.to_frame("u"))


@pytest.mark.parametrize("order", [65, 10])
def test_an_order_that_no_record_can_tell(order):
    with pytest.raises(ValueError, match=f"at most 64. Got 65|order={order} needs more known values of y than that"):
        LTIRegressor(order).fit(VALUES[0][:, None], VALUES[1])


def test_a_scalar_is_no_matrix():
    with pytest.raises(ValueError, match=r"transition must be a matrix of shape \(n, n\), \[\[1.0\]\] for one state"):
        LinearGaussianModel(1.0, 1.0, 0.1, 0.1)
