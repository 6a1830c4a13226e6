"""S4DRegressor: forms of X, times and y, what travels with X, bad input, and what it learns."""

import threading
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import config_context
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline

from statespace import S4DRegressor, SeriesCollection
from statespace.models import inference
from statespace.training import DivergenceError, loop, steps


def tiny(**options):
    defaults = {"d_model": 4, "n_layers": 1, "d_state": 4, "max_epochs": 2, "random_state": 0, "device": "cpu"}
    return S4DRegressor(**(defaults | options))


def make_series(n=12, seed=0, per_step=False):
    """Irregular series of two channels and unlike lengths, as lists: values, times, targets."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, 15, size=n)
    X = [rng.normal(size=(k, 2)) for k in lengths]
    # Multiples of 1/64 stay exact when 1e9 is added.
    times = [np.cumsum(rng.integers(1, 256, size=k)) / 64 for k in lengths]
    y = [np.cumsum(x[:, 0]) for x in X] if per_step else np.array([x[:, 0].sum() for x in X])
    return X, times, y


def frames(X, times):
    return [pd.DataFrame(x, index=t) for x, t in zip(X, times, strict=True)]


def equal(a, b, **tolerance):
    for row, other in zip(a, b, strict=True):
        np.testing.assert_allclose(row, other, **({"rtol": 1e-12, "atol": 1e-13} | tolerance))


@pytest.mark.parametrize("per_step", [False, True])
def test_times_beside_x_or_on_board_are_the_same(per_step):
    X, times, y = make_series(per_step=per_step)
    expected = tiny().fit(X, y, times=times).predict(X, times=times)
    boards = [SeriesCollection(X, times=times), frames(X, times), pd.concat(frames(X, times), keys=range(len(X)))]
    for board in boards:
        model = tiny().fit(board, y)
        equal(model.predict(board), expected)
        assert model.score(board, y) == pytest.approx(model.score(X, y, times=times))


def test_datetimes_are_times():
    X, times, y = make_series()
    expected = tiny().fit(X, y, times=times).predict(X, times=times)
    stamps = [pd.Timestamp("2024-03-01", tz="Europe/Berlin") + pd.to_timedelta(t, unit="h") for t in times]
    model = tiny().fit(X, y, times=stamps)
    equal(model.predict(X, times=stamps), expected, rtol=1e-7)
    assert model.clock_ == "datetimes"
    with pytest.raises(ValueError, match="must be datetimes"):
        model.predict(X, times=times)


def test_adding_to_all_times_changes_nothing():
    X, times, y = make_series()
    model = tiny().fit(X, y, times=times)
    later = [t + 1e9 for t in times]
    equal(model.predict(X, times=later), model.predict(X, times=times), rtol=0, atol=0)
    equal(tiny().fit(X, y, times=later).predict(X, times=times), model.predict(X, times=times), rtol=0, atol=0)


@pytest.mark.parametrize("unit", [2.0**-800, 2.0**800])
def test_the_units_of_inputs_and_targets_do_not_matter(unit):
    """Not even where squares of the numbers vanish or overflow."""
    X, times, y = make_series()
    model, other = tiny().fit(X, y, times=times), tiny().fit([x * unit for x in X], y * unit, times=times)
    equal(other.predict([x * unit for x in X], times=times) / unit, model.predict(X, times=times))
    score = other.score([x * unit for x in X], y * unit, times=times)
    assert score == pytest.approx(model.score(X, y, times=times), rel=1e-9)


def test_a_fitted_clock_is_asked_for():
    X, times, y = make_series()
    model = tiny().fit(X, y, times=times)
    for call in (model.predict, lambda X: model.score(X, y)):
        with pytest.raises(ValueError, match="fitted with times, and X has none"):
            call(X)
    with pytest.raises(ValueError, match="fitted without times"):
        tiny().fit(X, y).predict(X, times=times)


@pytest.mark.parametrize("board", [SeriesCollection, frames], ids=["collection", "frames"])
@pytest.mark.parametrize("per_step", [False, True])
def test_scikit_learn_keeps_the_times(board, per_step):
    X, times, y = make_series(per_step=per_step)
    stretched = [np.concatenate([t[:1], t[:1] + np.cumsum(np.diff(t)[::-1])]) for t in times]
    kept = cross_val_predict(tiny(), board(X, times), y, cv=3)
    other = cross_val_predict(tiny(), board(X, stretched), y, cv=3)
    assert max(np.abs(a - b).max() for a, b in zip(kept, other, strict=True)) > 1e-4
    fold = np.arange(12) % 12 >= 4  # the first fold of three holds out the first four series
    model = tiny().fit([x for x, k in zip(X, fold, strict=True) if k], _take(y, fold), times=_take(times, fold))
    equal(kept[:4], model.predict(X[:4], times=times[:4]))


def _take(rows, kept):
    return np.asarray(rows)[kept] if isinstance(rows, np.ndarray) else [row for row, k in zip(rows, kept) if k]  # noqa: B905


@pytest.mark.parametrize("board", [SeriesCollection, frames], ids=["collection", "frames"])
def test_grid_search_and_pipelines_keep_the_times(board):
    X, times, y = make_series()
    search = GridSearchCV(tiny(max_epochs=1), {"d_state": [2, 4]}, cv=2, scoring="r2").fit(board(X, times), y)
    assert search.best_estimator_.clock_ == "numbers"
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    pipeline = make_pipeline("passthrough", tiny())
    assert np.isfinite(cross_val_score(pipeline, board(X, times), y, cv=2, error_score="raise")).all()


@pytest.mark.parametrize(
    ("shape", "target", "per_step"),
    [
        ((6,), "auto", False),
        ((6, 3), "auto", False),
        ((6, 10), "auto", True),
        ((6, 10), "series", False),
        ((6, 10), "step", True),
        ((6, 10, 1), "auto", True),
        ((6, 10, 2), "auto", True),
    ],
)
def test_predictions_have_the_form_of_the_targets(shape, target, per_step):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(6, 10, 2)), rng.normal(size=shape)
    model = tiny(target=target).fit(X, y)
    assert model.per_step_ == per_step
    assert model.predict(X).shape == shape
    assert np.isfinite(model.score(X, y))


def test_a_ragged_answer_is_an_array_of_arrays():
    X, times, y = make_series(per_step=True)
    answer = tiny().fit(X, y, times=times).predict(X, times=times)
    assert (answer.dtype, answer.shape) == (object, (12,))
    assert [row.shape for row in answer] == [row.shape for row in y]
    two = [np.stack([row, -row], axis=1) for row in y]
    assert tiny().fit(X, two).predict(X)[3].shape == two[3].shape


@pytest.mark.parametrize("per_step", [False, True])
@pytest.mark.parametrize("options", [{}, {"pooling": "last"}, {"bidirectional": True}])
def test_a_series_does_not_depend_on_those_beside_it(per_step, options):
    X, times, y = make_series(per_step=per_step)
    model = tiny(**options).fit(X, y, times=times)
    together = model.predict(X, times=times)
    for i in (0, 5):
        equal(model.predict(X[i : i + 1], times=times[i : i + 1]), together[i : i + 1])
    without = tiny(**options).fit(X, y)
    equal(without.predict(X[2:3]), without.predict(X)[2:3])


def test_a_two_dimensional_x_is_one_channel():
    X = np.random.default_rng(0).normal(size=(8, 5))
    expected = tiny().fit(X[:, :, None], X.sum(1)).predict(X[:, :, None])
    equal(tiny().fit(X, X.sum(1)).predict(X), expected)
    assert tiny().fit(X, X.sum(1)).n_features_in_ == 5


def test_other_channels_are_refused():
    X, times, y = make_series()
    model = tiny().fit(frames(X, times), y)
    with pytest.raises(ValueError, match="X has 1 features, but S4DRegressor is expecting 2 features"):
        model.predict([x[:, :1] for x in X], times=times)
    named = [f.set_axis(["a", "b"], axis=1) for f in frames(X, times)]
    model = tiny().fit(named, y)
    with pytest.raises(ValueError, match=r"the columns \['b', 'a'\], but S4DRegressor was fitted with \['a', 'b'\]"):
        model.predict([f[["b", "a"]] for f in named])


def test_missing_inputs_are_read_as_missing():
    X, times, y = make_series()
    X[0][2, 0] = X[3][1, 1] = np.nan
    model = tiny().fit(X, y, times=times)
    assert model.has_missing_
    assert model.model_.config["d_input"] == 4
    assert np.isfinite(model.predict(X, times=times)).all()
    filled = [np.where(np.isnan(x), model.x_mean_, x) for x in X]
    assert model.predict(filled, times=times)[0] != model.predict(X, times=times)[0]


def test_a_missing_input_that_was_never_seen_is_the_mean():
    X, _, y = make_series()
    model = tiny().fit(X, y)
    gappy = [x.copy() for x in X]
    gappy[0][2, 0] = np.nan
    filled = [np.where(np.isnan(x), model.x_mean_, x) for x in gappy]
    with pytest.warns(UserWarning, match="fitted without any"):
        answer = model.predict(gappy)
    equal(answer, model.predict(filled))


def test_a_channel_without_spread_or_without_values():
    X, _, y = make_series()
    for x in X:
        x[:, 1] = 7.0
    model = tiny().fit(X, y)
    assert (model.x_mean_[1], model.x_scale_[1]) == (7.0, 1.0)
    for x in X:
        x[:, 1] = np.nan
    assert np.isfinite(tiny().fit(X, y).predict(X)).all()


def test_targets_that_are_not_known():
    X, _, y = make_series(per_step=True)
    y[0][:] = np.nan
    y[1][2:] = np.nan
    model = tiny().fit(X, y)
    known = np.concatenate(y)
    known = known[~np.isnan(known)]
    assert model.y_mean_[0] == pytest.approx(known.mean())
    assert np.isfinite(np.concatenate(list(model.predict(X)))).all()
    assert np.isfinite(model.score(X, y))
    with pytest.raises(ValueError, match="NaN only"):
        model.fit(X, [np.full_like(row, np.nan) for row in y])


def test_the_score_is_of_all_known_steps():
    from sklearn.metrics import r2_score

    X, _, y = make_series(per_step=True)
    model = tiny().fit(X, y)
    expected = r2_score(np.concatenate(y), np.concatenate(list(model.predict(X))))
    assert model.score(X, y) == pytest.approx(expected)
    y[0][:] = np.nan
    assert model.score(X, y) != pytest.approx(expected)
    with pytest.raises(ValueError, match="for every step, as in fit"):
        model.score(X, np.zeros(len(X)))


@pytest.mark.parametrize(
    ("X", "y", "times", "message"),
    [
        (np.zeros((2, 3)), [1.0, 2.0], [[0, 1, 2], [0, 2, 1]], r"series 1 must not decrease: times\[2\] = 1.0 f"),
        (np.zeros((2, 3)), [1.0, 2.0], [[0, 1, 2], [0, 2, 2]], r"series 1 must increase: times\[2\] = 2.0 follows 2.0"),
        (np.zeros((2, 3)), [1.0, 2.0], [[0, 1, 2], [0, 2, np.nan]], "series 1 must be finite"),
        (np.zeros((2, 3)), [1.0, 2.0], [0, 1], "3"),
        (np.full((2, 3), np.inf), [1.0, 2.0], None, "infinity"),
        (np.zeros((2, 3)), [1.0], None, "inconsistent numbers of samples"),
        (np.zeros((2, 3)), [[1.0, 2.0], [1.0, 2.0, 3.0]], None, "one target for each of the 3 steps"),
        (np.zeros((2, 3)), None, None, "requires y to be passed"),
        ([np.zeros((2, 1)), np.zeros((0, 1))], [1.0, 2.0], None, "series 1 of X is empty"),
    ],
)
def test_bad_input(X, y, times, message):
    with pytest.raises(ValueError, match=message):
        tiny().fit(X, y, times=times)


@pytest.mark.parametrize(
    "options",
    [
        {"d_model": 0}, {"max_epochs": 0}, {"batch_size": 1.5}, {"patience": 0}, {"dropout": 1.0}, {"pooling": "sum"},
        {"batch_size": "half"}, {"validation_fraction": -0.1}, {"learning_rate": -1.0}, {"gradient_clip": 0.0},
        {"target": "steps"}, {"init": "hippo"}, {"discretization": "euler"}, {"dt_min": 0.0}, {"d_state": 3},
        {"device": "abacus"},
    ],
    ids=lambda options: next(iter(options)),
)  # fmt: skip
def test_bad_parameters_are_named(options):
    with pytest.raises((ValueError, TypeError), match="per" if "target" in options else next(iter(options))):
        tiny(**options).fit(np.zeros((3, 4)), np.arange(3.0))


@pytest.mark.parametrize("options", [
    {"init": "inv"}, {"init": "legs"}, {"init": "real"}, {"discretization": "bilinear"}, {"pooling": "last"},
    {"bidirectional": True}, {"patience": None}, {"gradient_clip": None}, {"validation_fraction": 0}, {"dropout": 0.5},
    {"verbose": 1}, {"device": "auto"},
], ids=str)  # fmt: skip
def test_every_option_works(options, capsys):
    X, times, y = make_series()
    assert np.isfinite(tiny(max_epochs=1, **options).fit(X, y, times=times).predict(X, times=times)).all()


def test_one_series_and_one_sample():
    X = np.random.default_rng(0).normal(size=(1, 30))
    assert tiny().fit(X, np.cumsum(X, axis=1)).predict(X).shape == (1, 30)
    assert np.isfinite(tiny().fit([[1.0]], [2.0], times=[[5.0]]).predict([[1.0]], times=[[7.0]])).all()


def test_the_same_random_state_gives_the_same_numbers():
    X, times, y = make_series()
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = (tiny(dropout=0.5).fit(X, y, times=times) for _ in range(2))
    equal(first.predict(X, times=times), second.predict(X, times=times), rtol=0, atol=0)
    pd.testing.assert_frame_equal(first.history_, second.history_)
    other = tiny(dropout=0.5, random_state=1).fit(X, y, times=times)
    assert np.abs(other.predict(X, times=times) - first.predict(X, times=times)).max() > 1e-3
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


def test_predict_changes_nothing_and_threads_agree():
    X, times, y = make_series()
    model = tiny().fit(X, y, times=times)
    before = {name: repr(value) for name, value in vars(model).items()}
    expected, answers = model.predict(X, times=times), [None] * 4

    def work(i):
        answers[i] = model.predict(X, times=times)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    for answer in answers:
        equal(answer, expected, rtol=0, atol=0)
    assert {name: repr(value) for name, value in vars(model).items()} == before
    assert model.model_.encoder.weight.dtype == torch.float32


def test_divergence_leaves_the_best_weights(monkeypatch):
    X, _, y = make_series()
    scores = iter([1.0, np.nan])
    monkeypatch.setattr(loop, "evaluate", lambda *args, **kwargs: next(scores))
    model = tiny(max_epochs=5, validation_fraction=0.3)
    with pytest.raises(DivergenceError, match=r"loss became nan in epoch 2 of 5\. Lower learning_rate"):
        model.fit(X, y)
    assert np.isfinite(model.predict(X)).all()


def test_an_absurd_rate_is_told_or_survived():
    X, _, y = make_series()
    model = tiny(learning_rate=1e30, gradient_clip=None, max_epochs=20)
    with pytest.raises(DivergenceError, match=r"Lower learning_rate \(now 1e\+30\)"):
        model.fit(X, y)
    assert np.isfinite(model.predict(X)).all()


def test_ctrl_c_leaves_a_fitted_model(monkeypatch):
    X, _, y = make_series()
    epoch, calls = steps.Steps.epoch, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return epoch(*args)

    monkeypatch.setattr(steps.Steps, "epoch", interrupted)
    with pytest.warns(UserWarning, match="interrupted in epoch 3"):
        model = tiny(max_epochs=9).fit(X, y)
    assert len(model.history_) == 2
    assert np.isfinite(model.predict(X)).all()


def test_early_stopping():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 8)), rng.normal(size=30)  # nothing to learn: the first epochs are the best
    model = tiny(max_epochs=60, patience=2, learning_rate=0.03).fit(X, y)
    assert len(model.history_) < 60
    assert model.best_epoch_ == model.history_["validation_loss"].idxmin()
    assert len(model.history_) == model.best_epoch_ + 2


def test_learns_a_rate_from_irregular_times_only():
    # The values alone say nothing: x is the same sine at times that are stretched by a factor that y is.
    rng = np.random.default_rng(0)
    phase = np.cumsum(rng.uniform(0.5, 1.5, size=(120, 30)), axis=1)
    y = rng.uniform(0.3, 3.0, size=120)
    S = SeriesCollection(np.sin(phase), times=phase * y[:, None])
    model = tiny(d_model=8, d_state=8, n_layers=2, max_epochs=30, learning_rate=0.02, dropout=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(S[:90], y[:90])
    assert model.score(S[90:], y[90:]) > 0.7


def test_learns_a_filter_a_step():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 50))
    y = np.zeros_like(X)
    for k in range(50):
        y[:, k] = (0.8 * y[:, k - 1] if k else 0) + X[:, k]
    options = {"learning_rate": 0.03, "ssm_learning_rate": 0.01, "batch_size": 8, "dropout": 0.0}
    model = tiny(d_model=8, d_state=8, max_epochs=40, **options)
    assert model.fit(X[:30], y[:30]).score(X[30:], y[30:]) > 0.8


def test_long_records_are_predicted_in_chunks():
    X, times, y = make_series(per_step=True)
    model = tiny().fit(X, y, times=times)
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=(70_001, 2)), np.cumsum(rng.exponential(size=70_001))
    assert inference.MAX_STEPS < 70_001
    answer = model.predict([x], times=[t])[0]
    part = model.predict([x[:20_000]], times=[t[:20_000]])[0]
    np.testing.assert_allclose(answer[:20_000], part, rtol=1e-9, atol=1e-10)
    assert np.isfinite(answer).all()


def test_clone_keeps_parameters_only():
    model = tiny(pooling="last").fit(np.zeros((3, 4)), np.arange(3.0))
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert not hasattr(copy, "model_")


def test_times_are_routed_without_a_request():
    X, times, y = make_series()
    with config_context(enable_metadata_routing=True):
        search = GridSearchCV(tiny(max_epochs=1), {"d_state": [2]}, cv=2, error_score="raise").fit(X, y, times=times)
        # cross_val_predict hands metadata to fit alone: that is told, not passed over in silence.
        with pytest.raises(ValueError, match="fitted with times, and X has none"):
            cross_val_predict(tiny(), X, y, cv=3, params={"times": times})
    assert search.best_estimator_.clock_ == "numbers"


def test_fitting_leaves_the_number_of_threads():
    X, times, y = make_series()
    before = torch.get_num_threads()
    tiny().fit(X, y, times=times).predict(X, times=times)
    assert torch.get_num_threads() == before
