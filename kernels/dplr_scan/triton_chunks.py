"""Chunks of a long record scanned side by side: what a chunk makes of a state, and the states carried over the chunks.

The scan is linear in the state. With M the real matrix of 2 n numbers a side that the steps of a chunk apply, and f the
state that its inputs leave when it starts from nothing, the state after it is M x + f; a gradient goes back by Mᵀ.
"""

import triton
import triton.language as tl

from statespace.kernels.dplr_scan.triton_steps import inner, read_complex, solve_one, solve_two, tables, write_complex
from statespace.kernels.launching import product


@triton.jit
def transfer(
    moved, dt, system, H, L, n, length, chunks, dt_b, dt_t, RANK: tl.constexpr, STATES: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    """What the steps of each chunk make of a state, without inputs: ``moved`` (B, H, chunks, 2 n, n, 2), of every unit.

    The units of a program lie beside each other as channels do elsewhere.
    """
    blocks = tl.cdiv(2 * n, COLUMNS)
    place, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    chunk, channel = (place % chunks).to(tl.int64), place // chunks
    b, h = (channel // H).to(tl.int64), channel % H
    i = tl.arange(0, STATES)[:, None]
    j = block * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    field = (h * n + i) * (3 + RANK)
    c, d = read_complex(system, field, i < n)
    p, k = read_complex(system, field + 3, i < n)
    x, z = tl.where(2 * i == j, 1, 0).to(c.dtype), tl.where(2 * i + 1 == j, 1, 0).to(c.dtype)
    last = tl.full((), -1, c.dtype)
    a, f, e_c, e_d, e_p, e_k = c, d, c, d, p, k
    solve = tl.zeros((1, 1), c.dtype)
    if RANK == 2:
        p2, k2 = read_complex(system, field + 4, i < n)
        e_p2, e_k2 = p2, k2
        solve12, solve21, solve22 = solve, solve, solve
    for t in range(chunk * length, tl.minimum(chunk * length + length, L)):
        gap = tl.load(dt + b * dt_b + t * dt_t)
        if gap != last:
            half = 0.5 * gap
            a, f, e_c, e_d, e_p, e_k = tables(half, c, d, p, k)
            if RANK == 1:
                solve = solve_one(half * a, p, k)
            else:
                e_p2, e_k2 = product(half * a, half * f, p2, k2)
                solve, solve12, solve21, solve22 = solve_two(half * a, half * f, p, k, p2, k2)
            last = gap
        m, o = product(a, f, x, z)
        r, s = product(e_c, e_d, x, z)
        q = inner(p, k, m, o)
        if RANK == 1:
            q = solve * q
        else:
            q2 = inner(p2, k2, m, o)
            q, q2 = solve * q + solve12 * q2, solve21 * q + solve22 * q2
            r, s = r - e_p2 * q2, s - e_k2 * q2
        x += 2 * (r - e_p * q)
        z += 2 * (s - e_k * q)
    write_complex(moved, ((b * H + h) * chunks + chunk) * 2 * n * n + j * n + i, x, z, (i < n) & (j < 2 * n))


@triton.jit
def join(states, own, moved, first, n, chunks, REVERSE: tl.constexpr, NUMBERS: tl.constexpr):
    """The states before the chunks from that before the first, and from what each chunk leaves of its inputs, ``own``.

    Reversed, the gradients in the states after the chunks from that after the last. All (B, H, chunks, 2 n) numbers.
    """
    channel = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, NUMBERS)
    x = tl.load(first + channel * 2 * n + i, mask=i < 2 * n, other=0.0)
    both = (i < 2 * n)[:, None] & (i < 2 * n)[None, :]
    for step in range(chunks):
        at = (channel * chunks + (chunks - 1 - step if REVERSE else step)) * 2 * n
        tl.store(states + at + i, x, mask=i < 2 * n)
        table = tl.load(moved + (at + i[:, None]) * 2 * n + i[None, :], mask=both, other=0.0)
        x = tl.sum(table * x[None, :], 1) if REVERSE else tl.sum(table * x[:, None], 0)
        x += tl.load(own + at + i, mask=i < 2 * n, other=0.0)
