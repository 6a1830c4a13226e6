"""The delta rule as Triton kernels: what a chunk does within itself, all chunks at once, and what hands the state on.

The letters are those of README.md. A record of L steps has N chunks of C; steps behind the last one are zero, which
writes nothing and decays nothing.

    q, k, v, w, x           (B, L, H, K or V): W is what the steps write, X the solution of the adjoint system
    beta, decay             (B, L, H); decay may be None
    inverse, reads          (B · H, N, C, C): (I + T)^-1 and P
    states, of_states       (B · H, N, K, V): S before each chunk, the gradient G in S behind it
    start, final            (B, H, K, V)

Products are taken in the type of ``w`` (see `matmul`), and summed in float32 at least.
"""

# Triton compiles tuples that grow, which mypy cannot type.
# mypy: disable-error-code="assignment, misc"

import triton
import triton.language as tl

from statespace.kernels.launching import matmul, wide
from statespace.kernels.tuning import tuned, warps


def _columns(factor):
    """The variant of so many times the columns of a state, none of which needs another one."""
    return lambda options: {"BV": min(128, max(16, int(factor * options["BV"])))}


_on, _back = (tuned(["N", "K", "V"], *map(_columns, factors)) for factors in ((0.5, 2), (0.5,)))
# With half the warps a thread's share of the products does not fit into its registers; nor, back, that of more columns.
_at_once = tuned(["K"], warps(2))


