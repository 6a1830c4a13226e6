"""Classifiers and regressors of time series with sktime's interface, for its pipelines, ensembles and grid searches.

Above: nothing. Below: `statespace.classification` and `statespace.regression`, which do the work. sktime is imported
with the first name that is asked for.

base           what both share: sktime's panels, and their times
classification TimeSeriesClassifier: any deep classifier
regression     TimeSeriesRegressor: any deep regressor
"""

from importlib import import_module
from typing import TYPE_CHECKING

_HOME = {"TimeSeriesClassifier": "classification", "TimeSeriesRegressor": "regression"}

__all__ = ["TimeSeriesClassifier", "TimeSeriesRegressor"]

if TYPE_CHECKING:
    from statespace.panels.classification import TimeSeriesClassifier
    from statespace.panels.regression import TimeSeriesRegressor


def __getattr__(name):
    if name in _HOME:
        value = getattr(import_module(f"statespace.panels.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'statespace.panels' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_HOME})
