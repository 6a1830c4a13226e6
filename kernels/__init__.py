"""Compute primitives, each a folder with one file for each backend; ``ls`` is the support table.

Above: the layers and the Kalman models, which call the public function of a primitive. Below: NumPy, Numba, torch.
Every folder has the same files: ``README.md`` (the recurrence and its derivation), ``__init__.py`` (the public function:
it checks its arguments and dispatches), ``reference.py`` (a float64 loop written from the definition, never optimised)
and one file for each faster backend, which exports the primitive's own name with the same signature.

This folder stands at the top of the repository and is imported as ``statespace.kernels``.
"""

if not __name__.startswith("statespace."):
    raise ImportError("this folder is imported as statespace.kernels, not as a bare `kernels`")

from importlib import import_module

from statespace.kernels.dispatch import BackendError, explain

_PRIMITIVES = ("kalman_filter", "linear_scan", "long_convolution", "vandermonde")

__all__ = [*_PRIMITIVES, "BackendError", "explain"]


def __getattr__(name):
    # A primitive's function shares the name of its folder. Importing the folder binds the module here,
    # so the function is bound over it.
    if name in _PRIMITIVES:
        function = getattr(import_module(f"statespace.kernels.{name}"), name)
        globals()[name] = function
        return function
    raise AttributeError(f"module 'statespace.kernels' has no attribute {name!r}")
