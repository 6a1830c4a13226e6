"""scikit-learn's callbacks (1.9 and later) told of the epochs of our training: an epoch is a task of ``fit``.

Older versions have no callbacks, and estimators then no ``set_callbacks``. Above: ``deep``. Below: ``callbacks``.
"""

from collections.abc import Callable, Mapping
from typing import Any

from statespace.training.callbacks import Callback
from statespace.training.run import weights_of

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """What scikit-learn has from 1.9 on."""

    def with_callbacks(method):
        """The method: there is nothing to be told."""
        return method


class Report(Callback):
    """Tells the callbacks that were set on an estimator of every epoch.

    They are handed, if they ask for it, the estimator as it would be if training stopped there: with its best weights
    so far. A true answer stops training.

    Parameters
    ----------
    estimator : estimator
        That is being fitted.
    max_epochs : int
    fitted : callable
        ``fitted(weights, history) -> dict``, the attributes of the estimator with such weights.
    X, y : array-like
    metadata : mapping
        Such as ``sample_weight``.
    """

    def __init__(
        self, estimator: Any, max_epochs: int, fitted: Callable[..., dict], X: Any, y: Any, metadata: Mapping[str, Any]
    ):
        self._fitted = fitted
        self._about = {"estimator": estimator, "X": X, "y": y, "metadata": dict(metadata)}
        self._context = estimator._init_callback_context(max_subtasks=max_epochs)
        self._context.call_on_fit_task_begin(**self._about)

    def on_fit_begin(self, history, model):
        self._best = weights_of(model)

    def on_epoch_begin(self, epoch, history, model):
        self._task = self._context.subcontext(task_name="epoch")
        self._task.call_on_fit_task_begin(**self._about)

    def on_epoch_end(self, epoch, history, model):
        if history.best_epoch == epoch:
            self._best = weights_of(model)
        return self._task.call_on_fit_task_end(
            **self._about, reconstruction_attributes=lambda: self._fitted(self._best, history)
        )

    def end(self) -> None:
        """``fit`` ends, and its estimator is fitted."""
        self._context.call_on_fit_task_end(**self._about, reconstruction_attributes={})


def report(estimator: Any, *arguments: Any) -> Report | None:
    """A `Report` to the callbacks of an estimator; None if it has none.

    Parameters
    ----------
    estimator, *arguments
        As of `Report`.

    Examples
    --------
    >>> from statespace import S4DRegressor
    >>> from statespace.training.scikit_learn import report
    >>> report(S4DRegressor(), 10, lambda weights, history: {}, None, None, {}) is None
    True
    """
    if not getattr(estimator, "_skl_callbacks", None) and not hasattr(estimator, "_parent_callback_ctx"):
        return None
    return Report(estimator, *arguments)
