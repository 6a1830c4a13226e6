"""Many series in one call equal a loop over them, whatever form they come in."""

import copy
import json
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

import statespace
from statespace import KalmanRegressor, SeriesCollection
from statespace.kalman import LocalLevel, LocalTrend, Matern, OrnsteinUhlenbeck, Regression, Seasonal

LENGTHS = (40, 1, 17, 60)
PROCESS = LocalTrend(0.5, 0.1) + Matern(1.5, 2.0, 3.0)
KNOWN = {"noise_variance": 0.4, "optimizer": None}


def series(lengths=LENGTHS, seed=0, n_covariates=0):
    """Ragged, irregular, unsorted, with missing values and a level of their own."""
    rng = np.random.default_rng(seed)
    X, y = [], []
    for i, n in enumerate(lengths):
        t = rng.uniform(0.0, 20.0, n) + 3.0 * i
        t[n // 2] = t[0]
        x = rng.normal(size=(n, n_covariates))
        values = np.sin(t) + 10.0 * i + rng.normal(size=n) + x.sum(axis=1)
        values[1::7] = np.nan
        X.append(np.column_stack([t, x]))
        y.append(values)
    return X, y


def queries(n_covariates=0, seed=3):
    rng = np.random.default_rng(seed)
    spans = [rng.uniform(3.0 * i - 0.5, 3.0 * i + 25.0, n) for i, n in enumerate((9, 3, 1, 12))]
    return [np.column_stack([t, rng.normal(size=(len(t), n_covariates))]) for t in spans]


def singles(X, y, process=PROCESS, **options):
    return [KalmanRegressor(process, **(KNOWN | options)).fit(a, b) for a, b in zip(X, y, strict=True)]


def assert_all_close(one, other, **tolerance):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


PROCESSES = {
    "trend": (PROCESS, 0),
    "season": (LocalLevel(0.3) + Seasonal(5.0, harmonics=2, variance=0.1), 0),
    "stationary": (OrnsteinUhlenbeck(2.0, 3.0), 0),
    "covariates": (LocalLevel(0.3) + Regression(variance=0.1), 2),
}


@pytest.mark.parametrize("name", PROCESSES)
def test_a_panel_equals_a_loop(name):
    process, n_covariates = PROCESSES[name]
    X, y = series(n_covariates=n_covariates)
    asked = queries(n_covariates)
    together = KalmanRegressor(process, **KNOWN).fit(X, y)
    each = singles(X, y, process)
    value = sum(gp.log_marginal_likelihood_value_ for gp in each)
    assert together.log_marginal_likelihood_value_ == pytest.approx(value, rel=1e-11)
    mean, std = together.predict(asked, return_std=True)
    expected = [gp.predict(rows, return_std=True) for gp, rows in zip(each, asked, strict=True)]
    # Where a series leaves the process open, its mean is any number.
    for m, s, (em, es) in zip(mean, std, expected, strict=True):
        np.testing.assert_allclose(s, es, rtol=1e-9)
        np.testing.assert_allclose(np.where(np.isinf(es), 0, m), np.where(np.isinf(es), 0, em), rtol=1e-9, atol=1e-9)
    tables = [gp.decompose(rows) for gp, rows in zip(each, asked, strict=True)]
    table = together.decompose(asked)
    assert table.index.names == ["series", "time"]
    for i in (0, 2, 3):
        np.testing.assert_allclose(table.loc[i], tables[i], rtol=1e-8, atol=1e-8)
    check_gradient(together)


def test_threads_equal_one_thread(monkeypatch):
    X, y = series(lengths=(30, 5, 17, 60, 1, 44), n_covariates=1)
    answers = []
    for threads in (1, 3):
        monkeypatch.setattr("statespace.kernels.threads.number_of_threads", lambda n=threads: n)
        monkeypatch.setattr("statespace.kernels.threads.OPERATIONS_OF_A_THREAD", 1)
        gp = KalmanRegressor(LocalLevel() + Regression()).fit(X, y)
        answers.append((gp.theta_, *gp.predict(X), *gp.predict(X, return_std=True)[1]))
    for one, other in zip(*answers, strict=True):
        np.testing.assert_array_equal(one, other)


def check_gradient(gp, step=1e-5):
    theta = gp.theta_
    value, gradient = gp.log_marginal_likelihood(theta, eval_gradient=True)
    assert value == pytest.approx(gp.log_marginal_likelihood(theta), rel=1e-12)
    for j in np.ndindex(theta.shape):
        shift = np.zeros(theta.shape)
        shift[j] = step
        difference = gp.log_marginal_likelihood(theta + shift) - gp.log_marginal_likelihood(theta - shift)
        assert gradient[j] == pytest.approx(difference / (2 * step), rel=1e-6, abs=1e-6)


def test_parameters_that_are_shared_maximise_the_sum():
    rng = np.random.default_rng(0)
    X = [np.sort(rng.uniform(0, 30, n))[:, None] for n in (50, 20, 80)]
    y = [np.cumsum(rng.normal(size=len(t))) * 0.5 + 100 * i + rng.normal(size=len(t)) for i, t in enumerate(X)]
    gp = KalmanRegressor(LocalLevel()).fit(X, y)
    assert gp.params_.index.tolist() == ["variance", "noise_variance"]
    _, gradient = gp.log_marginal_likelihood(gp.theta_, eval_gradient=True)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-3)
    best = sum(
        KalmanRegressor(gp.process_, noise_variance=gp.noise_variance_, optimizer=None)
        .fit(a, b).log_marginal_likelihood_value_ for a, b in zip(X, y, strict=True)
    )  # fmt: skip
    assert gp.log_marginal_likelihood_value_ == pytest.approx(best, rel=1e-10)
    check_gradient(gp)


