"""The data are what their docstrings say, and the same for the same seed."""

import sys

import numpy as np
import pandas as pd
import pytest
import scipy.linalg

from statespace.datasets import load_co2, make_fading_flash, make_irregular, make_oscillators, make_pendulum


def test_co2():
    pytest.importorskip("statsmodels")
    full, dropped = load_co2(missing="nan"), load_co2()
    assert full.shape == (2284, 1)
    assert full["co2"].isna().sum() == 59
    assert dropped.shape == (2225, 1)
    assert dropped.index.name == "time"
    assert (full.index.to_series().diff().dropna() == pd.Timedelta(weeks=1)).all()
    assert full.index[[0, -1]].strftime("%Y-%m-%d").tolist() == ["1958-03-29", "2001-12-29"]
    pd.testing.assert_frame_equal(full.dropna(), dropped)
    longest = dropped.index.to_series().diff().idxmax()
    assert longest.year == 1964


def test_co2_equals_the_record(data_path):
    record = pd.read_csv(data_path("co2_mauna_loa/co2.csv"))
    np.testing.assert_array_equal(load_co2(missing="nan")["co2"], pd.to_numeric(record.iloc[:, -1], errors="coerce"))


def test_co2_says_what_is_missing(monkeypatch):
    for name in [m for m in sys.modules if m.split(".")[0] == "statsmodels"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "statsmodels", None)
    with pytest.raises(ImportError, match=r"pip install 'statespace-learn\[data\]'"):
        load_co2()
    with pytest.raises(ValueError, match="Got 'keep'"):
        load_co2(missing="keep")


def test_irregular():
    frame = pd.DataFrame({"a": range(100)}, index=pd.date_range("2024", periods=100))
    thin, numbers = make_irregular(frame, np.arange(100), keep=0.3, random_state=1)
    assert thin["a"].tolist() == numbers.tolist() == sorted(set(numbers.tolist()))
    assert len(numbers) == 30
    assert thin.index.equals(frame.index[numbers])
    assert make_irregular(np.arange(100), keep=0.3, random_state=1).tolist() == numbers.tolist()
    assert make_irregular(np.arange(100), keep=0.3, random_state=2).tolist() != numbers.tolist()
    assert make_irregular([1, 2, 3], keep=0.01, random_state=0).shape == (1,)
    assert make_irregular([1, 2, 3], keep=1.0).tolist() == [1, 2, 3]


