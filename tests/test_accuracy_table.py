"""The accuracy table's own arithmetic: metrics, gaps, intervals that use only what was known, and the ledger."""

import json
import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import norm

HERE = Path(__file__).parent / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def _benchmarks():
    """The benchmarks are scripts: they import each other by bare names."""
    sys.path.insert(0, str(HERE))
    yield
    sys.path.remove(str(HERE))


def real(name):
    root = os.environ.get("STATESPACE_DATA")
    if root is None or not (Path(root) / name).exists():
        pytest.skip(f"STATESPACE_DATA names no folder with {name}")


def test_owa_of_naive_is_one_and_its_parts_are_those_published():
    real("m4_small")
    import forecasts

    train, future = forecasts.m4_weekly()
    naive = np.stack([np.repeat(series[-1], 13) for series in train])
    found = forecasts.m4_errors(train, future, naive)
    # Naive 2 of the M4 competition, weekly: sMAPE 9.161, MASE 2.777.
    assert_allclose([found["OWA"], found["sMAPE"], found["MASE"]], [1.0, 9.161, 2.777], atol=6e-4)


def test_ett_has_the_customary_windows_and_both_conventions():
    real("ett")
    import forecasts

    values = forecasts.etth1()
    assert_allclose(values[:8640].mean(axis=0), 0.0, atol=1e-12)
    assert_allclose(values[:8640].std(axis=0), 1.0)
    past, future = forecasts.windows(values, forecasts.ETT_VALIDATION, forecasts.ETT_TEST, 24)
    assert past.shape == (2785, 7, 24)
    assert_array_equal(past[0], values[11520 - 24 : 11520].T)
    assert_array_equal(future[-1], values[-96:].T)
    forecast = future.copy()
    forecast[-1] += 2.0  # only in the window that the published convention drops
    found = forecasts.ett_errors(future, forecast)
    assert_allclose([found["MSE"], found["MSE, last batch dropped"]], [4 / 2785, 0.0])


def test_intervals_use_no_error_that_was_not_known():
    from forecasting_rows import rolling_intervals

    rng = np.random.default_rng(0)
    n, before, horizon = 40, 30, 5
    scores, forecast = np.abs(rng.normal(size=(before + n, 2, horizon))), np.zeros((n, 2, horizon))
    lower, upper = rolling_intervals(scores, forecast, every=1, memory=20)
    for origin in (0, 7, n - 1):
        # The targets of an origin o are rows o + 1 to o + horizon.
        known = [o for o in range(before + n) if o + horizon <= before + origin][-20:]
        rank = int(np.ceil(0.9 * (len(known) + 1)))
        assert_array_equal(upper[origin], np.sort(scores[known], axis=0)[rank - 1])
    assert_array_equal(lower, -upper)


def test_hidden_stretches_lie_inside_and_hold_their_share():
    from forecasts import Gapped

    times = np.sort(np.random.default_rng(0).uniform(0, 100, size=500))
    record = Gapped(times, np.sin(times), np.zeros(500), np.zeros(500, dtype=bool)).hide(4.0, 0.2, 3)
    assert 0.2 <= record.hidden.mean() < 0.26
    assert not record.hidden[[0, -1]].any()
    again = record.hide(4.0, 0.2, 3)
    assert_array_equal(again.hidden, record.hidden)
    assert len(record.shown().times) == 500 - record.hidden.sum()


def test_gap_errors_are_those_of_a_normal_distribution():
    from forecasts import Gapped, gap_errors

    values, hidden = np.array([0.0, 1.0, 2.0, 9.0]), np.array([False, True, True, True])
    record = Gapped(np.arange(4.0), values, np.zeros(4), hidden)
    found = gap_errors([record], [(np.array([1.0, 1.0, 1.0]), np.array([1.0, 2.0, 4.0]))])
    expected = np.mean(norm.logpdf([0.0, 0.5, 2.0]) - np.log([1.0, 2.0, 4.0]))
    assert_allclose([found["log score"], found["coverage"]], [expected, 2 / 3])


