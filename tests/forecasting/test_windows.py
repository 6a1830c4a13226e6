"""Windows: the baseline's least squares, what tokens hold, what is drawn, and that answers need no neighbours."""

import numpy as np
import pytest
import torch

from statespace.forecasting.baseline import Baseline
from statespace.forecasting.deep import QueryModel
from statespace.forecasting.windows import N_CHANNELS, Records, TrainingWindows, WindowReader, best_trend, place


def record(n=60, n_series=1, seed=0, slope=0.3):
    rng = np.random.default_rng(seed)
    series = []
    for _ in range(n_series):
        times = np.cumsum(rng.exponential(size=n))
        phases = np.stack([np.sin(times), np.cos(times)], axis=1)
        series.append((times, 5 + slope * times + 2 * phases[:, 0] + 0.1 * rng.normal(size=n), phases))
    return Records.join(series)


def reader(records, trend="linear", context_length=20):
    return WindowReader(records, trend, 1.0, records.value_scale, 10.0, context_length)


@pytest.mark.parametrize("trend", ["last", "mean", "linear"])
def test_the_baseline_is_ridge_regression_of_each_window_alone(trend):
    records = record()
    t, y, X = records.times[10:30], records.values[10:30], records.covariates[10:30]
    columns = [np.ones(20), (t - t[-1]) / (t[-1] - t[0])] if trend == "linear" else [np.ones(20)]
    design = np.column_stack([*columns, X])
    penalty = np.diag([0.0] + [0.1] * (design.shape[1] - 1))
    theta = np.linalg.solve(design.T @ design + penalty, design.T @ (y - y.mean()))
    left = y - y.mean() - design @ theta
    shift = left[-1] if trend == "last" else 0.0
    pad = lambda a: np.stack([np.concatenate([a, np.full((5, *a.shape[1:]), 1e9)]), np.concatenate([a[:1]] * 25)])  # noqa: E731
    baseline = Baseline(pad(t), pad(y), pad(X), np.array([20, 1]), trend, 1.0)
    np.testing.assert_allclose(y - baseline(t, X, np.zeros(20, dtype=int)), left - shift, atol=1e-8)
    np.testing.assert_allclose(baseline.scale, [np.sqrt(np.mean(left**2)), 0.0])
    np.testing.assert_allclose(baseline.spread, [y.var(), 0.0], atol=1e-12)
    ahead = np.concatenate([[1.0], [4.0 / (t[-1] - t[0])] if trend == "linear" else [], [0.1, 0.2]])
    found = baseline(np.array([t[-1] + 4, t[0] + 4]), np.array([[0.1, 0.2]] * 2), np.array([0, 1]))
    np.testing.assert_allclose(found[0], y.mean() + ahead @ theta + shift)
    np.testing.assert_allclose(found[1], y[0])  # one value says nothing but itself


@pytest.mark.parametrize("trend", ["last", "mean", "linear"])
@pytest.mark.parametrize("level", [0.0, 1e6])
def test_a_baseline_that_is_extended_is_that_of_all_samples(trend, level):
    records = record()
    t, y, X = records.times[10:40], level + records.values[10:40], records.covariates[10:40]
    first = Baseline(t[None, :12], y[None, :12], X[None, :12], np.array([12]), trend, 1.0)
    counts = np.array([0, 1, 5, 18])
    found = first.extended(t[None, 12:], y[None, 12:], X[None, 12:], np.zeros(4, dtype=int), counts)
    # Time is measured as in the first fit, so that the ridge on its coefficient means the same.
    columns = [np.ones(30), (t - t[11]) / (t[11] - t[0])] if trend == "linear" else [np.ones(30)]
    design = np.column_stack([*columns, X])
    penalty = np.diag([0.0] + [0.1] * (design.shape[1] - 1))
    for k, count in enumerate(counts):
        n = 12 + count
        center = y[:12].mean()
        theta = np.linalg.solve(design[:n].T @ design[:n] + penalty, design[:n].T @ (y[:n] - center))
        left = y[:n] - center - design[:n] @ theta
        expected = center + design @ theta + (left[-1] if trend == "last" else 0.0)
        np.testing.assert_allclose(found(t, X, np.full(30, k)), expected, rtol=1e-12, atol=1e-9)
        np.testing.assert_allclose(found.scale[k], np.sqrt(np.mean(left**2)), rtol=1e-9)
        np.testing.assert_allclose(found.spread[k], y[:n].var(), rtol=1e-9)


