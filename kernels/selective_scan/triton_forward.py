"""Kernels of the selective scan forth: stretches of a record in parallel, the states between them, tiles in turn."""

# Triton compiles these functions; its tuples grow, which Python's types do not foresee.
# mypy: disable-error-code="assignment, var-annotated"

import triton
import triton.language as tl

from statespace.kernels.launching import sigmoid
from statespace.kernels.selective_scan.triton_tiles import (
    advanced,
    beginning,
    coefficient,
    decay,
    joined,
    pair,
    place,
    put,
    rows,
    steps,
    tile,
    zeros,
)
from statespace.kernels.tuning import tuned


def _states(count):
    """The variant in which a thread takes so many states at once, if the padded lines of B and C have whole such."""
    return lambda options: {"STATES": count} if options["N"] >= count and options["PADDED"] % count == 0 else {}


def _passed_on(launch):
    """Without a state kept for each tile, one place goes from tile to tile."""
    return () if launch["KEEP"] else ("states",)


# More states at once are more independent work for a thread, and fewer threads for a multiprocessor.
@tuned(["stretch", "u_time"], _states(8), _states(2), changed=_passed_on)
@triton.jit(do_not_specialize=["unit"])
def forward(
    y, final, states, totals, u, delta, z, gaps, B, C, rate, D, bias, L, groups, per_group, stretch, slots, unit,
    y_record, y_channel, y_time, u_record, u_channel, u_time, delta_record, delta_channel, delta_time, z_record,
    z_channel, z_time, N: tl.constexpr, PADDED: tl.constexpr, SOFT: tl.constexpr, COMPLEX: tl.constexpr,
    EXACT: tl.constexpr, OWN_B: tl.constexpr, OWN_C: tl.constexpr, READ: tl.constexpr, KEEP: tl.constexpr,
    STATES: tl.constexpr, CHANNELS: tl.constexpr, STEPS: tl.constexpr, LEVELS: tl.constexpr,
):  # fmt: skip
    """A stretch of a record: outputs and last state if READ, else the state that it leaves and the sum of its steps.

    ``states`` (records, slots, parts, N, channels) holds the state before each tile if KEEP, else that of each
    stretch, which goes from tile to tile. Lines of B and C (records, groups, length, parts, PADDED) go on with zeros
    to the ends of tiles. ``unit`` is 1, which keeps the compiler from giving a thread the states of four channels.
    """
    record, group, d, ours = place(groups, per_group, CHANNELS)
    own, channels = tl.program_id(1), groups * per_group
    parts: tl.constexpr = 2 if COMPLEX else 1
    size, corner = channels.to(tl.int64) * N, tl.arange(0, STATES)[:, None] * channels + (d * unit)[None, :]
    first, last = own * stretch, tl.minimum(L, (own + 1) * stretch)
    sums = tl.zeros((CHANNELS,), rate.dtype.element_ty)
    u += beginning(record, d, u_record, u_channel)
    delta += beginning(record, d, delta_record, delta_channel)
    if z is not None:
        z += beginning(record, d, z_record, z_channel)
    if READ:
        y += beginning(record, d, y_record, y_channel)
    if gaps is not None:
        gaps += record * L
    if bias is not None:
        bias = tl.load(bias + d, mask=ours, other=0)[:, None]
    if D is not None:
        D = tl.load(D + d, mask=ours, other=0)[:, None]
    lines = (record * groups + group) * (tl.cdiv(L, STEPS) * STEPS)
    for start in range(first, last, STEPS):
        t = start + tl.arange(0, STEPS)
        inside = ours[:, None] & (t < L)[None, :]
        h, _, _, _ = steps(tile(delta, t, delta_time, inside), inside, bias, gaps, t, L, SOFT)
        x = tile(u, t, u_time, inside).to(h.dtype)
        hs, vs = rows(h, CHANNELS, STEPS, LEVELS), rows(h * x, CHANNELS, STEPS, LEVELS)
        ys = zeros(h, CHANNELS, STEPS)
        slot = (record * slots + (start // STEPS if KEEP else own)) * parts
        later = slot + parts if KEEP else slot
        for low in range(0, N, STATES):
            n, there = low + tl.arange(0, STATES), low * channels.to(tl.int64)
            mask = (n < N)[:, None] & ours[None, :]
            b, c = (h, h), (h, h)
            if OWN_B:
                b = pair(B + there, corner, size, mask, COMPLEX)
            if OWN_C:
                c = pair(C + there, corner, size, mask, COMPLEX)
            r0, r1 = pair(rate + there, corner, size, mask, COMPLEX)
            r2 = tl.load(rate + 2 * size + there + corner, mask=mask, other=0) if COMPLEX else r0
            x_re, x_im = pair(states + slot * size + there, corner, size, mask, COMPLEX)
            at, read = (lines + start) * (parts * PADDED), ()
            for k in tl.static_range(STEPS):
                e, f, a, i = decay(hs[k][None, :], r0, r1, r2, COMPLEX, EXACT)
                b_re, b_im = coefficient(B + at, b, k * parts * PADDED + n, PADDED, COMPLEX, OWN_B)
                v = vs[k][None, :]
                x_re, x_im = advanced(x_re, x_im, e, f, a, i, b_re * v, b_im * v, COMPLEX, EXACT)
                if READ:
                    c_re, c_im = coefficient(C + at, c, k * parts * PADDED + n, PADDED, COMPLEX, OWN_C)
                    read += (ys[k] + tl.sum(2 * (c_re * x_re - c_im * x_im) if COMPLEX else c_re * x_re, 0),)
            if READ:
                ys = read
            if READ and start + STEPS >= L:
                put(final + record * parts * size + there, corner, size, mask, x_re, x_im, COMPLEX)
            elif not KEEP or start + STEPS < last:
                put(states + later * size + there, corner, size, mask, x_re, x_im, COMPLEX)
        if READ:
            out = joined(ys, CHANNELS, STEPS, LEVELS)
            if D is not None:
                out += D * x
            if z is not None:
                gate = tile(z, t, z_time, inside)
                out *= gate * sigmoid(gate)
            tl.store(y + t.to(tl.int64)[None, :] * y_time, out, mask=inside)
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
