"""The scan's Triton kernels, forth and back: a program takes some channels of a record, or of a chunk of it.

Numbers of a channel's states lie along the first axis of a tile and channels along the second, so that neighbouring
threads share a channel and a sum over its states is a few shuffles. Complex numbers are pairs along a last axis:

    system          (H, n, 3 + r, 2)    Λ, B, 2C and the r rows of P
    starts, ends    (B, H, chunks, n, 2)    the states before and after each chunk
    stored          (B, H, segments, n, 2)    the state at the beginning of each segment
    kept            (B, H, L, r + r²)    q = P* of each step's midpoint, and (1 + h P* E P)^{-1} row by row

With h half the gap, E = 1/(1 − hΛ). What depends on the gap alone is computed anew when it changes. The state moves by
increments, never by a product with what is near 1 over a small gap; the midpoint x + h E (Λ x + B u − P q), small
beside x over a large one, is E (x + h (B u − P q)), and its gradient alike.
"""

import triton
import triton.language as tl

from statespace.kernels.launching import product, wide
from statespace.kernels.tuning import tuned


def _half(options):
    """The variant of half the channels, as long as a warp is full."""
    channels = options["CHANNELS"] // 2
    return {"CHANNELS": channels} if channels * options["STATES"] >= 32 else {}


def _twice(options):
    return {"CHANNELS": 2 * options["CHANNELS"]}


_tuned = tuned(["H", "length"], _half, _twice)


