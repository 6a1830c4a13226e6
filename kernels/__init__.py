"""Compute primitives, each a folder with one file for each backend; ``ls`` is the support table.

Above: the layers and the Kalman models, which call the public function of a primitive. Below: NumPy, Numba, torch, and
on a GPU Triton and CuPy.
Every folder has the same files: ``README.md`` (the recurrence and its derivation), ``__init__.py`` (the public
function: it checks its arguments and dispatches), ``reference.py`` (a float64 loop written from the definition, never
optimised) and one file for each faster backend, which exports the primitive's own name with the same signature.

A function takes NumPy arrays, torch tensors or, where a GPU is, CuPy arrays, and returns what it was given. CuPy arrays
and tensors on a GPU pass between the libraries without a copy; kernels run in the streams that are current there.

This folder stands at the top of the repository and is imported as ``statespace.kernels``.
"""

if not __name__.startswith("statespace."):
    raise ImportError("this folder is imported as statespace.kernels, not as a bare `kernels`")

# A primitive's function has the name of its folder; imported here, at once, the function stands for good where
# the import system would bind the module. The folders' __init__ files load no backend, so this costs nothing.
from statespace.kernels.cauchy import cauchy
from statespace.kernels.causal_conv1d import causal_conv1d
from statespace.kernels.delta_rule import delta_rule
from statespace.kernels.diagonal_convolution import diagonal_convolution
from statespace.kernels.diagonal_scan import diagonal_scan
from statespace.kernels.diagonal_states import diagonal_states
from statespace.kernels.dispatch import BackendError, explain
from statespace.kernels.dplr_scan import dplr_scan
from statespace.kernels.kalman_filter import kalman_filter
from statespace.kernels.linear_scan import linear_scan
from statespace.kernels.long_convolution import long_convolution
from statespace.kernels.rms_norm import rms_norm
from statespace.kernels.selective_scan import selective_scan
from statespace.kernels.selective_state_update import selective_state_update
from statespace.kernels.ssd import ssd
from statespace.kernels.token_shift import token_shift
from statespace.kernels.vandermonde import vandermonde
from statespace.kernels.wkv import wkv

__all__ = [
    "BackendError",
    "cauchy",
    "causal_conv1d",
    "delta_rule",
    "diagonal_convolution",
    "diagonal_scan",
    "diagonal_states",
    "dplr_scan",
    "explain",
    "kalman_filter",
    "linear_scan",
    "long_convolution",
    "rms_norm",
    "selective_scan",
    "selective_state_update",
    "ssd",
    "token_shift",
    "vandermonde",
    "wkv",
]
