"""What both faces share: the estimator behind them, and sktime's panels as series with their times."""

from typing import ClassVar

import numpy as np
import pandas as pd
from sklearn.base import clone

TAGS: dict[str, object] = {
    "authors": "the statespace developers",
    "maintainers": "the statespace developers",
    # The one form that keeps the times of every series.
    "X_inner_mtype": "df-list",
    "capability:multivariate": True,
    "capability:unequal_length": True,
    "capability:missing_values": True,
    "capability:categorical_in_X": False,
    "capability:random_state": False,
    "python_dependencies": ["torch"],
}


class PanelFace:
    """An estimator of ours behind sktime's interface.

    A subclass says of which kind it is (``_kind``), which one to take by default (``_default``), and inherits from a
    base class of sktime too.
    """

    _kind: ClassVar[type]

    def __sklearn_tags__(self):
        """Of the estimator, for scikit-learn's searches, to which a panel is sktime's numpy3D."""
        return (self._default() if self.estimator is None else self.estimator).__sklearn_tags__()

    def reset(self):
        """Forget what was learned; see sktime."""
        # scikit-learn's searches hang their context on an estimator while it fits, and sktime's fit begins with this.
        context = vars(self).get("_parent_callback_ctx")
        super().reset()
        if context is not None:
            self._parent_callback_ctx = context
        return self

    def _fit(self, X, y):
        if self.estimator is not None and not isinstance(self.estimator, self._kind):
            raise TypeError(
                f"estimator must be one of the deep ones, such as {type(self._default()).__name__}(), or None. "
                f"Got {self.estimator!r}."
            )
        estimator = self._default() if self.estimator is None else clone(self.estimator)
        if getattr(estimator, "target", None) == "auto":
            # As many outputs as there are samples are outputs all the same.
            estimator.set_params(target="series")
        self._timed = not all(map(_counts, X))
        self.estimator_ = estimator.fit(self._series(X), y)
        return self

    def _series(self, X):
        """Frames with their times; arrays if the index of all series in fit but counted their samples."""
        if not self._timed and all(map(_counts, X)):
            return [frame.to_numpy(dtype=np.float64) for frame in X]
        return [_with_timestamps(frame) for frame in X]

    def _predict(self, X):
        return self.estimator_.predict(self._series(X))

    def stream(self):
        """The fitted model one sample at a time.

        Returns
        -------
        LayerStream
            See `statespace.deep.DeepEstimator.stream`.

        Raises
        ------
        sktime.exceptions.NotFittedError
            The estimator is not fitted.
        """
        self.check_is_fitted()
        return self.estimator_.stream()


def _counts(frame):
    """Whether an index is 0, 1, 2, ...: it says nothing about time."""
    index = frame.index
    return pd.api.types.is_integer_dtype(index) and bool(np.array_equal(index, np.arange(len(index))))


def _with_timestamps(frame):
    return frame.set_axis(frame.index.to_timestamp()) if isinstance(frame.index, pd.PeriodIndex) else frame