def test_parameters_that_are_separate_equal_fits_one_by_one():
    X, y = series((40, 25, 60))
    gp = KalmanRegressor(LocalLevel() + Matern(), parameters="separate").fit(X, y)
    each = [KalmanRegressor(LocalLevel() + Matern()).fit(a, b) for a, b in zip(X, y, strict=True)]
    np.testing.assert_array_equal(gp.theta_, [one.theta_ for one in each])
    np.testing.assert_array_equal(gp.noise_variance_, [one.noise_variance_ for one in each])
    assert list(gp.processes_.values()) == [one.process_ for one in each]
    assert not hasattr(gp, "process_")
    pd.testing.assert_frame_equal(gp.params_.loc[1], each[1].params_)
    asked = queries()[:3]
    assert_all_close(gp.predict(asked), [one.predict(rows) for one, rows in zip(each, asked, strict=True)])
    noisy = gp.predict(asked, return_std=True, include_noise=True)[1]
    expected = [
        one.predict(rows, return_std=True, include_noise=True)[1] for one, rows in zip(each, asked, strict=True)
    ]
    assert_all_close(noisy, expected)
    assert gp.log_marginal_likelihood_value_ == pytest.approx(sum(o.log_marginal_likelihood_value_ for o in each))
    _, gradient = gp.log_marginal_likelihood(gp.theta_, eval_gradient=True)
    assert gradient.shape == gp.theta_.shape
    assert gp.decompose(asked).loc[2].shape == (len(asked[2]), 4)
    check_gradient(gp)


@pytest.mark.parametrize("backend", ["threading", "loky", "sequential"])
def test_any_backend_of_joblib_gives_the_same_numbers(backend):
    X, y = series((30, 20, 25, 10, 15))
    gp = KalmanRegressor(LocalLevel() + Matern(), parameters="separate", n_restarts_optimizer=1, random_state=0)
    alone = clone(gp).fit(X, y)
    with joblib.parallel_config(backend):
        parallel = clone(gp).set_params(n_jobs=2).fit(X, y)
    # Another process may have compiled its loops anew, and round a sum otherwise; within one all bits are the same.
    tolerance = 1e-9 if backend == "loky" else 0.0
    np.testing.assert_allclose(parallel.theta_, alone.theta_, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(parallel.predict(X)[3], alone.predict(X)[3], rtol=tolerance, atol=tolerance)


def test_dask_gives_the_same_numbers():
    distributed = pytest.importorskip("distributed", reason="dask's distributed is not installed")
    X, y = series((30, 20, 25))
    gp = KalmanRegressor(LocalLevel(), parameters="separate")
    alone = clone(gp).fit(X, y)
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None, worker_dashboard_address=None
    ) as cluster, distributed.Client(cluster), joblib.parallel_config("dask"):  # fmt: skip
        there = clone(gp).fit(X, y)
    np.testing.assert_array_equal(there.theta_, alone.theta_)


