"""Processes as plain data and back, for files: a class name from a closed list, and its parameters."""

import numpy as np

from statespace.kalman.carma import CARMA
from statespace.kalman.components import LocalLevel, LocalTrend, Regression, Seasonal
from statespace.kalman.composition import Sum
from statespace.kalman.oscillating import Cycle, DampedOscillator
from statespace.kalman.stationary import Matern, OrnsteinUhlenbeck

_CLASSES = {
    kind.__name__: kind
    for kind in (
        CARMA, Cycle, DampedOscillator, LocalLevel, LocalTrend, Matern, OrnsteinUhlenbeck, Regression, Seasonal,
    )
}  # fmt: skip


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
    if isinstance(process, Sum):
        return {"class": "Sum", "params": {"components": [description(part) for part in process.components]}}
    name = type(process).__name__
    if _CLASSES.get(name) is not type(process):
        raise TypeError(f"a file holds processes of {', '.join(_CLASSES)}, not a {type(process).__qualname__}")
    result = {"class": name, "params": {key: _plain(value) for key, value in process.get_params(deep=False).items()}}
    places = getattr(process, "_positions", None)
    return result if places is None else result | {"positions": _plain(places)}


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
    if described["class"] == "Sum":
        return Sum([restored(part) for part in params["components"]])
    # JSON has lists only; bounds are pairs.
    pairs = {key: tuple(value) for key, value in params.items() if key.endswith("_bounds") and isinstance(value, list)}
    process = _CLASSES[described["class"]](**(params | pairs))
    if "positions" in described:
        process._positions = described["positions"]
    return process


def _plain(value):
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value
