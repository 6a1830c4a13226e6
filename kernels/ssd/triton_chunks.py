"""The dual form as Triton kernels: products of matrices within chunks, a tile of states carried from chunk to chunk.

A record is cut into chunks of Q steps and segments of some chunks; a program carries the states of one head, or of P_
of its channels, through a segment. Arrays, lengths in numbers of elements:

    x, y, z, dy     (batch, L, H, P)    x and dy in rows ``row`` apart, records ``record`` apart
    B, C            (batch, L, G, N)    likewise
    step, exponent  (batch, H, L)
    starts, ends    (segments, batch, H, P, N)   states before and after each segment; seen backwards, gradients in them
    sums            (segments, batch, H, blocks) sums of the segments' exponents, alike for each block of channels
    states, slopes  (batch, H, chunks, P, N)     states before each chunk, gradients in those behind it

An exponent below FLOOR is as good as -∞: nothing of what lies before passes, and so begins a sequence. Sums of
exponents are taken in float64 and kept as two numbers of the working type, so that their differences have all digits
behind a gap of any size.
"""

import triton
import triton.language as tl

from statespace.kernels.launching import expm1, matmul, sigmoid, wide

# With any factor that float64 can hold it gives an exponential of zero.
FLOOR = tl.constexpr(-1500.0)


@triton.jit
def _sums(exponent, seq_idx, own, record, begin, L, Q: tl.constexpr):
    """The sums of a chunk's exponents up to each step, and of all of them: two numbers each, the second one small."""
    t = begin + tl.arange(0, Q)
    s = tl.load(exponent + own + t, mask=t < L, other=0)
    s = tl.where(s < FLOOR, FLOOR, s)
    if seq_idx is not None:
        later = (t < L) & (t > 0)
        now = tl.load(seq_idx + record + t, mask=later, other=0)
        s = tl.where(now != tl.load(seq_idx + record + t - 1, mask=later, other=0), FLOOR, s)
    exact = tl.cumsum(s.to(tl.float64), 0)
    high = exact.to(s.dtype)
    whole = tl.sum(s.to(tl.float64), 0)
    highest = whole.to(s.dtype)
    return high, (exact - high).to(s.dtype), highest, (whole - highest).to(s.dtype)


@triton.jit
def _decays(high, low, Q: tl.constexpr):
    """What passes from step j, in columns, to step i."""
    i, j = tl.arange(0, Q)[:, None], tl.arange(0, Q)[None, :]
    between = (high[:, None] - high[None, :]) + (low[:, None] - low[None, :])
    return tl.exp(tl.where(i >= j, between, -float("inf")))


@triton.jit
def _tile(x, at, row, begin, c, L, width, Q: tl.constexpr):
    """Q steps of the columns c; zeros beside the record and its columns."""
    i = tl.arange(0, Q)[:, None]
    first = x + at + begin * tl.full((), row, tl.int64)
    return tl.load(first + i * row + c[None, :], mask=(begin + i < L) & (c[None, :] < width), other=0)


@triton.jit
def _states(states, at, p, n, P, left, N):
    """A head's states n of the channels p, of which ``left`` are left."""
    inside = (p[:, None] < P) & (n[None, :] < left)
    return tl.load(states + at + p[:, None] * N + n[None, :], mask=inside, other=0)


