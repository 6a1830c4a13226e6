"""Sample weights: a series of weight 2 is two, one of weight 0 is none, in all that is learned and scored."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.model_selection import GridSearchCV

from statespace import S4DClassifier, S4DRegressor, SeriesCollection
from statespace.base import mean_and_scale
from statespace.times import median_gap
from statespace.training import SeriesBatches, fit, target_weights
from statespace.weights import check_sample_weight
from tests.training.test_loop import generator, make_model

TINY = {"d_model": 4, "n_layers": 1, "d_state": 4, "max_epochs": 3, "random_state": 0, "device": "cpu"}
# One batch, nothing drawn: what is learned then depends on the weighted loss alone.
WHOLE = TINY | {"batch_size": 1000, "dropout": 0.0, "validation_fraction": 0}
WEIGHTS = np.array([2.0, 0.0, 1.0, 3.0, 1.0, 0.0])
LEARNED = ("x_mean_", "x_scale_", "time_scale_")


def make_series():
    rng = np.random.default_rng(0)
    lengths = rng.integers(4, 12, size=6)
    X = [rng.normal(size=(n, 2)) for n in lengths]
    times = [np.cumsum(rng.exponential(size=n)) for n in lengths]
    return X, times


def repeated(rows):
    return [row for row, weight in zip(rows, WEIGHTS, strict=True) for _ in range(int(weight))]


@pytest.mark.parametrize("per_step", [False, True])
def test_a_weight_is_a_number_of_repetitions(per_step):
    X, times = make_series()
    y = [np.cumsum(x[:, 0]) for x in X] if per_step else np.array([x[:, 0].sum() for x in X])
    y[2 if per_step else 3] = y[2 if per_step else 3] * np.nan  # also beside targets that are not known
    weighted = S4DRegressor(**WHOLE).fit(X, y, times=times, sample_weight=WEIGHTS)
    Y = repeated(y) if per_step else np.array(repeated(y))
    plain = S4DRegressor(**WHOLE).fit(repeated(X), Y, times=repeated(times))
    for name in (*LEARNED, "y_mean_", "y_scale_"):
        np.testing.assert_allclose(getattr(weighted, name), getattr(plain, name), rtol=1e-12)
    np.testing.assert_allclose(weighted.history_, plain.history_, rtol=1e-5)
    unweighted = S4DRegressor(**WHOLE).fit(X, y, times=times)
    found, expected, other = (list(model.predict(X, times=times)) for model in (weighted, plain, unweighted))
    for a, b, c in zip(found, expected, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)
        assert np.abs(c - b).max() > 1e-3
    assert weighted.score(X, y, times=times, sample_weight=WEIGHTS) == pytest.approx(
        weighted.score(repeated(X), Y, times=repeated(times))
    )


@pytest.mark.parametrize("per_step", [False, True])
def test_labels_count_by_their_weights_too(per_step):
    X, times = make_series()
    y = [(x[:, 0] > 0).astype(int) for x in X] if per_step else np.array(["a", "b", "a", "b", "a", "a"])
    options = WHOLE | {"class_weight": "balanced"}
    weighted = S4DClassifier(**options).fit(X, y, times=times, sample_weight=WEIGHTS)
    Y = repeated(y) if per_step else np.array(repeated(y))
    plain = S4DClassifier(**options).fit(repeated(X), Y, times=repeated(times))
    np.testing.assert_allclose(weighted.class_weight_, plain.class_weight_, rtol=1e-12)
    np.testing.assert_allclose(weighted.history_, plain.history_, rtol=1e-5)
    assert weighted.score(X, y, times=times, sample_weight=WEIGHTS) == pytest.approx(
        weighted.score(repeated(X), Y, times=repeated(times))
    )


def test_the_loop_repeats_to_the_last_digits():
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(7, 1)) for _ in WEIGHTS]
    models = []
    for copies, weights in ((inputs, WEIGHTS), (repeated(inputs), None)):
        model = make_model().double()
        data = SeriesBatches(
            copies, targets=[np.cumsum(x, axis=0) for x in copies], weights=weights, dtype=torch.double
        )

        def loss(model, batch):
            weights = target_weights(batch)
            return (weights * (model(batch["x"])[0] - batch["y"]) ** 2).sum(), weights.sum()

        model.blocks[0].dropout.p = 0.0
        fit(model, data, loss, max_epochs=4, batch_size=100, generator=generator())
        models.append(model.state_dict())
    for name in models[0]:
        torch.testing.assert_close(models[0][name], models[1][name], rtol=1e-8, atol=1e-10)


def test_weights_a_step():
    X, _ = make_series()
    y = [np.cumsum(x[:, 0]) for x in X]
    constant = [np.full(len(x), w) for x, w in zip(X, WEIGHTS, strict=True)]
    expected = S4DRegressor(**TINY).fit(X, y, sample_weight=WEIGHTS)
    index = pd.MultiIndex.from_tuples([(i, k) for i, x in enumerate(X) for k in range(len(x))])
    for weights in (constant, SeriesCollection(constant), pd.Series(np.concatenate(constant), index=index)):
        model = S4DRegressor(**TINY).fit(X, y, sample_weight=weights)
        pd.testing.assert_frame_equal(model.history_, expected.history_)
    # A step of weight 0 is one whose target is not known.
    some = [np.where(np.arange(len(x)) % 3 == 0, 0.0, 1.0) for x in X]
    hidden = [np.where(w > 0, row, np.nan) for w, row in zip(some, y, strict=True)]
    model, other = S4DRegressor(**WHOLE), S4DRegressor(**WHOLE)
    model.fit(X, y, sample_weight=some)
    other.fit(X, hidden)
    assert model.y_mean_ == pytest.approx(other.y_mean_)
    assert model.score(X, y, sample_weight=some) == pytest.approx(model.score(X, hidden))
    with pytest.raises(ValueError, match="one weight a step, and y one target a series"):
        model.fit(X, np.arange(6.0), sample_weight=some)


def test_a_series_of_weight_zero_is_neither_learned_from_nor_held_out():
    X, _ = make_series()
    X[1][:] = 1e6
    X[5][0] = np.nan
    y = np.array([x[:, 0].sum() for x in X])
    kept = WEIGHTS > 0
    options = TINY | {"validation_fraction": 0.5}
    model = S4DRegressor(**options).fit(X, y, sample_weight=kept.astype(int))
    other = S4DRegressor(**options).fit([x for x, keep in zip(X, kept, strict=True) if keep], y[kept])
    assert not model.has_missing_
    np.testing.assert_allclose(model.history_, other.history_, rtol=1e-6)


def test_moments_and_medians():
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(n, 2)) for n in (3, 4, 5)]
    arrays[0][1, 0] = np.nan
    weights = [2, 0, 3]
    copies = [a for a, w in zip(arrays, weights, strict=True) for _ in range(w)]
    np.testing.assert_allclose(mean_and_scale(arrays, weights), mean_and_scale(copies), rtol=1e-13)
    np.testing.assert_allclose(mean_and_scale([np.full((2, 1), np.nan)], [1.0]), [[0.0], [1.0]])
    for size in (4, 5, 6, 7):
        times = [np.cumsum(rng.exponential(size=size)) for _ in weights]
        copies = [t for t, w in zip(times, weights, strict=True) for _ in range(w)]
        assert median_gap(times, weights=weights) == median_gap(copies)
    assert median_gap([[0, 1, 3], [10, 10, 14]], weights=[1, 1]) == 2.0


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, -1.0], r"at least 0, which leaves a sample out\. Got -1\.0"),
        ([1.0, np.nan], "Got nan"),
        ([1.0, np.inf], "infinity"),
        ([0.0, 0.0], "at least one non-zero number"),
        ([1.0], r"expected \(2,\)"),
        (np.ones((2, 3)), "one weight for each of the 2 steps, got shape"),
        ([[1.0, 1.0]], "has 1 series, expected 2"),
        (["a", "b"], "could not convert|dtype"),
    ],
)
def test_bad_weights(weights, message):
    with pytest.raises(ValueError, match=message):
        check_sample_weight(weights, SeriesCollection([[1.0, 2.0], [3.0, 4.0]]))


def test_a_grid_search_cuts_the_weights():
    X, _ = make_series()
    y = np.array([x[:, 0].sum() for x in X])
    search = GridSearchCV(S4DRegressor(**TINY), {"d_state": [2]}, cv=2, error_score="raise")
    assert np.isfinite(
        search.fit(SeriesCollection(X), y, sample_weight=WEIGHTS + 1).cv_results_["mean_test_score"]
    ).all()
