"""Fitted models one sample at a time: the recurrent face, O(1) a step, equal to ``predict`` over the record so far.

Above: the estimators' ``stream()``. Below: the models' and filters' ``step``.

kalman      KalmanStream: a fitted Kalman model, sample by sample or block by block
clock       where a stream stands in time
filter      the filters of all outputs, which advance together
window      the last samples, among which late ones find their place
files       a KalmanStream as plain data and arrays
layer       LayerStream: a fitted deep model
"""

from importlib import import_module

# By name and on demand: the Kalman stream must not load torch.
_HOME = {"LayerStream": "statespace.streaming.layer", "KalmanStream": "statespace.streaming.kalman"}

__all__ = ["KalmanStream", "LayerStream"]


def __getattr__(name):
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'statespace.streaming' has no attribute {name!r}")
