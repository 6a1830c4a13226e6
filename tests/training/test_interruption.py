"""Ctrl-C at any moment, in the middle of a step, in validation, while the best weights are put back."""

import signal
import threading
import warnings

import numpy as np
import pytest
import torch

from statespace import S4DRegressor
from statespace.training import fit, partial_fit
from statespace.training.interruption import Interruption
from tests.training.test_loop import assert_weights, generator, make_data, make_model, squared_error, weights
from tests.training.test_resuming import AtLine

OPTIONS = {"max_epochs": 3, "batch_size": 5, "learning_rate": 0.02}


def press():
    signal.raise_signal(signal.SIGINT)


def train(model=None, **options):
    model = make_model() if model is None else model
    validation = make_data(4, seed=1)
    return fit(
        model, make_data(), squared_error, validation=validation, generator=generator(), **OPTIONS | options
    )  # fmt: skip


@pytest.fixture(scope="module")
def after():
    """The weights before training and after each epoch."""
    kept = [weights(make_model())]
    train(callbacks=[lambda epoch, history, model: kept.append(weights(model))])
    return kept


def same(model, expected):
    return all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def test_at_any_line_the_weights_are_those_of_an_epoch(after):
    with AtLine(-1, None) as counted:
        train()
    ended = 0
    for number in np.random.default_rng(0).integers(200, counted.seen, size=30):
        model = make_model()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                with AtLine(number, press):
                    history = train(model)
            except KeyboardInterrupt:  # before training began
                assert same(model, after[0])
                continue
        assert history.stopped in ("interrupted", "max_epochs")
        ended += history.stopped == "interrupted"
        assert same(model, after[history.best_epoch + 1])
        assert not model.training
        assert all(module.training is False for module in model.modules())
    assert ended >= 20
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("where", ["step", "backward", "validation"])
def test_in_the_middle(where, after, monkeypatch):
    calls = []

    def interrupted(function, at):
        def call(*args, **kwargs):
            result = function(*args, **kwargs)
            calls.append(1)
            if len(calls) == at:
                press()
            return result

        return call

    if where == "step":
        # Some of the groups of parameters have moved.
        monkeypatch.setattr(torch, "_fused_adamw_", interrupted(torch._fused_adamw_, 7))
    elif where == "backward":
        monkeypatch.setattr(torch.Tensor, "backward", interrupted(torch.Tensor.backward, 5))
    else:
        monkeypatch.setattr("statespace.training.loop.evaluate", interrupted(fit.__globals__["evaluate"], 2))
    model = make_model()
    with pytest.warns(UserWarning, match="training was interrupted in epoch"):
        history = train(model)
    assert history.stopped == "interrupted"
    assert len(calls) >= 2
    assert same(model, after[history.best_epoch + 1])


def test_a_second_press_is_raised_when_the_weights_are_back(after, monkeypatch):
    model, load = make_model(), torch.nn.Module.load_state_dict

    def slow(self, *args, **kwargs):
        press()  # the second, while the best weights are put back
        return load(self, *args, **kwargs)

    def loss(model, batch):
        monkeypatch.setattr(torch.nn.Module, "load_state_dict", slow)
        press()
        return squared_error(model, batch)

    with pytest.raises(KeyboardInterrupt), pytest.warns(UserWarning, match="interrupted"):
        fit(model, make_data(), loss, generator=generator(), **OPTIONS)
    assert same(model, after[0])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_press_when_all_is_done_is_none():
    with Interruption() as interruption:
        interruption.open = interruption.closed = True
        press()
    with pytest.raises(KeyboardInterrupt), Interruption() as interruption:
        press()  # nothing to catch it yet
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_the_users_own_stays():
    seen = []
    previous = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        history = train(callbacks=[lambda epoch, history, model: press()])
    finally:
        signal.signal(signal.SIGINT, previous)
    assert (history.stopped, len(seen)) == ("max_epochs", 3)


def test_training_in_another_thread_touches_no_handler():
    stopped = []
    thread = threading.Thread(target=lambda: stopped.append(train().stopped))
    thread.start()
    thread.join()
    assert stopped == ["max_epochs"]


def test_partial_fit_puts_the_weights_back_and_raises():
    model = make_model()
    before, calls = weights(model), []

    def loss(model, batch):
        calls.append(1)
        if len(calls) == 3:
            press()
        return squared_error(model, batch)

    with pytest.raises(KeyboardInterrupt):
        partial_fit(model, make_data(), loss, batch_size=4)
    assert_weights(model, before)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupted_estimator_is_fitted():
    X = np.random.default_rng(0).normal(size=(12, 6))
    model = S4DRegressor(
        d_model=4, n_layers=1, d_state=4, max_epochs=9, random_state=0,
        callbacks=[lambda epoch, history, model: press() if epoch == 2 else None],
    )  # fmt: skip
    with pytest.warns(UserWarning, match="interrupted in epoch 4 of 9"):
        model.fit(X, X.sum(axis=1))
    assert len(model.history_) == 3
    assert 1 <= model.best_epoch_ <= 3
    assert np.isfinite(model.predict(X)).all()