def tables(X, y, labels):
    frames = []
    for label, a, b in zip(labels, X, y, strict=True):
        index = pd.MultiIndex.from_product([[label], a[:, 0]], names=["sensor", "time"])
        frames.append(pd.DataFrame(a[:, 1:], index=index, columns=["u", "v"]).assign(y=b))
    return pd.concat(frames)


def test_forms_of_X_are_one():
    X, y = series((12, 5, 9), n_covariates=2)
    X = [a[np.argsort(a[:, 0])] for a in X]
    labels = ["a", "b", "c"]
    process = LocalLevel(0.3) + Regression()
    expected = KalmanRegressor(process, **KNOWN).fit(X, y)
    table = tables(X, y, labels).sample(frac=1.0, random_state=0)
    frame, target = table[["u", "v"]], table["y"]
    asked = [rows[np.argsort(rows[:, 0])] for rows in queries(2)[:3]]
    frames = [pd.DataFrame(a[:, 1:], index=a[:, 0], columns=["u", "v"]) for a in X]
    asked_frames = [pd.DataFrame(a[:, 1:], index=a[:, 0], columns=["u", "v"]) for a in asked]
    by_index = tables(asked, [np.zeros(len(a)) for a in asked], labels)[["u", "v"]]
    collection = SeriesCollection([a[:, 1:] for a in X], times=[a[:, 0] for a in X])
    asked_collection = SeriesCollection([a[:, 1:] for a in asked], times=[a[:, 0] for a in asked])
    mean = expected.predict(asked)
    for given, targets, new in [
        (frames, y, asked_frames),
        (collection, y, asked_collection),
        (collection, SeriesCollection(y, times=collection.times), asked_collection),
        (frame, target, by_index),
        (frame, target.to_numpy(), by_index),
        (frame, list(target), by_index),
        # y is found by its index.
        (frame, target.sort_index(kind="stable"), by_index),
        (frame, target.to_frame(), by_index),
    ]:
        gp = KalmanRegressor(process, **KNOWN).fit(given, targets)
        assert gp.log_marginal_likelihood_value_ == pytest.approx(expected.log_marginal_likelihood_value_, rel=1e-10)
        found = gp.predict(new)
        found = found if isinstance(found, list) else [found]
        np.testing.assert_allclose(np.concatenate(found).ravel(), np.concatenate(mean), rtol=1e-9, atol=1e-12)
    pd.testing.assert_index_equal(gp.decompose(by_index).index, by_index.index)
    assert list(gp.series_) == list(dict.fromkeys(table.index.get_level_values(0)))
    # One of them, by its name.
    np.testing.assert_allclose(gp.predict(asked_frames[1], series="b"), mean[1][:, np.newaxis], rtol=1e-9)
    np.testing.assert_allclose(gp.predict([asked_frames[2]], series=["c"])[0][:, 0], mean[2], rtol=1e-9)


def test_datetimes_of_many_series():
    rng = np.random.default_rng(1)
    days = [np.sort(rng.integers(0, 4000, n)) / 16.0 for n in (20, 30)]
    y = [np.sin(d / 10) for d in days]
    floats = KalmanRegressor(PROCESS, **KNOWN).fit([d[:, None] for d in days], y)
    clocks = [pd.Timestamp("2024-01-15") + pd.to_timedelta(d, unit="D") for d in days]
    panel = pd.MultiIndex.from_arrays([np.repeat([7, 9], [20, 30]), clocks[0].append(clocks[1])])
    forms = [clocks, [c.tz_localize("Europe/Berlin") for c in clocks], [c.to_numpy() for c in clocks], panel]
    forms += [[pd.Series(c) for c in clocks], [pd.DataFrame({"when": c}) for c in clocks]]
    for form in forms:
        gp = KalmanRegressor(PROCESS, **KNOWN).fit(form, np.concatenate(y) if form is panel else y)
        found = gp.predict(form)
        found = found if form is panel else np.concatenate(found)
        expected = np.concatenate(floats.predict([d[:, None] for d in days]))
        if form is not forms[1]:
            np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert list(gp.series_) == [0, 1]


