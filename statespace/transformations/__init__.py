"""Transformers with sktime's interface, for its pipelines.

Above: nothing. Below: `statespace.filtering` and `statespace.lti`, which do the work. sktime is imported with the first
name that is asked for.

kalman      KalmanSmoother: denoises and imputes by a Kalman smoother
lti         LTIFilter: analog filters on regular and irregular indexes
"""

from importlib import import_module
from typing import TYPE_CHECKING

_HOME = {"KalmanSmoother": "kalman", "LTIFilter": "lti"}

__all__ = ["KalmanSmoother", "LTIFilter"]

if TYPE_CHECKING:
    from statespace.transformations.kalman import KalmanSmoother
    from statespace.transformations.lti import LTIFilter


def __getattr__(name):
    if name in _HOME:
        value = getattr(import_module(f"statespace.transformations.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'statespace.transformations' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_HOME})
