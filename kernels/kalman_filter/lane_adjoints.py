"""The gradient's way back over a chunk of steps in eight lanes, in the tiles of ``lane_tiles.py``."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from statespace.kernels.kalman_filter.compiled import entry, helper
from statespace.kernels.kalman_filter.lane_tiles import Way, places
from statespace.kernels.kalman_filter.lane_transitions import STEPS
from statespace.kernels.kalman_filter.transposition import WIDTH, aligned, load, splat
from statespace.kernels.kalman_filter.vector_blocks import add
from statespace.kernels.vectors import store, where

# What is wanted of a block's A: half of G = Aᵀ Ā, half of Ā, or half of G₀₁ − G₁₀ in the place of G₀₁. 0 is nothing.
HALF, WHOLE, TURN = np.int64(1), np.int64(2), np.int64(3)


class Back(NamedTuple):
    """Room for the way back, in vectors: ā and P̄, those that stretches began with, ½ Aᵀ Ā and Q̄ of each slot, P̄ k, m̄,
    P m̄, sums.

    ``sums``: ∂ℓ/∂R, ∂ℓ/∂h, and three for each block. ``nothing``: that of no block Ā is wanted.
    """

    adjoints: np.ndarray
    begun: np.ndarray
    A_bar: np.ndarray
    Q_bar: np.ndarray
    w: np.ndarray
    x: np.ndarray
    z: np.ndarray
    sums: np.ndarray
    nothing: np.ndarray


@lru_cache(maxsize=2)
def back_for(blocks, parameters):
    s = 2 * blocks
    moments = s + 2 * blocks * (blocks + 1) - blocks
    slots = STEPS * 4 * blocks
    way = Way(*(aligned(size * WIDTH) for size in ((STEPS + 1) * moments, (STEPS + 1) * s, STEPS, STEPS)))
    sizes = (moments, moments, slots, slots, s, s, s, 1 + s + 3 * parameters)
    return way, Back(*(aligned(size * WIDTH) for size in sizes), np.zeros(blocks, dtype=np.int64))


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
def retreat_lanes(blocks, wanted, fresh, V, x, w, k, M, C, h, A, a, F, f, A_bar, Q_bar):
    """P̄ ← P̄ + ½ (x hᵀ + h xᵀ), then over the transition from the filtered moments in ``F`` from ``f`` on, ``w`` = P̄ k.

    What P̄ ← Aᵀ P̄ A, ā ← Aᵀ ā leave gives Aᵀ Ā = 2 P̄ P + ā aᵀ in its diagonal blocks, of which half is added to
    ``A_bar`` where the block is ``wanted``: dA/dθ is A times something simple, and of a rotation all but a difference
    falls away. Of a table it is half of Ā itself. ``k``: where in ``M`` the gain of the sample before stands. Returns
    āᵀ k and kᵀ P̄ k. To be ``fresh`` is to be the first to write to Q̄.
    """
    along = splat(0.0)
    spread = splat(0.0)
    for i in range(0, 2 * blocks * WIDTH, WIDTH):
        store(splat(0.0), w, i)
    q = 2 * blocks * WIDTH
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
        k0 = load(M, k + i)
        k1 = load(M, k + i + WIDTH)
        s00 = x0 * h0 + load(V, q)
        s11 = x1 * h1 + load(V, q + 2 * WIDTH)
        x0 = 0.5 * x0
        x1 = 0.5 * x1
        s01 = x0 * h1 + (x1 * h0 + load(V, q + WIDTH))
        h0 = 0.5 * h0
        h1 = 0.5 * h1
        if fresh:
            store(s00, Q_bar, at)
            store(s01, Q_bar, at + WIDTH)
            store(s11, Q_bar, at + 3 * WIDTH)
        else:
            add(s00, Q_bar, at)
            add(s01, Q_bar, at + WIDTH)
            add(s11, Q_bar, at + 3 * WIDTH)
        u00 = s00 * a00 + s01 * a10
        u01 = s00 * a01 + s01 * a11
        u10 = s01 * a00 + s11 * a10
        u11 = s01 * a01 + s11 * a11
        s00 = a00 * u00 + a10 * u10
        s01 = a00 * u01 + a10 * u11
        s11 = a01 * u01 + a11 * u11
        store(s00, V, q)
        store(s01, V, q + WIDTH)
        store(s11, V, q + 2 * WIDTH)
        w0 = s00 * k0 + (s01 * k1 + load(w, i))
        w1 = s01 * k0 + (s11 * k1 + load(w, i + WIDTH))
        g0 = load(V, i)
        g1 = load(V, i + WIDTH)
        y0 = a00 * g0 + a10 * g1
        y1 = a01 * g0 + a11 * g1
        store(y0, V, i)
        store(y1, V, i + WIDTH)
        along = k0 * y0 + (k1 * y1 + along)
        t00 = t01 = t10 = t11 = splat(0.0)
        if wanted[b]:
            if wanted[b] == WHOLE:
                y0 = g0
                y1 = g1
            else:
                u00 = s00
                u01 = s01
                u10 = s01
                u11 = s11
            f00 = load(F, f + q)
            f01 = load(F, f + q + WIDTH)
            f11 = load(F, f + q + 2 * WIDTH)
            f0 = 0.5 * load(F, f + i)
            f1 = 0.5 * load(F, f + i + WIDTH)
            t01 = y0 * f1 + (u00 * f01 + (u01 * f11 + load(A_bar, at + WIDTH)))
            if wanted[b] == TURN:
                t01 = t01 - (y1 * f0 + (u10 * f00 + u11 * f01))
            else:
                t00 = y0 * f0 + (u00 * f00 + (u01 * f01 + load(A_bar, at)))
                t10 = y1 * f0 + (u10 * f00 + (u11 * f01 + load(A_bar, at + 2 * WIDTH)))
                t11 = y1 * f1 + (u10 * f01 + (u11 * f11 + load(A_bar, at + 3 * WIDTH)))
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
            z0 = load(C, h + j)
            z1 = load(C, h + j + WIDTH)
            s00 = x0 * z0 + (h0 * y0 + load(V, q))
            s01 = x0 * z1 + (h0 * y1 + load(V, q + WIDTH))
            s10 = x1 * z0 + (h1 * y0 + load(V, q + 2 * WIDTH))
            s11 = x1 * z1 + (h1 * y1 + load(V, q + 3 * WIDTH))
            f00 = f01 = f10 = f11 = splat(0.0)
            if wanted[b] or wanted[c]:
                f00 = load(F, f + q)
                f01 = load(F, f + q + WIDTH)
                f10 = load(F, f + q + 2 * WIDTH)
                f11 = load(F, f + q + 3 * WIDTH)
            # P̄_IJ A_J
            u00 = s00 * c00 + s01 * c10
            u01 = s00 * c01 + s01 * c11
            u10 = s10 * c00 + s11 * c10
            u11 = s10 * c01 + s11 * c11
            if wanted[c] == WHOLE:
                # (P̄_JI A_I) P_IJ
                y0 = s00 * a00 + s10 * a10
                y1 = s00 * a01 + s10 * a11
                add(y0 * f00 + y1 * f10, A_bar, to)
                add(y0 * f01 + y1 * f11, A_bar, to + WIDTH)
                y0 = s01 * a00 + s11 * a10
                y1 = s01 * a01 + s11 * a11
                add(y0 * f00 + y1 * f10, A_bar, to + 2 * WIDTH)
                add(y0 * f01 + y1 * f11, A_bar, to + 3 * WIDTH)
            s00 = a00 * u00 + a10 * u10
            s01 = a00 * u01 + a10 * u11
            s10 = a01 * u00 + a11 * u10
            s11 = a01 * u01 + a11 * u11
            store(s00, V, q)
            store(s01, V, q + WIDTH)
            store(s10, V, q + 2 * WIDTH)
            store(s11, V, q + 3 * WIDTH)
            y0 = load(M, k + j)
            y1 = load(M, k + j + WIDTH)
            w0 = s00 * y0 + (s01 * y1 + w0)
            w1 = s10 * y0 + (s11 * y1 + w1)
            store(s00 * k0 + (s10 * k1 + load(w, j)), w, j)
            store(s01 * k0 + (s11 * k1 + load(w, j + WIDTH)), w, j + WIDTH)
            if wanted[c] == HALF:
                store(s00 * f00 + (s10 * f10 + load(A_bar, to)), A_bar, to)
                store(s00 * f01 + (s10 * f11 + load(A_bar, to + WIDTH)), A_bar, to + WIDTH)
                store(s01 * f00 + (s11 * f10 + load(A_bar, to + 2 * WIDTH)), A_bar, to + 2 * WIDTH)
                store(s01 * f01 + (s11 * f11 + load(A_bar, to + 3 * WIDTH)), A_bar, to + 3 * WIDTH)
            elif wanted[c] == TURN:
                y0 = s00 * f01 + (s10 * f11 + load(A_bar, to + WIDTH))
                store(y0 - (s01 * f00 + s11 * f10), A_bar, to + WIDTH)
            if wanted[b] == TURN:
                t01 = (s00 * f10 + (s01 * f11 + t01)) - (s10 * f00 + s11 * f01)
            elif wanted[b]:
                if wanted[b] == HALF:
                    u00 = s00
                    u01 = s01
                    u10 = s10
                    u11 = s11
                t00 = u00 * f00 + (u01 * f01 + t00)
                t01 = u00 * f10 + (u01 * f11 + t01)
                t10 = u10 * f00 + (u11 * f01 + t10)
                t11 = u10 * f10 + (u11 * f11 + t11)
            q += 4 * WIDTH
        store(w0, w, i)
        store(w1, w, i + WIDTH)
        spread = k0 * w0 + (k1 * w1 + spread)
        if wanted[b]:
            store(t01, A_bar, at + WIDTH)
        if wanted[b] == HALF or wanted[b] == WHOLE:
            store(t00, A_bar, at)
            store(t10, A_bar, at + 2 * WIDTH)
            store(t11, A_bar, at + 3 * WIDTH)
    return along, spread


@entry()
def back_over_chunk(blocks, each_h, each_R, steps, wanted, by_observation, room, way, back):
    """From after the last step of a chunk to before the transition into its first; the chunk's way is there.

    The products m become gains, m/F. Filtered moments need not be there if nothing is ``wanted`` that takes them.
    """
    p = places(blocks)
    C, A, slot = room.chunk, room.A, room.slot
    M, V, A_bar, Q_bar, w, x, sums = way.product, back.adjoints, back.A_bar, back.Q_bar, back.w, back.x, back.sums
    s = 2 * blocks * WIDTH
    for t in range(steps):
        inverse = load(way.inverse, t * WIDTH)
        for j in range((t + 1) * s, (t + 2) * s, WIDTH):
            store(load(M, j) * inverse, M, j)
    k = steps * s
    product_of(blocks, V, p.P, M[k:], w)
    along = splat(0.0)
    spread = splat(0.0)
    for j in range(0, s, WIDTH):
        y = load(M, k + j)
        along = y * load(V, j) + along
        spread = y * load(w, j) + spread
    following = -1
    for t in range(steps - 1, -1, -1):
        inverse = load(way.inverse, t * WIDTH)
        gain = load(way.gain, t * WIDTH)
        h = p.h + each_h * t * s
        k = (t + 1) * s
        a = slot[t] * 2 * s
        fresh = slot[t] != following
        following = slot[t]
        F_bar = (spread - along * gain) + 0.5 * (gain * gain - inverse)
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
        if fresh:
            for j in range(a, a + 2 * s, WIDTH):
                store(splat(0.0), A_bar, j)
        along, spread = retreat_lanes(
            blocks, wanted, fresh, V, x, w, t * s, M, C, h, A, a, way.moments, t * p.m, A_bar, Q_bar
        )  # fmt: skip
        if by_observation:
            # of the predicted moments, P x = (P − m kᵀ) x + m (k·x); what is found takes the place of h
            after = (t + 1) * p.m
            product_of(blocks, way.moments[after:], p.P, x, back.z)
            F = 1.0 / where(inverse > 0.0, inverse, splat(1.0))
            inner = splat(0.0)
            for j in range(0, s, WIDTH):
                inner = load(M, k + j) * load(x, j) + inner
            for j in range(0, s, WIDTH):
                m = load(M, k + j) * F
                y = (load(back.z, j) + m * inner) + (m * F_bar + (load(way.moments, after + j) - m * gain) * lift)
                if each_h == 1:
                    store(y, C, h + j)
                else:
                    add(y, sums, WIDTH + j)