def test_irregular_leaves_stretches_out():
    rows = make_irregular(np.arange(1000), keep=0.9, n_gaps=1, gap_length=0.2, random_state=0)
    assert np.diff(rows).max() > 200 or rows[0] >= 200 or rows[-1] < 800
    assert len(rows) == 800


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [((), {}, "at least one array"), (([1],), {"keep": 0}, r"`keep` must be a fraction in \(0, 1\]. Got 0"),
     (([1],), {"gap_length": 1}, "`gap_length`"), (([],), {}, "not empty"), (([1], [1, 2]), {}, r"\[1, 2\]"),
     ((np.arange(4),), {"n_gaps": 99, "gap_length": 0.9}, "leave none of 4")],
)  # fmt: skip
def test_irregular_refuses(arguments, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_irregular(*arguments, random_state=0, **options)


def test_oscillators():
    X, y, y_steps = make_oscillators(n_series=50, n_times=(5, 60), noise=0.0, random_state=0)
    assert X.lengths.min() >= 5
    assert X.lengths.max() <= 60
    assert len(set(X.lengths)) > 5
    assert ((y >= -5) & (y <= -2)).all()
    assert all(t[0] == 0 and (np.diff(t) > 0).all() for t in X.times)
    assert np.concatenate(X.gaps()).mean() == pytest.approx(1, abs=0.1)
    again = make_oscillators(n_series=50, n_times=(5, 60), noise=0.0, random_state=0)
    np.testing.assert_array_equal(again.X.values[7], X.values[7])
    for velocity, n in zip(y_steps, X.lengths, strict=True):
        assert velocity.shape == (n,)


def test_velocity_is_the_derivative():
    """Over equal gaps, displacement and velocity move by one matrix, and x' = ω v."""
    X, y, y_steps = make_oscillators(n_series=20, n_times=3000, noise=0.0, regular=True, random_state=3)
    assert all((g[1:] == 1).all() for g in X.gaps())
    for values, log_f, velocity in zip(X.values, y, y_steps, strict=True):
        states = np.c_[values[:, 0], velocity]
        step = np.linalg.lstsq(states[:200], states[1:201], rcond=None)[0].T
        np.testing.assert_allclose(scipy.linalg.logm(step)[0], [0, 2 * np.pi * 2.0**log_f], atol=1e-6)


@pytest.mark.parametrize("options", [{"n_series": 0}, {"n_times": 0}, {"n_times": (5, 4)}, {"noise": -1}])
def test_oscillators_refuse(options):
    with pytest.raises(ValueError, match="must be"):
        make_oscillators(**options)


def test_pendulum():
    X, y, clarity = make_pendulum(n_series=20, n_times=80, n_kept=30, image_size=16, random_state=0)
    assert (len(X), X.n_channels, set(X.lengths)) == (20, 256, {30})
    assert (y.shape, clarity.shape) == ((20, 30, 2), (20, 30))
    np.testing.assert_allclose(np.square(y).sum(-1), 1)
    for images, times in zip(X.values, X.times, strict=True):
        assert ((images >= 0) & (images <= 1)).all()
        assert (np.diff(times) >= 1).all()
        assert set(times) <= set(range(80))
    # Stretches of noise and stretches of clear images, between which the clarity moves slowly.
    assert (clarity == 0).any()
    assert (clarity == 1).any()
    assert (
        np.abs(np.diff(make_pendulum(n_series=20, n_kept=100, n_clear=0, random_state=0).clarity)).max()
        <= 0.2 / 0.5 + 1e-12
    )
    early = np.stack(X.times) < 5
    assert early.any()
    assert (clarity[early] == 1).all()
    again = make_pendulum(n_series=20, n_times=80, n_kept=30, image_size=16, random_state=0)
    np.testing.assert_array_equal(again.X.values[7], X.values[7])


def test_a_clear_image_tells_the_angle():
    """The bright pixels' centre lies in the direction of the angle: 0 down, a quarter turn to the right."""
    X, y, _ = make_pendulum(n_series=5, n_clear=100, random_state=1)
    pixel = np.arange(24) + 0.5 - 12
    images = np.stack(X.values).reshape(5, 50, 24, 24)
    mass = images.sum(axis=(2, 3))
    centre = np.stack(
        [(images * pixel).sum((2, 3)) / mass, (images * pixel[:, np.newaxis]).sum((2, 3)) / mass], axis=-1
    )
    np.testing.assert_allclose(centre / np.linalg.norm(centre, axis=-1, keepdims=True), y, atol=0.02)


def test_noise_follows_the_clarity():
    X, _, clarity = make_pendulum(n_series=30, random_state=2)
    X, clarity = np.stack(X.values), clarity[..., np.newaxis]
    noise, clear = X[clarity[..., 0] == 0], X[clarity[..., 0] == 1]
    assert noise.mean() == pytest.approx(0.5, abs=0.01)
    assert noise.var() == pytest.approx(1 / 12, abs=0.01)
    assert np.median(clear) == 0


def test_a_free_pendulum_keeps_its_energy():
    X, y, _ = make_pendulum(
        n_series=10, n_times=400, n_kept=400, torque_noise=0, friction=0, n_clear=400, random_state=3
    )
    angle = np.unwrap(np.arctan2(y[..., 0], y[..., 1]), axis=1)
    velocity = (angle[:, 2:] - angle[:, :-2]) / 0.1
    energy = velocity**2 / 2 - 9.81 * np.cos(angle[:, 1:-1])
    # Central differences over 0.1 s err by some parts in a hundred of the kinetic energy.
    np.testing.assert_allclose(energy, np.broadcast_to(-9.81 * np.cos(angle[:, :1]), energy.shape), atol=0.6)
    # From rest at a given height, it never climbs higher.
    assert (np.cos(angle) >= np.cos(angle[:, :1]) - 0.02).all()


@pytest.mark.parametrize(
    "options",
    [
        {"n_series": 0},
        {"n_kept": 101},
        {"n_kept": 0},
        {"image_size": 3},
        {"torque_noise": -1},
        {"friction": -1},
        {"n_clear": -1},
    ],
)
def test_pendulum_refuses(options):
    with pytest.raises(ValueError, match="`n_kept` from 1 to `n_times`"):
        make_pendulum(**options)


@pytest.mark.parametrize("irregular", [False, True])
def test_fading_flash(irregular):
    X, y = make_fading_flash(40, irregular=irregular, random_state=0)
    again = make_fading_flash(40, irregular=irregular, random_state=0)
    np.testing.assert_array_equal(again.y, y)
    rates = np.array([1.0, 1.5, 2.0])
    flashes, zones, gaps = set(), set(), []
    for values, times, target in zip(X.values, X.times, y, strict=True):
        flash, rate = values[:, 0], values[:, 1:]
        assert set(np.unique(flash)) <= {0.0, 1.0}
        assert flash[0] == 0
        assert (rate.sum(1) == 1).all()
        changes = np.flatnonzero((np.diff(rate, axis=0) != 0).any(1)) + 1
        assert changes.min() >= 4
        assert changes.max() < 36
        flashes.add(int(flash.sum()))
        zones.add(len(changes) + 1)
        # The solution of the differential equation, stretch by stretch.
        h = 0.0
        for k in range(1, 40):
            gap, level = times[k] - times[k - 1], rates @ rate[k]
            h = flash[k] / level + (h - flash[k] / level) * np.exp(-level * gap)
            assert target[k] == pytest.approx(h, abs=1e-12)
            gaps.append(gap)
        assert target[0] == 0
        assert irregular or np.ptp(np.diff(times)) < 1e-9
    assert (flashes, zones) == ({2, 3, 4}, {2, 3})
    assert 0.5 <= min(gaps) < 0.6 < 1.4 < max(gaps) <= 1.5


def test_fading_flash_at_its_edges():
    X, y = make_fading_flash(2, 2, 0.3, rates=[2.0], n_flashes=1, n_zones=1, random_state=0)
    np.testing.assert_allclose(y, [[0, (1 - np.exp(-0.6)) / 2]] * 2)
    assert X.n_channels == 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [(dict(gap=0.0), "must be positive"), (dict(gap=(2.0, 1.0)), "`gap` must be at least 0.0, or"),
     (dict(rates=[1.0]), "two rates at least"), (dict(n_flashes=40), "leaves no room for 40 flashes"),
     (dict(n_times=9), "no room for 4 flashes and 3 zones"), (dict(n_zones=0), "`n_zones` must be at least 1"),
     (dict(n_series=0), "`n_series`")],
)  # fmt: skip
def test_fading_flash_refuses(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_fading_flash(random_state=0, **options)
