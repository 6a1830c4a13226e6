"""The delta rule compiled: chunks of sixteen steps as products of tiles (`tiles.py`), one record and head at a time.

The letters are those of README.md: T, P, Γ and γ of a chunk, W what its steps write, Y = V - diag(γ) K S_0. Inputs
are flat arrays with the steps of their batch, time and head axes; what is handed out lies in order:

    q, k; v             rows of K and of V numbers
    beta, alpha         (B, L, H); alpha is empty where nothing decays
    state               (B, H, K, V), in place
    stored              (B · H, segments, tiles of a state): the state at the beginning of each segment of chunks
"""

import math

import numpy as np

from statespace.kernels.compiled import entry, helper
from statespace.kernels.delta_rule import SHORTEST
from statespace.kernels.delta_rule.tiles import (
    SIDE,
    TILE,
    add_product,
    add_product_of_transpose,
    bring,
    hand_out,
    load,
    product,
    row_products,
    row_sums,
    scale_rows,
    solve,
    solve_transposed,
    transpose,
)
from statespace.kernels.vectors import nothing, store, without_tiny

LARGEST = 0.999 / SHORTEST  # of the factors of rows that are given length 1, but for rounding
# A state that dies away must not become subnormal: such numbers slow a processor a hundredfold.
TINY = 1e-30
# Single tiles at the beginning of the scratch: the identity; Γ; Γ ∘ K Kᵀ below the diagonal; T; P; and rows of numbers.
UNIT, BETWEEN, OVERLAPS, SYSTEM, READS, NUMBERS = (TILE * i for i in range(6))
OF_READS, OF_SYSTEM, SUMS, WORK = (TILE * i for i in range(6, 10))
OF_END, TURNED_S, TURNED_G, PRODUCTS, END_PRODUCTS = (TILE * i for i in range(10, 15))
SINGLE = TILE * 15
# Rows of NUMBERS: β, γ, Γ from each step to the end; sums of gradients.
BETA, SINCE, TO_END = (NUMBERS + SIDE * i for i in range(3))
OF_BETA, OF_SINCE, OF_TO_END = (NUMBERS + SIDE * i for i in range(3, 6))
SHORTENED, SHORTENED_Q, ALONG = (NUMBERS + SIDE * i for i in range(6, 9))