@triton.jit
def carry(
    ends, sums, states, x, B, step, exponent, seq_idx, starts, batch, L, H, P, G, N, segments, span, first, count,
    x_record, x_row, B_record, B_row,
    Q: tl.constexpr, P_: tl.constexpr, N_: tl.constexpr, BACKWARDS: tl.constexpr,
):  # fmt: skip
    """States through the segments ``first`` … ``first + count - 1``, before each chunk into ``states``.

    Backwards: gradients in the states, from those in y (as ``x``) and C (as ``B``), behind each chunk. ``states`` has
    the chunks of these segments only; ``ends``, ``sums``, ``states`` and ``starts`` may be None.
    """
    blocks = tl.cdiv(P, P_)
    program = tl.program_id(0).to(tl.int64)
    segment, head = first + program % count, program // count
    block, head = head % blocks, head // blocks
    b, h = head // H, head % H
    p, n = block * P_ + tl.arange(0, P_), tl.arange(0, N_)
    cell = p[:, None] * N + n[None, :]
    inside = (p[:, None] < P) & (n[None, :] < N)
    kind: tl.constexpr = x.dtype.element_ty
    if starts is None:
        state = tl.zeros((P_, N_), step.dtype.element_ty)
    else:
        start = ((segment * batch + b) * H + h) * P * N
        state = _states(starts, start, p, n, P, N, N).to(step.dtype.element_ty)
    total = tl.full((), 0, tl.float64)
    chunks = tl.cdiv(L, Q)
    for k in range(span):
        c = segment * span + (span - 1 - k if BACKWARDS else k)
        if c < chunks:
            begin = c * Q
            if states is not None:
                to = (head * count * span + c - first * span) * P * N
                tl.store(states + to + cell, state, mask=inside)
            high, low, highest, lowest = _sums(exponent, seq_idx, head * L, b * L, begin, L, Q)
            written = wide(_tile(x, b * x_record + h * P, x_row, begin, p, L, P, Q))
            if BACKWARDS:
                weight = tl.exp(high)
            else:
                t = begin + tl.arange(0, Q)
                weight = tl.load(step + head * L + t, mask=t < L, other=0)
                weight *= tl.exp((highest - high) + (lowest - low))
            with_what = _tile(B, b * B_record + h // (H // G) * N, B_row, begin, n, L, N, Q)
            state += expm1(highest) * state
            state += matmul(tl.trans(written * weight[:, None]), with_what, kind)
            total += highest.to(tl.float64)
    place = (segment * batch + b) * H + h
    if ends is not None:
        tl.store(ends + place * P * N + cell, state, mask=inside)
    if sums is not None:
        tl.store(sums + place * blocks + block, total)


@triton.jit
def hand_over(
    starts, last, ends, sums, initial, states, P, N, segments, blocks, CELLS: tl.constexpr, BACKWARDS: tl.constexpr
):
    """The states before each segment and behind the last one, from what each made of zeros; ``states`` of them in all.

    Backwards, from the last segment to the first. ``initial`` may be None.
    """
    per = tl.cdiv(P * N, CELLS)
    program = tl.program_id(0).to(tl.int64)
    head = program // per
    cell = program % per * CELLS + tl.arange(0, CELLS)
    inside = cell < P * N
    state = tl.zeros((CELLS,), starts.dtype.element_ty)
    if initial is not None:
        state += tl.load(initial + head * P * N + cell, mask=inside, other=0).to(state.dtype)
    for k in range(segments):
        place = (segments - 1 - k if BACKWARDS else k) * states + head
        tl.store(starts + place * P * N + cell, state, mask=inside)
        state += expm1(tl.load(sums + place * blocks).to(state.dtype)) * state
        state += tl.load(ends + place * P * N + cell, mask=inside, other=0)
    tl.store(last + head * P * N + cell, state, mask=inside)


@triton.jit
def outputs(
    y, raw, ends, x, B, C, D, z, step, exponent, seq_idx, starts, batch, L, H, P, G, N, segments, span,
    x_record, x_row, B_record, B_row, C_record, C_row, z_record, z_row,
    Q: tl.constexpr, P_: tl.constexpr, N_: tl.constexpr,
):  # fmt: skip
    """The outputs, and what they were before the gate into ``raw``, and the states behind each segment into ``ends``.

    ``raw``, ``ends``, D (H, P), z and ``starts`` may be None.
    """
    blocks = tl.cdiv(P, P_)
    program = tl.program_id(0).to(tl.int64)
    segment, head = program % segments, program // segments
    block, head = head % blocks, head // blocks
    b, h = head // H, head % H
    p, n = block * P_ + tl.arange(0, P_), tl.arange(0, N_)
    cell = p[:, None] * N + n[None, :]
    inside = (p[:, None] < P) & (n[None, :] < N)
    kind: tl.constexpr = x.dtype.element_ty
    place = ((segment * batch + b) * H + h) * P * N
    if starts is None:
        state = tl.zeros((P_, N_), step.dtype.element_ty)
    else:
        state = _states(starts, place, p, n, P, N, N).to(step.dtype.element_ty)
    chunks = tl.cdiv(L, Q)
    group = h // (H // G) * N
    for c in range(segment * span, tl.minimum(segment * span + span, chunks)):
        begin = c * Q
        t = begin + tl.arange(0, Q)
        high, low, highest, lowest = _sums(exponent, seq_idx, head * L, b * L, begin, L, Q)
        size = tl.load(step + head * L + t, mask=t < L, other=0)
        came = _tile(x, b * x_record + h * P, x_row, begin, p, L, P, Q)
        of_B = _tile(B, b * B_record + group, B_row, begin, n, L, N, Q)
        of_C = _tile(C, b * C_record + group, C_row, begin, n, L, N, Q)
        scores = matmul(of_C, tl.trans(of_B), kind) * _decays(high, low, Q) * size[None, :]
        out = matmul(of_C, tl.trans(state), kind) * tl.exp(high)[:, None]
        out += matmul(scores, came, kind)
        weight = size * tl.exp((highest - high) + (lowest - low))
        state += expm1(highest) * state
        state += matmul(tl.trans(wide(came) * weight[:, None]), of_B, kind)
        if D is not None:
            out += wide(came) * tl.load(D + h * P + p, mask=p < P, other=0).to(out.dtype)[None, :]
        to, where = ((b * L + begin) * H + h) * P, tl.arange(0, Q)[:, None] * (H * P) + p[None, :]
        written = (t[:, None] < L) & (p[None, :] < P)
        if raw is not None:
            tl.store(raw + to + where, out, mask=written)
        if z is not None:
            gate = wide(_tile(z, b * z_record + h * P, z_row, begin, p, L, P, Q))
            out *= gate * sigmoid(gate)
        tl.store(y + to + where, out, mask=written)
    if ends is not None:
        tl.store(ends + place + cell, state, mask=inside)


@triton.jit
def gradients(
    of_x, of_B, of_C, of_D, of_step, of_exponent, x, B, C, D, dy, step, exponent, seq_idx, states, slopes,
    batch, L, H, P, G, N, shares, share, first, count, of_chunks,
    x_record, x_row, B_record, B_row, C_record, C_row, dy_record, dy_row,
    Q: tl.constexpr, P_: tl.constexpr, S_: tl.constexpr,
):  # fmt: skip
    """The gradients of ``count`` chunks from ``first`` on; ``states`` and ``slopes`` have ``of_chunks`` of them.

    A program takes one chunk, and ``share`` of the blocks of channels of a group's heads one after the other, with the
    group's product C Bᵀ, and S_ of the N states at a time. Sums over programs are left to do: of_B, of_C (shares,
    batch, L, G, N), of_D (chunks, batch, H, P), of_step and of_exponent (blocks, batch, H, L).
    """
    blocks = tl.cdiv(P, P_)
    program = tl.program_id(0).to(tl.int64)
    c, program = program % count, program // count
    part, program = program % shares, program // shares
    g, b = program % G, program // G
    per = H // G * blocks
    kind: tl.constexpr = x.dtype.element_ty
    begin = (first + c) * Q
    t, n = begin + tl.arange(0, Q), tl.arange(0, S_)
    i, j = tl.arange(0, Q)[:, None], tl.arange(0, Q)[None, :]
    own_B, own_C = b * B_record + g * N, b * C_record + g * N
    scores = tl.zeros((Q, Q), step.dtype.element_ty)
    for s in range(0, N, S_):
        rows = _tile(C, own_C + s, C_row, begin, n, L, N - s, Q)
        scores += matmul(rows, tl.trans(_tile(B, own_B + s, B_row, begin, n, L, N - s, Q)), kind)
    of_scores = tl.zeros_like(scores)
    for u in range(part * share, tl.minimum(part * share + share, per)):
        h, block = g * (H // G) + u // blocks, u % blocks
        head, p = b * H + h, block * P_ + tl.arange(0, P_)
        high, low, highest, lowest = _sums(exponent, seq_idx, head * L, b * L, begin, L, Q)
        size = tl.load(step + head * L + t, mask=t < L, other=0)
        slope = _tile(dy, b * dy_record + h * P, dy_row, begin, p, L, P, Q)
        # What came from the state before, and what went to the one behind.
        read = tl.zeros((Q, P_), scores.dtype)
        of_came = tl.zeros((Q, P_), scores.dtype)
        passing = tl.zeros((S_,), scores.dtype)
        for s in range(0, N, S_):
            state = _states(states, (head * of_chunks + c) * P * N + s, p, n, P, N - s, N)
            behind = _states(slopes, (head * of_chunks + c) * P * N + s, p, n, P, N - s, N)
            passing += tl.sum(wide(state) * wide(behind), 0)
            read += matmul(_tile(C, own_C + s, C_row, begin, n, L, N - s, Q), tl.trans(state), kind)
            of_came += matmul(_tile(B, own_B + s, B_row, begin, n, L, N - s, Q), tl.trans(behind), kind)
        read = tl.sum(read * wide(slope), 1) * tl.exp(high)
        came = _tile(x, b * x_record + h * P, x_row, begin, p, L, P, Q)
        of_came *= tl.exp((highest - high) + (lowest - low))[:, None]
        of_size = tl.sum(of_came * wide(came), 1)
        taken = of_size * size
        # A step's exponent is in all that passes it: read at or behind it, written before it.
        of_rate = tl.cumsum(read, 0, reverse=True) + (tl.cumsum(taken, 0) - taken)
        of_rate += tl.sum(passing, 0) * tl.exp(highest)
        # Within the chunk.
        weighted = _decays(high, low, Q)
        of_came += matmul(tl.trans(scores * weighted), slope, kind)
        weighted *= matmul(slope, tl.trans(came), kind)
        of_scores += weighted * size[None, :]
        weighted *= scores
        of_size += tl.sum(weighted, 0)
        weighted *= size[None, :]
        of_rate += tl.sum(tl.where(i >= j, tl.cumsum(weighted, 1) - weighted, 0), 0)
        own = (block * batch * H + head) * L + t
        tl.store(of_step + own, of_size, mask=t < L)
        tl.store(of_exponent + own, of_rate, mask=t < L)
        of_came *= size[:, None]
        if D is not None:
            of_came += wide(slope) * tl.load(D + h * P + p, mask=p < P, other=0).to(scores.dtype)[None, :]
            of_skip = tl.sum(wide(slope) * wide(came), 0)
            tl.store(of_D + (((first + c) * batch + b) * H + h) * P + p, of_skip, mask=p < P)
        to = ((b * L + begin) * H + h) * P
        tl.store(of_x + to + i * (H * P) + p[None, :], of_came, mask=(t[:, None] < L) & (p[None, :] < P))
    # Slice by slice of the states: sums of their whole width would not find room in the registers.
    for s in range(0, N, S_):
        sum_C = matmul(of_scores, _tile(B, own_B + s, B_row, begin, n, L, N - s, Q), kind)
        sum_B = matmul(tl.trans(of_scores), _tile(C, own_C + s, C_row, begin, n, L, N - s, Q), kind)
        for u in range(part * share, tl.minimum(part * share + share, per)):
            h, block = g * (H // G) + u // blocks, u % blocks
            head, p = b * H + h, block * P_ + tl.arange(0, P_)
            high, low, highest, lowest = _sums(exponent, seq_idx, head * L, b * L, begin, L, Q)
            size = tl.load(step + head * L + t, mask=t < L, other=0)
            size *= tl.exp((highest - high) + (lowest - low))
            slope = wide(_tile(dy, b * dy_record + h * P, dy_row, begin, p, L, P, Q)) * tl.exp(high)[:, None]
            at = (head * of_chunks + c) * P * N + s
            sum_C += matmul(slope, _states(states, at, p, n, P, N - s, N), kind)
            came = wide(_tile(x, b * x_record + h * P, x_row, begin, p, L, P, Q)) * size[:, None]
            sum_B += matmul(came, _states(slopes, at, p, n, P, N - s, N), kind)
        to, place = (((part * batch + b) * L + begin) * G + g) * N + s, i * (G * N) + n[None, :]
        written = (t[:, None] < L) & (n[None, :] < N - s)
        tl.store(of_B + to + place, sum_B, mask=written)
        tl.store(of_C + to + place, sum_C, mask=written)


@triton.jit
def ungate(of_raw, of_z, raw, z, grad, P, H, L, z_record, z_row, total, CELLS: tl.constexpr):
    """The gradients in front of the gate: in ``raw``, and in z."""
    at = tl.program_id(0).to(tl.int64) * CELLS + tl.arange(0, CELLS)
    inside = at < total
    t = at // (H * P)
    gate = wide(tl.load(z + t // L * z_record + t % L * z_row + at % (H * P), mask=inside, other=0))
    slope = wide(tl.load(grad + at, mask=inside, other=0))
    open_ = sigmoid(gate)
    tl.store(of_raw + at, slope * gate * open_, mask=inside)
    slope *= wide(tl.load(raw + at, mask=inside, other=0))
    tl.store(of_z + at, slope * open_ * (1 + gate * (1 - open_)), mask=inside)
