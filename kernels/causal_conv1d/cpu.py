"""The short convolution as compiled loops over vectors of channels; threads over pieces of the records."""

from functools import lru_cache

import numpy as np
import torch
from torch.nn.functional import pad

from statespace.kernels.arrays import accepts_numpy
from statespace.kernels.causal_conv1d.loops import backward, forward
from statespace.kernels.causal_conv1d.pytorch import final_states
from statespace.kernels.dispatch import refuse_accelerators as unusable  # noqa: F401
from statespace.kernels.lanes import WIDTH, flat, memory
from statespace.kernels.threads import in_parallel

# Steps of a task, and of a piece at most: enough for the gradients of its taps to be little beside them.
STEPS = 512


@accepts_numpy
def causal_conv1d(
    x, weight, bias=None, seq_idx=None, initial_states=None, return_final_states=False, activation=None, *, lengths=None
):
    """See :func:`statespace.kernels.causal_conv1d`; differentiable, once."""
    D, K = weight.shape
    working = torch.promote_types(x.dtype, torch.float32)
    # The loops take taps in fours, and rows of one vector at least. Older taps than there are weigh nothing.
    taps, lanes = -K % 4, max(0, WIDTH - D)
    rows = x.to(working).transpose(1, 2)
    # Padding by nothing would copy.
    rows = pad(rows, (0, lanes)) if lanes else rows
    register = rows.new_zeros(0)
    if initial_states is not None:
        register = pad(initial_states.to(working).transpose(1, 2), (0, lanes, taps, 0))
    bias = rows.new_zeros(D) if bias is None else bias.to(working)
    columns = pad(weight.to(working).t(), (0, lanes, taps, 0))
    work = _whole(len(x), x.shape[-1]) if seq_idx is None else _packed(seq_idx.numpy())
    y = _Convolution.apply(rows, columns, pad(bias, (0, lanes)), register, activation is not None, *work)
    y = (y[..., :D] if lanes else y).transpose(1, 2).to(x.dtype)
    return (y, final_states(x, K - 1, seq_idx, initial_states, lengths)) if return_final_states else y


def _packed(seq_idx):
    """The tasks and pieces of records in which several sequences are packed."""
    L = seq_idx.shape[1]
    begins = np.diff(seq_idx, axis=1, prepend=seq_idx[:, :1]) != 0
    begins[:, 0] = True
    record, start = np.nonzero(begins)
    stop = np.where(np.roll(start, -1) == 0, L, np.roll(start, -1))
    return _cut(record, start, stop)


@lru_cache(maxsize=64)
def _whole(B, L):
    """The tasks and pieces of records that are one sequence each."""
    return _cut(np.arange(B), np.zeros(B, np.int64), np.full(B, L))


def _cut(record, start, stop):
    """Runs, cut into the tasks and pieces that `loops.py` describes."""
    n = -((start - stop) // STEPS)
    record, start, stop, first = (np.repeat(x, n) for x in (record, start, stop, np.cumsum(n) - n))
    begin = start + STEPS * (np.arange(len(record)) - first)
    pieces = np.stack([record, begin, np.minimum(begin + STEPS, stop), start, stop, start == 0], axis=1)
    steps = np.cumsum(pieces[:, 2] - pieces[:, 1])
    task = np.pad(steps, (1, 0))[:-1] // STEPS
    return np.searchsorted(task, np.arange(task[-1] + 2)), pieces


def _placed(x):
    """Rows (records, L, D) as a flat array from the first one on, and how far apart records and steps lie."""
    if x.stride(2) != 1 or x.stride(1) < x.shape[2]:
        x = x.contiguous()
    return memory(x), x.stride(0), x.stride(1)


class _Convolution(torch.autograd.Function):
    """x and y (records, L, D), taps (K, D), bias (D,), register (records, K - 1, D) or empty."""

    @staticmethod
    def forward(ctx, x, taps, bias, register, activated, tasks, pieces):
        ctx.save_for_backward(x, taps, bias, register)
        ctx.activated, ctx.work = activated, (tasks, pieces)
        (_, L, D), K = x.shape, len(taps)
        y = x.new_empty(x.shape)
        inputs = *_placed(x), *map(flat, (taps, bias, register)), activated
        in_parallel(forward, len(tasks) - 1, x.numel(), L, D, K, tasks, pieces, *inputs, flat(y))
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, of_y):
        x, taps, bias, register = ctx.saved_tensors
        (_, L, D), K, n = x.shape, len(taps), len(ctx.work[0]) - 1
        of_x, of_register = x.new_empty(x.shape), register.new_zeros(register.shape)
        of_taps = x.new_zeros(n, K + 1, -(-D // WIDTH) * WIDTH)
        inputs = *_placed(x), *map(flat, (taps, bias, register)), ctx.activated
        gradients = *_placed(of_y), *map(flat, (of_x, of_register, of_taps))
        in_parallel(backward, n, 2 * x.numel(), L, D, K, *ctx.work, *inputs, *gradients)
        # The last vector of channels may overlap the one before.
        whole = D // WIDTH * WIDTH
        of_taps = of_taps.sum(0)
        of_taps = torch.cat([of_taps[:, :whole], of_taps[:, of_taps.shape[1] - D + whole :]], dim=1)
        return of_x, of_taps[:-1], of_taps[-1], of_register, None, None, None
