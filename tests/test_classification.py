"""Classifiers: labels of every kind and form, probabilities, weights, streams, bad input."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import DataConversionWarning
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score

import statespace
from statespace import S4DClassifier, SeriesCollection


def tiny(**options):
    defaults = {"d_model": 4, "n_layers": 1, "d_state": 4, "max_epochs": 2, "random_state": 0, "device": "cpu"}
    return S4DClassifier(**(defaults | options))


def make_series(n=12, seed=0):
    """Irregular series of two channels and unlike lengths; a label a step: whether the first channel is positive."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, 15, size=n)
    X = [rng.normal(size=(k, 2)) for k in lengths]
    times = [np.cumsum(rng.integers(1, 256, size=k)) / 64 for k in lengths]
    return X, times, [np.where(x[:, 0] > 0, "up", "down") for x in X]


def series_labels(steps):
    return np.array([row[-1] for row in steps])


@pytest.mark.parametrize(
    "labels",
    [
        ["b", "a", "c"], np.array(["b", "a", "c"], dtype=object), [3, -1, 7], [3.0, -1.0, 7.0], [True, False, True],
        pd.Series(["b", "a", "c"], index=[7, 8, 9]), pd.Categorical(["b", "a", "c"]), pd.array(["b", "a", "c"]),
    ],
    ids=lambda labels: f"{type(labels).__name__} {np.asarray(labels).dtype}",
)  # fmt: skip
def test_labels_of_every_kind(labels):
    X = np.random.default_rng(0).normal(size=(12, 6))
    y = np.tile(np.asarray(labels), 4) if not isinstance(labels, pd.Series) else pd.concat([labels] * 4)
    model = tiny().fit(X, y)
    expected = np.unique(np.asarray(labels))
    np.testing.assert_array_equal(model.classes_, expected)
    assert set(model.predict(X)) <= set(expected)
    assert 0 <= model.score(X, y) <= 1


def test_predictions_and_probabilities_agree():
    X, times, steps = make_series()
    for y in (steps, series_labels(steps)):
        model = tiny().fit(X, y, times=times)
        assert model.per_step_ == isinstance(y, list)
        proba, logs, labels = (f(X, times=times) for f in (model.predict_proba, model.predict_log_proba, model.predict))
        rows = zip(proba, logs, labels, X, strict=True) if model.per_step_ else [(proba, logs, labels, X)]
        for p, log_p, label, x in rows:
            assert p.shape == (len(x), 2)
            np.testing.assert_allclose(p.sum(axis=-1), 1, rtol=1e-12)
            np.testing.assert_allclose(np.log(p), log_p, rtol=1e-9, atol=1e-12)
            np.testing.assert_array_equal(model.classes_[p.argmax(axis=-1)], label)


def test_labels_a_step_come_back_in_the_form_of_y():
    X, times, steps = make_series()
    ragged = tiny().fit(X, steps, times=times).predict(X, times=times)
    assert (ragged.dtype, ragged.shape) == (object, (12,))
    assert [row.shape for row in ragged] == [row.shape for row in steps]
    square = np.random.default_rng(0).normal(size=(6, 9, 2))
    y = (square[..., 0] > 0).astype(int)
    model = tiny().fit(square, y)
    assert model.predict(square).shape == y.shape
    assert model.predict_proba(square).shape == (6, 9, 2)
    assert tiny().fit(square, y.tolist()).predict(square).dtype == object


def test_labels_a_step_from_lists_frames_and_panels_are_the_same():
    X, times, steps = make_series()
    frames = [pd.DataFrame(x, index=t) for x, t in zip(X, times, strict=True)]
    expected = tiny().fit(X, steps, times=times)
    panel = pd.concat([pd.Series(s, index=t) for s, t in zip(steps, times, strict=True)], keys=range(12))
    S = SeriesCollection(X, times=times)
    forms = [
        (S, [row.tolist() for row in steps]),
        (S, np.array([*steps, None], dtype=object)[:-1]),
        (frames, [pd.Series(row, index=t) for row, t in zip(steps, times, strict=True)]),
        (pd.concat(frames, keys=range(12)), panel),
        (pd.concat(frames, keys=range(12)), panel.to_frame()),
    ]
    for X_form, y in forms:
        model = tiny().fit(X_form, y)
        assert model.score(X_form, y) == expected.score(X, steps, times=times)
        np.testing.assert_array_equal(model.history_, expected.history_)
    numbers = SeriesCollection([(row == "up")[:, None] for row in steps], times=times)
    np.testing.assert_array_equal(tiny().fit(S, numbers).history_, expected.history_)