@triton.jit
def _chunk(L, H, N, C: tl.constexpr):
    """Pair of record and head, chunk, steps, where the record's step 0 of this head lies in rows of one number."""
    pair, n = tl.program_id(0) // N, tl.program_id(0) % N
    t = n * C + tl.arange(0, C)
    return pair.to(tl.int64), n, t, (pair // H).to(tl.int64) * L * H + pair % H


@triton.jit
def _numbers(x, first, t, L, H):
    return wide(tl.load(x + first + t.to(tl.int64) * H, mask=t < L, other=0))


@triton.jit
def _rows(x, first, t, L, H, column, width):
    """Some columns of the rows of a chunk; zeros behind the record."""
    at = (first + t.to(tl.int64)[:, None] * H) * width + column[None, :]
    return tl.load(x + at, mask=(t < L)[:, None] & (column < width)[None, :], other=0)


@triton.jit
def _hand_out(x, value, first, t, L, H, column, width):
    at = (first + t.to(tl.int64)[:, None] * H) * width + column[None, :]
    tl.store(x + at, value, mask=(t < L)[:, None] & (column < width)[None, :])


@triton.jit
def _matrix(x, place, row, column, rows, width):
    at = place * rows * width + row[:, None] * width + column[None, :]
    return tl.load(x + at, mask=(row < rows)[:, None] & (column < width)[None, :], other=0)


@triton.jit
def _put_matrix(x, value, place, row, column, rows, width):
    at = place * rows * width + row[:, None] * width + column[None, :]
    tl.store(x + at, value, mask=(row < rows)[:, None] & (column < width)[None, :])


@triton.jit
def _between(decay, first, t, L, H, like, C: tl.constexpr):
    """Γ: the decay from column to row, sums over the steps between, not differences of sums; 0 above the diagonal."""
    i, j = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    if decay is None:
        return tl.where(i >= j, 1.0, 0.0).to(like)
    else:
        g = _numbers(decay, first, t, L, H)[:, None]
        return tl.where(i >= j, tl.exp(tl.cumsum(tl.where(i > j, g, 0.0), 0)), 0.0)


@triton.jit
def _since(decay, first, t, L, H, like, C: tl.constexpr):
    """γ, from the beginning of the chunk to each step; Γ from each step to its end; γ at its end."""
    if decay is None:
        ones = tl.full((C,), 1.0, like)
        return ones, ones, tl.full((), 1.0, like)
    else:
        i, j = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
        g = _numbers(decay, first, t, L, H)
        to_end = tl.sum(tl.where(i > j, g[:, None], 0.0), 0)
        return tl.exp(tl.cumsum(g, 0)), tl.exp(to_end), tl.exp(tl.sum(g, 0))


@triton.jit
def _inverse(T, C: tl.constexpr):
    """(I + T)^-1 of a strictly lower T: blocks of 16 row after row, then pairs of blocks joined by products."""
    M: tl.constexpr = C // 16
    block, other = tl.arange(0, M)[:, None, None, None], tl.arange(0, M)[None, None, :, None]
    same = block == other
    X = -tl.sum(tl.where(same, tl.reshape(T, (M, 16, M, 16)), 0.0), 2)
    r = tl.arange(0, 16)[None, :, None]
    for i in range(1, 16):
        row = tl.sum(tl.where(r == i, X, 0.0), 1)
        row += tl.sum(row[:, :, None] * X, 1)
        X = tl.where(r == i, row[:, None, :], X)
    X = X + tl.where(r == tl.arange(0, 16)[None, None, :], 1.0, 0.0)
    X = tl.reshape(tl.where(same, X[:, :, None, :], 0.0), (C, C)).to(T.dtype)
    i, j = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    if C > 16:
        T_below = tl.where((i // 32 == j // 32) & (i // 16 > j // 16), T, 0.0)
        X -= matmul(X, matmul(T_below, X))
    if C > 32:
        T_below = tl.where(i // 32 > j // 32, T, 0.0)
        X -= matmul(X, matmul(T_below, X))
    return X


@triton.jit
def prepare(inverse, reads, q, k, beta, decay, L, H, N, K, C: tl.constexpr, BK: tl.constexpr):
    """(I + T)^-1 and P of each chunk."""
    pair, n, t, first = _chunk(L, H, N, C)
    strength = _numbers(beta, first, t, L, H)
    overlaps, own = tl.zeros((C, C), strength.dtype), tl.zeros((C, C), strength.dtype)
    kind: tl.constexpr = inverse.dtype.element_ty
    for start in range(0, K, BK):
        column = start + tl.arange(0, BK)
        keys = _rows(k, first, t, L, H, column, K).to(kind)
        queries = _rows(q, first, t, L, H, column, K).to(kind)
        overlaps += matmul(keys, tl.trans(keys))
        own += matmul(queries, tl.trans(keys))
    i, j = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    between = _between(decay, first, t, L, H, strength.dtype, C)
    T = tl.where(i > j, strength[:, None] * between * overlaps, 0.0)
    row = tl.arange(0, C)
    place = pair * N + n
    _put_matrix(inverse, _inverse(T, C), place, row, row, C, C)
    _put_matrix(reads, own * between, place, row, row, C, C)


@_on
@triton.jit
def pass_on(
    states, w, final, k, v, beta, decay, inverse, start, L, H, N, K, V, C: tl.constexpr, BK: tl.constexpr,
    BV: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """The chunks of a pair in turn: W, and the state from one to the next.

    A program has some columns of the state, all its rows, in tiles: a product then asks for few registers at a time.
    """
    pair = tl.program_id(0).to(tl.int64)
    first = (pair // H) * L * H + pair % H
    row, column, steps = tl.arange(0, BK), tl.program_id(1) * BV + tl.arange(0, BV), tl.arange(0, C)
    kind: tl.constexpr = w.dtype.element_ty
    S = ()
    for i in tl.static_range(TILES):
        S += (_matrix(start, pair, i * BK + row, column, K, V),)
    for n in range(N):
        t, place = n * C + steps, pair * N + n
        keys, known = (), tl.zeros((C, BV), S[0].dtype)
        for i in tl.static_range(TILES):
            keys += (_rows(k, first, t, L, H, i * BK + row, K).to(kind),)
            _put_matrix(states, S[i], place, i * BK + row, column, K, V)
            known += matmul(keys[i], S[i].to(kind))
        values, strength = wide(_rows(v, first, t, L, H, column, V)), _numbers(beta, first, t, L, H)
        since, to_end, over = _since(decay, first, t, L, H, known.dtype, C)
        Y = strength[:, None] * (values - since[:, None] * known)
        W = matmul(_matrix(inverse, place, steps, steps, C, C), Y.to(kind))
        _hand_out(w, W, first, t, L, H, column, V)
        W, after = (to_end[:, None] * W).to(kind), ()
        for i in tl.static_range(TILES):
            after += (over * S[i] + matmul(tl.trans(keys[i]), W),)
        S = after
    for i in tl.static_range(TILES):
        _put_matrix(final, S[i], pair, i * BK + row, column, K, V)


@_at_once
@triton.jit
def read_out(
    o, q, decay, states, w, reads, L, H, N, K, V, C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """O of each chunk."""
    pair, n, t, first = _chunk(L, H, N, C)
    column, steps, place = tl.program_id(1) * BV + tl.arange(0, BV), tl.arange(0, C), pair * N + n
    written = _rows(w, first, t, L, H, column, V)
    own = matmul(_matrix(reads, place, steps, steps, C, C), written)
    total = tl.zeros_like(own)
    for begin in range(0, K, BK):
        row = begin + tl.arange(0, BK)
        queries = _rows(q, first, t, L, H, row, K).to(written.dtype)
        total += matmul(queries, _matrix(states, place, row, column, K, V))
    since, _, _ = _since(decay, first, t, L, H, own.dtype, C)
    _hand_out(o, since[:, None] * total + own, first, t, L, H, column, V)


@_back
@triton.jit
def pass_back(
    of_states, x, of_start, q, k, beta, decay, inverse, reads, of_o, of_final, L, H, N, K, V, C: tl.constexpr,
    BK: tl.constexpr, BV: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """The chunks of a pair from the last to the first: X, and the gradient in the state from one to the one before."""
    pair = tl.program_id(0).to(tl.int64)
    first = (pair // H) * L * H + pair % H
    row, column, steps = tl.arange(0, BK), tl.program_id(1) * BV + tl.arange(0, BV), tl.arange(0, C)
    kind: tl.constexpr = x.dtype.element_ty
    G = ()
    for i in tl.static_range(TILES):
        G += (_matrix(of_final, pair, i * BK + row, column, K, V),)
    for step in range(N):
        n = N - 1 - step
        t, place = n * C + steps, pair * N + n
        keys, of_w = (), tl.zeros((C, BV), G[0].dtype)
        for i in tl.static_range(TILES):
            keys += (_rows(k, first, t, L, H, i * BK + row, K).to(kind),)
            _put_matrix(of_states, G[i], place, i * BK + row, column, K, V)
            of_w += matmul(keys[i], G[i].to(kind))
        back, strength = _rows(of_o, first, t, L, H, column, V), _numbers(beta, first, t, L, H)
        since, to_end, over = _since(decay, first, t, L, H, of_w.dtype, C)
        of_w *= to_end[:, None]
        of_w += matmul(tl.trans(_matrix(reads, place, steps, steps, C, C)), back.to(kind))
        X = matmul(tl.trans(_matrix(inverse, place, steps, steps, C, C)), of_w.to(kind))
        _hand_out(x, X, first, t, L, H, column, V)
        X, of_read, before = ((since * strength)[:, None] * X).to(kind), (since[:, None] * wide(back)).to(kind), ()
        for i in tl.static_range(TILES):
            queries = _rows(q, first, t, L, H, i * BK + row, K).to(kind)
            before += (over * G[i] + matmul(tl.trans(queries), of_read) - matmul(tl.trans(keys[i]), X),)
        G = before
    for i in tl.static_range(TILES):
        _put_matrix(of_start, G[i], pair, i * BK + row, column, K, V)


@_at_once
@triton.jit
def gradients(
    of_q, of_k, of_v, of_beta, of_decay, q, k, v, beta, decay, reads, states, of_states, w, x, of_o, L, H, N, K, V,
    C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """What each chunk's own gradients are, with S before it, G behind it, W and X at hand."""
    pair, n, t, first = _chunk(L, H, N, C)
    steps, place = tl.arange(0, C), pair * N + n
    i, j = steps[:, None], steps[None, :]
    kind: tl.constexpr = w.dtype.element_ty
    strength = _numbers(beta, first, t, L, H)
    of_reads, of_system = tl.zeros((C, C), strength.dtype), tl.zeros((C, C), strength.dtype)
    along = tl.zeros((C,), strength.dtype)
    for begin in range(0, V, BV):
        column = begin + tl.arange(0, BV)
        written, X = _rows(w, first, t, L, H, column, V), _rows(x, first, t, L, H, column, V)
        back = _rows(of_o, first, t, L, H, column, V).to(kind)
        of_reads += matmul(back, tl.trans(written))
        of_system -= matmul(X, tl.trans(written))
        along += tl.sum(wide(X) * wide(_rows(v, first, t, L, H, column, V)), 1)
        _hand_out(of_v, strength[:, None] * wide(X), first, t, L, H, column, V)
    of_reads, of_system = tl.where(i >= j, of_reads, 0.0), tl.where(i > j, of_system, 0.0)
    between = _between(decay, first, t, L, H, strength.dtype, C)
    since, to_end, over = _since(decay, first, t, L, H, strength.dtype, C)
    to_keys = of_reads * between
    M = strength[:, None] * of_system * between
    M += tl.trans(M)
    overlaps = tl.zeros((C, C), strength.dtype)
    of_since, of_to_end, read = along * 0, along * 0, along * 0
    of_over = tl.sum(along * 0)
    for start in range(0, K, BK):
        row = start + tl.arange(0, BK)
        from_o = tl.zeros((C, BK), strength.dtype)
        from_x, from_w = tl.zeros_like(from_o), tl.zeros_like(from_o)
        for begin in range(0, V, BV):
            column = begin + tl.arange(0, BV)
            S, G = _matrix(states, place, row, column, K, V), _matrix(of_states, place, row, column, K, V)
            from_o += matmul(_rows(of_o, first, t, L, H, column, V).to(kind), tl.trans(S))
            from_x += matmul(_rows(x, first, t, L, H, column, V), tl.trans(S))
            from_w += matmul(_rows(w, first, t, L, H, column, V), tl.trans(G))
            of_over += tl.sum(tl.sum(wide(S) * wide(G), 1), 0)
        keys = _rows(k, first, t, L, H, row, K).to(kind)
        queries = _rows(q, first, t, L, H, row, K).to(kind)
        overlaps += matmul(keys, tl.trans(keys))
        read += tl.sum(wide(keys) * from_x, 1)
        of_since += tl.sum(wide(queries) * from_o, 1)
        of_to_end += tl.sum(wide(keys) * from_w, 1)
        of_queries = since[:, None] * from_o + matmul(to_keys.to(kind), keys)
        of_keys = to_end[:, None] * from_w - (strength * since)[:, None] * from_x
        of_keys += matmul(tl.trans(to_keys).to(kind), queries) + matmul(M.to(kind), keys)
        _hand_out(of_q, of_queries, first, t, L, H, row, K)
        _hand_out(of_k, of_keys, first, t, L, H, row, K)
    overlaps *= between
    at = first + t.to(tl.int64) * H
    tl.store(of_beta + at, along - since * read + tl.sum(of_system * overlaps, 1), mask=t < L)
    if decay is not None:
        own = wide(_matrix(reads, place, steps, steps, C, C))
        # Step m stands in every factor from j to i with j < m <= i, in those from the beginning, in those to the end.
        within = of_reads * own + of_system * strength[:, None] * overlaps
        within = tl.sum(tl.where(i > j, tl.cumsum(within, 0, reverse=True), 0.0), 1)
        to_start = tl.cumsum(since * (of_since - strength * read), 0, reverse=True)
        from_before = tl.sum(tl.where(i > j, (to_end * of_to_end)[None, :], 0.0), 1)
        tl.store(of_decay + at, within + to_start + from_before + over * of_over, mask=t < L)
