"""NumPy arrays in, NumPy arrays out, for the backends that compute with torch."""

from functools import wraps

import numpy as np
import torch


def accepts_numpy(function):
    """Lets a function of tensors take NumPy arrays as well; it then returns arrays."""

    @wraps(function)
    def wrapper(*arguments, **options):
        if any(isinstance(x, torch.Tensor) for x in (*arguments, *options.values())):
            return function(*arguments, **options)
        with torch.no_grad():
            result = function(*map(_tensor, arguments), **{name: _tensor(x) for name, x in options.items()})
        return tuple(x.numpy() for x in result) if isinstance(result, tuple) else result.numpy()

    return wrapper


def _tensor(x):
    # np.generic: an array of no dimension turns into a scalar at NumPy's first touch.
    return torch.tensor(x) if isinstance(x, np.ndarray | np.generic) else x
