"""Kernels of the selective scan forth: stretches of a record in parallel, the states between them, tiles in turn."""

import triton
import triton.language as tl

from statespace.kernels.launching import sigmoid, wide
from statespace.kernels.selective_scan.triton_tiles import (
    advanced,
    coefficient,
    decay,
    joined,
    offsets,
    pair,
    place,
    put,
    rows,
    steps,
    zeros,
)


@triton.jit
def forward(
    y, final, states, totals, u, delta, z, gaps, B, C, rate, D, bias, L, N, groups, per_group, stretch, slots,
    y_record, y_channel, y_time, u_record, u_channel, u_time, delta_record, delta_channel, delta_time, z_record,
    z_channel, z_time, SOFT: tl.constexpr, COMPLEX: tl.constexpr, EXACT: tl.constexpr, OWN_B: tl.constexpr,
    OWN_C: tl.constexpr, READ: tl.constexpr, KEEP: tl.constexpr, STATES: tl.constexpr, CHANNELS: tl.constexpr,
    STEPS: tl.constexpr, LEVELS: tl.constexpr,
):  # fmt: skip
    """A stretch of a record: outputs and last state if READ, else the state that it leaves and the sum of its steps.

    ``states`` (records, slots, parts, N, channels) holds the state before each tile if KEEP, else that of each
    stretch, which goes from tile to tile.
    """
    record, group, d, ours = place(groups, per_group, CHANNELS)
    own, channels = tl.program_id(1), groups * per_group
    parts: tl.constexpr = 2 if COMPLEX else 1
    size, mine = N.to(tl.int64) * channels, ours[None, :]
    first, last = own * stretch, tl.minimum(L, (own + 1) * stretch)
    sums = tl.zeros((CHANNELS,), rate.dtype.element_ty)
    for start in range(first, last, STEPS):
        t = start + tl.arange(0, STEPS)
        inside = ours[:, None] & (t < L)[None, :]
        at = offsets(record, d, t, delta_record, delta_channel, delta_time)
        h, _, _, _ = steps(delta, at, inside, bias, gaps, record, L, d, ours, t, SOFT)
        x = wide(tl.load(u + offsets(record, d, t, u_record, u_channel, u_time), mask=inside, other=0)).to(h.dtype)
        hs, vs = rows(h, CHANNELS, STEPS, LEVELS), rows(h * x, CHANNELS, STEPS, LEVELS)
        ys = zeros(h, CHANNELS, STEPS)
        slot = (record * slots + (start // STEPS if KEEP else own)) * parts
        later = slot + parts if KEEP else slot
        for low in range(0, N, STATES):
            n = low + tl.arange(0, STATES)
            here, mask = n.to(tl.int64)[:, None] * channels + d[None, :], (n < N)[:, None] & mine
            b, c = (h, h), (h, h)
            if OWN_B:
                b = pair(B, here, size, mask, COMPLEX)
            if OWN_C:
                c = pair(C, here, size, mask, COMPLEX)
            r0, r1 = pair(rate, here, size, mask, COMPLEX)
            r2 = tl.load(rate + here + 2 * size, mask=mask, other=0) if COMPLEX else r0
            x_re, x_im = pair(states, here + slot * size, size, mask, COMPLEX)
            read = ()
            for k in tl.static_range(STEPS):
                e, f, a, i = decay(hs[k][None, :], r0, r1, r2, COMPLEX, EXACT)
                b_re, b_im = coefficient(B, b, record, group, groups, start + k, L, n, N, COMPLEX, OWN_B)
                v = vs[k][None, :]
                x_re, x_im = advanced(x_re, x_im, e, f, a, i, b_re * v, b_im * v, COMPLEX, EXACT)
                if READ:
                    c_re, c_im = coefficient(C, c, record, group, groups, start + k, L, n, N, COMPLEX, OWN_C)
                    read += (ys[k] + tl.sum(2 * (c_re * x_re - c_im * x_im) if COMPLEX else c_re * x_re, 0),)
            if READ:
                ys = read
            if READ and start + STEPS >= L:
                put(final, here + record * parts * size, size, mask, x_re, x_im, COMPLEX)
            elif not KEEP or start + STEPS < last:
                put(states, here + later * size, size, mask, x_re, x_im, COMPLEX)
        if READ:
            out = joined(ys, CHANNELS, STEPS, LEVELS)
            if D is not None:
                out += tl.load(D + d, mask=ours, other=0)[:, None] * x
            if z is not None:
                gate = wide(tl.load(z + offsets(record, d, t, z_record, z_channel, z_time), mask=inside, other=0))
                out *= gate * sigmoid(gate)
            tl.store(y + offsets(record, d, t, y_record, y_channel, y_time), out, mask=inside)
        else:
            sums += tl.sum(h, 1)
        # The next tile's states are read by other lanes than those that wrote them, if the compiler so chooses.
        tl.debug_barrier()
    if not READ:
        tl.store(totals + (record * tl.num_programs(1) + own) * channels + d, sums, mask=ours)


@triton.jit
def connect(
    states, ends, totals, rate, N, channels, stretches, slots, per_stretch, REVERSE: tl.constexpr,
    COMPLEX: tl.constexpr, EXACT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The states between stretches, one after the other, from those that they leave when they begin with nothing.

    ``states`` has the first one; REVERSE, the last one, and the decay's conjugate.
    """
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    record, size = tl.program_id(1).to(tl.int64), N.to(tl.int64) * channels
    parts: tl.constexpr = 2 if COMPLEX else 1
    mask = at < size
    r0, r1 = pair(rate, at, size, mask, COMPLEX)
    r2 = tl.load(rate + at + 2 * size, mask=mask, other=0) if COMPLEX else r0
    edge = (stretches - 1) * per_stretch if REVERSE else 0
    x, y = pair(states, at + (record * slots + edge) * parts * size, size, mask, COMPLEX)
    for j in range(1, stretches):
        before = stretches - j if REVERSE else j - 1
        total = tl.load(totals + (record * stretches + before) * channels + at % channels, mask=mask, other=0)
        e, f, a, b = decay(total, r0, r1, r2, COMPLEX, EXACT)
        p, q = pair(ends, at + (record * stretches + before) * parts * size, size, mask, COMPLEX)
        if REVERSE:
            x, y = advanced(x, y, e, -f, a, -b, p, q, COMPLEX, EXACT)
            to = before - 1
        else:
            x, y = advanced(x, y, e, f, a, b, p, q, COMPLEX, EXACT)
            to = j
        put(states, at + (record * slots + to * per_stretch) * parts * size, size, mask, x, y, COMPLEX)
