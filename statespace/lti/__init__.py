"""Linear time-invariant systems: the control engineer's door, on regular and irregular times.

Above: the deep layers, which are such systems with learned weights. Below: `statespace.kernels`.
"""

__all__: list[str] = []
