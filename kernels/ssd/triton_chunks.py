"""The dual form as Triton kernels: sums, scores and states chunk by chunk; then every chunk's outputs on their own.

A record is cut into chunks of Q steps and segments of some chunks. What a chunk needs of the others is its state, which
goes through memory, so that no kernel holds more than one tile of sums beside the operands of its products: more would
not find room in the registers. Arrays, lengths in numbers of elements:

    x, y, z, dy          (batch, L, H, P)    x and dy in rows ``row`` apart, records ``record`` apart
    B, C                 (batch, L, G, N)    likewise
    step, exponent       (batch, H, L)
    high, low            (batch, H, L)       sums of a chunk's exponents up to each step: two numbers, the second small
    scores               (batch, G, chunks, Q, Q)  C Bᵀ within the chunks
    starts, ends         (segments, batch, H, P, N)  states before and after each segment; backwards, gradients in them
    totals               (segments, batch, H, tiles) sums of the segments' exponents, alike for each tile of states
    states, slopes       (batch, H, chunks, P, N)  states before each chunk, gradients in those behind it; the chunks
                                             ``first`` … of a record, of which there are ``kept``

An exponent below FLOOR is as good as -∞: nothing of what lies before passes, and so begins a sequence. Sums of
exponents are taken in float64 and kept as two numbers of the working type, so that their differences have all digits
behind a gap of any size.
"""

import triton
import triton.language as tl

from statespace.kernels.launching import expm1, matmul, sigmoid, wide
from statespace.kernels.tuning import tuned, warps

# With any factor that float64 can hold it gives an exponential of zero.
FLOOR = tl.constexpr(-1500.0)


def _stages(options):
    """The variant that loads one tile more, or less, ahead; of three, which is what Triton takes, one less."""
    return {"num_stages": 2 if options.get("num_stages", 3) == 3 else 3}


products = tuned([], warps(0.5), _stages)


