"""Processes as plain data and back, for files: a class name from a closed list, and its parameters."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from statespace.kalman.base import Component
from statespace.kalman.carma import CARMA
from statespace.kalman.components import LocalLevel, LocalTrend, Regression, Seasonal
from statespace.kalman.composition import Sum
from statespace.kalman.dummies import DummySeasonal
from statespace.kalman.interventions import Intervention, LevelShift, Outlier, SlopeChange
from statespace.kalman.oscillating import Cycle, DampedOscillator
from statespace.kalman.products import Product
from statespace.kalman.quasiperiodic import QuasiPeriodic
from statespace.kalman.stationary import Matern, OrnsteinUhlenbeck

_CLASSES = {
    kind.__name__: kind
    for kind in (
        CARMA, Cycle, DampedOscillator, DummySeasonal, LevelShift, LocalLevel, LocalTrend, Matern, OrnsteinUhlenbeck, Outlier,
        Product, QuasiPeriodic, Regression, Seasonal, SlopeChange, Sum,
    )
}  # fmt: skip
_TUPLES = ("ar", "ma", "order")
# What `resolved` learned beside the parameters.
_LEARNED: dict[str, Callable] = {"_positions": list, "_since": np.array, "_tolerance": float}


def description(process):
    """A process as a dict that JSON can hold.

    Parameters
    ----------
    process : Component or None

    Returns
    -------
    dict or None

    Raises
    ------
    TypeError
        For a class that is not this package's own: a file cannot hold its code.

    Examples
    --------
    >>> from statespace.kalman import LocalLevel
    >>> from statespace.kalman.description import description
    >>> description(LocalLevel(variance=2.0))
    {'class': 'LocalLevel', 'params': {'variance': 2.0, 'variance_bounds': None}}
    """
    if process is None:
        return None
    name = type(process).__name__
    if _CLASSES.get(name) is not type(process):
        raise TypeError(f"a file holds processes of {', '.join(_CLASSES)}, not a {type(process).__qualname__}")
    result = {"class": name, "params": {key: _plain(value) for key, value in process.get_params(deep=False).items()}}
    if isinstance(process, Intervention):
        times = process._given()
        result["params"]["times"] = (
            [str(time) for time in pd.Index(times)] if times.dtype.kind in "mM" else times.tolist()
        )
    learned = {name: getattr(process, name) for name in _LEARNED if getattr(process, name, None) is not None}
    return result | {"learned": {name: _plain(value) for name, value in learned.items()}} if learned else result


def restored(described):
    """The process that `description` described.

    Parameters
    ----------
    described : dict or None

    Returns
    -------
    Component or None

    Raises
    ------
    KeyError
        For a class that is not in the list.

    Examples
    --------
    >>> from statespace.kalman.description import restored
    >>> restored({"class": "Seasonal", "params": {"period": 12, "variance_bounds": [0.1, 2.0]}})
    Seasonal(period=12)
    """
    if described is None:
        return None
    params = described["params"]
    process = _CLASSES[described["class"]](**{key: _rich(key, value) for key, value in params.items()})
    for name, value in described.get("learned", {}).items():
        if name not in _LEARNED:
            raise KeyError(name)
        setattr(process, name, _LEARNED[name](value))
    return process


def _plain(value):
    if isinstance(value, Component):
        return description(value)
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _rich(key, value):
    """JSON has lists only; bounds, orders and coefficients are tuples, and a component is described by a dict."""
    if isinstance(value, dict):
        return restored(value)
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return [restored(item) for item in value]
    return tuple(value) if isinstance(value, list) and (key.endswith("_bounds") or key in _TUPLES) else value
