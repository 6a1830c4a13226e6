"""The norm compiled: sixteen channels in a vector, a row's groups in turn.

A row has G groups of V vectors, of which ``size`` channels count. Rows of x, z and ``grad_y`` lie ``row_x``, … numbers
apart; all else lies in one block. A task is a piece of ``piece`` rows. ``z`` is None where there is no gate; the
compiler leaves out what that rules out.
"""

import math

import numpy as np

from statespace.kernels.compiled import entry
from statespace.kernels.exponential import sigmoid
from statespace.kernels.lanes import WIDTH, load
from statespace.kernels.vectors import nothing, store, total

W = WIDTH


@entry()
def forward(first, last, rows, G, V, size, eps, piece, x, row_x, z, row_z, weight, y):
    for row in range(first * piece, min(rows, last * piece)):
        for g in range(G):
            own = (row * G + g) * V * W
            squares = nothing(load(x, 0))
            for c in range(g * V * W, (g + 1) * V * W, W):
                v = load(x, row * row_x + c)
                if z is not None:
                    gate = load(z, row * row_z + c)
                    v = v * gate * sigmoid(gate)
                squares = squares + v * v
                store(v, y, own + c - g * V * W)
            scale = 1.0 / math.sqrt(total(squares) / size + eps)
            for c in range(0, V * W, W):
                store(load(y, own + c) * scale * load(weight, g * V * W + c), y, own + c)


@entry()
def backward(
    first, last, rows, G, V, size, eps, piece, x, row_x, z, row_z, weight, grad_y, row_y, grad_x, grad_z, grad_weight
):  # fmt: skip
    """``grad_weight`` (tasks, channels) comes as zeros."""
    gated = np.empty(2 * V * W, x.dtype)  # of a group: v, and SiLU(z)
    for task in range(first, last):
        for row in range(task * piece, min(rows, (task + 1) * piece)):
            for g in range(G):
                own = (row * G + g) * V * W
                squares, product = nothing(load(x, 0)), nothing(load(x, 0))
                for c in range(0, V * W, W):
                    v = load(x, row * row_x + g * V * W + c)
                    if z is not None:
                        gate = load(z, row * row_z + g * V * W + c)
                        share = sigmoid(gate)
                        factor = gate * share
                        # d SiLU / dz
                        store(v * (share + factor * (1.0 - share)), grad_z, own + c)
                        store(factor, gated, V * W + c)
                        v = v * factor
                    store(v, gated, c)
                    squares = squares + v * v
                    product = product + v * load(grad_y, row * row_y + g * V * W + c) * load(weight, g * V * W + c)
                scale = 1.0 / math.sqrt(total(squares) / size + eps)
                pull = total(product) * scale * scale / size
                for c in range(0, V * W, W):
                    v, back = load(gated, c), load(grad_y, row * row_y + g * V * W + c)
                    at = (task * G + g) * V * W + c
                    store(load(grad_weight, at) + back * v * scale, grad_weight, at)
                    of_v = (back * load(weight, g * V * W + c) - v * pull) * scale
                    if z is not None:
                        store(load(grad_z, own + c) * of_v, grad_z, own + c)
                        of_v = of_v * load(gated, V * W + c)
                    store(of_v, grad_x, own + c)
