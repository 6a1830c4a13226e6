"""Any deep classifier as a time series classifier of sktime."""

from typing import ClassVar

from sktime.classification.base import BaseClassifier

from statespace.classification import DeepClassifier, S4DClassifier
from statespace.panels.base import TAGS, PanelFace


class TimeSeriesClassifier(PanelFace, BaseClassifier):
    """A deep classifier with sktime's interface, for series of any length on any times.

    The index of each series is its time: datetimes, periods, timedeltas or integers, regular or not, in any of sktime's
    forms of panels. Where it only counts the samples of every series, 0, 1, 2, ..., they lie on a regular grid.

    Parameters
    ----------
    estimator : SSMClassifier, S4DClassifier, MambaClassifier or another, optional
        What is fitted, a copy of it: its parameters are those of the search, ``estimator__d_state``. None takes
        ``S4DClassifier(random_state=0)``.

    Attributes
    ----------
    estimator_ : DeepClassifier
        The fitted classifier, which streams, saves itself and can be looked into by `statespace.inspection`.

    Raises
    ------
    ValueError
        As in the estimator's ``fit`` and ``predict``; times that do not increase, or times at prediction of another
        kind than in ``fit``.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from statespace import MambaClassifier
    >>> from statespace.panels import TimeSeriesClassifier
    >>> rng = np.random.default_rng(0)
    >>> start, hours = pd.Timestamp("2024-01-01"), [np.sort(rng.uniform(0, 9, size=n)) for n in (5, 7, 6)]
    >>> X = [
    ...     pd.DataFrame({"level": rng.normal(size=len(t))}, index=start + pd.to_timedelta(t, unit="h")) for t in hours
    ... ]
    >>> clf = TimeSeriesClassifier(MambaClassifier(d_model=4, n_layers=1, d_state=4, max_epochs=1, random_state=0))
    >>> clf.fit(X, np.array(["low", "high", "low"])).predict_proba(X).shape
    (3, 2)
    """

    _tags: ClassVar = TAGS | {"capability:predict_proba": True}
    _kind = DeepClassifier

    def __init__(self, estimator=None):
        self.estimator = estimator
        super().__init__()

    def _default(self):
        return S4DClassifier(random_state=0)

    def _predict_proba(self, X):
        return self.estimator_.predict_proba(self._series(X))

    @classmethod
    def get_test_params(cls, parameter_set="default"):
        """Small networks, for sktime's checks."""
        from statespace.classification import MambaClassifier

        tiny = {"d_model": 4, "n_layers": 1, "d_state": 4, "max_epochs": 1, "validation_fraction": 0.0}
        return [
            {"estimator": S4DClassifier(**tiny, random_state=0)},
            {"estimator": MambaClassifier(**tiny, random_state=1)},
        ]
