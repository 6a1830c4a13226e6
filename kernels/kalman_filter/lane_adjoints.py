"""The gradient's way back over a chunk of steps in eight lanes, in the tiles of ``lane_tiles.py``."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from statespace.kernels.kalman_filter.compiled import entry, helper
from statespace.kernels.kalman_filter.lane_tiles import Way, places
from statespace.kernels.kalman_filter.lane_transitions import STEPS
from statespace.kernels.kalman_filter.transposition import WIDTH, aligned, load, splat
from statespace.kernels.kalman_filter.vector_blocks import add
from statespace.kernels.vectors import store


class Back(NamedTuple):
    """Room for the way back, in vectors: ā and P̄, those that stretches began with, Ā, Q̄ of each slot, k, P̄ k, m̄, sums.

    ``sums``: ∂ℓ/∂R, ∂ℓ/∂h, and three for each block.
    """

    adjoints: np.ndarray
    begun: np.ndarray
    A_bar: np.ndarray
    Q_bar: np.ndarray
    k: np.ndarray
    w: np.ndarray
    x: np.ndarray
    sums: np.ndarray


@lru_cache(maxsize=2)
def back_for(blocks, parameters):
    s = 2 * blocks
    moments = s + 2 * blocks * (blocks + 1) - blocks
    slots = STEPS * 4 * blocks
    way = Way(*(aligned(size * WIDTH) for size in ((STEPS + 1) * moments, (STEPS + 1) * s, STEPS, STEPS)))
    sizes = (moments, moments, slots, slots, s, s, s, 1 + s + 3 * parameters)
    return way, Back(*(aligned(size * WIDTH) for size in sizes))


@helper()
def product_of(blocks, S, q, x, w):
    """w = S x, S in tiles from ``q`` on."""
    for j in range(0, 2 * blocks * WIDTH, WIDTH):
        store(splat(0.0), w, j)
    for b in range(blocks):
        i = 2 * b * WIDTH
        x0 = load(x, i)
        x1 = load(x, i + WIDTH)
        s01 = load(S, q + WIDTH)
        w0 = load(w, i) + (load(S, q) * x0 + s01 * x1)
        w1 = load(w, i + WIDTH) + (s01 * x0 + load(S, q + 2 * WIDTH) * x1)
        q += 3 * WIDTH
        for c in range(b + 1, blocks):
            j = 2 * c * WIDTH
            y0 = load(x, j)
            y1 = load(x, j + WIDTH)
            s00 = load(S, q)
            s01 = load(S, q + WIDTH)
            s10 = load(S, q + 2 * WIDTH)
            s11 = load(S, q + 3 * WIDTH)
            w0 = w0 + (s00 * y0 + s01 * y1)
            w1 = w1 + (s10 * y0 + s11 * y1)
            store(load(w, j) + (s00 * x0 + s10 * x1), w, j)
            store(load(w, j + WIDTH) + (s01 * x0 + s11 * x1), w, j + WIDTH)
            q += 4 * WIDTH
        store(w0, w, i)
        store(w1, w, i + WIDTH)


@helper()
def retreat_lanes(blocks, some, V, P, x, C, h, A, a, F, f, A_bar, Q_bar):
    """P̄ ← P̄ + ½ (x hᵀ + h xᵀ), then over the transition from the filtered moments in ``F`` from ``f`` on.

    See ``tiles.retreat_tiles``. ``P``: where P and P̄ stand after a and ā.
    """
    q = P
    for b in range(blocks):
        i = 2 * b * WIDTH
        at = a + 2 * i
        a00 = load(A, at)
        a01 = load(A, at + WIDTH)
        a10 = load(A, at + 2 * WIDTH)
        a11 = load(A, at + 3 * WIDTH)
        x0 = load(x, i)
        x1 = load(x, i + WIDTH)
        h0 = load(C, h + i)
        h1 = load(C, h + i + WIDTH)
        s00 = load(V, q) + x0 * h0
        s11 = load(V, q + 2 * WIDTH) + x1 * h1
        x0 = 0.5 * x0
        x1 = 0.5 * x1
        h0 = 0.5 * h0
        h1 = 0.5 * h1
        s01 = load(V, q + WIDTH) + 2.0 * (x0 * h1 + h0 * x1)
        add(s00, Q_bar, at)
        add(s01, Q_bar, at + WIDTH)
        add(s11, Q_bar, at + 3 * WIDTH)
        w00 = s00 * a00 + s01 * a10
        w01 = s00 * a01 + s01 * a11
        w10 = s01 * a00 + s11 * a10
        w11 = s01 * a01 + s11 * a11
        store(a00 * w00 + a10 * w10, V, q)
        store(a00 * w01 + a10 * w11, V, q + WIDTH)
        store(a01 * w01 + a11 * w11, V, q + 2 * WIDTH)
        g0 = load(V, i)
        g1 = load(V, i + WIDTH)
        store(a00 * g0 + a10 * g1, V, i)
        store(a01 * g0 + a11 * g1, V, i + WIDTH)
        f00 = load(F, f + q)
        f01 = load(F, f + q + WIDTH)
        f11 = load(F, f + q + 2 * WIDTH)
        t00 = w00 * f00 + w01 * f01
        t01 = w00 * f01 + w01 * f11
        t10 = w10 * f00 + w11 * f01
        t11 = w10 * f01 + w11 * f11
        q += 3 * WIDTH
        for c in range(b + 1, blocks):
            j = 2 * c * WIDTH
            to = a + 2 * j
            c00 = load(A, to)
            c01 = load(A, to + WIDTH)
            c10 = load(A, to + 2 * WIDTH)
            c11 = load(A, to + 3 * WIDTH)
            y0 = load(x, j)
            y1 = load(x, j + WIDTH)
            k0 = load(C, h + j)
            k1 = load(C, h + j + WIDTH)
            s00 = load(V, q) + (x0 * k0 + h0 * y0)
            s01 = load(V, q + WIDTH) + (x0 * k1 + h0 * y1)
            s10 = load(V, q + 2 * WIDTH) + (x1 * k0 + h1 * y0)
            s11 = load(V, q + 3 * WIDTH) + (x1 * k1 + h1 * y1)
            # P̄_IJ A_J
            w00 = s00 * c00 + s01 * c10
            w01 = s00 * c01 + s01 * c11
            w10 = s10 * c00 + s11 * c10
            w11 = s10 * c01 + s11 * c11
            store(a00 * w00 + a10 * w10, V, q)
            store(a00 * w01 + a10 * w11, V, q + WIDTH)
            store(a01 * w00 + a11 * w10, V, q + 2 * WIDTH)
            store(a01 * w01 + a11 * w11, V, q + 3 * WIDTH)
            if some:
                f00 = load(F, f + q)
                f01 = load(F, f + q + WIDTH)
                f10 = load(F, f + q + 2 * WIDTH)
                f11 = load(F, f + q + 3 * WIDTH)
                # (P̄_IJ A_J) P_JI
                t00 = t00 + (w00 * f00 + w01 * f01)
                t01 = t01 + (w00 * f10 + w01 * f11)
                t10 = t10 + (w10 * f00 + w11 * f01)
                t11 = t11 + (w10 * f10 + w11 * f11)
                # (P̄_JI A_I) P_IJ
                w00 = s00 * a00 + s10 * a10
                w01 = s00 * a01 + s10 * a11
                w10 = s01 * a00 + s11 * a10
                w11 = s01 * a01 + s11 * a11
                add(2.0 * (w00 * f00 + w01 * f10), A_bar, to)
                add(2.0 * (w00 * f01 + w01 * f11), A_bar, to + WIDTH)
                add(2.0 * (w10 * f00 + w11 * f10), A_bar, to + 2 * WIDTH)
                add(2.0 * (w10 * f01 + w11 * f11), A_bar, to + 3 * WIDTH)
            q += 4 * WIDTH
        if some:
            f0 = load(F, f + i)
            f1 = load(F, f + i + WIDTH)
            add(g0 * f0 + 2.0 * t00, A_bar, at)
            add(g0 * f1 + 2.0 * t01, A_bar, at + WIDTH)
            add(g1 * f0 + 2.0 * t10, A_bar, at + 2 * WIDTH)
            add(g1 * f1 + 2.0 * t11, A_bar, at + 3 * WIDTH)


@entry()
def back_over_chunk(blocks, each_h, each_R, steps, some, by_observation, room, way, back):
    """From after the last step of a chunk to before the transition into its first; the chunk's way is there."""
    p = places(blocks)
    C, A, slot = room.chunk, room.A, room.slot
    V, A_bar, Q_bar, k, w, x, sums = back.adjoints, back.A_bar, back.Q_bar, back.k, back.w, back.x, back.sums
    s = 2 * blocks * WIDTH
    for i in range((slot[steps - 1] + 1) * 2 * s):
        A_bar[i] = 0.0
        Q_bar[i] = 0.0
    for t in range(steps - 1, -1, -1):
        inverse = load(way.inverse, t * WIDTH)
        gain = load(way.gain, t * WIDTH)
        h = p.h + each_h * t * s
        along = splat(0.0)
        for j in range(0, s, WIDTH):
            y = load(way.product, (t + 1) * s + j) * inverse
            store(y, k, j)
            along = along + load(V, j) * y
        product_of(blocks, V, p.P, k, w)
        F_bar = -(along * gain + 0.5 * (inverse - gain * gain))
        for j in range(0, s, WIDTH):
            F_bar = F_bar + load(k, j) * load(w, j)
        lift = gain - along
        for j in range(0, s, WIDTH):
            y = load(C, h + j)
            g = load(V, j)
            store((g * gain - 2.0 * load(w, j)) + F_bar * y, x, j)
            store(g + lift * y, V, j)
        if each_R == 1:
            store(F_bar, C, p.noise + t * WIDTH)
        else:
            add(F_bar, sums, 0)
        retreat_lanes(blocks, some, V, p.P, x, C, h, A, slot[t] * 2 * s, way.moments, t * p.m, A_bar, Q_bar)
        if by_observation:
            # of the predicted moments, P x = (P − m kᵀ) x + m (k·x); what is found takes the place of h
            after = (t + 1) * p.m
            product_of(blocks, way.moments[after:], p.P, x, w)
            along = splat(0.0)
            for j in range(0, s, WIDTH):
                along = along + load(k, j) * load(x, j)
            for j in range(0, s, WIDTH):
                m = load(way.product, (t + 1) * s + j)
                y = (load(w, j) + m * along) + (m * F_bar + (load(way.moments, after + j) - m * gain) * lift)
                if each_h == 1:
                    store(y, C, h + j)
                else:
                    add(y, sums, WIDTH + j)
