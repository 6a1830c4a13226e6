"""Late samples, absolute times, blocks, files: a stream is the filter over the sorted record, whatever happened."""

import copy
import pickle
import threading
import tracemalloc

import numpy as np
import pandas as pd
import pytest

import statespace
from statespace import KalmanRegressor
from statespace.kalman import LocalLevel, LocalTrend, Matern, OrnsteinUhlenbeck, Regression, Seasonal
from statespace.persistence import FileError

PROCESSES = {
    "level": LocalLevel(2.0),
    "sum": LocalTrend(0.5, 0.1) + Matern(2.5, 2.0, 3.0),
    "season": LocalLevel(0.5) + Seasonal(2.0, harmonics=1, variance=0.3),
    "stationary": OrnsteinUhlenbeck(2.0, 3.0),
}


def data(n=60, seed=0):
    rng = np.random.default_rng(seed)
    t = np.cumsum(rng.integers(1, 9, n)) / 4.0
    t[7] = t[6]
    y = np.sin(t) + rng.normal(size=n)
    y[[3, 11, 12, n - 2]] = np.nan
    return t, y


def model(name="sum", n=20):
    t, y = data()
    return KalmanRegressor(PROCESSES[name], noise_variance=0.3, optimizer=None).fit(t[:n, None], y[:n])


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("from_prior", [False, True])
def test_late_samples_find_their_place(name, from_prior):
    t, y = data()
    gp = model(name)
    start = 0 if from_prior else 20
    order = np.arange(start, 60)
    rng = np.random.default_rng(3)
    # Each swaps places with one nearby: none is later than 6.
    arrival = order[np.argsort(t[order] + rng.uniform(0.0, 5.0, len(order)), kind="stable")]
    late, sorted_ = gp.stream(from_prior=from_prior, lag=6.0), gp.stream(from_prior=from_prior)
    for k in arrival:
        answer = late.step(y[k], time=t[k])
    for k in order:
        expected = sorted_.step(y[k], time=t[k])
    assert (np.diff(t[arrival]) < 0).sum() > 5
    np.testing.assert_allclose(answer, expected, rtol=1e-9)
    # Long before, the samples were forgotten.
    assert len(late._window.samples) < 20
    np.testing.assert_allclose(late.step(1.0, dt=0.3), sorted_.step(1.0, dt=0.3), rtol=1e-9)


def test_a_sample_may_be_late_behind_the_data_of_fit():
    t, y = data()
    gp = model(n=40)
    for lag in (3.0, 1e6):
        stream = gp.stream(lag=lag)
        at = t[38] + 0.1
        mean, std = stream.step(2.5, time=at)
        longer = KalmanRegressor(PROCESSES["sum"], noise_variance=0.3, optimizer=None)
        longer.fit(np.append(t[:40], at)[:, None], np.append(y[:40], 2.5))
        expected = longer.predict(t[39:40, None], return_std=True)
        np.testing.assert_allclose([mean, std], np.ravel(expected), rtol=1e-9)
    # Before all of them.
    first = gp.stream(lag=1e6)
    answer = first.step(2.5, time=t[0] - 1.0)
    longer.fit(np.append(t[:40], t[0] - 1.0)[:, None], np.append(y[:40], 2.5))
    np.testing.assert_allclose(answer, np.ravel(longer.predict(t[39:40, None], return_std=True)), rtol=1e-8)


def test_what_is_later_than_the_lag_is_refused_or_ignored():
    gp = model()
    now = data()[0][19]
    stream = gp.stream(lag=2.0)
    before = stream.step(1.0, dt=0.0)
    with pytest.raises(ValueError, match=r"later than the lag: .* follows"):
        stream.step(1.0, time=now - 2.5)
    np.testing.assert_array_equal(stream.step(np.nan, dt=0.0), before)
    ignoring = gp.stream(lag=2.0, late="ignore")
    ignoring.step(1.0, dt=0.0)
    np.testing.assert_array_equal(ignoring.step(9.0, time=now - 2.5), before)
    with pytest.raises(ValueError, match=r"must not decrease: .* made by stream\(lag=...\)"):
        gp.stream().step(1.0, time=now - 1.0)
    with pytest.raises(ValueError, match="late must be 'raise' or 'ignore'"):
        gp.stream(lag=1.0, late="drop")
    with pytest.raises(ValueError, match="lag must be finite"):
        gp.stream(lag=-1.0)
    with pytest.raises(ValueError, match="give dt or time"):
        stream.step(1.0, dt=1.0, time=now + 9)
    with pytest.raises(ValueError, match="time must be finite"):
        stream.step(1.0, time=np.nan)
    with pytest.raises(ValueError, match="time must be a number"):
        stream.step(1.0, time=pd.Timestamp("2024-01-01"))


