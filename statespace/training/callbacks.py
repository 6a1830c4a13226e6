"""What may watch training, and end it.

Above: the loop, and the estimators' ``callbacks=``. Below: ``history``.
"""

import json
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from statespace.training.history import History


class Callback:
    """What is told of training as it goes on; a subclass has the methods that it needs.

    Epochs are counted from 0. Wherever callbacks are asked for, a function ``f(epoch, history, model)`` does as well:
    it is called as `on_epoch_end`.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import S4DRegressor
    >>> from statespace.training import Callback
    >>> class Print(Callback):
    ...     def on_epoch_end(self, epoch, history, model):
    ...         print(f"epoch {epoch}: {len(history.loss)} losses")
    ...         return epoch == 1  # stop
    >>> X = np.random.default_rng(0).normal(size=(8, 5))
    >>> reg = S4DRegressor(d_model=4, n_layers=1, d_state=4, max_epochs=9, callbacks=[Print()], random_state=0)
    >>> len(reg.fit(X, X.sum(axis=1)).history_)
    epoch 0: 1 losses
    epoch 1: 2 losses
    2
    """

    def on_fit_begin(self, history: History, model: nn.Module) -> None:
        """Training begins, or goes on from a checkpoint: then the history is that of the epochs before."""

    def on_epoch_begin(self, epoch: int, history: History, model: nn.Module) -> None:
        """An epoch begins."""

    def on_step_end(self, step: int, loss: float, model: nn.Module) -> None:
        """A step was taken, of number ``step`` from 0; ``loss`` is the mean over its batch."""

    def on_epoch_end(self, epoch: int, history: History, model: nn.Module) -> bool | None:
        """An epoch has ended, and the history knows its losses. A true answer stops training."""

    def on_fit_end(self, history: History, model: nn.Module) -> None:
        """Training has ended, well or not (``history.stopped``); the model has its best weights."""


class _AtEpochEnd(Callback):
    """A function as a callback."""

    def __init__(self, function: Callable[[int, History, nn.Module], Any]):
        self._function = function

    def on_epoch_end(self, epoch, history, model):
        return self._function(epoch, history, model)


class TimeLimit(Callback):
    """Stop at the end of the first epoch that ends after so many seconds of training.

    Parameters
    ----------
    seconds : float
        Counted anew in every call of ``fit``, also when training is resumed.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import S4DRegressor
    >>> from statespace.training import TimeLimit
    >>> X = np.random.default_rng(0).normal(size=(8, 5))
    >>> reg = S4DRegressor(d_model=4, n_layers=1, d_state=4, callbacks=[TimeLimit(1e-6)], random_state=0)
    >>> len(reg.fit(X, X.sum(axis=1)).history_)
    1
    """

    def __init__(self, seconds: float):
        if not seconds > 0:
            raise ValueError(f"seconds must be positive. Got {seconds!r} instead.")
        self.seconds = seconds

    def on_fit_begin(self, history, model):
        self._end = time.monotonic() + self.seconds

    def on_epoch_end(self, epoch, history, model):
        return time.monotonic() >= self._end


class HistoryFile(Callback):
    """Append one line of JSON to a file at the end of each epoch, to be followed from outside.

    A line has ``epoch`` (from 1), ``loss``, ``validation_loss`` where there is one, ``best_epoch`` and ``seconds``
    since training began.

    Parameters
    ----------
    path : str or os.PathLike

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np, pandas as pd
    >>> from statespace import S4DRegressor
    >>> from statespace.training import HistoryFile
    >>> X = np.random.default_rng(0).normal(size=(8, 5))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "history.jsonl")
    ...     reg = S4DRegressor(d_model=4, n_layers=1, d_state=4, max_epochs=2, callbacks=[HistoryFile(path)])
    ...     _ = reg.fit(X, X.sum(axis=1))
    ...     pd.read_json(path, lines=True)["epoch"].tolist()
    [1, 2]
    """

    def __init__(self, path: str | os.PathLike):
        self.path = path

    def on_fit_begin(self, history, model):
        self._start = time.monotonic()

    def on_epoch_end(self, epoch, history, model):
        line = {"epoch": epoch + 1, "loss": history.loss[-1]}
        if history.validation_loss:
            line["validation_loss"] = history.validation_loss[-1]
        line |= {"best_epoch": history.best_epoch + 1, "seconds": round(time.monotonic() - self._start, 3)}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def as_callbacks(callbacks: Iterable[Any] | None) -> list[Callback]:
    """Functions and callbacks, all as callbacks.

    Raises
    ------
    TypeError
        One that is neither, or no list of them.

    Examples
    --------
    >>> from statespace.training.callbacks import as_callbacks
    >>> len(as_callbacks([lambda epoch, history, model: epoch == 3]))
    1
    """
    if callbacks is None:
        return []
    if callable(callbacks) or isinstance(callbacks, Callback) or not isinstance(callbacks, Iterable):
        raise TypeError(f"callbacks must be a list of them. Got {callbacks!r} instead; write [{callbacks!r}].")
    checked: list[Callback] = []
    for callback in callbacks:
        if isinstance(callback, type) or not (isinstance(callback, Callback) or callable(callback)):
            raise TypeError(
                "callbacks must hold instances of statespace.training.Callback, or functions of (epoch, history, "
                f"model). Got {callback!r} instead."
            )
        checked.append(callback if isinstance(callback, Callback) else _AtEpochEnd(callback))
    return checked
