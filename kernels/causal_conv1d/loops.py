"""The short convolution compiled: sixteen channels of a step in a vector, a stretch of steps at a time.

Records are cut into pieces. A piece is a row of six numbers: its record, its first step and the one behind its last,
the run of steps that it belongs to (likewise), and whether the register before the record is that run's. Task n has the
pieces tasks[n] … tasks[n + 1] - 1. Flat arrays:

    x, of_y     (records, L, D), rows ``step`` numbers apart and records ``record``
    y, of_x     (records, L, D) in one block
    taps        (K, D)           the first one meets the oldest sample; K is a multiple of four
    bias        (D,)
    register    (records, K - 1, D)         the samples before each record; empty where they are zeros
    of_taps     (tasks, K + 1, V, lanes)    the gradients in the taps, and behind them in the bias

V vectors of sixteen channels make a row. Where D is no multiple of sixteen, the last one overlaps the one before.
"""

import numpy as np

from statespace.kernels.compiled import entry, helper
from statespace.kernels.exponential import sigmoid
from statespace.kernels.lanes import WIDTH, load
from statespace.kernels.vectors import nothing, store

STRETCH = 64  # steps
W = WIDTH


@helper()
def _gather(x, record, step, register, D, K, piece, begin, end, c, scratch, base):
    """x_{begin - K + 1} … x_{end-1} of the channels c, c + 1, … side by side; zeros where the run has no sample."""
    own = piece[0] * record + c
    for t in range(begin - K + 1, min(begin, piece[3])):
        at, value = base + (t - begin + K - 1) * W, nothing(load(x, own))
        if t < 0 and piece[5] and len(register) > 0:
            value = load(register, (piece[0] * (K - 1) + t + K - 1) * D + c)
        store(value, scratch, at)
    for t in range(max(begin - K + 1, piece[3]), end):
        store(load(x, own + t * step), scratch, base + (t - begin + K - 1) * W)


@helper()
def _correlate(scratch, base, steps, taps, first, stride, K, offset, out):
    """offset + Σ_i w_i x_{t+i} of a stretch's steps, four at a time, so that a tap is loaded once for all of them."""
    for t in range(0, steps, 4):
        y0, y1, y2, y3 = offset, offset, offset, offset
        for i in range(K):
            tap, x = load(taps, first + i * stride), base + (t + i) * W
            y0 = y0 + tap * load(scratch, x)
            y1 = y1 + tap * load(scratch, x + W)
            y2 = y2 + tap * load(scratch, x + 2 * W)
            y3 = y3 + tap * load(scratch, x + 3 * W)
        store(y0, scratch, out + t * W)
        store(y1, scratch, out + (t + 1) * W)
        store(y2, scratch, out + (t + 2) * W)
        store(y3, scratch, out + (t + 3) * W)


@entry()
def forward(first, last, L, D, K, tasks, pieces, x, record, step, taps, bias, register, activated, y):
    """The outputs of the tasks first..last−1."""
    scratch = np.empty((2 * STRETCH + K + 8) * W + 16, x.dtype)
    inputs = -(scratch.ctypes.data // scratch.itemsize) % 16
    outputs = inputs + (STRETCH + K + 4) * W
    for piece in pieces[tasks[first] : tasks[last]]:
        for begin in range(piece[1], piece[2], STRETCH):
            end = min(begin + STRETCH, piece[2])
            for v in range((D + W - 1) // W):
                c = min(v * W, D - W)
                _gather(x, record, step, register, D, K, piece, begin, end, c, scratch, inputs)
                _correlate(scratch, inputs, end - begin, taps, c, D, K, load(bias, c), outputs)
                own = (piece[0] * L + begin) * D + c
                for t in range(end - begin):
                    p = load(scratch, outputs + t * W)
                    store(p * sigmoid(p) if activated else p, y, own + t * D)


@entry()
def backward(
    first, last, L, D, K, tasks, pieces, x, record, step, taps, bias, register, activated,
    of_y, of_record, of_step, of_x, of_register, of_taps,
):  # fmt: skip
    """The gradients of the tasks first..last−1. ``of_register`` and ``of_taps`` come as zeros."""
    # Of a stretch and of the K - 1 steps behind it, whose outputs it enters too: inputs, p and then q, gradients.
    scratch = np.empty((3 * STRETCH + 4 * K + 24) * W + 16, x.dtype)
    inputs = -(scratch.ctypes.data // scratch.itemsize) % 16
    qs = inputs + (STRETCH + 2 * K + 8) * W
    outputs = qs + (STRETCH + 2 * K + 8) * W
    V = (D + W - 1) // W
    for n in range(first, last):
        for piece in pieces[tasks[n] : tasks[n + 1]]:
            for begin in range(piece[1], piece[2], STRETCH):
                end = min(begin + STRETCH, piece[2])
                beyond = min(end + K - 1, piece[4])
                for v in range(V):
                    c = min(v * W, D - W)
                    zero = nothing(load(bias, c))
                    _gather(x, record, step, register, D, K, piece, begin, beyond, c, scratch, inputs)
                    if activated:
                        _correlate(scratch, inputs, beyond - begin, taps, c, D, K, load(bias, c), qs)
                    back = piece[0] * of_record + begin * of_step + c
                    for t in range(beyond - begin):
                        q = load(of_y, back + t * of_step)
                        if activated:
                            p = load(scratch, qs + t * W)
                            s = sigmoid(p)
                            q = q * (s + p * s * (1.0 - s))
                        store(q, scratch, qs + t * W)
                    for t in range(beyond - begin, end - begin + K + 3):
                        store(zero, scratch, qs + t * W)
                    # What a sample enters lies behind it: the taps in reverse.
                    _correlate(scratch, qs, end - begin, taps, c + (K - 1) * D, -D, K, zero, outputs)
                    own = (piece[0] * L + begin) * D + c
                    for t in range(end - begin):
                        store(load(scratch, outputs + t * W), of_x, own + t * D)
                    if begin == 0 and len(of_register) > 0:
                        for s in range(1, K):
                            total = zero
                            for j in range(s, K):
                                total = total + load(taps, (K - 1 - j) * D + c) * load(scratch, qs + (j - s) * W)
                            store(total, of_register, (piece[0] * (K - 1) + K - 1 - s) * D + c)
                    for i in range(0, K, 4):
                        at = ((n * (K + 1) + i) * V + v) * W
                        g0, g1, g2, g3 = zero, zero, zero, zero
                        for t in range(end - begin):
                            q, here = load(scratch, qs + t * W), inputs + (t + i) * W
                            g0 = g0 + q * load(scratch, here)
                            g1 = g1 + q * load(scratch, here + W)
                            g2 = g2 + q * load(scratch, here + 2 * W)
                            g3 = g3 + q * load(scratch, here + 3 * W)
                        store(load(of_taps, at) + g0, of_taps, at)
                        store(load(of_taps, at + V * W) + g1, of_taps, at + V * W)
                        store(load(of_taps, at + 2 * V * W) + g2, of_taps, at + 2 * V * W)
                        store(load(of_taps, at + 3 * V * W) + g3, of_taps, at + 3 * V * W)
                    at, total = ((n * (K + 1) + K) * V + v) * W, zero
                    for t in range(end - begin):
                        total = total + load(scratch, qs + t * W)
                    store(load(of_taps, at) + total, of_taps, at)
