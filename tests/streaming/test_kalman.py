import copy
import pickle
import time

import numpy as np
import pandas as pd
import pytest

from statespace import KalmanRegressor
from statespace.kalman import Component, Initial, LocalLevel, LocalTrend, Matern, Regression, Seasonal

PROCESSES = [
    LocalLevel(2.0),
    LocalTrend(0.5, 0.1) + Matern(2.5, 2.0, 3.0),
    LocalTrend(0.5, 0.1) + Seasonal(5.0, harmonics=2, variance=0.3),
]


def data(n=40):
    rng = np.random.default_rng(0)
    t = np.cumsum(rng.exponential(size=n))
    t[7] = t[6]
    y = np.sin(t) + rng.normal(size=n)
    y[[3, 11, 12, n - 2]] = np.nan
    return t, y


def filtered(gp, t, y, x=None):
    """What `predict` says at each time from the samples up to it."""
    X = t[:, None] if x is None else np.column_stack([t, x])
    answers = []
    for k in range(1, len(t) + 1):
        part = KalmanRegressor(gp.process_, noise_variance=gp.noise_variance_, optimizer=None)
        part.fit(X[:k], np.where(np.isnan(y[:k]).all(), 0.0, y[:k]))
        answers.append([part_of[0] for part_of in part.predict(X[k - 1 : k], return_std=True)])
    return np.array(answers)


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_a_new_stream_equals_filtering(process):
    t, y = data()
    gp = KalmanRegressor(process, noise_variance=0.3, optimizer=None).fit(t[:, None] + 100.0, y)
    stream, gaps = gp.stream(from_prior=True), np.diff(t, prepend=t[0])
    streamed = np.array([stream.step(value, dt=gap) for value, gap in zip(y, gaps, strict=True)])
    expected = filtered(gp, t, y)
    np.testing.assert_allclose(streamed[:, 1], expected[:, 1], rtol=1e-10)
    # Where nothing is known yet, the mean is any number.
    known = np.isfinite(expected[:, 1])
    assert known.sum() >= 39
    np.testing.assert_allclose(streamed[known], expected[known], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_a_stream_goes_on_where_the_data_end(process):
    t, y = data()
    shuffled = np.random.default_rng(1).permutation(25)
    gp = KalmanRegressor(process, noise_variance=0.3, optimizer=None).fit(t[:25][shuffled][:, None], y[:25][shuffled])
    stream = gp.stream()
    streamed = np.array([stream.step(y[k], dt=t[k] - t[k - 1]) for k in range(25, 40)])
    np.testing.assert_allclose(streamed, filtered(gp, t, y)[25:], rtol=1e-10, atol=1e-10)


class Growth(Component):
    """A walk from a known start."""

    def transition(self, dt):
        return np.ones((len(dt), 1, 1))

    def process_noise(self, dt):
        return np.reshape(dt, (-1, 1, 1))

    def observation(self):
        return np.ones(1)

    def initial(self):
        return Initial(np.full(1, 3.0), np.ones((1, 1)), np.zeros((1, 0)))


def test_no_gap_lies_before_a_new_series():
    gp = KalmanRegressor(Growth(), noise_variance=1.0, optimizer=None).fit([[0.0], [1.0]], [1.0, 2.0])
    mean, std = gp.stream(from_prior=True).step(5.0, dt=100.0)
    assert (mean, std**2) == (pytest.approx(4.0), pytest.approx(0.5))


def test_nan_only_predicts():
    t, y = data()
    gp = KalmanRegressor(LocalTrend()).fit(t[:, None], y)
    expected = gp.predict([[t[-1] + 2.5]], return_std=True)
    np.testing.assert_allclose(gp.stream().step(np.nan, dt=2.5), np.ravel(expected), rtol=1e-10)
    noisy = gp.predict([[t[-1] + 2.5]], return_std=True, include_noise=True)
    np.testing.assert_allclose(gp.stream(include_noise=True).step(np.nan, dt=2.5), np.ravel(noisy), rtol=1e-10)
    # By default the gap is the median one.
    assert gp.stream().step(np.nan) == pytest.approx(gp.stream().step(np.nan, dt=gp.time_scale_))


def test_what_is_open_is_infinite():
    gp = KalmanRegressor(LocalTrend()).fit(np.arange(9.0)[:, None], np.arange(9.0) ** 1.5)
    stream = gp.stream(from_prior=True)
    assert stream.step(np.nan)[1] == np.inf
    assert stream.step(1.0, dt=1.0)[1] < np.inf
    assert stream.step(np.nan, dt=1.0)[1] == np.inf
    assert stream.step(2.0, dt=1.0)[1] < np.inf
    assert stream.step(np.nan, dt=1.0)[1] < np.inf


def test_covariates_and_outputs():
    t, y = data()
    x = np.random.default_rng(5).normal(size=(40, 2))
    gp = KalmanRegressor(LocalLevel(2.0) + Regression(variance=0.1), noise_variance=0.3, optimizer=None)
    gp.fit(np.column_stack([t, x])[:30], y[:30])
    stream = gp.stream()
    streamed = np.array([stream.step(y[k], dt=t[k] - t[k - 1], x=x[k]) for k in range(30, 40)])
    np.testing.assert_allclose(streamed, filtered(gp, t, y, x)[30:], rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="x must be 2 finite covariates"):
        stream.step(1.0, dt=1.0)
    both = KalmanRegressor(LocalLevel(2.0), noise_variance=0.3, optimizer=None).fit(
        t[:, None], np.column_stack([y, -y])
    )
    mean, std = both.stream().step([1.0, -1.0], dt=0.2)
    assert mean[0] == pytest.approx(-mean[1])
    assert std.shape == (2,)
    with pytest.raises(ValueError, match="must have 2 outputs"):
        both.stream().step(1.0, dt=0.2)
    # What is refused leaves the stream as it was.
    stream = both.stream()
    with pytest.raises(ValueError, match="finite, or NaN"):
        stream.step([1.0, np.inf], dt=0.2)
    np.testing.assert_array_equal(stream.step([1.0, -1.0], dt=0.2)[0], mean)


def test_known_noise_comes_with_each_sample():
    t, y = data()
    noise = np.linspace(0.1, 1.0, 40)
    gp = KalmanRegressor(LocalLevel(2.0), optimizer=None).fit(t[:30, None], y[:30], noise_variance=noise[:30])
    stream = gp.stream()
    with pytest.raises(ValueError, match="step needs noise_variance"):
        stream.step(1.0, dt=1.0)
    last = [stream.step(y[k], dt=t[k] - t[k - 1], noise_variance=noise[k]) for k in range(30, 40)][-1]
    whole = KalmanRegressor(LocalLevel(2.0), optimizer=None).fit(t[:, None], y, noise_variance=noise)
    assert last == pytest.approx([part[0] for part in whole.predict(t[-1:, None], return_std=True)], rel=1e-10)


def test_streams_are_apart_from_each_other_and_from_the_estimator():
    t, y = data()
    gp = KalmanRegressor(LocalLevel()).fit(t[:, None], y)
    one, other = gp.stream(), gp.stream()
    one.step(100.0, dt=1.0)
    branch, stored = copy.deepcopy(one), pickle.loads(pickle.dumps(one))
    expected = one.step(1.0, dt=1.0)
    assert branch.step(1.0, dt=1.0) == expected
    assert stored.step(1.0, dt=1.0) == expected
    assert other.step(1.0, dt=1.0) == gp.stream().step(1.0, dt=1.0)


def test_timedeltas():
    index = pd.date_range("2024-01-01", periods=20, freq="6h")
    gp = KalmanRegressor(LocalLevel()).fit(index, np.sin(np.arange(20.0)))
    expected = gp.stream().step(0.5, dt=0.25)
    assert gp.stream().step(0.5, dt=pd.Timedelta("6h")) == pytest.approx(expected, rel=1e-12)
    assert gp.stream().step(0.5, dt=np.timedelta64(6, "h")) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "words"), [((1.0, -0.5), "dt must be finite and >= 0"), ((np.inf, 1.0), "finite, or NaN")]
)
def test_bad_steps_are_refused(arguments, words):
    gp = KalmanRegressor(LocalLevel()).fit([[0.0], [1.0], [2.0]], [1.0, 2.0, 1.5])
    with pytest.raises(ValueError, match=words):
        gp.stream().step(*arguments)


def test_the_cost_of_a_step_does_not_grow():
    t, y = data()
    stream = KalmanRegressor(LocalTrend(0.5, 0.1) + Matern(1.5, 2.0, 3.0), optimizer=None).fit(t[:, None], y).stream()

    def cost(n):
        start = time.thread_time()
        for k in range(n):
            stream.step(0.1 * k, dt=0.3)
        return (time.thread_time() - start) / n

    first = min(cost(200) for _ in range(3))
    cost(3000)
    assert min(cost(200) for _ in range(3)) < 3 * first