def test_windows_hold_most_of_the_context_and_share_their_anchors():
    for longest in (1, 2, 7, 16, 100):
        ends = np.arange(1, 500)
        starts, anchors = place(ends, longest)
        assert ((starts < anchors) & (anchors <= ends)).all()
        assert (ends - starts).max() == longest
        assert ((ends - starts)[longest:] >= 0.75 * longest).all()
        # One anchor has one start, and every sample is read a few times only.
        first = np.unique(anchors, return_index=True)[1]
        np.testing.assert_array_equal(starts[np.searchsorted(first, np.arange(499), side="right") - 1 >= 0], starts)
        read = (np.append(ends[first[1:] - 1], 499) - starts[first]).sum()
        assert read <= 5 * 499


def test_training_windows_look_forward_only_and_within_the_longest_horizon():
    records = record(n_series=3)
    windows = TrainingWindows(reader(records), 200, 8, seed=0)
    tokens, values = windows.draw(200)
    assert (tokens.query_dt > 0).all()
    assert (tokens.query_dt <= 10).all()
    assert tokens.x.shape[1] <= 20
    for query, value in zip(tokens.query_dt, values, strict=True):
        gaps = np.abs(records.times[:, None] + query - records.times)
        assert value in records.values[np.unique(np.nonzero(gaps < 1e-9)[1])]
    again = TrainingWindows(reader(records), 200, 8, seed=0).draw(200)[0]
    np.testing.assert_array_equal(again.x, tokens.x)
    assert not np.array_equal(windows.draw(200)[0].query_dt, tokens.query_dt)


def test_tokens_do_not_know_the_unit_or_the_level_of_the_values():
    records = record()
    other = records._replace(values=1000 * records.values - 7e5)
    window = np.array([20]), np.array([35]), np.array([40])
    arguments = *window, records.times[[45]], records.covariates[[45]], np.array([0])
    one, two = reader(records).read(*arguments), reader(other).read(*arguments)
    np.testing.assert_allclose(two.x, one.x, atol=1e-8)
    np.testing.assert_allclose(two.offset, 1000 * one.offset - 7e5)
    np.testing.assert_allclose(two.scale, 1000 * one.scale)


def test_an_answer_needs_neither_the_other_queries_nor_the_other_windows():
    torch.manual_seed(0)
    model = QueryModel(d_input=N_CHANNELS + 2, d_model=8, n_layers=2, layer_options={"d_state": 4}).double().eval()
    torch.nn.init.normal_(model.stack.head.weight)
    records = record()
    starts, anchors, ends, window = np.array([10, 38]), np.array([26, 45]), np.array([30, 45]), np.array([0, 0, 1])
    rows = np.array([31, 50, 47])
    both = reader(records).read(starts, anchors, ends, records.times[rows], records.covariates[rows], window)
    with torch.no_grad():
        together = model(**both.tensors(torch.float64))
        for j in range(3):
            k, row = window[j], rows[[j]]
            alone = reader(records).read(
                starts[[k]], anchors[[k]], ends[[k]], records.times[row], records.covariates[row], np.array([0])
            )
            torch.testing.assert_close(model(**alone.tensors(torch.float64))[0], together[j], rtol=1e-9, atol=1e-9)


def test_the_trend_is_the_one_that_forecasts_best():
    steep = record(n=200, slope=3.0)
    assert best_trend(lambda trend: reader(steep, trend, 60), 0) == "linear"
    rng = np.random.default_rng(0)
    times = np.arange(400.0)
    for walk, expected in ((rng.normal(size=400).cumsum(), "last"), (rng.normal(size=400), "mean")):
        records = Records.join([(times, walk, np.empty((400, 0)))])
        assert best_trend(lambda trend, records=records: reader(records, trend, 60), 0) == expected