@triton.jit
def sum_up(high, low, exponent, seq_idx, L, H, CHUNKS: tl.constexpr, Q: tl.constexpr):
    """The sums of exponents from the beginnings of the chunks, CHUNKS of them side by side."""
    tiles = tl.cdiv(L, CHUNKS * Q)
    program = tl.program_id(0)
    head, tile = (program // tiles).to(tl.int64), program % tiles
    t = tile * CHUNKS * Q + tl.arange(0, CHUNKS)[:, None] * Q + tl.arange(0, Q)[None, :]
    s = tl.load(exponent + head * L + t, mask=t < L, other=0)
    s = tl.where(s < FLOOR, FLOOR, s)
    if seq_idx is not None:
        later, now = (t < L) & (t > 0), seq_idx + head // H * L + t
        s = tl.where(tl.load(now, mask=later, other=0) != tl.load(now - 1, mask=later, other=0), FLOOR, s)
    exact = tl.cumsum(s.to(tl.float64), 1)
    rounded = exact.to(s.dtype)
    tl.store(high + head * L + t, rounded, mask=t < L)
    tl.store(low + head * L + t, (exact - rounded).to(s.dtype), mask=t < L)


@triton.jit
def sums_of(high, low, own, begin, L, Q: tl.constexpr):
    """The sums up to each step of a chunk, and of all of it; behind a record's end they stay as they are there."""
    t = own + tl.minimum(begin + tl.arange(0, Q), L - 1)
    end = own + tl.minimum(begin + Q, L) - 1
    return tl.load(high + t), tl.load(low + t), tl.load(high + end), tl.load(low + end)


@triton.jit
def decays_of(high, low, Q: tl.constexpr):
    """What passes from step j, in columns, to step i."""
    i, j = tl.arange(0, Q)[:, None], tl.arange(0, Q)[None, :]
    between = (high[:, None] - high[None, :]) + (low[:, None] - low[None, :])
    return tl.exp(tl.where(i >= j, between, -float("inf")))


@triton.jit
def decayed(state, exponent):
    """e^exponent state: near 1 by what is lost, lest roundings of a factor add up over many chunks.

    Elsewhere not, for the difference of a large state and nearly all of it has lost the digits of what is left.
    """
    near = exponent > -0.35
    return tl.where(near, state, 0) + tl.where(near, expm1(exponent), tl.exp(exponent)) * state


@triton.jit
def tile_of(x, at, row, begin, c, L, width, Q: tl.constexpr):
    """Q steps of the columns c; zeros beside the record and its columns."""
    i = tl.arange(0, Q)[:, None]
    first = x + at + begin * tl.full((), row, tl.int64)
    return tl.load(first + i * row + c[None, :], mask=(begin + i < L) & (c[None, :] < width), other=0)


@triton.jit
def states_of(states, at, p, n, P, left, N):
    """A head's states n of the channels p, of which ``left`` are left."""
    inside = (p[:, None] < P) & (n[None, :] < left)
    return tl.load(states + at + p[:, None] * N + n[None, :], mask=inside, other=0)


@triton.jit
def square_of(scores, at, Q: tl.constexpr):
    """Numbers between the steps of a chunk."""
    return tl.load(scores + at * Q * Q + tl.arange(0, Q)[:, None] * Q + tl.arange(0, Q)[None, :])


@products
@triton.jit
def score(
    scores, B, C, L, G, N, chunks, B_record, B_row, C_record, C_row, Q: tl.constexpr, N_: tl.constexpr
):  # fmt: skip
    """C Bᵀ of a group within a chunk."""
    program = tl.program_id(0)
    g, c, b = program % G, program // G % chunks, (program // G // chunks).to(tl.int64)
    kind: tl.constexpr = B.dtype.element_ty
    n = tl.arange(0, N_)
    found = tl.zeros((Q, Q), scores.dtype.element_ty)
    for s in range(0, N, N_):
        of_C = tile_of(C, b * C_record + g * N + s, C_row, c * Q, n, L, N - s, Q)
        of_B = tile_of(B, b * B_record + g * N + s, B_row, c * Q, n, L, N - s, Q)
        found += matmul(of_C, tl.trans(of_B), kind)
    i, j = tl.arange(0, Q)[:, None], tl.arange(0, Q)[None, :]
    tl.store(scores + ((b * G + g) * chunks + c) * Q * Q + i * Q + j, found)


@products
@triton.jit
def carry(
    ends, totals, states, x, B, step, high, low, starts, batch, L, H, P, G, N, segments, span, first, count,
    x_record, x_row, B_record, B_row,
    Q: tl.constexpr, P_: tl.constexpr, N_: tl.constexpr, BACKWARDS: tl.constexpr,
):  # fmt: skip
    """A tile of states through each of the segments ``first`` … ``first + count - 1``; before chunks into ``states``.

    Backwards: gradients in the states, from those in y (as ``x``) and C (as ``B``), behind each chunk. ``states`` has
    the chunks of these segments only; ``ends``, ``totals``, ``states`` and ``starts`` may be None.
    """
    across = tl.cdiv(N, N_)
    tiles = tl.cdiv(P, P_) * across
    program = tl.program_id(0)
    tile, program = program % tiles, program // tiles
    h, program = program % H, program // H
    segment, b = first + program % count, (program // count).to(tl.int64)
    head = b * H + h
    p, n = tile // across * P_ + tl.arange(0, P_), tile % across * N_ + tl.arange(0, N_)
    cell = p[:, None] * N + n[None, :]
    inside = (p[:, None] < P) & (n[None, :] < N)
    kind: tl.constexpr = x.dtype.element_ty
    place = (segment * batch + b) * H + h
    state = tl.zeros((P_, N_), step.dtype.element_ty)
    if starts is not None:
        state += states_of(starts, place * P * N, p, n, P, N, N).to(state.dtype)
    total = tl.full((), 0, tl.float64)
    chunks = tl.cdiv(L, Q)
    for k in range(span):
        c = segment * span + (span - 1 - k if BACKWARDS else k)
        if c < chunks:
            begin = c * Q
            if states is not None:
                to = (head * count * span + c - first * span) * P * N
                tl.store(states + to + cell, state, mask=inside)
            up_to, rest, highest, lowest = sums_of(high, low, head * L, begin, L, Q)
            if BACKWARDS:
                weight = tl.exp(up_to)
            else:
                t = begin + tl.arange(0, Q)
                weight = tl.load(step + head * L + t, mask=t < L, other=0)
                weight *= tl.exp((highest - up_to) + (lowest - rest))
            written = wide(tile_of(x, b * x_record + h * P, x_row, begin, p, L, P, Q)) * weight[:, None]
            with_what = tile_of(B, b * B_record + h // (H // G) * N, B_row, begin, n, L, N, Q)
            state = decayed(state, highest)
            state += matmul(tl.trans(written), with_what, kind)
            total += highest.to(tl.float64)
    if ends is not None:
        tl.store(ends + place * P * N + cell, state, mask=inside)
    if totals is not None:
        tl.store(totals + place * tiles + tile, total)


@triton.jit
def hand_over(
    starts, last, ends, totals, initial, states, P, N, segments, tiles, CELLS: tl.constexpr, BACKWARDS: tl.constexpr
):
    """The states before each segment and behind the last one, from what each made of zeros; ``states`` of them in all.

    Backwards, from the last segment to the first. ``initial`` may be None.
    """
    per = tl.cdiv(P * N, CELLS)
    program = tl.program_id(0)
    head = (program // per).to(tl.int64)
    cell = program % per * CELLS + tl.arange(0, CELLS)
    inside = cell < P * N
    state = tl.zeros((CELLS,), starts.dtype.element_ty)
    if initial is not None:
        state += tl.load(initial + head * P * N + cell, mask=inside, other=0).to(state.dtype)
    for k in range(segments):
        place = (segments - 1 - k if BACKWARDS else k) * states + head
        tl.store(starts + place * P * N + cell, state, mask=inside)
        state = decayed(state, tl.load(totals + place * tiles).to(state.dtype))
        state += tl.load(ends + place * P * N + cell, mask=inside, other=0)
    tl.store(last + head * P * N + cell, state, mask=inside)


@products
@triton.jit
def outputs(
    y, raw, x, C, D, z, step, high, low, states, scores, L, H, P, G, N, first, count, kept, chunks,
    x_record, x_row, C_record, C_row, z_record, z_row,
    Q: tl.constexpr, P_: tl.constexpr, N_: tl.constexpr,
):  # fmt: skip
    """The outputs of the chunks ``first`` … ``first + count - 1``, and what they were before the gate into ``raw``.

    ``raw``, D (H, P) and z may be None.
    """
    blocks = tl.cdiv(P, P_)
    program = tl.program_id(0)
    block, program = program % blocks, program // blocks
    h, program = program % H, program // H
    c, b = program % count, (program // count).to(tl.int64)
    head, group, begin = b * H + h, h // (H // G), (first + c) * Q
    p, n, t = block * P_ + tl.arange(0, P_), tl.arange(0, N_), begin + tl.arange(0, Q)
    kind: tl.constexpr = x.dtype.element_ty
    out = tl.zeros((Q, P_), step.dtype.element_ty)
    for s in range(0, N, N_):
        of_C = tile_of(C, b * C_record + group * N + s, C_row, begin, n, L, N - s, Q)
        out += matmul(of_C, tl.trans(states_of(states, (head * kept + c) * P * N + s, p, n, P, N - s, N)), kind)
    up_to, rest, _, _ = sums_of(high, low, head * L, begin, L, Q)
    out *= tl.exp(up_to)[:, None]
    weights = square_of(scores, (b * G + group) * chunks + first + c, Q) * decays_of(up_to, rest, Q)
    weights *= tl.load(step + head * L + t, mask=t < L, other=0)[None, :]
    came = tile_of(x, b * x_record + h * P, x_row, begin, p, L, P, Q)
    out += matmul(weights, came, kind)
    if D is not None:
        out += wide(came) * tl.load(D + h * P + p, mask=p < P, other=0).to(out.dtype)[None, :]
    to, where = ((b * L + begin) * H + h) * P, tl.arange(0, Q)[:, None] * (H * P) + p[None, :]
    written = (t[:, None] < L) & (p[None, :] < P)
    if raw is not None:
        tl.store(raw + to + where, out, mask=written)
    if z is not None:
        gate = wide(tile_of(z, b * z_record + h * P, z_row, begin, p, L, P, Q))
        out *= gate * sigmoid(gate)
    tl.store(y + to + where, out, mask=written)