def test_stacked_series_answer_stacked():
    rng = np.random.default_rng(0)
    X, y = rng.uniform(0, 9, size=(3, 15, 1)), rng.normal(size=(3, 15))
    gp = KalmanRegressor(PROCESS, **KNOWN).fit(X, y)
    mean, cov = gp.predict(X[:, :4], return_cov=True)
    assert mean.shape == (3, 4)
    assert cov.shape == (3, 4, 4)
    each = singles(X, y)
    np.testing.assert_allclose(mean[1], each[1].predict(X[1, :4]), rtol=1e-9)
    np.testing.assert_allclose(cov[2], each[2].predict(X[2, :4], return_cov=True)[1], rtol=1e-7, atol=1e-12)
    assert gp.sample_y(X, 5).shape == (3, 15, 5)
    Y = np.stack([y, -y], axis=-1)
    both = KalmanRegressor(PROCESS, **KNOWN).fit(X, Y)
    assert both.predict(X).shape == (3, 15, 2)
    np.testing.assert_allclose(both.predict(X)[..., 1], -gp.predict(X), rtol=1e-9, atol=1e-12)


def test_several_outputs_of_many_series():
    X, y = series((20, 30))
    Y = [np.column_stack([v, -2 * v]) for v in y]
    Y[0][3:9, 1] = np.nan
    gp = KalmanRegressor(PROCESS, **KNOWN).fit(X, Y)
    each = singles(X, Y)
    mean, std = gp.predict(X, return_std=True)
    for i, one in enumerate(each):
        expected = one.predict(X[i], return_std=True)
        np.testing.assert_allclose(mean[i], expected[0], rtol=1e-9)
        np.testing.assert_allclose(std[i], expected[1], rtol=1e-9)
    assert gp.decompose(X).shape == (50, 8)
    assert gp.sample_y(X, 3)[1].shape == (30, 2, 3)


def test_known_noise_of_each_sample():
    X, y = series((20, 30))
    rng = np.random.default_rng(4)
    noise = [rng.uniform(0.1, 1.0, len(v)) for v in y]
    each = [KalmanRegressor(PROCESS, optimizer=None).fit(*data) for data in zip(X, y, noise, strict=True)]
    gp = KalmanRegressor(PROCESS, optimizer=None).fit(X, y, noise_variance=noise)
    assert gp.log_marginal_likelihood_value_ == pytest.approx(
        sum(one.log_marginal_likelihood_value_ for one in each), rel=1e-11
    )
    assert_all_close(gp.predict(X), [one.predict(a) for one, a in zip(each, X, strict=True)], rtol=1e-9)
    # Of each output, too.
    Y = np.column_stack([y[0], y[0]])
    noises = np.column_stack([noise[0], 2 * noise[0]])
    both = KalmanRegressor(PROCESS, optimizer=None).fit(X[0], Y, noise_variance=noises)
    second = KalmanRegressor(PROCESS, optimizer=None).fit(X[0], y[0], noise_variance=2 * noise[0])
    np.testing.assert_allclose(both.predict(X[0])[:, 1], second.predict(X[0]), rtol=1e-10)
    np.testing.assert_allclose(both.predict(X[0])[:, 0], each[0].predict(X[0]), rtol=1e-10)
    values = each[0].log_marginal_likelihood_value_ + second.log_marginal_likelihood_value_
    assert both.log_marginal_likelihood_value_ == pytest.approx(values, rel=1e-11)
    np.testing.assert_array_equal(both.noise_variance_, noises)
    check_gradient(both)


