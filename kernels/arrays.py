"""NumPy or CuPy arrays in, the same kind out, for the backends that compute with torch."""

import sys
from functools import wraps

import numpy as np
import torch

from statespace.kernels.dispatch import BackendError, is_device_array


def accepts_numpy(function):
    """Lets a function of tensors take NumPy or CuPy arrays as well; it then returns arrays of that kind.

    CuPy arrays are read where they lie (DLPack), and results handed back without a copy, in the order of the streams
    that are current in CuPy and in torch.
    """

    @wraps(function)
    def wrapper(*arguments, **options):
        given = (*arguments, *options.values())
        if any(isinstance(x, torch.Tensor) for x in given):
            return function(*arguments, **options)
        tensor, array = _ways(given)
        with torch.no_grad():
            result = function(*map(tensor, arguments), **{name: tensor(x) for name, x in options.items()})
        return tuple(map(array, result)) if isinstance(result, tuple) else array(result)

    return wrapper


def _ways(given):
    """How an argument becomes a tensor, and a tensor a result."""
    arrays = [x for x in given if is_device_array(x)]
    if not arrays:
        return _tensor, torch.Tensor.numpy
    if any(isinstance(x, np.ndarray) for x in given):
        raise ValueError("all arrays must be NumPy arrays, or all CuPy arrays. Got both; cupy.asarray moves an array.")
    library = sys.modules[type(arrays[0]).__module__]
    device = _shared(arrays[0], library).device

    def tensor(x):
        if is_device_array(x):
            return _shared(x, library)
        return torch.tensor(x, device=device) if isinstance(x, np.generic) else x

    return tensor, lambda x: library.from_dlpack(x.resolve_conj().resolve_neg())


def _tensor(x):
    # np.generic: an array of no dimension turns into a scalar at NumPy's first touch.
    # Copied: arrays may be read-only or run backwards, which tensors cannot.
    return torch.from_numpy(np.array(x, order="C")) if isinstance(x, np.ndarray | np.generic) else x


def _shared(x, library):
    """The tensor over the same memory; torch knows no negative steps, for which alone there is a copy."""
    try:
        return torch.from_dlpack(x if min(x.strides, default=0) >= 0 else library.ascontiguousarray(x))
    except (RuntimeError, BufferError, AssertionError) as error:
        raise BackendError(
            f"torch {torch.__version__} cannot take a {type(x).__name__} from the GPU: {error}. Install a torch built "
            "for CUDA (pip install torch), or move the array to main memory (cupy.asnumpy)."
        ) from error
