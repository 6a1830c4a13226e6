"""Transformers with sktime's interface, for its pipelines.

Above: nothing. Below: `statespace.filtering` and `statespace.lti`, which do the work. sktime is imported with the first
name that is asked for.

kalman      KalmanSmoother: denoises and imputes by a Kalman smoother
"""

from importlib import import_module
from typing import TYPE_CHECKING

_HOME = {"KalmanSmoother": "kalman"}

__all__ = ["KalmanSmoother"]

if TYPE_CHECKING:
    from statespace.transformations.kalman import KalmanSmoother


def __getattr__(name):
    if name in _HOME:
        value = getattr(import_module(f"statespace.transformations.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'statespace.transformations' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_HOME})