def test_a_new_series_starts_from_the_prior():
    X, y = series((20, 30))
    gp = KalmanRegressor(OrnsteinUhlenbeck(2.0, 3.0), **KNOWN).fit(X, y)
    mean, std = gp.predict([[0.0], [1.0]], series="new", return_std=True)
    np.testing.assert_allclose(mean, 0.0, atol=1e-12)
    np.testing.assert_allclose(std**2, 3.0)
    _, covariance = gp.predict([[0.0], [1.0]], series="new", return_cov=True)
    np.testing.assert_allclose(covariance, 3.0 * np.array([[1.0, np.exp(-0.5)], [np.exp(-0.5), 1.0]]))
    diffuse = KalmanRegressor(LocalLevel(1.0), **KNOWN).fit(X, y)
    assert np.isinf(diffuse.predict([[0.0]], series="new", return_std=True)[1]).all()
    # Two new ones and an old one in one call.
    found = gp.predict([X[1][:3], [[0.0]], [[1.0]]], series=[1, "a", "b"])
    np.testing.assert_allclose(found[0], gp.predict(X)[1][:3])
    own = KalmanRegressor(LocalLevel(), parameters="separate").fit(X, y)
    with pytest.raises(ValueError, match="series 'new' has no parameters"):
        own.predict([[0.0]], series="new")


def test_conditioning_on_other_data_keeps_the_parameters():
    X, y = series((40, 25, 60))
    gp = KalmanRegressor(LocalLevel() + Matern()).fit(X[:2], y[:2])
    before = pickle.dumps(gp)
    other = gp.condition(X[2], y[2])
    assert pickle.dumps(gp) == before
    alone = KalmanRegressor(gp.process_, noise_variance=gp.noise_variance_, optimizer=None).fit(X[2], y[2])
    np.testing.assert_allclose(other.predict(queries()[3]), alone.predict(queries()[3]), rtol=1e-8)
    assert other.log_marginal_likelihood_value_ == pytest.approx(alone.log_marginal_likelihood_value_, rel=1e-9)
    np.testing.assert_array_equal(other.theta_, gp.theta_)
    many = gp.condition(X, y)
    assert many.log_marginal_likelihood_value_ == pytest.approx(
        gp.log_marginal_likelihood_value_ + other.log_marginal_likelihood_value_, rel=1e-9
    )
    known = gp.condition(X[2], y[2], noise_variance=np.full(60, gp.noise_variance_))
    np.testing.assert_allclose(known.predict(queries()[3]), other.predict(queries()[3]), rtol=1e-9)
    own = KalmanRegressor(LocalLevel(), parameters="separate").fit(X, y)
    np.testing.assert_array_equal(own.condition(X, [2 * v for v in y]).theta_, own.theta_)
    with pytest.raises(ValueError, match="name the series of X"):
        own.condition(X[0], y[0])


def test_covariances_and_draws_of_many_series():
    X, y = series((20, 30))
    gp = KalmanRegressor(PROCESS, **KNOWN).fit(X, y)
    asked = queries()[:2]
    each = singles(X, y)
    mean, covariance = gp.predict(asked, return_cov=True, include_noise=True)
    for i in range(2):
        expected = each[i].predict(asked[i], return_cov=True, include_noise=True)
        np.testing.assert_allclose(mean[i], expected[0], rtol=1e-9)
        np.testing.assert_allclose(covariance[i], expected[1], rtol=1e-7, atol=1e-10)
    index = pd.MultiIndex.from_arrays([[0, 1, 0], [1.0, 2.0, 3.0]])
    whole = gp.predict(index, return_cov=True)[1]
    assert whole.shape == (3, 3)
    assert whole[0, 1] == whole[1, 2] == 0.0
    assert whole[0, 2] != 0.0
    drawn = gp.sample_y(asked, 2000, random_state=0)
    np.testing.assert_allclose((drawn[1].mean(axis=1) - mean[1]) / np.sqrt(np.diag(covariance[1])), 0, atol=0.12)


def test_scores_leave_missing_values_out():
    X, y = series((20, 30))
    gp = KalmanRegressor(PROCESS, **KNOWN).fit(X, y)
    seen = [np.isfinite(v) for v in y]
    target = np.concatenate([v[s] for v, s in zip(y, seen, strict=True)])
    predicted = np.concatenate([m[s] for m, s in zip(gp.predict(X), seen, strict=True)])
    expected = 1 - np.sum((target - predicted) ** 2) / np.sum((target - target.mean()) ** 2)
    assert gp.score(X, y) == pytest.approx(expected)
    one = KalmanRegressor(PROCESS, **KNOWN).fit(X[0], y[0])
    assert one.score(X[0], y[0]) == pytest.approx(one.score(X[0][seen[0]], y[0][seen[0]]))


