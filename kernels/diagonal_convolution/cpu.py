"""Diagonal convolution on a CPU: the compiled loops of `diagonal_scan`, which on a regular grid need no exponential.

The blocks of the other file are matrix products; a core multiplies as fast in a loop over vectors of channels, and that
loop makes no tables, stores a state in 32 steps, and starts at once.
"""

import torch

from statespace.kernels.arrays import accepts_numpy
from statespace.kernels.diagonal_scan.cpu import scan
from statespace.kernels.diagonal_scan.loops import LINEAR
from statespace.kernels.dispatch import refuse_devices as unusable  # noqa: F401


@accepts_numpy
def diagonal_convolution(u, rate, c, initial=None, lengths=None, skip=None, *, discretization="zoh"):
    """See :func:`statespace.kernels.diagonal_convolution`; tensors are differentiable, once."""
    rate = rate.to(torch.complex128)
    d = torch.special.expm1(rate) if discretization == "zoh" else rate / (1 - rate / 2)
    gaps = None
    if lengths is not None:
        # Of a step that is padding nothing is written: d times 1 for a real step, times 0 for another.
        gaps = (torch.arange(u.shape[-1]) < lengths.unsqueeze(-1)).to(u.dtype)
    return scan(u, gaps, d, c, initial, skip, LINEAR)
