"""Forecasters with sktime's interface, on regular grids and on irregular times.

Above: sktime's pipelines, ``evaluate`` and grid search. Below: `statespace.KalmanRegressor` and the deep models.
sktime is imported with the first name that is asked for, and nowhere else in the package.

kalman        KalmanForecaster: Gaussian forecasts of a sum of processes
ssm           SSMForecaster: a stack of any layers
linear        S4Forecaster, S4DForecaster, S5Forecaster, H3Forecaster
selective     MambaForecaster, Mamba2Forecaster, RWKVForecaster, DeltaNetForecaster
deep          DeepForecaster: one network for every horizon and query time, whatever its layers
windows       history and query times as tokens; random windows to train on
reading       the network's state after the data, carried on as they go on
ahead         the Kalman filter's state, in the same way
calibration   quantiles moved to where held-out values say they belong
distribution  the distribution between quantiles, with skpro's interface
baseline      level, trend, seasons and covariates of a window by least squares
files         deep forecasters in model files
tables        series and panels of pandas in model files
splitter      TimeSplitter: windows in time, which make ``evaluate`` and grid search right on irregular indexes
horizon       what an index and a forecasting horizon mean in time
"""

from importlib import import_module
from typing import TYPE_CHECKING

_HOME = {
    "KalmanForecaster": "kalman",
    "DeepForecaster": "deep",
    "SSMForecaster": "ssm",
    "S4Forecaster": "linear",
    "S4DForecaster": "linear",
    "S5Forecaster": "linear",
    "H3Forecaster": "linear",
    "MambaForecaster": "selective",
    "Mamba2Forecaster": "selective",
    "RWKVForecaster": "selective",
    "DeltaNetForecaster": "selective",
    "TimeSplitter": "splitter",
}

__all__ = [
    "DeepForecaster", "DeltaNetForecaster", "H3Forecaster", "KalmanForecaster", "Mamba2Forecaster", "MambaForecaster",
    "RWKVForecaster", "S4DForecaster", "S4Forecaster", "S5Forecaster", "SSMForecaster", "TimeSplitter",
]  # fmt: skip

if TYPE_CHECKING:
    from statespace.forecasting.deep import DeepForecaster
    from statespace.forecasting.kalman import KalmanForecaster
    from statespace.forecasting.linear import H3Forecaster, S4DForecaster, S4Forecaster, S5Forecaster
    from statespace.forecasting.selective import (
        DeltaNetForecaster,
        Mamba2Forecaster,
        MambaForecaster,
        RWKVForecaster,
    )
    from statespace.forecasting.splitter import TimeSplitter
    from statespace.forecasting.ssm import SSMForecaster


def __getattr__(name):
    if name in _HOME:
        value = getattr(import_module(f"statespace.forecasting.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'statespace.forecasting' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_HOME})