@pytest.mark.parametrize("name", PROCESSES)
def test_the_fixed_lag_smoother_equals_predict(name):
    t, y = data()
    gp = model(name)
    stream = gp.stream(lag=4.0)
    whole = KalmanRegressor(PROCESSES[name], noise_variance=0.3, optimizer=None)
    for k in range(20, 60):
        stream.step(y[k], time=t[k])
        if k % 7 == 0:
            whole.fit(t[: k + 1, None], y[: k + 1])
            for lag in (4.0, 1.3, 0.0):
                expected = whole.predict([[t[k] - lag]], return_std=True)
                np.testing.assert_allclose(stream.smoothed(lag), np.ravel(expected), rtol=1e-8)
    np.testing.assert_array_equal(stream.smoothed(), stream.smoothed(4.0))
    np.testing.assert_allclose(stream.smoothed(0.0), stream.step(np.nan, dt=0.0), rtol=1e-9)
    with pytest.raises(ValueError, match="lag must lie between 0 and that of the stream"):
        stream.smoothed(5.0)
    with pytest.raises(ValueError, match="is made by stream"):
        gp.stream().smoothed()
    with pytest.raises(ValueError, match="nothing to smooth yet"):
        gp.stream(from_prior=True, lag=1.0).smoothed()


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("from_prior", [False, True])
@pytest.mark.parametrize("lag", [None, 3.0])
def test_a_block_equals_its_samples(name, from_prior, lag, monkeypatch):
    monkeypatch.setattr("statespace.streaming.filter._CHUNK", 16)
    t, y = data()
    gp = model(name)
    one, block = (gp.stream(from_prior=from_prior, lag=lag) for _ in range(2))
    expected = np.array([one.step(value, time=time) for value, time in zip(y[20:], t[20:], strict=True)])
    answers = [np.column_stack(block.extend(y[a:b], times=t[a:b])) for a, b in ((20, 21), (21, 50), (50, 50), (50, 60))]
    np.testing.assert_allclose(np.concatenate(answers), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(block.step(1.0, dt=0.3), one.step(1.0, dt=0.3), rtol=1e-9)
    assert block.n_steps == one.n_steps == 41
    if lag:
        np.testing.assert_allclose(block.step(1.0, time=t[59]), one.step(1.0, time=t[59]), rtol=1e-9)
    gaps = gp.stream(from_prior=from_prior)
    mean, std = gaps.extend(y[20:], dt=np.diff(t[19:]))
    np.testing.assert_allclose(np.column_stack([mean, std]), expected, rtol=1e-9, atol=1e-12)
    regular, stepped = gp.stream(), gp.stream()
    steps = [stepped.step(value, dt=0.5) for value in (1.0, np.nan, 2.0)]
    np.testing.assert_allclose(np.column_stack(regular.extend([1.0, np.nan, 2.0], dt=0.5)), steps, rtol=1e-12)


def test_blocks_with_covariates_outputs_and_noise():
    t, _ = data()
    rng = np.random.default_rng(5)
    x, Y = rng.normal(size=(60, 2)), rng.normal(size=(60, 2))
    Y[30:33, 1] = np.nan
    noise = rng.uniform(0.1, 1.0, size=(60, 2))
    gp = KalmanRegressor(LocalLevel(2.0) + Regression(variance=0.1), optimizer=None)
    gp.fit(np.column_stack([t, x])[:20], Y[:20], noise_variance=noise[:20])
    for lag in (None, 5.0):
        one, block = gp.stream(lag=lag), gp.stream(lag=lag)
        expected = [one.step(Y[k], time=t[k], x=x[k], noise_variance=noise[k]) for k in range(20, 60)]
        answers = block.extend(Y[20:], times=t[20:], x=x[20:], noise_variance=noise[20:])
        np.testing.assert_allclose(answers[0], [mean for mean, _ in expected], rtol=1e-9)
        np.testing.assert_allclose(answers[1], [std for _, std in expected], rtol=1e-9)
    whole = KalmanRegressor(LocalLevel(2.0) + Regression(variance=0.1), optimizer=None)
    whole.fit(np.column_stack([t, x]), Y, noise_variance=noise)
    row = np.array([[t[-1] - 2.0, 0.5, -0.5]])
    found = one.smoothed(2.0, x=row[0, 1:])
    for part, other in zip(found, whole.predict(row, return_std=True), strict=True):
        np.testing.assert_allclose(part, other[0], rtol=1e-8)
    # A late one among them.
    late = gp.stream(lag=5.0)
    for k in [*range(20, 50), 51, 50]:
        answer = late.step(Y[k], time=t[k], x=x[k], noise_variance=noise[k])
    in_time = gp.stream()
    for k in range(20, 52):
        expected = in_time.step(Y[k], time=t[k], x=x[k], noise_variance=noise[k])
    np.testing.assert_allclose(answer, expected, rtol=1e-9)


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_datetimes(zone):
    t, y = data()
    index = pd.Timestamp("2024-03-15", tz="UTC") + pd.to_timedelta(t, unit="D")
    index = index.tz_localize(None) if zone is None else index.tz_convert(zone)
    numbers = model()
    gp = KalmanRegressor(PROCESSES["sum"], noise_variance=0.3, optimizer=None).fit(index[:20], y[:20])
    stream, other = gp.stream(lag=pd.Timedelta("4D")), numbers.stream(lag=4.0)
    for k in [*range(20, 30), 31, 30]:
        np.testing.assert_allclose(stream.step(y[k], time=index[k]), other.step(y[k], time=t[k]), rtol=1e-9)
    np.testing.assert_allclose(stream.smoothed(pd.Timedelta("36h")), other.smoothed(1.5), rtol=1e-9)
    np.testing.assert_allclose(
        stream.extend(y[32:40], times=index[32:40]), other.extend(y[32:40], times=t[32:40]), rtol=1e-9
    )
    np.testing.assert_allclose(
        stream.extend(y[40:42], dt=[pd.Timedelta("6h")] * 2), other.extend(y[40:42], dt=0.25), rtol=1e-9
    )
    np.testing.assert_allclose(
        stream.step(1.0, time=(index[41] + pd.Timedelta("9D")).to_pydatetime()),
        other.step(1.0, time=t[41] + 9),
        rtol=1e-9,
    )
    with pytest.raises(ValueError, match="time must be one of datetimes"):
        stream.step(1.0, time=3.0)
    with pytest.raises(ValueError, match="NaT"):
        stream.step(1.0, time=pd.NaT)


def test_a_new_stream_knows_the_time_if_it_is_told():
    gp = model()
    stream = gp.stream(from_prior=True, lag=2.0)
    stream.step(1.0, dt=3.0)
    with pytest.raises(ValueError, match="only counted gaps"):
        stream.step(1.0, time=5.0)
    told = gp.stream(from_prior=True, lag=2.0)
    told.step(1.0, time=1e9)
    told.step(2.0, time=1e9 + 1)
    other = gp.stream(from_prior=True)
    other.step(1.0)
    assert told.step(np.nan, dt=0.0) == pytest.approx(other.step(2.0, dt=1.0), rel=1e-12)


@pytest.mark.parametrize("name", [*PROCESSES, "open"])
@pytest.mark.parametrize("lag", [None, 4.0])
def test_a_saved_stream_goes_on_bit_by_bit(name, lag, tmp_path):
    t, y = data()
    gp = model("sum" if name == "open" else name)
    stream = gp.stream(from_prior=name == "open", lag=lag)
    for k in range(20, 21 if name == "open" else 35):
        stream.step(y[k], time=t[k])
    stream.save(tmp_path / "stream")
    again = statespace.load(tmp_path / "stream")
    assert again.n_steps == stream.n_steps
    for k in range(35, 60):
        assert again.step(y[k], time=t[k]) == stream.step(y[k], time=t[k])
    if lag:
        assert again.step(0.5, time=t[59] - 2.0) == stream.step(0.5, time=t[59] - 2.0)
        assert again.smoothed(1.0) == stream.smoothed(1.0)
    assert pickle.loads(pickle.dumps(stream)).step(1.0, dt=1.0) == stream.step(1.0, dt=1.0)


def test_files_of_streams_with_everything(tmp_path):
    t, _ = data()
    rng = np.random.default_rng(5)
    x, Y = rng.normal(size=(60, 2)), rng.normal(size=(60, 2))
    index = pd.Timestamp("2024-01-01") + pd.to_timedelta(t, unit="D")
    X = pd.DataFrame(x, index=index, columns=["u", "v"])
    gp = KalmanRegressor(LocalLevel() + Regression("v"), optimizer=None).fit(X[:20], Y[:20])
    stream = gp.stream(lag=pd.Timedelta("3D"), include_noise=True, late="ignore")
    stream.extend(Y[20:40], times=index[20:40], x=x[20:40])
    stream.save(tmp_path / "stream")
    again = statespace.load(tmp_path / "stream")
    for k in [41, 40, 42, 20]:
        for one, other in zip(
            stream.step(Y[k], time=index[k], x=x[k]), again.step(Y[k], time=index[k], x=x[k]), strict=True
        ):
            np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(again.smoothed(1.0, x=[0.0, 1.0])[0], stream.smoothed(1.0, x=[0.0, 1.0])[0])
    whole = (tmp_path / "stream").read_bytes()
    (tmp_path / "stream").write_bytes(whole[:-3])
    with pytest.raises(FileError):
        statespace.load(tmp_path / "stream")


def test_the_memory_does_not_grow():
    gp = model()
    rng = np.random.default_rng(0)
    for lag in (None, 20.0):
        stream = gp.stream(lag=lag)
        stream.extend(rng.normal(size=30_000), dt=rng.exponential(size=30_000))
        tracemalloc.start()
        peaks = []
        for _ in range(4):
            tracemalloc.reset_peak()
            y, dt = rng.normal(size=30_000), rng.exponential(size=30_000)
            stream.extend(y, dt=dt)
            peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert peaks[-1] < 1.1 * peaks[0]
        assert peaks[-1] < 16e6


def test_streams_of_several_threads_do_not_meet():
    gp = model()
    rng = np.random.default_rng(0)
    y, dt = rng.normal(size=(4, 300)), rng.exponential(size=(4, 300))
    streams = [gp.stream(lag=3.0) for _ in range(4)]
    found = [[] for _ in range(4)]

    def run(i):
        found[i] += [streams[i].step(value, dt=gap) for value, gap in zip(y[i], dt[i], strict=True)]
        found[i].append(streams[i].extend(y[i], dt=dt[i]))

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(4):
        alone = gp.stream()
        np.testing.assert_array_equal(
            found[i][:300], [alone.step(value, dt=gap) for value, gap in zip(y[i], dt[i], strict=True)]
        )
        np.testing.assert_allclose(found[i][300], alone.extend(y[i], dt=dt[i]), rtol=1e-9)


def test_branches_with_a_lag_are_apart():
    t, y = data()
    stream = model().stream(lag=3.0)
    branch = copy.deepcopy(stream)
    stream.step(100.0, time=t[25])
    expected = model().stream(lag=3.0).step(1.0, time=t[21])
    assert branch.step(1.0, time=t[21]) == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([1.0, np.inf],), "y must be finite or NaN"),
        (([[1.0], [2.0]],), "y must be finite or NaN, of shape"),
        (([1.0, 2.0], -1.0), "dt must be finite and >= 0"),
        (([1.0, 2.0], [1.0]), "dt must be finite and >= 0: a number, or one for each of the 2"),
        (([1.0, 2.0], None, None, [1.0, -1.0]), "noise_variance must be finite"),
        (([1.0, 2.0], None, None, None, [99.0, 98.0]), "must not decrease"),
        (([1.0, 2.0], None, None, None, [0.0, 98.0]), "must not decrease"),
        (([1.0, 2.0], None, None, None, [98.0]), "one entry for each of the 2 samples"),
        (([1.0, 2.0], 1.0, None, None, [98.0, 99.0]), "give dt or times"),
        (([1.0, 2.0], None, [[1.0], [1.0]]), "x must be finite, of shape"),
    ],
)
def test_bad_blocks_are_refused_and_change_nothing(arguments, words):
    stream, other = model().stream(), model().stream()
    with pytest.raises(ValueError, match=words):
        stream.extend(*arguments)
    assert stream.step(1.0, dt=1.0) == other.step(1.0, dt=1.0)