def test_a_panel_of_labels_has_the_times_of_x():
    X, times, steps = make_series()
    frames = [pd.DataFrame(x, index=t) for x, t in zip(X, times, strict=True)]
    with pytest.raises(ValueError, match="must have the times of X"):
        tiny().fit(frames, [pd.Series(row, index=t + 1) for row, t in zip(steps, times, strict=True)])
    with pytest.raises(ValueError, match="one target for each of the"):
        tiny().fit(X, [row[:-1] for row in steps])


def test_a_label_that_is_not_known_carries_no_loss_and_no_score():
    X, times, steps = make_series()
    gappy = [row.astype(object) for row in steps]
    gappy[0][:] = None
    gappy[3][1:3] = np.nan
    model = tiny().fit(X, gappy, times=times)
    assert model.classes_.tolist() == ["down", "up"]
    other = [row.copy() for row in X]
    known = np.concatenate([~pd.isna(row) for row in gappy])
    hits = np.concatenate(list(model.predict(X, times=times))) == np.concatenate(steps)
    assert model.score(other, gappy, times=times) == pytest.approx(hits[known].mean())
    labels = series_labels(steps).astype(object)
    labels[::3] = None
    kept = np.arange(12) % 3 > 0
    rest = tiny(validation_fraction=0).fit(X, labels, times=times)
    # Training sees the other series alone; the scales of X are of all.
    alone = tiny(validation_fraction=0)
    assert rest.score(X, labels, times=times) == rest.score(
        [x for x, k in zip(X, kept, strict=True) if k], labels[kept], times=[t for t, k in zip(times, kept) if k]  # noqa: B905
    )  # fmt: skip
    with pytest.raises(ValueError, match="NaN only"):
        alone.fit(X, np.full(12, np.nan))


def test_a_label_never_seen_is_wrong():
    X, _, steps = make_series()
    y = series_labels(steps)
    model = tiny().fit(X, y)
    expected = model.score(X, y)
    unseen = np.where(np.arange(12) == np.flatnonzero(model.predict(X) == y)[0], "elsewhere", y)
    assert model.score(X, unseen) == pytest.approx(expected - 1 / 12)


def test_the_loss_is_the_weighted_mean_cross_entropy():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 5)), np.repeat(["a", "b", "c"], [12, 5, 3])
    options = {"max_epochs": 1, "learning_rate": 0.0, "ssm_learning_rate": 0.0, "dropout": 0.0}
    options["validation_fraction"] = 0
    for weight in (None, "balanced", {"a": 1.0, "b": 0.5, "c": 4.0}):
        model = tiny(class_weight=weight, **options).fit(X, y)
        weights = {None: [1, 1, 1], "balanced": [20 / 36, 20 / 15, 20 / 9]}.get(
            weight if not isinstance(weight, dict) else 0, [1.0, 0.5, 4.0]
        )
        np.testing.assert_allclose(model.class_weight_, weights)
        rows = np.asarray(weights)[np.searchsorted(model.classes_, y)]
        expected = log_loss(y, model.predict_proba(X), sample_weight=rows)
        assert model.history_["loss"][1] == pytest.approx(expected, rel=1e-5)


def test_weights_move_the_predictions():
    X = np.random.default_rng(0).normal(size=(60, 5))  # nothing to learn
    y = np.repeat(["rare", "common"], [6, 54])
    options = {"max_epochs": 10, "learning_rate": 0.05, "validation_fraction": 0, "batch_size": 32}
    plain = tiny(**options).fit(X, y).predict_proba(X)[:, 1].mean()
    balanced = tiny(class_weight="balanced", **options).fit(X, y).predict_proba(X)[:, 1].mean()
    assert plain < 0.25 < 0.35 < balanced


def test_every_class_is_held_out_in_proportion_and_none_as_a_whole():
    y = np.repeat([0.0, 1.0, 2.0], [40, 20, 1])[:, None]
    for seed in range(5):
        model = tiny(validation_fraction=0.3)
        model.per_step_ = False
        training, held_out, _ = model._split(y, torch.Generator().manual_seed(seed))
        assert np.bincount(y[held_out, 0].astype(int)).tolist() == [12, 6]
        assert sorted([*training, *held_out]) == list(range(61))
    other = model._split(y, torch.Generator().manual_seed(9))[1]
    assert other.tolist() != held_out.tolist()


def test_one_class_is_predicted():
    X = np.random.default_rng(0).normal(size=(5, 4))
    model = tiny().fit(X, ["only"] * 5)
    assert model.predict(X).tolist() == ["only"] * 5
    np.testing.assert_array_equal(model.predict_proba(X), np.ones((5, 1)))


@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("per_step", [False, True])
def test_a_stream_gives_running_probabilities(per_step, pooling):
    X, times, steps = make_series()
    model = tiny(pooling=pooling).fit(X, steps if per_step else series_labels(steps), times=times)
    stream, proba = model.stream(), model.predict_proba(X[:1], times=times[:1])[0]
    for k, (x, t) in enumerate(zip(X[0], times[0], strict=True)):
        answer = stream.step(x, dt=None if k == 0 else t - times[0][k - 1])
        so_far = [X[0][: k + 1]], [times[0][: k + 1]]
        expected = proba[k] if per_step else model.predict_proba(so_far[0], times=so_far[1])[0]
        np.testing.assert_allclose(answer, expected, rtol=1e-10)


