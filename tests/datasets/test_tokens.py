"""The tasks over symbols: their answers follow from their questions, and the same seed gives the same series."""

import numpy as np
import pytest

from statespace import datasets

TASKS = {
    "make_selective_copying": dict(length=30, n_tokens=4, n_symbols=7),
    "make_induction_heads": dict(length=12, n_symbols=5),
    "make_associative_recall": dict(length=21, n_keys=4, n_values=5, noise=0.3),
    "make_memorization": dict(length=10, n_keys=4, n_values=5),
    "make_compression": dict(length=6, n_symbols=5),
}


def make(name, n_series=200, seed=0, **options):
    return getattr(datasets, name)(n_series=n_series, random_state=seed, **TASKS[name] | options)


@pytest.mark.parametrize("name", TASKS)
def test_what_all_tasks_share(name):
    X, y, n_symbols = make(name)
    assert X.shape == y.shape
    assert len(X) == 200
    assert X.dtype.kind == "i"
    assert X.min() >= 0
    assert X.max() == n_symbols - 1
    asked = ~np.isnan(y)
    assert asked.any(axis=1).all() or name == "make_associative_recall"
    assert set(y[asked]) <= set(range(n_symbols))
    again, other = make(name), make(name, seed=1)
    np.testing.assert_array_equal(again.X, X)
    assert (other.X != X).any()


def test_selective_copying_asks_for_the_data_in_their_order():
    X, y, n_symbols = make("make_selective_copying")
    for row, answers in zip(X, y, strict=True):
        data = row[(row > 0) & (row < n_symbols - 1)]
        np.testing.assert_array_equal(answers[30:], data)
        assert (row[30:] == n_symbols - 1).all()
        assert np.isnan(answers[:30]).all()
    places = np.flatnonzero((X[:, :30] > 0).any(axis=0))
    np.testing.assert_array_equal(places, np.arange(30))


def test_induction_heads_ask_for_what_followed_the_special_symbol():
    X, y, n_symbols = make("make_induction_heads")
    for row, answers in zip(X, y, strict=True):
        places = np.flatnonzero(row == n_symbols - 1)
        assert len(places) == 2
        assert places[1] == 11
        assert answers[-1] == row[places[0] + 1]
        assert np.isnan(answers[:-1]).all()


@pytest.mark.parametrize("noise", [0.0, 0.3, 0.9])
def test_associative_recall_asks_for_values_that_were_shown(noise):
    X, y, n_symbols = make("make_associative_recall", noise=noise)
    for row, answers in zip(X, y, strict=True):
        mapping, step = {}, 0
        while step < len(row):
            key = row[step]
            if key == n_symbols - 1:
                assert np.isnan(answers[step])
                step += 1
                continue
            assert key < 4 <= row[step + 1]
            if key in mapping:
                assert answers[step] == mapping[key] == row[step + 1]
            else:
                assert np.isnan(answers[step])
            mapping[key] = row[step + 1]
            step += 2
    noisy = np.equal(X, n_symbols - 1)
    assert noisy.mean() == pytest.approx(noise, abs=0.08)


def test_memorization_has_one_mapping_for_all_series():
    X, y, n_symbols = make("make_memorization")
    other = make("make_memorization", seed=5)
    facts = {}
    for rows, answers in ((X, y), (other.X, other.y)):
        assert (rows[:, 1::2] == n_symbols - 1).all()
        assert np.isnan(answers[:, ::2]).all()
        for key, value in zip(rows[:, ::2].flat, answers[:, 1::2].flat, strict=True):
            assert facts.setdefault(key, value) == value
    assert len(facts) == 4
    changed = make("make_memorization", mapping_state=3)
    np.testing.assert_array_equal(changed.X, X)
    assert (changed.y[:, 1::2] != y[:, 1::2]).any()


def test_compression_names_every_place():
    X, y, n_symbols = make("make_compression")
    assert n_symbols == 11
    np.testing.assert_array_equal(y[:, 6:], X[:, :6])
    np.testing.assert_array_equal(X[:, 6:], np.tile(np.arange(5, 11), (200, 1)))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("make_selective_copying", dict(length=3), "length must be at least 4. Got 3 instead"),
        ("make_selective_copying", dict(n_symbols=2), "n_symbols must be at least 3"),
        ("make_induction_heads", dict(length=2), "length must be at least 3"),
        ("make_associative_recall", dict(noise=1.0), r"noise must be a share in \[0, 1\)"),
        ("make_memorization", dict(length=7), "length must be even"),
        ("make_compression", dict(n_series=0), "n_series must be at least 1"),
    ],
)
def test_numbers_out_of_range(name, options, message):
    with pytest.raises(ValueError, match=message):
        make(name, **options)
