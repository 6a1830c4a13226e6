"""What one pass learns, against NumPy over everything at once, however the rows come in pieces."""

import numpy as np
import pytest

from statespace import statistics
from statespace.statistics import GapMedian, Moments, TargetStatistics


def cut(rows, sizes):
    return np.split(rows, np.cumsum(sizes))


@pytest.mark.parametrize("offset", [0.0, 1e9])
def test_moments_do_not_depend_on_the_pieces(monkeypatch, offset):
    rng = np.random.default_rng(0)
    rows = offset + rng.normal(size=(1000, 3)) * [1.0, 10.0, 0.1]
    rows[rng.random(rows.shape) < 0.2] = np.nan
    rows[:64, 2] = np.nan  # a whole block without a value
    monkeypatch.setattr(statistics, "_BLOCK", 64)
    whole, pieces = Moments(), Moments()
    whole.add(rows)
    for piece in cut(rows, [1, 63, 64, 0, 500, 7]):
        pieces.add(piece)
    for value, same, true in zip(
        whole.mean_and_scale(),
        pieces.mean_and_scale(),
        (np.nanmean(rows, axis=0), np.nanstd(rows, axis=0)),
        strict=True,
    ):
        np.testing.assert_array_equal(value, same)
        np.testing.assert_allclose(value, true, rtol=1e-12 if not offset else 1e-6)


def test_weights_are_repeats(monkeypatch):
    monkeypatch.setattr(statistics, "_BLOCK", 16)
    rng = np.random.default_rng(0)
    rows, weights = rng.normal(size=(100, 2)), rng.integers(0, 4, size=100)
    rows[3, 0] = np.nan
    weighted, repeated = Moments(), Moments()
    weighted.add(rows, weights)
    repeated.add(np.repeat(rows, weights, axis=0))
    np.testing.assert_allclose(weighted.mean_and_scale(), repeated.mean_and_scale(), rtol=1e-12)


@pytest.mark.parametrize("weights", [None, 2.0])
@pytest.mark.parametrize("unit", [2.0**-1020, 2.0**-700, 2.0**-500, 2.0**500, 2.0**1020])
def test_the_unit_of_numbers_does_not_matter(monkeypatch, unit, weights):
    """Their squares may vanish or overflow; and a column may begin with zeros."""
    monkeypatch.setattr(statistics, "_BLOCK", 64)
    rows = np.random.default_rng(0).normal([3.0, 0.0], size=(200, 2))
    rows[:64, 1], rows[5, 0] = 0.0, np.nan
    plain, scaled = Moments(), Moments()
    plain.add(rows, weights)
    scaled.add(rows * unit, weights)
    for value, expected in zip(scaled.mean_and_scale(), plain.mean_and_scale(), strict=True):
        np.testing.assert_allclose(value, expected * unit, rtol=1e-13)


def test_columns_of_different_sizes_and_blocks(monkeypatch):
    monkeypatch.setattr(statistics, "_BLOCK", 2)
    moments = Moments()
    moments.add(np.array([[1e-200, 1e200], [3e-200, 3e200], [1.0, 1e200], [1.0, 3e200], [2.0, np.nan]]))
    mean, scale = moments.mean_and_scale()
    np.testing.assert_allclose(mean, [0.8, 2e200], rtol=1e-15)
    np.testing.assert_allclose(scale, [np.std([0, 0, 1, 1, 2]), 1e200], rtol=1e-15)


def test_columns_without_spread_or_values():
    moments = Moments()
    moments.add(np.array([[2.0, np.nan], [2.0, np.nan]]))
    np.testing.assert_array_equal(moments.mean_and_scale(), [[2.0, 0.0], [1.0, 1.0]])


@pytest.mark.parametrize("n", [1, 2, 999, 1000])
def test_the_median_is_exact(monkeypatch, n):
    monkeypatch.setattr(statistics, "_BLOCK", 50)
    gaps = np.random.default_rng(0).exponential(size=n).round(2)
    median = GapMedian()
    for piece in np.array_split(gaps, 7):
        median.add(piece)
    assert median.median() == (np.median(gaps[gaps > 0]) if (gaps > 0).any() else 1.0)


def test_the_median_of_very_many_different_gaps_is_close(monkeypatch):
    monkeypatch.setattr(statistics, "_DISTINCT", 1000)
    gaps = np.random.default_rng(0).lognormal(sigma=5.0, size=20_000)
    median = GapMedian()
    for piece in np.array_split(gaps, 7):
        median.add(piece)
    assert median.median() == pytest.approx(np.median(gaps), rel=1e-5)
    assert median.median() != np.median(gaps)
    assert GapMedian().median() == 1.0


def test_labels_are_counted_until_there_are_too_many(monkeypatch):
    found = TargetStatistics(2)
    found.add(0, np.array([["b"], ["a"], [None]], dtype=object))
    found.add(0, np.array([["b"]], dtype=object), np.array([3.0]))
    assert found.labels.tolist() == ["a", "b"]
    assert found.counts.tolist() == [1, 4]
    assert found.known.tolist() == [True, False]
    monkeypatch.setattr(statistics, "_MAX_LABELS", 2)
    found.add(1, np.array([["c"]], dtype=object))
    assert found.labels is None
