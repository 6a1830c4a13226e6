"""Real states of sixteen channels through a segment, forth and back, four states at a time in one vector.

Offsets point into the scratch: ``rows`` to the rows of the segment, ``b`` and ``c`` to its coefficients (steps, n),
which the channels share, the others to the first of the vector's n states. ``own`` is not None where each channel has
factors of B and C of its own.
"""

from math import log

from statespace.kernels.compiled import helper
from statespace.kernels.lanes import load
from statespace.kernels.selective_scan.exponential import expm1_exp
from statespace.kernels.selective_scan.segments import (
    BLOCK,
    OF_H,
    OF_V,
    OF_Y,
    TINY,
    H,
    V,
    W,
    Y,
    fold,
    load_block,
    repeat,
    spread,
)
from statespace.kernels.vectors import nothing, store, without_tiny

LN2 = log(2)


@helper()
def advance(steps, n, i, rows, b, c, rate, state, own, own_b, own_c, scratch):
    """States i … i + 3 through a segment; their read-out is added to the outputs."""
    a, x = load_block(scratch, rate + i * W), without_tiny(load_block(scratch, state + i * W), TINY)
    for t in range(steps):
        at = rows + t * W
        h, v = repeat(load(scratch, at + H)), repeat(load(scratch, at + V))
        b_t, c_t = spread(scratch, b + t * n + i), spread(scratch, c + t * n + i)
        if own is not None:
            b_t, c_t = b_t * load_block(scratch, own_b + i * W), c_t * load_block(scratch, own_c + i * W)
        e, _ = expm1_exp(h * a)
        x = x + (e * x + v * b_t)
        store(load(scratch, at + Y) + fold(x * c_t), scratch, at + Y)
    store(x, scratch, state + i * W)


@helper()
def reverse(
    steps, n, i, rows, b, c, rate, state, own, own_b, own_c, of_b, of_c, of_rate, gradient, of_own_b, of_own_c, kept,
    gated, scratch,
):  # fmt: skip
    """States i … i + 3 through a segment again, from ``state`` at its beginning, and back."""
    a, x = load_block(scratch, rate + i * W), without_tiny(load_block(scratch, state + i * W), TINY)
    for t in range(steps):
        at, to = rows + t * W, kept + 2 * t * BLOCK
        h, v, b_t = repeat(load(scratch, at + H)), repeat(load(scratch, at + V)), spread(scratch, b + t * n + i)
        if own is not None:
            b_t = b_t * load_block(scratch, own_b + i * W)
        e, decay = expm1_exp(h * a)
        store(decay * x, scratch, to)
        store(e, scratch, to + BLOCK)
        x = x + (e * x + v * b_t)
        if gated:
            c_t = spread(scratch, c + t * n + i)
            if own is not None:
                c_t = c_t * load_block(scratch, own_c + i * W)
            store(load(scratch, at + Y) + fold(x * c_t), scratch, at + Y)
    g, of_a = load_block(scratch, gradient + i * W), load_block(scratch, of_rate + i * W)
    of_factor_b = of_factor_c = nothing(g)
    for t in range(steps - 1, -1, -1):
        at, from_ = rows + t * W, kept + 2 * t * BLOCK
        p, q = of_b + (t * n + i) * W, of_c + (t * n + i) * W
        h, v, of_y = repeat(load(scratch, at + H)), repeat(load(scratch, at + V)), repeat(load(scratch, at + OF_Y))
        b_t, c_t = spread(scratch, b + t * n + i), spread(scratch, c + t * n + i)
        decayed, e = load_block(scratch, from_), load_block(scratch, from_ + BLOCK)
        if own is None:
            g = g + of_y * c_t
            through, back = g * v, of_y * (decayed + v * b_t)
        else:
            factor_b, factor_c = load_block(scratch, own_b + i * W), load_block(scratch, own_c + i * W)
            shared_b, shared_c, b_t, c_t = b_t, c_t, b_t * factor_b, c_t * factor_c
            g = g + of_y * c_t
            through, back = g * v, of_y * (decayed + v * b_t)
            of_factor_b, of_factor_c = of_factor_b + through * shared_b, of_factor_c + back * shared_c
            through, back = through * factor_b, back * factor_c
        store(load_block(scratch, p) + through, scratch, p)
        store(load_block(scratch, q) + back, scratch, q)
        s = g * decayed  # the gradient in h A
        of_a = of_a + s * h
        store(load(scratch, at + OF_H) + LN2 * fold(s * a), scratch, at + OF_H)
        store(load(scratch, at + OF_V) + fold(g * b_t), scratch, at + OF_V)
        g = g + g * e
    store(g, scratch, gradient + i * W)
    store(of_a, scratch, of_rate + i * W)
    if own is not None:
        store(load_block(scratch, of_own_b + i * W) + of_factor_b, scratch, of_own_b + i * W)
        store(load_block(scratch, of_own_c + i * W) + of_factor_c, scratch, of_own_c + i * W)