@helper()
def _aligned(scratch):
    """The index where a cache line begins: a vector that spans two takes twice the time."""
    return -(scratch.ctypes.data // scratch.itemsize) % SIDE


@helper()
def _begin(w, z):
    for r in range(SIDE):
        w[z + UNIT + r * SIDE + r] = 1.0


@helper()
def _shorten(w, z, n, x, factors):
    """Rows of length 1, and what they were multiplied by."""
    row_products(w, factors, x, x, n, z + SUMS, z + WORK)
    for r in range(SIDE):
        w[factors + r] = 1.0 / max(math.sqrt(w[factors + r]), SHORTEST)
    for i in range(0, n * TILE, TILE):
        scale_rows(w, x + i, x + i, factors)


@helper()
def _back_to_length(w, z, n, x, factors, of_x):
    """The gradient in rows as they were before `_shorten`."""
    row_products(w, z + ALONG, x, of_x, n, z + SUMS, z + WORK)
    for r in range(SIDE):
        factor = w[factors + r]
        along = w[z + ALONG + r] if factor < LARGEST else 0.0
        for i in range(r * SIDE, n * TILE, TILE):
            store((load(w, of_x + i) - load(w, x + i) * along) * factor, w, of_x + i)


@helper()
def _prepare(w, z, b, start, rows, h, beta, alpha, n, keys, turned, queries):
    """Γ, γ, K Kᵀ, T and P of the chunk whose ``n`` tiles of keys and queries are here."""
    row, since = nothing(load(w, z)), 1.0
    for r in range(SIDE):
        w[z + BETA + r] = beta[b, start + r, h] if r < rows else 0.0
        factor = alpha[b, start + r, h] if alpha.size > 0 and r < rows else 1.0
        since *= factor
        w[z + SINCE + r] = since
        row = row * factor + load(w, z + UNIT + r * SIDE)
        store(row, w, z + BETWEEN + r * SIDE)
    store(row, w, z + TO_END)
    for i in range(n):
        transpose(w, turned + i * TILE, keys + i * TILE)
    product(w, z + OVERLAPS, keys, TILE, turned, TILE, n)
    product(w, z + READS, queries, TILE, turned, TILE, n)
    for r in range(0, TILE, SIDE):
        between = load(w, z + BETWEEN + r)
        overlaps = load(w, z + OVERLAPS + r) * (between - load(w, z + UNIT + r))
        store(overlaps, w, z + OVERLAPS + r)
        store(overlaps * w[z + BETA + r // SIDE], w, z + SYSTEM + r)
        store(load(w, z + READS + r) * between, w, z + READS + r)


@helper()
def _write(w, z, n, m, keys, values, state, written):
    """Y in the place of the values, and W."""
    for j in range(m):
        y, x = values + j * TILE, written + j * TILE
        product(w, x, keys, TILE, state + j * TILE, m * TILE, n)
        for r in range(0, TILE, SIDE):
            error = load(w, y + r) - load(w, x + r) * w[z + SINCE + r // SIDE]
            store(error, w, y + r)
            store(error * w[z + BETA + r // SIDE], w, x + r)
        solve(w, x, z + SYSTEM)


@helper()
def _forget_tiny(w, a):
    for r in range(0, TILE, SIDE):
        store(without_tiny(load(w, a + r), TINY), w, a + r)


@helper()
def _advance(w, z, n, m, keys, state, after, written):
    """The state after the chunk; the keys leave multiplied by Γ to its end."""
    over = w[z + SINCE + SIDE - 1]
    for i in range(n):
        scale_rows(w, keys + i * TILE, keys + i * TILE, z + TO_END)
        for j in range(m):
            place = (i * m + j) * TILE
            for r in range(0, TILE, SIDE):
                store(load(w, state + place + r) * over, w, after + place + r)
            add_product_of_transpose(w, after + place, keys + i * TILE, 0, written + j * TILE, 0, 1)
            _forget_tiny(w, after + place)


@helper()
def _copy(size, x, at, y, to):
    for i in range(0, size, SIDE):
        store(load(x, at + i), y, to + i)


@entry()
def forward(first, last, L, H, K, V, every, unit, q, q_steps, k, k_steps, v, v_steps, beta, alpha, state, o, stored):
    """Pairs first..last−1 of record and head. ``stored`` may be empty; it keeps a state in ``every`` chunks."""
    n, m = (K + SIDE - 1) // SIDE, (V + SIDE - 1) // SIDE
    chunks = (L + SIDE - 1) // SIDE
    segments = (chunks + every - 1) // every
    w = np.zeros(SINGLE + (3 * n + 3 * m + n * m) * TILE + SIDE, beta.dtype)
    z = _aligned(w)
    keys = z + SINGLE
    turned, queries, values = keys + n * TILE, keys + 2 * n * TILE, keys + 3 * n * TILE
    written, outputs, S = values + m * TILE, values + 2 * m * TILE, values + 3 * m * TILE
    size = n * m * TILE
    _begin(w, z)
    for pair in range(first, last):
        b, h = pair // H, pair % H
        for i in range(n):
            at = (pair * K + i * SIDE) * V
            bring(state, at, V, min(SIDE, K - i * SIDE), V, w, S + i * m * TILE)
        for chunk in range(chunks):
            start = chunk * SIDE
            rows = min(SIDE, L - start)
            if stored.size > 0 and chunk % every == 0:
                _copy(size, w, S, stored, (pair * segments + chunk // every) * size)
            bring(q, b * q_steps[0] + start * q_steps[1] + h * q_steps[2], q_steps[1], rows, K, w, queries)
            bring(k, b * k_steps[0] + start * k_steps[1] + h * k_steps[2], k_steps[1], rows, K, w, keys)
            bring(v, b * v_steps[0] + start * v_steps[1] + h * v_steps[2], v_steps[1], rows, V, w, values)
            if unit:
                _shorten(w, z, n, queries, z + SHORTENED_Q)
                _shorten(w, z, n, keys, z + SHORTENED)
            _prepare(w, z, b, start, rows, h, beta, alpha, n, keys, turned, queries)
            _write(w, z, n, m, keys, values, S, written)
            for j in range(m):
                out = outputs + j * TILE
                product(w, out, queries, TILE, S + j * TILE, m * TILE, n)
                scale_rows(w, out, out, z + SINCE)
                add_product(w, out, z + READS, 0, written + j * TILE, 0, 1)
            hand_out(w, outputs, o, ((b * L + start) * H + h) * V, H * V, rows, V)
            _advance(w, z, n, m, keys, S, S, written)
        for i in range(n):
            at = (pair * K + i * SIDE) * V
            hand_out(w, S + i * m * TILE, state, at, V, min(SIDE, K - i * SIDE), V)


@helper()
def _sum_up(w, out, a, b, some):
    """A B, added to what is there if there is some."""
    if some:
        add_product(w, out, a, 0, b, 0, 1)
    else:
        product(w, out, a, 0, b, 0, 1)


@helper()
def _back_to_values(w, z, n, m, scaled, G, of_outputs, X, written, turned_w, values, Z):
    """X, Wᵀ, diag(γ) Z, and ∂V in the place of Y. WORK has X ∘ Y, of all columns."""
    for j in range(m):
        x, y = X + j * TILE, values + j * TILE
        product(w, x, scaled, TILE, G + j * TILE, m * TILE, n)
        add_product_of_transpose(w, x, z + READS, 0, of_outputs + j * TILE, 0, 1)
        solve_transposed(w, x, z + SYSTEM)
        transpose(w, turned_w + j * TILE, written + j * TILE)
        for r in range(0, TILE, SIDE):
            row = load(w, x + r)
            both = row * load(w, y + r)
            store(both if j == 0 else both + load(w, z + WORK + r), w, z + WORK + r)
            row = row * w[z + BETA + r // SIDE]
            store(row, w, y + r)
            store(-(row * w[z + SINCE + r // SIDE]), w, Z + j * TILE + r)


@helper()
def _back_to_chunk(w, z, m, of_outputs, turned_w, X):
    """∂P ∘ Γ and M + Mᵀ, ∂β, and the ∂P ∘ P + ∂T ∘ T of the decays; ∂O leaves as diag(γ) ∂O."""
    product(w, z + OF_READS, of_outputs, TILE, turned_w, TILE, m)
    product(w, z + OF_SYSTEM, X, TILE, turned_w, TILE, m)
    for r in range(0, TILE, SIDE):
        between = load(w, z + BETWEEN + r)
        of_reads, of_system = load(w, z + OF_READS + r), -load(w, z + OF_SYSTEM + r)
        store(of_reads * load(w, z + READS + r) + of_system * load(w, z + SYSTEM + r), w, z + SUMS + r)
        store(load(w, z + WORK + r) + of_system * load(w, z + OVERLAPS + r), w, z + WORK + r)
        store(of_reads * between, w, z + OF_READS + r)
        below = between - load(w, z + UNIT + r)
        store(of_system * below * w[z + BETA + r // SIDE], w, z + OF_SYSTEM + r)
    row_sums(w, z + OF_BETA, z + WORK, z + TURNED_S)
    transpose(w, z + WORK, z + OF_SYSTEM)
    for r in range(0, TILE, SIDE):
        store(load(w, z + OF_SYSTEM + r) + load(w, z + WORK + r), w, z + OF_SYSTEM + r)
    for j in range(m):
        scale_rows(w, of_outputs + j * TILE, of_outputs + j * TILE, z + SINCE)


@helper()
def _of_decay(w, z, whole):
    """The gradients in the decays of a chunk, in the first row of WORK, from those in Γ, γ and Γ to the end.

    SUMS holds ∂P ∘ P + ∂T ∘ T; ``whole`` is γ_C S_0·G.
    """
    transpose(w, z + WORK, z + SUMS)
    total = load(w, z + OF_SINCE)
    # Row m: what each step i has from the steps before m and from the state; of these the steps from m on count.
    for m in range(SIDE):
        row = load(w, z + WORK + m * SIDE)
        store(total, w, z + SUMS + m * SIDE)
        total = total + row
        for i in range(m):
            w[z + SUMS + m * SIDE + i] = 0.0
    row_sums(w, z + OF_SINCE, z + SUMS, z + WORK)
    for m in range(SIDE):
        w[z + WORK + m] = w[z + OF_SINCE + m] + whole
        whole += w[z + OF_TO_END + m]


@entry()
def backward(
    first, last, L, H, K, V, every, unit, q, q_steps, k, k_steps, v, v_steps, beta, alpha, stored, of_o, of_state,
    of_q, of_k, of_v, of_beta, of_decay,
):  # fmt: skip
    """``of_state`` comes with the gradient in the final state and leaves with that in the initial one."""
    n, m = (K + SIDE - 1) // SIDE, (V + SIDE - 1) // SIDE
    chunks = (L + SIDE - 1) // SIDE
    segments = (chunks + every - 1) // every
    w = np.zeros(SINGLE + (6 * n + 6 * m + (every + 1) * n * m) * TILE + SIDE, beta.dtype)
    z = _aligned(w)
    keys = z + SINGLE
    turned, queries, scaled, values = keys + n * TILE, keys + 2 * n * TILE, keys + 3 * n * TILE, keys + 4 * n * TILE
    written, of_outputs, X = values + m * TILE, values + 2 * m * TILE, values + 3 * m * TILE
    turned_w, Z, G = values + 4 * m * TILE, values + 5 * m * TILE, values + 6 * m * TILE
    size = n * m * TILE
    states = G + size
    of_queries, of_keys = states + every * size, states + every * size + n * TILE
    decays = alpha.size > 0
    zero = nothing(load(w, z))
    _begin(w, z)
    for pair in range(first, last):
        b, h = pair // H, pair % H
        from_q = b * q_steps[0] + h * q_steps[2]
        from_k = b * k_steps[0] + h * k_steps[2]
        from_v = b * v_steps[0] + h * v_steps[2]
        for i in range(n):
            at = (pair * K + i * SIDE) * V
            bring(of_state, at, V, min(SIDE, K - i * SIDE), V, w, G + i * m * TILE)
        for segment in range(segments - 1, -1, -1):
            begin = segment * every
            end = min(begin + every, chunks)
            _copy(size, stored, (pair * segments + segment) * size, w, states)
            for chunk in range(begin, end - 1):
                start, S = chunk * SIDE, states + (chunk - begin) * size
                bring(k, from_k + start * k_steps[1], k_steps[1], SIDE, K, w, keys)
                bring(v, from_v + start * v_steps[1], v_steps[1], SIDE, V, w, values)
                if unit:
                    _shorten(w, z, n, keys, z + SHORTENED)
                _prepare(w, z, b, start, SIDE, h, beta, alpha, n, keys, turned, keys)
                _write(w, z, n, m, keys, values, S, written)
                _advance(w, z, n, m, keys, S, S + size, written)
            for chunk in range(end - 1, begin - 1, -1):
                start, S = chunk * SIDE, states + (chunk - begin) * size
                rows, place = min(SIDE, L - start), (b * L + start) * H + h
                bring(q, from_q + start * q_steps[1], q_steps[1], rows, K, w, queries)
                bring(k, from_k + start * k_steps[1], k_steps[1], rows, K, w, keys)
                bring(v, from_v + start * v_steps[1], v_steps[1], rows, V, w, values)
                bring(of_o, place * V, H * V, rows, V, w, of_outputs)
                if unit:
                    _shorten(w, z, n, queries, z + SHORTENED_Q)
                    _shorten(w, z, n, keys, z + SHORTENED)
                _prepare(w, z, b, start, rows, h, beta, alpha, n, keys, turned, queries)
                _write(w, z, n, m, keys, values, S, written)
                for i in range(n):
                    scale_rows(w, scaled + i * TILE, keys + i * TILE, z + TO_END)
                _back_to_values(w, z, n, m, scaled, G, of_outputs, X, written, turned_w, values, Z)
                hand_out(w, values, of_v, place * V, H * V, rows, V)
                _back_to_chunk(w, z, m, of_outputs, turned_w, X)
                whole = zero
                for i in range(n):
                    key, query = keys + i * TILE, queries + i * TILE
                    of_key, of_query = of_keys + i * TILE, of_queries + i * TILE
                    for j in range(m):
                        s, g = S + (i * m + j) * TILE, G + (i * m + j) * TILE
                        transpose(w, z + TURNED_S, s)
                        transpose(w, z + TURNED_G, g)
                        some = 0 if j == 0 else 1
                        _sum_up(w, of_query, of_outputs + j * TILE, z + TURNED_S, some)
                        _sum_up(w, of_key, Z + j * TILE, z + TURNED_S, some)
                        _sum_up(w, z + OF_END, written + j * TILE, z + TURNED_G, some)
                        for r in range(0, TILE, SIDE):
                            rest = load(w, g + r)
                            whole = whole + rest * load(w, s + r)
                            store(rest * w[z + SINCE + SIDE - 1], w, g + r)
                        add_product_of_transpose(w, g, query, 0, of_outputs + j * TILE, 0, 1)
                        add_product_of_transpose(w, g, key, 0, Z + j * TILE, 0, 1)
                        _forget_tiny(w, g)
                    for r in range(0, TILE, SIDE):
                        own, of_end = load(w, of_key + r), load(w, z + OF_END + r)
                        if decays:
                            a = load(w, query + r) * load(w, of_query + r) + load(w, key + r) * own
                            e = load(w, scaled + i * TILE + r) * of_end
                            if i > 0:
                                a, e = a + load(w, z + PRODUCTS + r), e + load(w, z + END_PRODUCTS + r)
                            store(a, w, z + PRODUCTS + r)
                            store(e, w, z + END_PRODUCTS + r)
                        store(own + of_end * w[z + TO_END + r // SIDE], w, of_key + r)
                    add_product(w, of_query, z + OF_READS, 0, key, 0, 1)
                    add_product_of_transpose(w, of_key, z + OF_READS, 0, query, 0, 1)
                    add_product(w, of_key, z + OF_SYSTEM, 0, key, 0, 1)
                for r in range(rows):
                    of_beta[b, start + r, h] = w[z + OF_BETA + r]
                if decays:
                    row_sums(w, z + OF_SINCE, z + PRODUCTS, z + WORK)
                    row_sums(w, z + OF_TO_END, z + END_PRODUCTS, z + WORK)
                    store(whole * w[z + SINCE + SIDE - 1], w, z + WORK)
                    total = 0.0
                    for r in range(SIDE):
                        total += w[z + WORK + r]
                    _of_decay(w, z, total)
                    for r in range(rows):
                        of_decay[b, start + r, h] = w[z + WORK + r]
                if unit:
                    _back_to_length(w, z, n, queries, z + SHORTENED_Q, of_queries)
                    _back_to_length(w, z, n, keys, z + SHORTENED, of_keys)
                hand_out(w, of_queries, of_q, place * K, H * K, rows, K)
                hand_out(w, of_keys, of_k, place * K, H * K, rows, K)
        for i in range(n):
            at = (pair * K + i * SIDE) * V
            hand_out(w, G + i * m * TILE, of_state, at, V, min(SIDE, K - i * SIDE), V)