@pytest.mark.parametrize("dtype", [str, object, int, float, bool], ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("per_step", [False, True])
def test_a_saved_classifier_predicts_the_same(dtype, per_step, tmp_path):
    X, times, steps = make_series()
    y = [(row if dtype in (str, object) else row == "up").astype(dtype) for row in steps]
    y = y if per_step else np.array([row[-1] for row in y], dtype=dtype)
    weight = {label: 2.0 for label in np.unique(np.concatenate(y) if per_step else y)}
    model = tiny(class_weight=weight).fit(X, y, times=times)
    model.save(tmp_path / "model")
    again = statespace.load(tmp_path / "model")
    assert type(again) is S4DClassifier
    assert again.get_params() == model.get_params()
    assert again.classes_.dtype == model.classes_.dtype
    for a, b in zip(again.predict(X, times=times), model.predict(X, times=times), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(again.predict_proba(X, times=times), model.predict_proba(X, times=times), strict=True):
        np.testing.assert_array_equal(a, b)
    again.fit(X, y, times=times)


def test_scikit_learn_keeps_the_times():
    rng = np.random.default_rng(0)
    phase = np.cumsum(rng.exponential(size=(40, 20)), axis=1)
    y = np.repeat(["slow", "fast"], 20)
    S = SeriesCollection(np.sin(phase), times=np.where(y == "slow", 4.0, 0.5)[:, None] * phase)
    options = {"d_model": 8, "d_state": 8, "learning_rate": 0.03, "batch_size": 8, "validation_fraction": 0}
    model = tiny(max_epochs=12, **options)
    assert cross_val_score(model, S, y, cv=2).mean() > 0.8
    assert np.mean(cross_val_predict(model, S, y, cv=2) == y) > 0.8
    without = SeriesCollection(S.values)
    assert cross_val_score(model, without, y, cv=2).mean() < 0.75
    search = GridSearchCV(tiny(max_epochs=1), {"d_state": [2, 4]}, cv=2, scoring="neg_log_loss").fit(S, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_learns_labels_a_step_from_what_went_before():
    """Whether the sum so far is positive: no single step tells it."""
    X = np.random.default_rng(0).normal(size=(60, 30))
    y = np.where(np.cumsum(X, axis=1) > 0, "above", "below")
    options = {"d_model": 8, "d_state": 8, "max_epochs": 40, "learning_rate": 0.03, "batch_size": 8, "dropout": 0.0}
    model = tiny(**options).fit(X[:45], y[:45])
    assert model.score(X[45:], y[45:]) > 0.9
    assert np.mean((X[45:] > 0) == (y[45:] == "above")) < 0.7


def test_the_same_random_state_gives_the_same_numbers():
    X, times, steps = make_series()
    state = torch.get_rng_state()
    first, second = (tiny(dropout=0.5).fit(X, steps, times=times) for _ in range(2))
    pd.testing.assert_frame_equal(first.history_, second.history_)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "requires y to be passed"),
        (["a"], "inconsistent numbers of samples"),
        ([0.5, 1.25], "Unknown label type: continuous"),
        ([0.0, np.inf], "Input y contains infinity"),
        (np.array(["a", 1], dtype=object), "labels of several kinds"),
        ([["a", "b", "c", "d"], ["a", "b", "c", "d"]], r"one label for each series, of shape \(2,\).* a series has 3"),
        (np.zeros((2, 3, 2)), "Got 2 for each step"),
        ([["a", "b", "c"], ["a", "b"]], "one target for each of the 3 steps"),
    ],
)
def test_bad_labels(y, message):
    with pytest.raises(ValueError, match=message):
        tiny().fit(np.arange(6.0).reshape(2, 3), y)


def test_a_column_of_labels_is_a_vector_with_a_warning():
    X = np.random.default_rng(0).normal(size=(6, 4))
    with pytest.warns(DataConversionWarning, match="column-vector"):
        model = tiny().fit(X, np.array([[0], [1]] * 3))
    assert model.predict(X).shape == (6,)


def test_labels_of_the_other_kind_are_not_scored():
    X, _, steps = make_series()
    with pytest.raises(ValueError, match="one label for every step, as in fit"):
        tiny().fit(X, steps).score(X, series_labels(steps))


@pytest.mark.parametrize("weight", ["even", 3, {"other": 1.0}])
def test_bad_weights(weight):
    with pytest.raises(ValueError, match="class_weight"):
        tiny(class_weight=weight).fit(np.zeros((4, 3)), ["a", "b"] * 2)