def test_a_ledger_goes_on_where_it_was_and_measures_anew_what_changed(tmp_path):
    from table import Ledger, Row, Table, fill, lines

    runs = []

    def make():
        """The contender."""

    def measure(options, seed, validate):
        runs.append((options["a"], seed))
        if options["a"] == 2 and seed == 1:
            raise RuntimeError("too small")
        return {"accuracy": options["a"] / 10 + seed / 100}

    def table(a, name="ours", ours=True):
        return Row(name, measure, partial(make), ({"a": a},), (0, 1), ours)

    ledger, said = Ledger(tmp_path / "folder" / "ledger.json"), []
    fill(ledger, "task", table(5), said.append)
    fill(Ledger(ledger.path), "task", table(5), said.append)  # as after a kill
    assert runs == [(5, 0), (5, 1)]
    fill(ledger, "task", table(6, "peer", False), said.append)
    fill(ledger, "task", table(2), said.append)
    assert runs[2:] == [(6, 0), (6, 1), (2, 0), (2, 1)]
    assert json.loads(ledger.path.read_text())["task | ours | seed 1"]["error"] == "RuntimeError: too small"
    printed = "\n".join(
        lines(ledger, "task", Table("A task", ("accuracy",), True, [table(2), table(6, "peer", False)], aim=0.5))
    )
    assert "0.2 (1 of 2 seeds)" in printed
    assert "behind peer: 0.2 against 0.605" in printed
    assert "missed by 0.3" in printed


def test_every_row_is_told_apart_and_has_its_figures():
    pytest.importorskip("sktime")
    real("m4_small")
    from bench_accuracy import TABLES

    for name, make in TABLES.items():
        table = make()
        names = [row.name for row in table.rows]
        assert len(set(names)) == len(names), name
        assert any(row.ours for row in table.rows), name
        for row in table.rows:
            prints = [row.fingerprint(i) for i in range(len(row.candidates))]
            assert len(set(prints)) == len(prints), (name, row.name)


def test_recurrent_networks_read_the_gap_and_train_in_our_loop():
    from contenders import RecurrentClassifier, RecurrentRegressor

    rng = np.random.default_rng(0)
    times = np.cumsum(rng.exponential(size=(12, 9)), axis=1)
    X = rng.normal(size=(12, 9, 2))
    options = {"d_model": 4, "n_layers": 1, "max_epochs": 2, "random_state": 0}
    regressor = RecurrentRegressor("lstm", **options).fit(X, X[..., 0].cumsum(axis=1), times=times)
    stretched = times * np.linspace(1, 2, 9)
    assert np.abs(regressor.predict(X, times=times) - regressor.predict(X, times=stretched)).max() > 1e-6
    classifier = RecurrentClassifier("gru", pooling="last", **options).fit(list(X), np.arange(12) % 2)
    # Padded beside a longer one, a series has the answer that it has alone.
    ragged = [X[0][:4], X[1]]
    assert_allclose(classifier.predict_proba(ragged)[:1], classifier.predict_proba(ragged[:1]), atol=1e-12)


def test_what_is_known_so_far_reads_nothing_ahead():
    from contenders import so_far
    from tasks import Part

    rng = np.random.default_rng(0)
    x = np.where(rng.random((9, 3)) < 0.4, np.nan, rng.normal(size=(9, 3)))
    train = Part([x, rng.normal(size=(5, 3))], np.zeros(2))
    whole = so_far(Part([x], np.zeros(1)), train).X[0]
    for n in range(1, 10):
        assert_allclose(so_far(Part([x[:n]], np.zeros(1)), train).X[0], whole[:n], atol=1e-14)
    everything = np.concatenate(train.X)
    z = (x - np.nanmean(everything, axis=0)) / np.nanstd(everything, axis=0)
    expected = [np.log1p((~np.isnan(z)).sum(axis=0)), np.nanmax(z, axis=0), np.nanstd(z, axis=0)]
    assert_allclose(whole[-1].reshape(5, 3)[[1, 3, 4]], expected, atol=1e-12)


def test_pieces_of_a_record_ask_nothing_of_a_state_they_do_not_know():
    from contenders import pieces
    from tasks import Part

    record = Part([np.arange(400.0)[:, None]], [np.arange(400.0)])
    cut = pieces(record, record)
    assert [len(x) for x in cut.X] == [256] * 5
    assert_array_equal(cut.y[0], np.arange(256.0))
    assert np.isnan(cut.y[1][:96]).all()
    assert_array_equal(cut.y[1][96:], np.arange(128.0, 288.0))
    assert_array_equal(cut.X[1][:, 0], np.arange(32.0, 288.0))
    assert pieces(Part(record.X, record.y), record).X[0] is record.X[0]
