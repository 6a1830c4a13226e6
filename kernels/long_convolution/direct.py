"""The convolution with a short kernel as compiled loops over vectors of channels: the sum itself, no transform.

``G`` vectors of channels, ``per`` of them in a record; flat arrays, time before channels: u and y (records, L, per ·
lanes), k (V, K, lanes), V = ``per`` if records share their kernels, else G. A stretch of a record is copied side by
side first, with the K - 1 samples before it.
"""

import numpy as np

from statespace.kernels.compiled import entry, helper
from statespace.kernels.lanes import WIDTH, load
from statespace.kernels.vectors import nothing, store

STRETCH = 256
W = WIDTH


@helper()
def _copy(u, begin, end, L, own, step, scratch, base):
    """u_begin … u_{end-1} of one vector of channels, zeros where there are none."""
    for t in range(begin, end):
        value = load(u, own + max(0, min(t, L - 1)) * step)
        store(value if 0 <= t < L else nothing(value), scratch, base + (t - begin) * W)


@helper()
def _correlate(scratch, base, k, first, K, stride, out, place):
    """Eight outputs at once, Σ_j k_j x_{t+j}, so that a tap is loaded once for all of them."""
    zero = nothing(load(k, first))
    y0, y1, y2, y3, y4, y5, y6, y7 = zero, zero, zero, zero, zero, zero, zero, zero
    for j in range(K):
        tap, x = load(k, first + j * stride), base + j * W
        y0 = y0 + tap * load(scratch, x)
        y1 = y1 + tap * load(scratch, x + W)
        y2 = y2 + tap * load(scratch, x + 2 * W)
        y3 = y3 + tap * load(scratch, x + 3 * W)
        y4 = y4 + tap * load(scratch, x + 4 * W)
        y5 = y5 + tap * load(scratch, x + 5 * W)
        y6 = y6 + tap * load(scratch, x + 6 * W)
        y7 = y7 + tap * load(scratch, x + 7 * W)
    store(y0, out, place)
    store(y1, out, place + W)
    store(y2, out, place + 2 * W)
    store(y3, out, place + 3 * W)
    store(y4, out, place + 4 * W)
    store(y5, out, place + 5 * W)
    store(y6, out, place + 6 * W)
    store(y7, out, place + 7 * W)


@entry()
def convolve(first, last, L, K, per, V, u, k, y, backwards):
    """y_t = Σ_j k_j u_{t-j} of the vectors first..last−1; ``backwards``: y_t = Σ_j k_j u_{t+j}, the gradient in u."""
    scratch = np.empty((2 * STRETCH + K + 32) * W, u.dtype)
    inputs = -(scratch.ctypes.data // scratch.itemsize) % 16
    outputs = inputs + (STRETCH + K + 16) * W
    for g in range(first, last):
        own, step = (g // per) * L * per * W + (g % per) * W, per * W
        taps = (g % V) * K * W
        for start in range(0, L, STRETCH):
            stop = min(L, start + STRETCH)
            whole = (stop - start + 7) // 8 * 8
            begin = start if backwards else start - K + 1
            _copy(u, begin, begin + whole + K - 1, L, own, step, scratch, inputs)
            for t in range(0, whole, 8):
                if backwards:
                    _correlate(scratch, inputs + t * W, k, taps, K, W, scratch, outputs + t * W)
                else:
                    _correlate(scratch, inputs + t * W, k, taps + (K - 1) * W, K, -W, scratch, outputs + t * W)
            for t in range(start, stop):
                store(load(scratch, outputs + (t - start) * W), y, own + t * step)


@entry()
def gradient(first, last, L, K, per, u, grad, grad_k):
    """∂k_j = Σ_t ∂y_t u_{t-j} of the vectors first..last−1; ``grad_k`` (G, K filled up to eights, lanes), of zeros."""
    size = (K + 7) // 8 * 8
    scratch = np.empty((2 * STRETCH + size + 16) * W, u.dtype)
    inputs = -(scratch.ctypes.data // scratch.itemsize) % 16
    backs = inputs + (STRETCH + size) * W
    for g in range(first, last):
        own, step = (g // per) * L * per * W + (g % per) * W, per * W
        for start in range(0, L, STRETCH):
            stop = min(L, start + STRETCH)
            _copy(u, start - size + 1, stop, L, own, step, scratch, inputs)
            _copy(grad, start, stop, L, own, step, scratch, backs)
            for j in range(0, size, 8):
                at = (g * size + j) * W
                g0, g1 = load(grad_k, at), load(grad_k, at + W)
                g2, g3 = load(grad_k, at + 2 * W), load(grad_k, at + 3 * W)
                g4, g5 = load(grad_k, at + 4 * W), load(grad_k, at + 5 * W)
                g6, g7 = load(grad_k, at + 6 * W), load(grad_k, at + 7 * W)
                for t in range(stop - start):
                    back, x = load(scratch, backs + t * W), inputs + (t + size - 1 - j) * W
                    g0 = g0 + back * load(scratch, x)
                    g1 = g1 + back * load(scratch, x - W)
                    g2 = g2 + back * load(scratch, x - 2 * W)
                    g3 = g3 + back * load(scratch, x - 3 * W)
                    g4 = g4 + back * load(scratch, x - 4 * W)
                    g5 = g5 + back * load(scratch, x - 5 * W)
                    g6 = g6 + back * load(scratch, x - 6 * W)
                    g7 = g7 + back * load(scratch, x - 7 * W)
                store(g0, grad_k, at)
                store(g1, grad_k, at + W)
                store(g2, grad_k, at + 2 * W)
                store(g3, grad_k, at + 3 * W)
                store(g4, grad_k, at + 4 * W)
                store(g5, grad_k, at + 5 * W)
                store(g6, grad_k, at + 6 * W)
                store(g7, grad_k, at + 7 * W)
