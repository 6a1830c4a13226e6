"""Callbacks: our own, and scikit-learn's where it has them."""

import json
import pickle
import time

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from statespace import S4DClassifier, S4DRegressor, SeriesCollection
from statespace.training import Callback, DivergenceError, HistoryFile, TimeLimit, fit
from tests.training.test_loop import failing, generator, make_data, make_model, squared_error, weights

TINY = {"d_model": 4, "n_layers": 1, "d_state": 4, "max_epochs": 4, "random_state": 0, "device": "cpu"}
X = np.random.default_rng(0).normal(size=(14, 6))
Y = X.sum(axis=1)


class Recorder(Callback):
    def __init__(self):
        self.calls = []

    def on_fit_begin(self, history, model):
        self.calls.append(("fit begins", len(history.loss)))

    def on_epoch_begin(self, epoch, history, model):
        self.calls.append(("epoch begins", epoch, len(history.loss)))

    def on_step_end(self, step, loss, model):
        assert np.isfinite(loss)
        self.calls.append(("step", step))

    def on_epoch_end(self, epoch, history, model):
        self.calls.append(("epoch ends", epoch, len(history.loss)))

    def on_fit_end(self, history, model):
        self.calls.append(("fit ends", history.stopped, model.training))


def test_everything_is_told_in_order():
    recorder = Recorder()
    fit(make_model(), make_data(), squared_error, max_epochs=2, batch_size=6, callbacks=[recorder])
    assert recorder.calls == [
        ("fit begins", 0),
        ("epoch begins", 0, 0), ("step", 0), ("step", 1), ("epoch ends", 0, 1),
        ("epoch begins", 1, 1), ("step", 2), ("step", 3), ("epoch ends", 1, 2),
        ("fit ends", "max_epochs", False),
    ]  # fmt: skip


def test_the_end_is_told_after_a_failure_too_with_the_best_weights():
    model, seen = make_model(), []

    class Last(Recorder):
        def on_fit_end(self, history, model):
            seen.append((history.stopped, weights(model)))

    with pytest.raises(DivergenceError):
        fit(model, make_data(), failing(5, lambda total: total * np.nan), batch_size=6, callbacks=[Last()])
    assert seen[0][0] == "diverged"
    assert all(torch.equal(value, seen[0][1][name]) for name, value in model.state_dict().items())


def test_an_error_in_a_callback_leaves_the_best_weights():
    model, kept = make_model(), []

    def broken(epoch, history, model):
        kept.append(weights(model))
        if epoch == 2:
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        fit(model, make_data(), squared_error, generator=generator(), callbacks=[broken])
    assert any(all(torch.equal(v, old[n]) for n, v in model.state_dict().items()) for old in kept)


def test_estimators_take_them_and_watching_changes_nothing():
    recorder, epochs = Recorder(), []
    model = S4DRegressor(**TINY, callbacks=[recorder, lambda epoch, history, model: epochs.append(epoch)])
    plain = S4DRegressor(**TINY).fit(X, Y)
    np.testing.assert_array_equal(model.fit(X, Y).predict(X), plain.predict(X))
    assert epochs == [0, 1, 2, 3]
    assert model.callbacks[0] is recorder
    copied = clone(model)
    assert copied.callbacks[0] is not recorder
    stopped = S4DRegressor(**TINY, callbacks=[lambda epoch, history, model: epoch == 1]).fit(X, Y)
    assert len(stopped.history_) == 2


@pytest.mark.parametrize("callbacks", [print, Recorder(), [Recorder], [3], 7])
def test_what_is_no_list_of_callbacks(callbacks):
    with pytest.raises(TypeError, match="callbacks must"):
        S4DRegressor(**TINY, callbacks=callbacks).fit(X, Y)


def test_a_time_limit_ends_an_epoch():
    slow = Recorder()
    slow.on_step_end = lambda step, loss, model: time.sleep(0.03)
    history = fit(
        make_model(), make_data(), squared_error, max_epochs=50, batch_size=6, callbacks=[slow, TimeLimit(0.15)]
    )
    assert history.stopped == "callback"
    assert 1 < len(history.loss) < 10
    with pytest.raises(ValueError, match="must be positive"):
        TimeLimit(0)


def test_a_history_file_has_a_line_an_epoch(tmp_path):
    path = tmp_path / "history.jsonl"
    model = S4DRegressor(**TINY, callbacks=[HistoryFile(path)]).fit(X, Y)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert [line["loss"] for line in lines] == model.history_["loss"].tolist()
    assert [line["validation_loss"] for line in lines] == model.history_["validation_loss"].tolist()
    assert lines[-1]["best_epoch"] == model.best_epoch_


callback = pytest.importorskip("sklearn.callback", reason="scikit-learn has callbacks from 1.9 on")


