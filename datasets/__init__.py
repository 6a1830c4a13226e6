"""Data to try things on: ``make_*`` generates, ``load_*`` reads what a dependency ships,
``read_fasta`` reads sequences from a file.

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
    "PredatorPrey": "predator_prey",
    "TokenTask": "tokens",
    "load_co2": "co2",
    "make_associative_recall": "tokens",
    "make_compression": "tokens",
    "make_fading_flash": "fading_flash",
    "make_induction_heads": "tokens",
    "make_irregular": "sampling",
    "make_memorization": "tokens",
    "make_oscillators": "oscillators",
    "make_pendulum": "pendulum",
    "make_predator_prey": "predator_prey",
    "make_selective_copying": "tokens",
    "read_fasta": "fasta",
}

__all__ = [
    "FadingFlash", "Oscillators", "Pendulum", "PredatorPrey", "TokenTask", "load_co2", "make_associative_recall",
    "make_compression", "make_fading_flash", "make_induction_heads", "make_irregular", "make_memorization",
    "make_oscillators", "make_pendulum", "make_predator_prey", "make_selective_copying", "read_fasta",
]  # fmt: skip

if TYPE_CHECKING:
    from statespace.datasets.co2 import load_co2
    from statespace.datasets.fading_flash import FadingFlash, make_fading_flash
    from statespace.datasets.fasta import read_fasta
    from statespace.datasets.oscillators import Oscillators, make_oscillators
    from statespace.datasets.pendulum import Pendulum, make_pendulum
    from statespace.datasets.predator_prey import PredatorPrey, make_predator_prey
    from statespace.datasets.sampling import make_irregular
    from statespace.datasets.tokens import (
        TokenTask,
        make_associative_recall,
        make_compression,
        make_induction_heads,
        make_memorization,
        make_selective_copying,
    )


def __getattr__(name):
    if name in _HOME:
        return getattr(import_module(f"statespace.datasets.{_HOME[name]}"), name)
    raise AttributeError(f"module 'statespace.datasets' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_HOME})
