"""Fitting that goes on: warm_start and partial_fit."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone

import statespace
from statespace import S4DClassifier, S4DRegressor
from statespace.training import DivergenceError

TINY = {"d_model": 4, "n_layers": 1, "d_state": 4, "max_epochs": 3, "random_state": 0, "device": "cpu"}


def make_series(n=16, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 7, 2))
    times = np.cumsum(rng.exponential(size=(n, 7)), axis=1)
    return X, X[:, :, 0].sum(axis=1), times


def weights(model):
    return {name: value.clone() for name, value in model.model_.state_dict().items()}


def test_a_warm_start_goes_on_with_weights_and_scales():
    X, y, times = make_series()
    first = S4DRegressor(**TINY, warm_start=True).fit(X, y, times=times)
    before = weights(first)
    second = copy.deepcopy(first).set_params(max_epochs=1, learning_rate=0.0, ssm_learning_rate=0.0, weight_decay=0.0)
    second.fit(X * 3 + 5, y, times=times)  # at a rate of 0, weights and scales are what they were
    assert all(torch.equal(value, before[name]) for name, value in second.model_.state_dict().items())
    np.testing.assert_array_equal(second.x_mean_, first.x_mean_)
    np.testing.assert_array_equal(second.y_scale_, first.y_scale_)
    third = copy.deepcopy(first).fit(X, y, times=times)
    assert third.history_.index.tolist() == [1, 2, 3, 4, 5, 6]
    assert third.history_.iloc[:3].equals(first.history_)
    assert third.history_["loss"].iloc[3] < first.history_["loss"].iloc[0]
    assert 4 <= third.best_epoch_ <= 6
    anew = copy.deepcopy(first).set_params(warm_start=False).fit(X, y, times=times)
    np.testing.assert_array_equal(anew.predict(X, times=times), first.predict(X, times=times))
    assert len(anew.history_) == 3


def test_a_warm_start_takes_another_dropout_and_no_other_width():
    X, y, _ = make_series()
    model = S4DRegressor(**TINY, warm_start=True).fit(X, y)
    model.set_params(dropout=0.4, max_epochs=1).fit(X, y)
    assert model.model_.config["dropout"] == 0.4
    with pytest.raises(ValueError, match=r"d_model changed\. Set it back, or warm_start=False"):
        model.set_params(d_model=8).fit(X, y)
    with pytest.raises(ValueError, match="expecting 2 features"):
        model.set_params(d_model=4).fit(X[:, :, :1], y)
    with pytest.raises(ValueError, match=r"must have 1 output\(s\)"):
        model.fit(X, np.stack([y, y], axis=1))
    assert len(model.history_) == 4


def test_a_distribution_cannot_change_on_the_way():
    X, y, _ = make_series()
    model = S4DRegressor(**TINY, distribution="gaussian", warm_start=True).fit(X, y)
    with pytest.raises(ValueError, match="distribution=None is not that of the model, 'gaussian'"):
        model.set_params(distribution=None).fit(X, y)


def test_partial_fit_learns_pass_by_pass():
    X, y, times = make_series(60)
    options = TINY | {"learning_rate": 0.03, "ssm_learning_rate": 0.01, "dropout": 0.0, "batch_size": 8}
    model = S4DRegressor(**options)
    for _ in range(25):
        assert model.partial_fit(X, y, times=times) is model
    assert model.score(X, y, times=times) > 0.7
    assert model.history_["loss"].iloc[-1] < 0.3 * model.history_["loss"].iloc[0]
    assert model.best_epoch_ == len(model.history_) == 25
    assert model.predict(X[:3], times=times[:3]).shape == (3,)


def test_the_optimiser_goes_on_also_in_a_pickle():
    X, y, _ = make_series()
    model, other = (S4DRegressor(**TINY).partial_fit(X, y) for _ in range(2))
    other = pickle.loads(pickle.dumps(other))
    for _ in range(2):
        model.partial_fit(X, y)
        other.partial_fit(X, y)
    np.testing.assert_array_equal(model.predict(X), other.predict(X))
    # Without the moments of the first pass the second is another.
    forgetful = S4DRegressor(**TINY).partial_fit(X, y)
    del forgetful._pass
    forgetful.partial_fit(X, y).partial_fit(X, y)
    assert np.abs(forgetful.predict(X) - model.predict(X)).max() > 1e-6


def test_scales_are_those_of_the_first_call():
    X, y, times = make_series()
    model = S4DRegressor(**TINY).partial_fit(X[:8], y[:8], times=times[:8])
    learned = {name: copy.copy(getattr(model, name)) for name in ("x_mean_", "x_scale_", "y_mean_", "time_scale_")}
    model.partial_fit(10 + X[8:], 5 * y[8:], times=3 * times[8:])
    for name, value in learned.items():
        np.testing.assert_array_equal(getattr(model, name), value)
    for wrong, message in (
        ((X[:, :, :1], y, times), "expecting 2 features"),
        ((X, y, None), "fitted with times, and X has none"),
        ((X, X[:, :, 0], times), "for every series"),
    ):
        with pytest.raises(ValueError, match=message):
            model.partial_fit(*wrong)


def test_partial_fit_follows_fit_and_a_file(tmp_path):
    X, y, _ = make_series()
    model = S4DRegressor(**TINY).fit(X, y)
    model.save(tmp_path / "model")
    again = statespace.load(tmp_path / "model")
    np.testing.assert_array_equal(again.partial_fit(X, y).predict(X), model.partial_fit(X, y).predict(X))
    assert len(model.history_) == 4
    anew = model.fit(X, y)
    assert len(anew.history_) == 3
    assert not hasattr(clone(model), "_pass")


def test_classes_are_named_in_the_first_call():
    X, y, _ = make_series()
    labels = np.where(y > 0, "up", "down")
    model = S4DClassifier(**TINY)
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        model.partial_fit(X, labels)
    with pytest.raises(ValueError, match="labels that classes= does not name: down"):
        model.partial_fit(X, labels, classes=["flat", "up"])
    model.partial_fit(X[labels == "up"], labels[labels == "up"], classes=["up", "flat", "down"])
    assert model.classes_.tolist() == ["down", "flat", "up"]
    model.partial_fit(X, labels).partial_fit(X, labels, classes=["down", "up", "flat"])
    assert model.predict_proba(X).shape == (16, 3)
    with pytest.raises(ValueError, match="not the same as on the first call"):
        model.partial_fit(X, labels, classes=["up", "down"])
    with pytest.raises(ValueError, match="not among the classes of the first fit: left"):
        model.partial_fit(X, np.where(y > 0, "up", "left"))
    with pytest.raises(ValueError, match="has to see all labels at once"):
        S4DClassifier(**TINY, class_weight="balanced").partial_fit(X, labels, classes=["up", "down"])


def test_partial_fit_with_weights_and_a_step_each():
    X, _, times = make_series()
    y = np.cumsum(X[:, :, 0], axis=1)
    y[3, 2:] = np.nan
    weights = np.r_[0.0, np.ones(15)]
    model = S4DRegressor(**TINY, dropout=0.0).partial_fit(X, y, times=times, sample_weight=weights)
    other = S4DRegressor(**TINY, dropout=0.0).partial_fit(X[1:], y[1:], times=times[1:])
    np.testing.assert_allclose(model.predict(X, times=times), other.predict(X, times=times), rtol=1e-4, atol=1e-5)
    labels = (y > 0).astype(int)
    assert S4DClassifier(**TINY).partial_fit(X, labels, classes=[0, 1]).predict(X).shape == labels.shape


def test_a_pass_that_diverges_changes_nothing():
    X, y, _ = make_series()
    model = S4DRegressor(**TINY).partial_fit(X, y)
    before, rows = weights(model), len(model.history_)
    model.set_params(learning_rate=1e30, gradient_clip=None, batch_size=1)
    with pytest.raises(DivergenceError, match=r"The weights are those before this pass"):
        model.partial_fit(X, y)
    assert all(torch.equal(value, before[name]) for name, value in model.model_.state_dict().items())
    assert len(model.history_) == rows


def test_calibration_is_for_fit():
    X, y, _ = make_series()
    with pytest.raises(ValueError, match="partial_fit holds out no series to calibrate with"):
        S4DRegressor(**TINY, calibrate=True).partial_fit(X, y)
    model = S4DRegressor(**TINY, calibrate=True, calibration_fraction=0.5).fit(X, y)
    model.set_params(calibrate=False).partial_fit(X, y)
    assert not hasattr(model, "calibration_scores_")  # they were the scores of other weights
