"""Diagonal convolution on a GPU: matrix products within the blocks, the scan in Triton from block to block.

The products are torch's, which are those of the vendor's library; what torch lacks is the recurrence over the blocks, a
loop of small launches that leaves a GPU idle. Blocks stand last in memory for it, which costs the products nothing.
"""

import torch

from statespace.kernels.arrays import accepts_numpy
from statespace.kernels.diagonal_convolution.pytorch import convolve
from statespace.kernels.launching import unusable  # noqa: F401
from statespace.kernels.linear_scan.gpu_triton import linear_scan


@accepts_numpy
def diagonal_convolution(u, rate, c, initial=None, lengths=None, skip=None, *, discretization="zoh"):
    """See :func:`statespace.kernels.diagonal_convolution`; tensors are differentiable, once."""
    return convolve(u, rate, c, initial, lengths, skip, discretization, _through)


def _through(blocks, toeplitz, write, read, last, start):
    """y (H, M, T) and the state at the beginning of each block (H, B, R, 2 n); complex numbers as pairs of halves."""
    H, B, pair = start.shape
    written = torch.bmm(write.mT, blocks.mT).view(H, 2, pair // 2, B, -1)
    state = torch.complex(*start.mT.chunk(2, dim=1))  # (H, n, B)
    factor = torch.complex(*last.chunk(2, dim=1))[..., None, None]
    ends = linear_scan(factor, torch.complex(*written.unbind(1)), state)
    begin = torch.cat([state.unsqueeze(-1), ends[..., :-1]], dim=-1)
    begin = torch.cat([begin.real, begin.imag], dim=1)  # (H, 2 n, B, R)
    y = torch.bmm(blocks, toeplitz) + torch.bmm(begin.flatten(2).mT, read)
    return y, begin.permute(0, 2, 3, 1)