class Watch:
    """scikit-learn's protocol, propagated from meta-estimators; stops at an epoch."""

    max_propagation_depth = None

    def __init__(self, stop=None):
        self.stop, self.events, self.fitted = stop, [], []

    def setup(self, estimator, context):
        self.events.append(("setup", type(estimator).__name__))

    def on_fit_task_begin(self, estimator, context, *, X=None, y=None, metadata=None):
        self.events.append(("begin", context.task_name, context.task_id, context.max_subtasks))

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, metadata=None, fitted_estimator=None):
        self.events.append(("end", context.task_name, context.task_id))
        if context.task_name == "epoch":
            self.fitted.append((fitted_estimator, X, y, metadata))
            return context.task_id == self.stop
        return False

    def teardown(self, estimator, context):
        self.events.append(("teardown", type(estimator).__name__))


def test_epochs_are_tasks():
    watch, options = Watch(), TINY | {"learning_rate": 1.0, "batch_size": 4}
    model = S4DRegressor(**options).set_callbacks(watch).fit(X, Y)
    assert model.best_epoch_ < 4  # so that the best weights are not the last
    assert watch.events[:2] == [("setup", "S4DRegressor"), ("begin", "fit", 0, 4)]
    assert watch.events[2:4] == [("begin", "epoch", 0, 0), ("end", "epoch", 0)]
    assert watch.events[-2:] == [("end", "fit", 0), ("teardown", "S4DRegressor")]
    assert [event for event in watch.events if event[0] == "end"] == [
        ("end", "epoch", 0), ("end", "epoch", 1), ("end", "epoch", 2), ("end", "epoch", 3), ("end", "fit", 0),
    ]  # fmt: skip
    # Each estimator handed over is what fit would have left if it had stopped there.
    for epoch, (fitted, *_) in enumerate(watch.fitted):
        stopped = S4DRegressor(**options, callbacks=[lambda k, *_, epoch=epoch: k == epoch]).fit(X, Y)
        np.testing.assert_array_equal(fitted.predict(X), stopped.predict(X))
        assert fitted.best_epoch_ == stopped.best_epoch_
    np.testing.assert_array_equal(watch.fitted[-1][0].predict(X), model.predict(X))
    np.testing.assert_array_equal(S4DRegressor(**options).fit(X, Y).predict(X), model.predict(X))


def test_a_true_answer_stops():
    model = S4DRegressor(**TINY).set_callbacks(Watch(stop=1)).fit(X, Y)
    assert len(model.history_) == 2


def test_teardown_follows_an_error():
    watch = Watch()

    def broken(epoch, history, model):
        raise LookupError

    with pytest.raises(LookupError):
        S4DRegressor(**TINY, callbacks=[broken]).set_callbacks(watch).fit(X, Y)
    assert watch.events[-1] == ("teardown", "S4DRegressor")


def test_scores_are_monitored_on_irregular_times_with_weights():
    times = np.cumsum(np.random.default_rng(1).exponential(size=X.shape), axis=1)
    weights = np.arange(1.0, 15.0)
    for kind, y, scoring in ((S4DRegressor, Y, "r2"), (S4DClassifier, Y > 0, "accuracy")):
        monitor = callback.ScoringMonitor(scoring=scoring)
        model = kind(**TINY).set_callbacks(monitor).fit(X, y, times=times, sample_weight=weights)
        log = monitor.get_logs().data_as_pandas
        epochs = log[log["task_name"] == "epoch"]
        assert len(epochs) == 4
        final = model.score(X, y, times=times, sample_weight=weights)
        assert epochs[scoring].iloc[-1] == pytest.approx(final)


def test_a_search_propagates():
    watch = Watch()
    search = GridSearchCV(S4DRegressor(**TINY | {"max_epochs": 2}), {"d_state": [2, 4]}, cv=2)
    search.set_callbacks(watch).fit(SeriesCollection(X[:, :, None]), Y)
    ends = [event for event in watch.events if event[:2] == ("end", "epoch")]
    assert len(ends) == 2 * (2 * 2 + 1)
    assert watch.events[-1] == ("teardown", "GridSearchCV")


def test_the_bar_is_told_of_every_epoch(monkeypatch):
    """scikit-learn's ProgressBar without rich, which only draws: the messages that it would draw."""
    from sklearn.callback import _progressbar

    seen = []

    class Monitor:
        def __init__(self, *, queue):
            self.queue = queue

        def start(self):
            pass

        def join(self):
            while (task := self.queue.get()) is not None:
                seen.append((task["event"], task["path"]))

    monkeypatch.setattr(_progressbar, "check_rich_support", lambda name: None)
    monkeypatch.setattr(_progressbar, "RichProgressMonitor", Monitor)
    S4DRegressor(**TINY | {"max_epochs": 2}).set_callbacks(callback.ProgressBar()).fit(X, Y)
    assert seen == [("begin", [0]), ("end", [0, 0]), ("end", [0, 1]), ("end", [0])]


def test_copies_keep_what_watches():
    model = S4DRegressor(**TINY).set_callbacks(Watch())
    assert clone(model)._skl_callbacks == model._skl_callbacks
    model.fit(X, Y)
    assert "_callback_fit_ctx" not in vars(model)
    again = pickle.loads(
        pickle.dumps(S4DRegressor(**TINY).set_callbacks(callback.ScoringMonitor(scoring="r2")).fit(X, Y))
    )
    np.testing.assert_array_equal(again.predict(X).shape, Y.shape)
