"""Integrated gradients against finite differences of predict, and what they have to add up to."""

import numpy as np
import pandas as pd
import pytest
import torch

from statespace import MambaClassifier, S4DClassifier, S4DRegressor, SSMRegressor
from statespace.inspection import integrated_gradients
from statespace.inspection.attribution import _integrated

RNG = np.random.default_rng(0)
T = np.cumsum(RNG.exponential(size=(16, 9)) + 0.1, axis=1)
X = np.array([5.0, -3.0]) + RNG.normal(size=(16, 9, 2))
TINY = {"d_model": 6, "n_layers": 2, "d_state": 4, "max_epochs": 8, "random_state": 0, "learning_rate": 0.02}


@pytest.fixture(scope="module")
def series():
    return S4DRegressor(**TINY).fit(X, np.stack([X[:, 2, 0], X[:, -1, 1] * 10], axis=1), times=T)


@pytest.fixture(scope="module")
def steps():
    return S4DRegressor(**TINY).fit(X, np.cumsum(X[..., 0], axis=1), times=T)


@pytest.fixture(scope="module")
def classes():
    return MambaClassifier(**TINY).fit(X, np.array(["low", "middle", "high"])[np.arange(16) % 3])


def check_sums(found, n):
    assert len(found.values) == len(found.answer) == n
    sums = np.array([table.to_numpy().sum() for table in found.values])
    np.testing.assert_allclose(sums, found.answer - found.baseline, rtol=2e-6)
    np.testing.assert_allclose(found.error, sums - (found.answer - found.baseline), atol=1e-12)


@pytest.mark.parametrize("output", [0, 1])
def test_values_add_up_to_what_predict_says(series, output):
    found = integrated_gradients(series, X[:3], times=T[:3], output=output)
    check_sums(found, 3)
    np.testing.assert_allclose(found.answer, series.predict(X[:3], times=T[:3])[:, output], rtol=1e-9)
    means = np.broadcast_to(series.x_mean_, X[:3].shape)
    np.testing.assert_allclose(found.baseline, series.predict(means, times=T[:3])[:, output], rtol=1e-9)


def test_against_finite_differences_of_predict(series):
    """∂f/∂x by central differences, and the integral by the midpoint rule on many points."""
    x, start, n, h = X[0], np.array([4.0, -2.0]), 200, 1e-4
    found = integrated_gradients(series, X[:1], times=T[:1], baseline=start)
    way = x - start
    middle = start + ((np.arange(n) + 0.5) / n)[:, None, None] * way
    for k, c in ((0, 0), (4, 1), (8, 0)):
        moved = np.zeros_like(x)
        moved[k, c] = h
        ends = [series.predict(middle + sign * moved, times=np.tile(T[0], (n, 1)))[:, 0] for sign in (1, -1)]
        slope = ((ends[0] - ends[1]) / (2 * h)).mean()
        np.testing.assert_allclose(found.values[0].iloc[k, c], slope * way[k, c], rtol=1e-4)


def test_a_baseline_of_series_leaves_out_what_is_not_asked_about(series):
    other = X[:2].copy()
    other[:, 3:7, 1] += RNG.normal(size=(2, 4))
    found = integrated_gradients(series, X[:2], times=T[:2], baseline=other)
    check_sums(found, 2)
    np.testing.assert_allclose(found.baseline, series.predict(other, times=T[:2])[:, 0], rtol=1e-9)
    for table in found.values:
        asked = np.zeros((9, 2), dtype=bool)
        asked[3:7, 1] = True
        np.testing.assert_array_equal(table.to_numpy() != 0, asked)
    ragged = integrated_gradients(
        series, [X[0], X[1, :5]], times=[T[0], T[1, :5]], baseline=[other[0], np.zeros((5, 2))]
    )
    np.testing.assert_allclose(ragged.values[0], found.values[0], rtol=1e-9)
    with pytest.raises(ValueError, match=r"shapes of those of X, \(9, 2\) and so on for 2"):
        integrated_gradients(series, X[:2], times=T[:2], baseline=other[:1])


def test_nothing_comes_from_the_future(steps):
    found = integrated_gradients(steps, X[:2], times=T[:2], at=4)
    check_sums(found, 2)
    np.testing.assert_allclose(found.answer, steps.predict(X[:2], times=T[:2])[:, 4], rtol=1e-9)
    for table, t in zip(found.values, T, strict=False):
        assert (table.iloc[5:] == 0).all(axis=None)
        assert (table.iloc[:5] != 0).all(axis=None)
        np.testing.assert_array_equal(table.index, t)
    # A record that ends there has the same values, and -1 is its end.
    cut = integrated_gradients(steps, X[:2, :5], times=T[:2, :5])
    np.testing.assert_allclose(cut.values[1], found.values[1].iloc[:5], rtol=1e-9)


