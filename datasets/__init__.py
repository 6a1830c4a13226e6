"""Data to try things on: ``make_*`` generates, ``load_*`` reads what a dependency ships.

Above: examples, tests, the demonstration. Below: NumPy and pandas; nothing of the models.

This folder stands at the top of the repository and is imported as ``statespace.datasets``.
"""

if not __name__.startswith("statespace."):
    raise ImportError("this folder is imported as statespace.datasets, not as a bare `datasets`")