@triton.jit
def _place(H, n, chunks, STATES: tl.constexpr, CHANNELS: tl.constexpr):
    """Record, channels, chunk and states of this program, the place of the states in (B, H, n), and which exist."""
    blocks = tl.cdiv(H, CHANNELS)
    chunk, rest = tl.program_id(0) % chunks, tl.program_id(0) // chunks
    b = (rest // blocks).to(tl.int64)
    i = tl.arange(0, STATES)[:, None]
    h = (rest % blocks) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    return b, h, chunk.to(tl.int64), i, (i < n) & (h < H)


@triton.jit
def read_complex(x, at, mask):
    return tl.load(x + 2 * at, mask=mask, other=0.0), tl.load(x + 2 * at + 1, mask=mask, other=0.0)


@triton.jit
def write_complex(x, at, real, imaginary, mask):
    tl.store(x + 2 * at, real, mask=mask)
    tl.store(x + 2 * at + 1, imaginary, mask=mask)


@triton.jit
def _resolvent(half, c, d):
    """E of the pole c + id, whose real part is not positive: the denominator is 1 at least."""
    a, b = 1 - half * c, half * d
    scale = 1 / (a * a + b * b)
    return a * scale, b * scale


@triton.jit
def tables(half, c, d, p, k):
    """E, hEΛ and hEP of the gap 2h."""
    a, f = _resolvent(half, c, d)
    e_c, e_d = product(half * a, half * f, c, d)
    e_p, e_k = product(half * a, half * f, p, k)
    return a, f, e_c, e_d, e_p, e_k


@triton.jit
def inner(a, b, c, d):
    """P* x over both halves of every pair: 2 Re Σ P̄ x."""
    return 2 * tl.sum(a * c + b * d, 0, keep_dims=True)


@triton.jit
def solve_one(e, p, k):
    """(1 + h P* E P)^{-1} of rank 1; e = Re hE."""
    return 1 / (1 + 2 * tl.sum(e * (p * p + k * k), 0, keep_dims=True))


@triton.jit
def solve_two(e, f, p, k, p2, k2):
    """(1 + h P* E P)^{-1} of rank 2, row by row; hE = e + if."""
    one = 1 + 2 * tl.sum(e * (p * p + k * k), 0, keep_dims=True)
    two = 1 + 2 * tl.sum(e * (p2 * p2 + k2 * k2), 0, keep_dims=True)
    a, b = p * p2 + k * k2, p * k2 - k * p2  # P̄ P₂
    upper = 2 * tl.sum(e * a - f * b, 0, keep_dims=True)
    lower = 2 * tl.sum(e * a + f * b, 0, keep_dims=True)
    scale = 1 / (one * two - upper * lower)
    return two * scale, -upper * scale, -lower * scale, one * scale


@_tuned
@triton.jit
def forward(
    y, ends, kept, stored, u, dt, system, starts, H, L, n, length, chunks, y_b, y_h, y_t, u_b, u_h, u_t, dt_b, dt_t,
    KEEP: tl.constexpr, RANK: tl.constexpr, SEGMENT: tl.constexpr, STATES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    b, h, chunk, i, inside = _place(H, n, chunks, STATES, CHANNELS)
    field = (h * n + i) * (3 + RANK)
    c, d = read_complex(system, field, inside)
    v, w = read_complex(system, field + 1, inside)
    read, turn = read_complex(system, field + 2, inside)
    p, k = read_complex(system, field + 3, inside)
    channel = b * H + h
    x, z = read_complex(starts, (channel * chunks + chunk) * n + i, inside)
    # Of a gap that no step has; the first step computes all of these.
    last = tl.full((), -1, x.dtype)
    a, f, e_c, e_d, e_v, e_w, e_p, e_k = c, d, c, d, v, w, p, k
    solve = tl.zeros((1, CHANNELS), x.dtype)
    if RANK == 2:
        p2, k2 = read_complex(system, field + 4, inside)
        e_p2, e_k2 = p2, k2
        solve12, solve21, solve22 = solve, solve, solve
    begin, end = chunk * length, tl.minimum(chunk * length + length, L)
    size: tl.constexpr = RANK + RANK * RANK
    # Of the next step at each time: a load takes longer than a step.
    next_u = tl.load(u + b * u_b + h * u_h + begin * u_t, mask=h < H, other=0.0)
    next_gap = tl.load(dt + b * dt_b + begin * dt_t)
    for t in range(begin, end):
        now, gap = wide(next_u), next_gap
        follows = tl.minimum(t + 1, end - 1)
        next_u = tl.load(u + b * u_b + h * u_h + follows * u_t, mask=h < H, other=0.0)
        next_gap = tl.load(dt + b * dt_b + follows * dt_t)
        if KEEP:  # noqa: SIM102 (one is known to the compiler)
            if t % SEGMENT == 0:
                write_complex(stored, (channel * tl.cdiv(L, SEGMENT) + t // SEGMENT) * n + i, x, z, inside)
        if gap != last:
            half = 0.5 * gap
            a, f, e_c, e_d, e_p, e_k = tables(half, c, d, p, k)
            e_v, e_w = product(half * a, half * f, v, w)
            if RANK == 1:
                solve = solve_one(half * a, p, k)
            else:
                e_p2, e_k2 = product(half * a, half * f, p2, k2)
                solve, solve12, solve21, solve22 = solve_two(half * a, half * f, p, k, p2, k2)
            last = gap
        # q = (1 + h P* E P)^{-1} P* E (x + h B u), x + 2 h E (Λ x + B u − P q)
        m, o = product(a, f, x, z)
        m, o = m + e_v * now, o + e_w * now
        r, s = product(e_c, e_d, x, z)
        r, s = r + e_v * now, s + e_w * now
        q = inner(p, k, m, o)
        at = (channel * L + t) * size
        if RANK == 1:
            q = solve * q
        else:
            q2 = inner(p2, k2, m, o)
            q, q2 = solve * q + solve12 * q2, solve21 * q + solve22 * q2
            r, s = r - e_p2 * q2, s - e_k2 * q2
            if KEEP:
                tl.store(kept + at + 1, q2, mask=h < H)
                tl.store(kept + at + 3, solve12, mask=h < H)
                tl.store(kept + at + 4, solve21, mask=h < H)
                tl.store(kept + at + 5, solve22, mask=h < H)
        if KEEP:
            tl.store(kept + at, q, mask=h < H)
            tl.store(kept + at + RANK, solve, mask=h < H)
        x += 2 * (r - e_p * q)
        z += 2 * (s - e_k * q)
        tl.store(y + b * y_b + h * y_h + t * y_t, tl.sum(read * x - turn * z, 0, keep_dims=True), mask=h < H)
    write_complex(ends, (channel * chunks + chunk) * n + i, x, z, inside)


@_tuned
@triton.jit
def backward(
    grad_u, grad_dt, grad_system, grad_starts, rows, u, dt, system, kept, stored, grad_y, grad_ends,
    H, L, n, length, chunks, g_b, g_h, g_t, u_b, u_h, u_t, y_b, y_h, y_t, dt_b, dt_t,
    OF_GAPS: tl.constexpr, RANK: tl.constexpr, SEGMENT: tl.constexpr, STATES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """The reverse sweep. ``grad_dt`` (B, H, L) and ``grad_system`` (B, H, chunks, n, 3 + r, 2) are parts of sums,
    ``rows`` (B, H, chunks, SEGMENT, n, 2) the states before the steps of a segment.
    """
    b, h, chunk, i, inside = _place(H, n, chunks, STATES, CHANNELS)
    field = (h * n + i) * (3 + RANK)
    c, d = read_complex(system, field, inside)
    v, w = read_complex(system, field + 1, inside)
    read, turn = read_complex(system, field + 2, inside)
    p, k = read_complex(system, field + 3, inside)
    channel = b * H + h
    own = (channel * chunks + chunk) * n + i
    g, j = read_complex(grad_ends, own, inside)
    last = tl.full((), -1, g.dtype)
    a, f, e_c, e_d = c, d, c, d
    of_c = tl.zeros_like(c)
    of_d, of_v, of_w, of_read, of_turn, of_p, of_k = of_c, of_c, of_c, of_c, of_c, of_c, of_c
    if RANK == 2:
        p2, k2 = read_complex(system, field + 4, inside)
        of_p2, of_k2 = of_c, of_c
    size: tl.constexpr = RANK + RANK * RANK
    row = (channel * chunks + chunk) * SEGMENT
    begin, end = chunk * length, tl.minimum(chunk * length + length, L)
    segments = tl.cdiv(end - begin, SEGMENT)
    for segment in range(segments):
        start = begin + (segments - 1 - segment) * SEGMENT
        stop = tl.minimum(start + SEGMENT, end)
        # The states again, each by itself now that q is known.
        x, z = read_complex(stored, (channel * tl.cdiv(L, SEGMENT) + start // SEGMENT) * n + i, inside)
        for t in range(start, stop):
            write_complex(rows, (row + t - start) * n + i, x, z, inside)
            now = wide(tl.load(u + b * u_b + h * u_h + t * u_t, mask=h < H, other=0.0))
            gap = tl.load(dt + b * dt_b + t * dt_t)
            q = tl.load(kept + (channel * L + t) * size, mask=h < H, other=0.0)
            if gap != last:
                a, f = _resolvent(0.5 * gap, c, d)
                e_c, e_d = product(0.5 * gap * a, 0.5 * gap * f, c, d)
                last = gap
            r, s = v * now - p * q, w * now - k * q
            if RANK == 2:
                q2 = tl.load(kept + (channel * L + t) * size + 1, mask=h < H, other=0.0)
                r, s = r - p2 * q2, s - k2 * q2
            r, s = product(a, f, r, s)
            m, o = product(e_c, e_d, x, z)
            x, z = x + (gap * r + 2 * m), z + (gap * s + 2 * o)
        tl.debug_barrier()
        for back in range(stop - start):
            t = stop - 1 - back
            before, before_z = read_complex(rows, (row + t - start) * n + i, inside)
            now = wide(tl.load(u + b * u_b + h * u_h + t * u_t, mask=h < H, other=0.0))
            gap = tl.load(dt + b * dt_b + t * dt_t)
            of_y = wide(tl.load(grad_y + b * y_b + h * y_h + t * y_t, mask=h < H, other=0.0))
            at = (channel * L + t) * size
            q = tl.load(kept + at, mask=h < H, other=0.0)
            solve = tl.load(kept + at + RANK, mask=h < H, other=0.0)
            if gap != last:
                a, f = _resolvent(0.5 * gap, c, d)
                e_c, e_d = product(0.5 * gap * a, 0.5 * gap * f, c, d)
                last = gap
            of_read += of_y * x
            of_turn -= of_y * z
            # g + 2 C̄ ∂y, p = (1 + h P* E P)^{-T} P* Ē g, μ = Ē (g − h P p), g + 2 h Ē (Λ̄ g − P p)
            g, j = g + of_y * read, j - of_y * turn
            m, o = product(a, -f, g, j)
            of_q = inner(p, k, m, o)
            if RANK == 1:
                of_q = solve * of_q
                r, s = p * of_q, k * of_q
            else:
                q2 = tl.load(kept + at + 1, mask=h < H, other=0.0)
                solve12 = tl.load(kept + at + 3, mask=h < H, other=0.0)
                solve21 = tl.load(kept + at + 4, mask=h < H, other=0.0)
                solve22 = tl.load(kept + at + 5, mask=h < H, other=0.0)
                of_q2 = inner(p2, k2, m, o)
                of_q, of_q2 = solve * of_q + solve21 * of_q2, solve12 * of_q + solve22 * of_q2
                r, s = p * of_q + p2 * of_q2, k * of_q + k2 * of_q2
            half = 0.5 * gap
            r, s = product(a, -f, half * r, half * s)
            m, o = m - r, o - s
            tl.store(grad_u + b * g_b + h * g_h + t * g_t, gap * tl.sum(v * m + w * o, 0, keep_dims=True), mask=h < H)
            x, z = product(e_c, -e_d, g, j)
            g, j = g + 2 * (x - r), j + 2 * (z - s)
            # The midpoint E (x + h (B u − P q)), and what it changes by, E (Λ x + B u − P q).
            r, s = v * now - p * q, w * now - k * q
            if RANK == 2:
                r, s = r - p2 * q2, s - k2 * q2
            x, z = product(a, f, before + half * r, before_z + half * s)
            if OF_GAPS:
                c_x, d_z = product(c, d, before, before_z)
                r, s = product(a, f, r + c_x, s + d_z)
                tl.store(grad_dt + channel * L + t, tl.sum(r * m + s * o, 0, keep_dims=True), mask=h < H)
            x, z, now, q = gap * x, gap * z, gap * now, gap * q
            of_c += x * m + z * o
            of_d += x * o - z * m
            of_v += now * m
            of_w += now * o
            of_p -= q * m + of_q * x
            of_k -= q * o + of_q * z
            if RANK == 2:
                q2 = gap * q2
                of_p2 -= q2 * m + of_q2 * x
                of_k2 -= q2 * o + of_q2 * z
            x, z = before, before_z
        tl.debug_barrier()
    write_complex(grad_starts, own, g, j, inside)
    own = own * (3 + RANK)
    write_complex(grad_system, own, of_c, of_d, inside)
    write_complex(grad_system, own + 1, of_v, of_w, inside)
    write_complex(grad_system, own + 2, of_read, of_turn, inside)
    write_complex(grad_system, own + 3, of_p, of_k, inside)
    if RANK == 2:
        write_complex(grad_system, own + 4, of_p2, of_k2, inside)
