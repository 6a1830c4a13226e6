"""State-space models for irregularly sampled series, classic and deep, behind one interface.

A hidden state evolves in continuous time, is written to by an input, and is read out::

    x'(t) = A x(t) + B u(t),    y(t) = C x(t) + D u(t),

discretised with the gap Δ_k = t_k − t_{k−1} that each sample really has. The same object carries the
Kalman filters (``KalmanRegressor``) and the deep layers (``S4DRegressor``, ``MambaClassifier``, ...).

Five words from top to bottom, and imports that only point down:
estimator → model → layer → kernel → backend.

Names are loaded when they are first used, so that ``import statespace`` needs neither torch nor numba.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOME = {
    "KalmanRegressor": "filtering",
    "SSMRegressor": "regression",
    "S4Regressor": "regression",
    "S4DRegressor": "regression",
    "S5Regressor": "regression",
    "H3Regressor": "regression",
    "MambaRegressor": "regression",
    "Mamba2Regressor": "regression",
    "RWKVRegressor": "regression",
    "DeltaNetRegressor": "regression",
    "SSMClassifier": "classification",
    "S4Classifier": "classification",
    "S4DClassifier": "classification",
    "S5Classifier": "classification",
    "H3Classifier": "classification",
    "MambaClassifier": "classification",
    "Mamba2Classifier": "classification",
    "RWKVClassifier": "classification",
    "DeltaNetClassifier": "classification",
    "SeriesCollection": "series",
    "TimeSeriesClassifier": "panels",
    "TimeSeriesRegressor": "panels",
    "HiPPOMemory": "lti",
    "KalmanForecaster": "forecasting",
    "SSMForecaster": "forecasting",
    "S4Forecaster": "forecasting",
    "S4DForecaster": "forecasting",
    "S5Forecaster": "forecasting",
    "H3Forecaster": "forecasting",
    "MambaForecaster": "forecasting",
    "Mamba2Forecaster": "forecasting",
    "RWKVForecaster": "forecasting",
    "DeltaNetForecaster": "forecasting",
    "load": "persistence",
}
_SUBPACKAGES = (
    "alphabets", "classification", "conformal", "datasets", "deep", "distributions", "export", "filtering", "fitting",
    "forecasting", "forms", "inspection", "kalman", "kernels", "labels", "layers", "lti", "models", "panels",
    "parameters", "persistence", "plotting", "quantiles", "readers", "regression", "series", "statistics", "stored",
    "streaming", "times", "training", "transformations", "validation", "weights",
)  # fmt: skip

__all__ = [
    "DeltaNetClassifier", "DeltaNetForecaster", "DeltaNetRegressor", "H3Classifier", "H3Forecaster", "H3Regressor",
    "HiPPOMemory", "KalmanForecaster", "KalmanRegressor", "Mamba2Classifier", "Mamba2Forecaster", "Mamba2Regressor",
    "MambaClassifier", "MambaForecaster", "MambaRegressor", "RWKVClassifier", "RWKVForecaster", "RWKVRegressor",
    "S4Classifier", "S4DClassifier", "S4DForecaster", "S4DRegressor", "S4Forecaster", "S4Regressor", "S5Classifier",
    "S5Forecaster", "S5Regressor", "SSMClassifier", "SSMForecaster", "SSMRegressor", "SeriesCollection",
    "TimeSeriesClassifier", "TimeSeriesRegressor", "__version__", "load",
]  # fmt: skip

if TYPE_CHECKING:
    from statespace.classification import (
        DeltaNetClassifier,
        H3Classifier,
        Mamba2Classifier,
        MambaClassifier,
        RWKVClassifier,
        S4Classifier,
        S4DClassifier,
        S5Classifier,
        SSMClassifier,
    )
    from statespace.filtering import KalmanRegressor
    from statespace.forecasting import (
        DeltaNetForecaster,
        H3Forecaster,
        KalmanForecaster,
        Mamba2Forecaster,
        MambaForecaster,
        RWKVForecaster,
        S4DForecaster,
        S4Forecaster,
        S5Forecaster,
        SSMForecaster,
    )
    from statespace.lti import HiPPOMemory
    from statespace.panels import TimeSeriesClassifier, TimeSeriesRegressor
    from statespace.persistence import load
    from statespace.regression import (
        DeltaNetRegressor,
        H3Regressor,
        Mamba2Regressor,
        MambaRegressor,
        RWKVRegressor,
        S4DRegressor,
        S4Regressor,
        S5Regressor,
        SSMRegressor,
    )
    from statespace.series import SeriesCollection


def __getattr__(name):
    if name in _HOME:
        value = getattr(import_module(f"statespace.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    if name in _SUBPACKAGES:
        return import_module(f"statespace.{name}")
    raise AttributeError(f"module 'statespace' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_HOME, *_SUBPACKAGES})