def test_streams_of_a_series():
    X, y = series((20, 30))
    gp, each = KalmanRegressor(PROCESS, **KNOWN).fit(X, y), singles(X, y)
    for i in range(2):
        np.testing.assert_allclose(gp.stream(series=i).step(1.0, 0.3), each[i].stream().step(1.0, 0.3), rtol=1e-10)
    new = gp.stream(from_prior=True)
    new.step(1.0)
    np.testing.assert_allclose(new.step(2.0, 1.0)[0], 2.0)
    with pytest.raises(ValueError, match="say with series="):
        gp.stream()
    with pytest.raises(ValueError, match="series 5 was not in fit"):
        gp.stream(series=5)


@pytest.mark.parametrize("parameters", ["shared", "separate"])
@pytest.mark.parametrize("form", ["list", "table"])
def test_files_hold_many_series(parameters, form, tmp_path):
    X, y = series((20, 30), n_covariates=2)
    gp = KalmanRegressor(LocalLevel() + Regression(), parameters=parameters)
    if form == "table":
        table = tables(X, y, ["a", "b"])
        X, y = table[["u", "v"]], table["y"]
    gp.fit(X, y)
    gp.save(tmp_path / "model")
    again = statespace.load(tmp_path / "model")
    for one, other in zip(gp.predict(X, return_std=True), again.predict(X, return_std=True), strict=True):
        assert_all_close(one, other, rtol=0)
    pd.testing.assert_frame_equal(again.params_, gp.params_)
    pd.testing.assert_index_equal(again.series_, gp.series_)
    assert json.dumps(gp._export()[0])
    label = gp.series_[1]
    assert again.stream(series=label).step(1.0, 0.2, x=[0.0, 1.0]) == gp.stream(series=label).step(
        1.0, 0.2, x=[0.0, 1.0]
    )
    assert pickle.loads(pickle.dumps(gp)).predict(X)[0] == pytest.approx(gp.predict(X)[0])


def test_nothing_changes_when_it_is_asked():
    X, y = series((20, 30))
    for parameters in ("shared", "separate"):
        gp = KalmanRegressor(LocalLevel(), parameters=parameters).fit(X, y)
        before = pickle.dumps(gp)
        gp.predict(X, return_std=True)
        gp.decompose(X)
        gp.sample_y(X)
        gp.score(X, y)
        copy.deepcopy(gp)
        assert pickle.dumps(gp) == before


@pytest.mark.parametrize(
    ("X", "y", "words"),
    [
        ([np.zeros((2, 1)), np.zeros((0, 1))], [[1, 2], []], "series 1 of X is empty"),
        ([np.zeros((2, 1)), np.zeros((2, 2))], [[1, 2], [1, 2]], "series 1 of X has the columns"),
        (
            [np.zeros((2, 1)), np.full((2, 1), np.nan)],
            [[1, 2], [1, 2]],
            r"series 1 of X: Input X contains NaN: X\[0, 0\]",
        ),
        ([np.zeros((2, 1)), pd.DataFrame({"t": [1.0]})], [[1, 2], [1]], "not all of one kind"),
        ([np.zeros((2, 1)), np.zeros((2, 1))], [[1, 2]], "y must be a list of one array for each of the 2 series"),
        ([np.zeros((2, 1)), np.zeros((2, 1))], [[1, 2], [1]], "y of series 1 must have one entry for each of its 2"),
        ([np.zeros((2, 1)), np.zeros((2, 1))], [[1, 2], [1, np.inf]], "Input y of series 1 contains infinity"),
        ([np.zeros((2, 1)), np.zeros((2, 1))], None, "y must be a list of one array"),
        ([np.zeros((2, 1)), np.zeros((2, 1))], [[np.nan] * 2] * 2, "NaN only"),
        (SeriesCollection([[1.0, 2.0]]), [[1.0, 2.0]], "SeriesCollection without times"),
        (pd.MultiIndex.from_arrays([["a", None], [0.0, 1.0]]), [1.0, 2.0], "name the series of every row: row 1"),
        (pd.MultiIndex.from_arrays([["a", "b"], [0.0, 1.0]]), [1.0, 2.0, 3.0], "inconsistent numbers of samples"),
        (
            pd.MultiIndex.from_arrays([["a", "b"], [0.0, 1.0]]),
            pd.Series([1.0, 2.0], index=pd.MultiIndex.from_arrays([["a", "b"], [0.0, 2.0]])),
            "it has none for",
        ),
    ],
)
def test_bad_panels_are_refused(X, y, words):
    with pytest.raises(ValueError, match=words):
        KalmanRegressor(LocalLevel()).fit(X, y)


