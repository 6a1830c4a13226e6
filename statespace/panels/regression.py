"""Any deep regressor as a time series regressor of sktime."""

from typing import ClassVar

from sktime.regression.base import BaseRegressor

from statespace.panels.base import TAGS, PanelFace
from statespace.regression import DeepRegressor, S4DRegressor


class TimeSeriesRegressor(PanelFace, BaseRegressor):
    """A deep regressor with sktime's interface, for series of any length on any times.

    The index of each series is its time: datetimes, periods, timedeltas or integers, regular or not, in any of sktime's
    forms of panels. Where it only counts the samples of every series, 0, 1, 2, ..., they lie on a regular grid. There
    is one number to predict for each series, or several.

    Parameters
    ----------
    estimator : SSMRegressor, S4DRegressor, MambaRegressor or another, optional
        What is fitted, a copy of it: its parameters are those of the search, ``estimator__d_state``. None takes
        ``S4DRegressor(target="series", random_state=0)``.

    Attributes
    ----------
    estimator_ : DeepRegressor
        The fitted regressor, which streams, saves itself and can be looked into by `statespace.inspection`.

    Raises
    ------
    ValueError
        As in the estimator's ``fit`` and ``predict``; times that do not increase, or times at prediction of another
        kind than in ``fit``.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import S4DRegressor
    >>> from statespace.panels import TimeSeriesRegressor
    >>> X = np.random.default_rng(0).normal(size=(10, 2, 15))  # sktime's numpy3D: series, channels, times
    >>> reg = TimeSeriesRegressor(S4DRegressor(d_model=4, n_layers=1, d_state=4, max_epochs=1, random_state=0))
    >>> reg.fit(X, X[:, 0].mean(axis=1)).predict(X).shape
    (10,)
    """

    _tags: ClassVar = TAGS | {"capability:multioutput": True, "y_inner_mtype": "numpy2D"}
    _kind = DeepRegressor

    def __init__(self, estimator=None):
        self.estimator = estimator
        super().__init__()

    def _default(self):
        return S4DRegressor(target="series", random_state=0)

    @classmethod
    def get_test_params(cls, parameter_set="default"):
        """Small networks, for sktime's checks."""
        from statespace.regression import MambaRegressor

        tiny = {"d_model": 4, "n_layers": 1, "d_state": 4, "max_epochs": 1, "validation_fraction": 0.0}
        return [
            {"estimator": S4DRegressor(**tiny, random_state=0)},
            {"estimator": MambaRegressor(**tiny, random_state=1)},
        ]
