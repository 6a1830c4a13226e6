"""Complex states through a segment, forth and back: `real` in pairs.

Parts lie behind each other: of n states the real ones, then the imaginary ones; of a rate Re / ln 2, and Im / 2π in two
parts. Each channel has factors of B and C of its own, ones where it has none.
"""

from math import log, pi

from statespace.kernels.compiled import helper
from statespace.kernels.lanes import load
from statespace.kernels.selective_scan.exponential import expm1_exp, half_turns
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
from statespace.kernels.vectors import store, without_tiny

LN2, TURN = log(2), 2 * pi


@helper()
def _pair(scratch, at, n):
    return load_block(scratch, at), load_block(scratch, at + n * W)


@helper()
def _coefficient(scratch, at, n, factor):
    """B or C of a step: what the channels share times their own factors."""
    p, q = spread(scratch, at), spread(scratch, at + n)
    r, s = _pair(scratch, factor, n)
    return p * r - q * s, p * s + q * r


@helper()
def _decay(h, a, f, f_low):
    """exp(h A) - 1 and exp(h A), whose imaginary parts are the same."""
    e, size = expm1_exp(h * a)
    s, c = half_turns(h, f, f_low)
    less = size * s * s
    return e - less, size * s * c, size - less


@helper()
def _back(p, q, scratch, shared, n, factor, of_shared, of_p, of_q):
    """The gradient p + iq in B or C, handed on to what the channels share and to their own factors."""
    r, s = _pair(scratch, factor, n)
    store(load_block(scratch, of_shared) + (p * r + q * s), scratch, of_shared)
    store(load_block(scratch, of_shared + n * W) + (q * r - p * s), scratch, of_shared + n * W)
    r, s = spread(scratch, shared), spread(scratch, shared + n)
    return of_p + (p * r + q * s), of_q + (q * r - p * s)


@helper()
def advance(steps, n, i, rows, b, c, rate, state, own_b, own_c, scratch):
    """States i … i + 3 through a segment; their read-out is added to the outputs."""
    at = rate + i * W
    a, f, f_low = load_block(scratch, at), load_block(scratch, at + n * W), load_block(scratch, at + 2 * n * W)
    x, z = _pair(scratch, state + i * W, n)
    x, z = without_tiny(x, TINY), without_tiny(z, TINY)
    for t in range(steps):
        at = rows + t * W
        h, v = repeat(load(scratch, at + H)), repeat(load(scratch, at + V))
        b_t, w_t = _coefficient(scratch, b + 2 * t * n + i, n, own_b + i * W)
        d, e, _ = _decay(h, a, f, f_low)
        x, z = x + (d * x - e * z + v * b_t), z + (d * z + e * x + v * w_t)
        c_t, w_t = _coefficient(scratch, c + 2 * t * n + i, n, own_c + i * W)
        store(load(scratch, at + Y) + fold(x * c_t - z * w_t), scratch, at + Y)
    store(x, scratch, state + i * W)
    store(z, scratch, state + (n + i) * W)


@helper()
def reverse(
    steps, n, i, rows, b, c, rate, state, own_b, own_c, of_b, of_c, of_rate, gradient, of_own_b, of_own_c, kept, gated,
    scratch,
):  # fmt: skip
    """States i … i + 3 through a segment again, from ``state`` at its beginning, and back."""
    at = rate + i * W
    a, f, f_low = load_block(scratch, at), load_block(scratch, at + n * W), load_block(scratch, at + 2 * n * W)
    x, z = _pair(scratch, state + i * W, n)
    x, z = without_tiny(x, TINY), without_tiny(z, TINY)
    for t in range(steps):
        at, to = rows + t * W, kept + 4 * t * BLOCK
        h, v = repeat(load(scratch, at + H)), repeat(load(scratch, at + V))
        b_t, w_t = _coefficient(scratch, b + 2 * t * n + i, n, own_b + i * W)
        d, e, decay = _decay(h, a, f, f_low)
        store(decay * x - e * z, scratch, to)
        store(decay * z + e * x, scratch, to + BLOCK)
        store(d, scratch, to + 2 * BLOCK)
        store(e, scratch, to + 3 * BLOCK)
        x, z = x + (d * x - e * z + v * b_t), z + (d * z + e * x + v * w_t)
        if gated:
            c_t, w_t = _coefficient(scratch, c + 2 * t * n + i, n, own_c + i * W)
            store(load(scratch, at + Y) + fold(x * c_t - z * w_t), scratch, at + Y)
    g, k = _pair(scratch, gradient + i * W, n)
    of_a, of_f = _pair(scratch, of_rate + i * W, n)
    of_p, of_q = _pair(scratch, of_own_b + i * W, n)
    of_r, of_s = _pair(scratch, of_own_c + i * W, n)
    for t in range(steps - 1, -1, -1):
        at, from_, shared = rows + t * W, kept + 4 * t * BLOCK, 2 * t * n + i
        h, v, of_y = repeat(load(scratch, at + H)), repeat(load(scratch, at + V)), repeat(load(scratch, at + OF_Y))
        x, z = load_block(scratch, from_), load_block(scratch, from_ + BLOCK)
        b_t, w_t = _coefficient(scratch, b + shared, n, own_b + i * W)
        after_x, after_z = x + v * b_t, z + v * w_t
        p, q = _coefficient(scratch, c + shared, n, own_c + i * W)
        g, k = g + of_y * p, k - of_y * q
        of_r, of_s = _back(
            of_y * after_x, -(of_y * after_z), scratch, c + shared, n, own_c + i * W, of_c + shared * W, of_r, of_s
        )
        of_p, of_q = _back(g * v, k * v, scratch, b + shared, n, own_b + i * W, of_b + shared * W, of_p, of_q)
        store(load(scratch, at + OF_V) + fold(g * b_t + k * w_t), scratch, at + OF_V)
        # The gradient in h A.
        p, q = g * x + k * z, k * x - g * z
        of_a, of_f = of_a + p * h, of_f + q * h
        store(load(scratch, at + OF_H) + fold(LN2 * (p * a) + TURN * (q * (f + f_low))), scratch, at + OF_H)
        d, e = load_block(scratch, from_ + 2 * BLOCK), load_block(scratch, from_ + 3 * BLOCK)
        g, k = g + (g * d + k * e), k + (k * d - g * e)
    for pair, to in (((g, k), gradient), ((of_a, of_f), of_rate), ((of_p, of_q), of_own_b), ((of_r, of_s), of_own_c)):
        store(pair[0], scratch, to + i * W)
        store(pair[1], scratch, to + (n + i) * W)