def test_series_must_be_told_apart():
    X, y = series((20, 30))
    gp = KalmanRegressor(LocalLevel(1.0), **KNOWN).fit(X, y)
    with pytest.raises(ValueError, match="say with series= which one X is"):
        gp.predict(X[0])
    with pytest.raises(ValueError, match="X has 1 series and fit had 2"):
        gp.predict(X[:1])
    with pytest.raises(ValueError, match="fitted to one series"):
        KalmanRegressor(LocalLevel(1.0), **KNOWN).fit(X[0], y[0]).predict(X)
    with pytest.raises(ValueError, match="parameters must be 'shared' or 'separate'"):
        KalmanRegressor(parameters="each").fit(X, y)
    with pytest.raises(ValueError, match="y of series 1 contains NaN only"):
        KalmanRegressor(LocalLevel(), parameters="separate").fit(X, [y[0], np.full(30, np.nan)])
    # Together, such a series has the others' parameters.
    assert KalmanRegressor(LocalLevel()).fit(X, [y[0], np.full(30, np.nan)]).noise_variance_ > 0


@pytest.mark.parametrize("offset", [0.0, 1e9, -1e12])
@pytest.mark.parametrize(
    "process", [LocalTrend(0.5, 0.1) + Matern(1.5, 2.0, 3.0), Seasonal(7.0, 2, 0.1) + LocalLevel(0.3)]
)
def test_a_level_costs_no_digits(process, offset):
    rng = np.random.default_rng(0)
    t = np.sort(rng.uniform(0, 20, 60))
    # Whole sixteenths stay what they are beside the offset.
    y = np.round(16 * (np.sin(t) + rng.normal(size=60))) / 16
    near = KalmanRegressor(process, **KNOWN).fit(t[:, None], y)
    far = KalmanRegressor(process, **KNOWN).fit(t[:, None], y + offset)
    assert far.log_marginal_likelihood_value_ == pytest.approx(near.log_marginal_likelihood_value_, rel=1e-9)
    new = np.array([[3.3], [25.0]])
    (mean, std), (far_mean, far_std) = (gp.predict(new, return_std=True) for gp in (near, far))
    np.testing.assert_allclose(far_mean - offset, mean, rtol=0, atol=4 * np.spacing(max(abs(offset), 1.0)))
    np.testing.assert_allclose(far_std, std, rtol=1e-9)
    table, far_table = near.decompose(new), far.decompose(new)
    level = next(name for name in table.columns if name.startswith("local"))
    np.testing.assert_allclose(far_table[level] - offset, table[level], atol=4 * np.spacing(max(abs(offset), 1.0)))
    for name in set(table.columns) - {level}:
        np.testing.assert_allclose(far_table[name], table[name], rtol=1e-7, atol=1e-8)
    stream, far_stream = near.stream(), far.stream()
    np.testing.assert_allclose(
        far_stream.step(1.0 + offset, 0.3)[0] - offset,
        stream.step(1.0, 0.3)[0],
        atol=4 * np.spacing(max(abs(offset), 1.0)),
    )
    fresh, far_fresh = near.stream(from_prior=True), far.stream(from_prior=True)
    for value, gap in zip(y[:9], np.diff(t[:10]), strict=True):
        one, other = fresh.step(value, gap), far_fresh.step(value + offset, gap)
    np.testing.assert_allclose(other[0] - offset, one[0], atol=4 * np.spacing(max(abs(offset), 1.0)))
    np.testing.assert_allclose(
        far.sample_y(new, 3) - offset, near.sample_y(new, 3), atol=8 * np.spacing(max(abs(offset), 1.0)), rtol=1e-7
    )


def test_vectors_of_times_are_told_how_to_be_series():
    with pytest.raises(ValueError, match=r"a vector of times t as t\[:, None\]"):
        KalmanRegressor(LocalLevel()).fit([np.arange(3.0), np.arange(4.0)], [np.arange(3.0), np.arange(4.0)])