def test_through_the_state_of_the_recurrence(steps):
    """The gradient through the states of folded steps is that through the record."""
    found = integrated_gradients(steps, X[:1], times=T[:1])
    model = steps._copy_model(torch.device("cpu"), torch.float64)
    x = torch.from_numpy(steps._encode(X[:1].copy()))
    gaps = torch.from_numpy(np.concatenate([[1.0], np.diff(T[0]) / steps.time_scale_]))

    def folded(path):
        state = model.initial_state(len(path))
        for k in range(path.shape[1]):
            y, state = model.step(path[:, k], state, gaps[k].expand(len(path)))
        return y[:, 0] * steps.y_scale_[0] + steps.y_mean_[0]

    values, answer, base, _ = _integrated(folded, x, torch.zeros_like(x), 1e-6, 512)
    np.testing.assert_allclose(found.values[0], values, rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose([found.answer[0], found.baseline[0]], [answer, base], rtol=1e-9)


def test_log_odds_of_classes(classes):
    found = integrated_gradients(classes, X[:4])
    check_sums(found, 4)
    p = classes.predict_proba(X[:4])
    np.testing.assert_allclose(found.answer, np.log(p.max(1) / (1 - p.max(1))), rtol=1e-8)
    other = integrated_gradients(classes, X[:4], output="high")
    place = classes.classes_.tolist().index("high")
    np.testing.assert_allclose(other.answer, np.log(p[:, place] / (1 - p[:, place])), rtol=1e-8)
    with pytest.raises(ValueError, match="one of the classes"):
        integrated_gradients(classes, X[:1], output="none")


@pytest.mark.parametrize("distribution", ["student_t", "quantile"])
def test_the_point_of_a_distribution(distribution):
    y = np.stack([X[:, 0, 0], X[:, -1, 1]], axis=1)
    reg = S4DRegressor(**TINY | {"max_epochs": 2}, distribution=distribution).fit(X, y)
    found = integrated_gradients(reg, X[:2], output=-1)
    check_sums(found, 2)
    np.testing.assert_allclose(found.answer, reg.predict(X[:2])[:, 1], rtol=1e-9)


def test_log_odds_at_a_temperature():
    clf = S4DClassifier(**TINY | {"max_epochs": 2}, calibrate=True).fit(X, np.arange(16) % 2)
    assert clf.temperature_ != 1.0
    p = clf.predict_proba(X[:2])
    found = integrated_gradients(clf, X[:2], output=1)
    check_sums(found, 2)
    np.testing.assert_allclose(found.answer, np.log(p[:, 1] / p[:, 0]), rtol=1e-8, atol=1e-10)


def test_missing_values_add_nothing_and_frames_give_names():
    gappy = X.copy()
    gappy[RNG.random(X.shape) < 0.3] = np.nan
    start, names = pd.Timestamp("2024-01-01"), ["flow", "level"]
    indexes = [start + pd.to_timedelta(t, unit="D") for t in T]
    frames = [pd.DataFrame(x, index=index, columns=names) for x, index in zip(gappy, indexes, strict=True)]
    reg = S4DRegressor(**TINY).fit(frames, X[:, 0, 0])
    found = integrated_gradients(reg, [frames[0], frames[1].iloc[:6]])
    check_sums(found, 2)
    assert found.values[0].columns.tolist() == ["flow", "level"]
    assert found.values[1].index.equals(frames[1].index[:6].rename("time"))
    missing = np.isnan(gappy[0])
    assert missing.any()
    np.testing.assert_array_equal(found.values[0].to_numpy() == 0, missing)
    # Also where the baseline is not what stands for a missing value.
    far = integrated_gradients(reg, frames[:1], baseline=[1.0, 1.0])
    check_sums(far, 1)
    np.testing.assert_array_equal(far.values[0].to_numpy() == 0, missing)


def test_symbols():
    sequences = ["ACGTTGCAAC", "GGTTAACCAT", "TTTACGCGCG", "ACACACTTGG"] * 4
    clf = S4DClassifier(**TINY, alphabet="dna").fit(sequences, [0, 1, 1, 0] * 4)
    found = integrated_gradients(clf, sequences[:2])
    check_sums(found, 2)
    assert found.values[0].shape == (10, 1)
    of_a = integrated_gradients(clf, sequences[:2], baseline="A")
    a = np.array(list(sequences[0])) == "A"
    np.testing.assert_array_equal(of_a.values[0].to_numpy()[:, 0] == 0, a)
    n = integrated_gradients(clf, sequences[:2], baseline="N")
    np.testing.assert_allclose(n.values[0], found.values[0], rtol=1e-9)


def test_a_mixture_of_experts_jumps_and_says_so():
    reg = SSMRegressor(
        "s4d", d_model=6, n_layers=1, layer_options={"d_state": 4}, moe={"n_experts": 4, "top_k": 1, "every": 1},
        max_epochs=3, random_state=0,
    ).fit(X, X[:, 0, 0])  # fmt: skip
    with pytest.warns(UserWarning, match="do not add up within tol"):
        found = integrated_gradients(reg, X[:3], max_points=32)
    assert np.abs(found.error).max() > 0


def test_wrong_input(series, steps):
    for call, words in [
        (lambda: integrated_gradients(series, X[:1], times=T[:1], output=2), "one of the 2 outputs"),
        (lambda: integrated_gradients(series, X[:1], times=T[:1], baseline=[1.0, 2.0, 3.0]), "2 channels"),
        (lambda: integrated_gradients(series, X[:1], times=T[:1], baseline=np.nan), "finite"),
        (lambda: integrated_gradients(steps, X[:1], times=T[:1], at=9), "has 9 samples"),
        (lambda: integrated_gradients(series, X[:1]), "times"),
    ]:
        with pytest.raises(ValueError, match=words):
            call()
