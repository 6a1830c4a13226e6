"""The gradients of the dual form as Triton kernels, chunk by chunk: of x; of C Bᵀ; of B and C; in front of the gate.

Arrays as in :mod:`statespace.kernels.ssd.triton_chunks`. The gradient of an exponent is what passes its step: read at
or behind it, and written before it. It is summed as it stands, never as a difference of sums, which would keep nothing
of what decays fast. Kernels store their parts of it in slots (slots, batch, H, L), which are summed afterwards: the
first has what stays within a chunk, two more for each slice of the states have what comes into it and what leaves it.
"""

import triton
import triton.language as tl

from statespace.kernels.launching import matmul, sigmoid, wide
from statespace.kernels.ssd.triton_chunks import decays_of, products, square_of, states_of, sums_of, tile_of


@products
@triton.jit
def of_inputs(
    of_x, of_D, of_step, x, B, D, dy, step, high, low, slopes, scores,
    batch, L, H, P, G, N, first, count, kept, chunks, x_record, x_row, B_record, B_row, dy_record, dy_row,
    Q: tl.constexpr, P_: tl.constexpr, N_: tl.constexpr,
):  # fmt: skip
    """Gradients of x; of D, a sum for each chunk (chunks, batch, H, P); of steps, one for each block of channels."""
    blocks = tl.cdiv(P, P_)
    program = tl.program_id(0)
    block, program = program % blocks, program // blocks
    h, program = program % H, program // H
    c, b = program % count, (program // count).to(tl.int64)
    head, group, begin = b * H + h, h // (H // G), (first + c) * Q
    p, n, t = block * P_ + tl.arange(0, P_), tl.arange(0, N_), begin + tl.arange(0, Q)
    kind: tl.constexpr = x.dtype.element_ty
    found = tl.zeros((Q, P_), step.dtype.element_ty)
    for s in range(0, N, N_):
        of_B = tile_of(B, b * B_record + group * N + s, B_row, begin, n, L, N - s, Q)
        found += matmul(of_B, tl.trans(states_of(slopes, (head * kept + c) * P * N + s, p, n, P, N - s, N)), kind)
    up_to, rest, highest, lowest = sums_of(high, low, head * L, begin, L, Q)
    found *= tl.exp((highest - up_to) + (lowest - rest))[:, None]
    weights = square_of(scores, (b * G + group) * chunks + first + c, Q) * decays_of(up_to, rest, Q)
    slope = tile_of(dy, b * dy_record + h * P, dy_row, begin, p, L, P, Q)
    found += matmul(tl.trans(weights), slope, kind)
    came = tile_of(x, b * x_record + h * P, x_row, begin, p, L, P, Q)
    tl.store(of_step + (block * batch * H + head) * L + t, tl.sum(found * wide(came), 1), mask=t < L)
    found *= tl.load(step + head * L + t, mask=t < L, other=0)[:, None]
    if D is not None:
        found += wide(slope) * tl.load(D + h * P + p, mask=p < P, other=0).to(found.dtype)[None, :]
        of_skip = tl.sum(wide(slope) * wide(came), 0)
        tl.store(of_D + (((first + c) * batch + b) * H + h) * P + p, of_skip, mask=p < P)
    to, where = ((b * L + begin) * H + h) * P, tl.arange(0, Q)[:, None] * (H * P) + p[None, :]
    tl.store(of_x + to + where, found, mask=(t[:, None] < L) & (p[None, :] < P))


@products
@triton.jit
def of_products(
    of_scores, of_exponent, x, dy, step, high, low, scores,
    batch, L, H, P, G, share, shares, chunks, x_record, x_row, dy_record, dy_row,
    Q: tl.constexpr, P_: tl.constexpr,
):  # fmt: skip
    """Gradients of C Bᵀ (shares, batch, G, chunks, Q, Q), each summed over ``share`` of the heads of a group.

    Into the first slot of exponents goes what passes within the chunk.
    """
    program = tl.program_id(0)
    part, program = program % shares, program // shares
    g, program = program % G, program // G
    c, b = program % chunks, (program // chunks).to(tl.int64)
    kind: tl.constexpr = x.dtype.element_ty
    begin = c * Q
    t, square = begin + tl.arange(0, Q), (b * G + g) * chunks + c
    i, j = tl.arange(0, Q)[:, None], tl.arange(0, Q)[None, :]
    found = tl.zeros((Q, Q), step.dtype.element_ty)
    for h in range(g * (H // G) + part * share, g * (H // G) + tl.minimum(part * share + share, H // G)):
        head = b * H + h
        weighted = tl.zeros((Q, Q), found.dtype)
        for p in range(0, P, P_):
            slope = tile_of(dy, b * dy_record + h * P + p, dy_row, begin, tl.arange(0, P_), L, P - p, Q)
            came = tile_of(x, b * x_record + h * P + p, x_row, begin, tl.arange(0, P_), L, P - p, Q)
            weighted += matmul(slope, tl.trans(came), kind)
        up_to, rest, _, _ = sums_of(high, low, head * L, begin, L, Q)
        weighted *= decays_of(up_to, rest, Q)
        weighted *= tl.load(step + head * L + t, mask=t < L, other=0)[None, :]
        found += weighted
        weighted *= square_of(scores, square, Q)
        passing = tl.sum(tl.where(i >= j, tl.cumsum(weighted, 1) - weighted, 0), 0)
        tl.store(of_exponent + head * L + t, passing, mask=t < L)
    tl.store(of_scores + (part * batch * G * chunks + square) * Q * Q + i * Q + j, found)


@products
@triton.jit
def of_rows(
    of_row, of_exponent, x, rows, others, step, high, low, states, slopes, of_scores,
    batch, L, H, P, G, N, share, shares, first, count, kept, chunks,
    x_record, x_row, rows_record, rows_row, others_record, others_row,
    Q: tl.constexpr, P_: tl.constexpr, N_: tl.constexpr, BACKWARDS: tl.constexpr,
):  # fmt: skip
    """Gradients of N_ columns of C (shares, batch, L, G, N), each summed over ``share`` of the heads of a group.

    ``x`` has the gradients in y, ``rows`` C and ``others`` B. Backwards, gradients of B, by the other side of each
    product: ``x`` has x, ``rows`` B, ``others`` C, ``states`` the gradients in the states, and ``slopes`` is None. Into
    a slot of exponents goes what comes into the chunk and is read or passes through; backwards, what leaves it.
    """
    across = tl.cdiv(N, N_)
    program = tl.program_id(0)
    slice_, program = program % across, program // across
    part, program = program % shares, program // shares
    g, program = program % G, program // G
    c, b = program % count, (program // count).to(tl.int64)
    kind: tl.constexpr = x.dtype.element_ty
    begin = (first + c) * Q
    t, n, left = begin + tl.arange(0, Q), tl.arange(0, N_), N - slice_ * N_
    own_rows = b * rows_record + g * N + slice_ * N_
    found = tl.zeros((Q, N_), step.dtype.element_ty)
    for h in range(g * (H // G) + part * share, g * (H // G) + tl.minimum(part * share + share, H // G)):
        head = b * H + h
        up_to, rest, highest, lowest = sums_of(high, low, head * L, begin, L, Q)
        if BACKWARDS:
            weight = tl.load(step + head * L + t, mask=t < L, other=0)
            weight *= tl.exp((highest - up_to) + (lowest - rest))
        else:
            weight = tl.exp(up_to)
        of_head = tl.zeros((Q, N_), found.dtype)
        through = tl.zeros((N_,), found.dtype)
        for block in range(0, P, P_):
            p = block + tl.arange(0, P_)
            at = (head * kept + c) * P * N + slice_ * N_
            state = states_of(states, at, p, n, P, left, N)
            if slopes is not None:
                through += tl.sum(wide(state) * wide(states_of(slopes, at, p, n, P, left, N)), 0)
            came = wide(tile_of(x, b * x_record + h * P, x_row, begin, p, L, P, Q)) * weight[:, None]
            of_head += matmul(came, state, kind)
        found += of_head
        passing = tl.sum(of_head * wide(tile_of(rows, own_rows, rows_row, begin, n, L, left, Q)), 1)
        if BACKWARDS:
            passing = tl.cumsum(passing, 0) - passing
        else:
            passing = tl.cumsum(passing, 0, reverse=True) + tl.sum(through, 0) * tl.exp(highest)
        slot = 1 + across + slice_ if BACKWARDS else 1 + slice_
        tl.store(of_exponent + (slot * batch * H + head) * L + t, passing, mask=t < L)
    within = square_of(of_scores, ((part * batch + b) * G + g) * chunks + first + c, Q)
    other = tile_of(others, b * others_record + g * N + slice_ * N_, others_row, begin, n, L, left, Q)
    found += matmul(tl.trans(within) if BACKWARDS else within, other, kind)
    to = (((part * batch + b) * L + begin) * G + g) * N + slice_ * N_
    where = tl.arange(0, Q)[:, None] * (G * N) + n[None, :]
    tl.store(of_row + to + where, found, mask=(t[:, None] < L) & (n[None, :] < left))


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
