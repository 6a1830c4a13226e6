"""Data to try things on: ``make_*`` generates, ``load_*`` reads what a dependency ships.

Above: examples, tests, the demonstration. Below: NumPy, pandas and ``SeriesCollection``; nothing of the models.

This folder stands at the top of the repository and is imported as ``statespace.datasets``.
"""

if not __name__.startswith("statespace."):
    raise ImportError("this folder is imported as statespace.datasets, not as a bare `datasets`")

from importlib import import_module
from typing import TYPE_CHECKING

_HOME = {
    "FadingFlash": "fading_flash",
    "Oscillators": "oscillators",
    "Pendulum": "pendulum",
    "load_co2": "co2",
    "make_fading_flash": "fading_flash",
    "make_irregular": "sampling",
    "make_oscillators": "oscillators",
    "make_pendulum": "pendulum",
}

__all__ = [
    "FadingFlash",
    "Oscillators",
    "Pendulum",
    "load_co2",
    "make_fading_flash",
    "make_irregular",
    "make_oscillators",
    "make_pendulum",
]

if TYPE_CHECKING:
    from statespace.datasets.co2 import load_co2
    from statespace.datasets.fading_flash import FadingFlash, make_fading_flash
    from statespace.datasets.oscillators import Oscillators, make_oscillators
    from statespace.datasets.pendulum import Pendulum, make_pendulum
    from statespace.datasets.sampling import make_irregular


def __getattr__(name):
    if name in _HOME:
        return getattr(import_module(f"statespace.datasets.{_HOME[name]}"), name)
    raise AttributeError(f"module 'statespace.datasets' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_HOME})
