"""Diagonal convolution in torch operations on any device: matrix products, and a loop over the blocks."""

import torch

from statespace.kernels.arrays import accepts_numpy
from statespace.kernels.diagonal_convolution.blocks import convolve


@accepts_numpy
def diagonal_convolution(u, rate, c, initial=None, lengths=None, skip=None, *, discretization="zoh"):
    """See :func:`statespace.kernels.diagonal_convolution`; tensors are differentiable, once."""
    return convolve(u, rate, c, initial, lengths, skip, discretization, (_forth, _back))


def _forth(last, written, start):
    """What each block writes (H, B, R, 2 n) becomes, in place, the state at its beginning."""
    last, state = _complex(last).unsqueeze(1), _complex(start)
    for r in range(written.shape[2]):
        after = last * state + _complex(written[:, :, r])
        written[:, :, r] = torch.cat([state.real, state.imag], dim=-1)
        state = after


def _back(last, begin, grad):
    """The gradient in the beginnings becomes, in place, that in what each block writes."""
    last = _complex(last).unsqueeze(1)
    after, grad_last = torch.zeros_like(_complex(grad[:, :, 0])), 0.0
    for r in range(grad.shape[2] - 1, -1, -1):
        here = _complex(grad[:, :, r])
        grad[:, :, r] = torch.cat([after.real, after.imag], dim=-1)
        grad_last = grad_last + (after * _complex(begin[:, :, r]).conj()).sum(1)
        after = last.conj() * after + here
    return tuple(torch.cat([x.real, x.imag], dim=-1) for x in (grad_last, after))


def _complex(pairs):
    return torch.complex(*pairs.chunk(2, dim=-1))
