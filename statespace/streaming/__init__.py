"""Fitted models one sample at a time: the recurrent face, O(1) a step, equal to ``predict`` over the record so far.

Above: the estimators' ``stream()``. Below: the models' and filters' ``step``.
"""

from importlib import import_module

# By name and on demand: the Kalman stream must not load torch.
_HOME = {"LayerStream": "statespace.streaming.layer", "KalmanStream": "statespace.streaming.kalman"}

__all__ = ["KalmanStream", "LayerStream"]


def __getattr__(name):
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'statespace.streaming' has no attribute {name!r}")
