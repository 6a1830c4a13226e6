"""Kernels of the selective scan back: stretches in parallel, tiles backwards, recomputed from their first states."""

# Triton compiles these functions; its tuples grow, which Python's types do not foresee.
# mypy: disable-error-code="assignment, var-annotated"

import triton
import triton.language as tl

from statespace.kernels.launching import sigmoid
from statespace.kernels.selective_scan.triton_tiles import (
    add,
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
    turned,
    zeros,
)
from statespace.kernels.tuning import tuned


def _added_to(launch):
    """Sums over time."""
    return "flow", "of_A", *(f"of_{name}" for name in "BC" if launch[f"OWN_{name}"])


@triton.jit(do_not_specialize=["unit"])
def ends(
    found, totals, grad, delta, z, gaps, C, rate, bias, L, groups, per_group, stretch, unit, grad_record, grad_channel,
    grad_time, delta_record, delta_channel, delta_time, z_record, z_channel, z_time, N: tl.constexpr,
    PADDED: tl.constexpr, SOFT: tl.constexpr, COMPLEX: tl.constexpr, EXACT: tl.constexpr, OWN_C: tl.constexpr,
    STATES: tl.constexpr, CHANNELS: tl.constexpr, STEPS: tl.constexpr, LEVELS: tl.constexpr,
):  # fmt: skip
    """What a stretch's outputs alone make the gradient in the state before it, and the sum of its steps.

    ``found`` (records, stretches, parts, N, channels) holds zeros at first.
    """
    record, group, d, ours = place(groups, per_group, CHANNELS)
    own, channels = tl.program_id(1), groups * per_group
    parts: tl.constexpr = 2 if COMPLEX else 1
    size, corner = channels.to(tl.int64) * N, tl.arange(0, STATES)[:, None] * channels + (d * unit)[None, :]
    first, last = own * stretch, tl.minimum(L, (own + 1) * stretch)
    sums = tl.zeros((CHANNELS,), rate.dtype.element_ty)
    grad += beginning(record, d, grad_record, grad_channel)
    delta += beginning(record, d, delta_record, delta_channel)
    if z is not None:
        z += beginning(record, d, z_record, z_channel)
    if gaps is not None:
        gaps += record * L
    if bias is not None:
        bias = tl.load(bias + d, mask=ours, other=0)[:, None]
    found += (record * tl.num_programs(1) + own) * parts * size
    lines = (record * groups + group) * (tl.cdiv(L, STEPS) * STEPS)
    for j in range(0, tl.cdiv(last - first, STEPS)):
        start = first + (tl.cdiv(last - first, STEPS) - 1 - j) * STEPS
        t = start + tl.arange(0, STEPS)
        inside = ours[:, None] & (t < L)[None, :]
        h, _, _, _ = steps(tile(delta, t, delta_time, inside), inside, bias, gaps, t, L, SOFT)
        g = tile(grad, t, grad_time, inside).to(h.dtype)
        if z is not None:
            gate = tile(z, t, z_time, inside)
            g *= gate * sigmoid(gate)
        if COMPLEX:
            g *= 2
        hs, gs = rows(h, CHANNELS, STEPS, LEVELS), rows(g, CHANNELS, STEPS, LEVELS)
        for low in range(0, N, STATES):
            n, there = low + tl.arange(0, STATES), low * channels.to(tl.int64)
            mask = (n < N)[:, None] & ours[None, :]
            c = (h, h)
            if OWN_C:
                c = pair(C + there, corner, size, mask, COMPLEX)
            r0, r1 = pair(rate + there, corner, size, mask, COMPLEX)
            r2 = tl.load(rate + 2 * size + there + corner, mask=mask, other=0) if COMPLEX else r0
            x_re, x_im = pair(found + there, corner, size, mask, COMPLEX)
            at = (lines + start) * (parts * PADDED)
            for k in tl.static_range(STEPS - 1, -1, -1):
                c_re, c_im = coefficient(C + at, c, k * parts * PADDED + n, PADDED, COMPLEX, OWN_C)
                e, f, a, b = decay(hs[k][None, :], r0, r1, r2, COMPLEX, EXACT)
                # conj(exp(hA)) (x + conj(C) g)
                x_re, x_im = x_re + c_re * gs[k][None, :], x_im - c_im * gs[k][None, :]
                x_re, x_im = advanced(x_re, x_im, e, -f, a, -b, 0.0, 0.0, COMPLEX, EXACT)
            put(found + there, corner, size, mask, x_re, x_im, COMPLEX)
        sums += tl.sum(h, 1)
        tl.debug_barrier()
    tl.store(totals + (record * tl.num_programs(1) + own) * channels + d, sums, mask=ours)


# Of more than two, what is kept of a tile's steps does not fit into registers.
@tuned(["stretch", "u_time"], {"STATES": 1}, changed=_added_to)
@triton.jit(do_not_specialize=["unit"])
def reverse(
    of_u, of_delta, of_z, of_gaps, of_B, of_C, of_A, of_D, of_bias, flow, grad, states, u, delta, z, gaps, B, C, A,
    rate, D, bias, L, groups, per_group, stretch, slots, unit, grad_record, grad_channel, grad_time, u_record,
    u_channel, u_time, delta_record, delta_channel, delta_time, z_record, z_channel, z_time, of_u_record, of_u_channel,
    of_u_time, of_delta_record, of_delta_channel, of_delta_time, of_z_record, of_z_channel, of_z_time, N: tl.constexpr,
    PADDED: tl.constexpr, SOFT: tl.constexpr, COMPLEX: tl.constexpr, EXACT: tl.constexpr, OWN_B: tl.constexpr,
    OWN_C: tl.constexpr, STATES: tl.constexpr, CHANNELS: tl.constexpr, STEPS: tl.constexpr, LEVELS: tl.constexpr,
):  # fmt: skip
    """All gradients of a stretch.

    ``flow`` (records, stretches, parts, N, channels) holds the gradient in the state after each stretch and takes that
    before it; ``states`` those before each tile. Sums over time, of_A and of constant B and C like ``flow``, begin
    with zeros, of_D and of_bias have no states; of_B, of_C (programs of a group, and as B and C) and of_gaps (programs
    of a record, records, length) are each program's sums over its channels.
    """
    record, group, d, ours = place(groups, per_group, CHANNELS)
    own, channels = tl.program_id(1), groups * per_group
    programs = tl.cdiv(per_group, CHANNELS)
    records, block = tl.num_programs(0) // (groups * programs), tl.program_id(0) % (groups * programs)
    parts: tl.constexpr = 2 if COMPLEX else 1
    size, corner = channels.to(tl.int64) * N, tl.arange(0, STATES)[:, None] * channels + (d * unit)[None, :]
    first, last = own * stretch, tl.minimum(L, (own + 1) * stretch)
    sums_D = tl.zeros((CHANNELS,), rate.dtype.element_ty)
    sums_bias = tl.zeros((CHANNELS,), rate.dtype.element_ty)
    slot = (record * tl.num_programs(1) + own) * parts * size
    grad += beginning(record, d, grad_record, grad_channel)
    u += beginning(record, d, u_record, u_channel)
    delta += beginning(record, d, delta_record, delta_channel)
    of_u += beginning(record, d, of_u_record, of_u_channel)
    of_delta += beginning(record, d, of_delta_record, of_delta_channel)
    if z is not None:
        z += beginning(record, d, z_record, z_channel)
        of_z += beginning(record, d, of_z_record, of_z_channel)
    if gaps is not None:
        gaps += record * L
        of_gaps += (block.to(tl.int64) * records + record) * L
    if bias is not None:
        bias = tl.load(bias + d, mask=ours, other=0)[:, None]
    if D is not None:
        D = tl.load(D + d, mask=ours, other=0)[:, None]
    lines = (record * groups + group) * (tl.cdiv(L, STEPS) * STEPS)
    sheet = (block % programs).to(tl.int64) * records * groups * (tl.cdiv(L, STEPS) * STEPS)
    for j in range(0, tl.cdiv(last - first, STEPS)):
        start = first + (tl.cdiv(last - first, STEPS) - 1 - j) * STEPS
        t = start + tl.arange(0, STEPS)
        inside = ours[:, None] & (t < L)[None, :]
        h, rates, gap, slope = steps(tile(delta, t, delta_time, inside), inside, bias, gaps, t, L, SOFT)
        x = tile(u, t, u_time, inside).to(h.dtype)
        outer = tile(grad, t, grad_time, inside).to(h.dtype)
        g = outer
        if z is not None:
            gate = tile(z, t, z_time, inside)
            logistic = sigmoid(gate)
            g = outer * gate * logistic
        twice = 2 * g if COMPLEX else g
        hs, vs = rows(h, CHANNELS, STEPS, LEVELS), rows(h * x, CHANNELS, STEPS, LEVELS)
        gs = rows(twice, CHANNELS, STEPS, LEVELS)
        # Those back in time from the last step on.
        of_hs, of_vs, ys = zeros(h, CHANNELS, STEPS), zeros(h, CHANNELS, STEPS), zeros(h, CHANNELS, STEPS)
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
            A_re, A_im = pair(A + there, corner, size, mask, COMPLEX)
            begin = states + (record * slots + start // STEPS) * parts * size + there
            x_re, x_im = pair(begin, corner, size, mask, COMPLEX)
            at = (lines + start) * (parts * PADDED)
            kept, decayed, read = (), (), ()
            for k in tl.static_range(STEPS):
                e, f, a, i = decay(hs[k][None, :], r0, r1, r2, COMPLEX, EXACT)
                b_re, b_im = coefficient(B + at, b, k * parts * PADDED + n, PADDED, COMPLEX, OWN_B)
                v = vs[k][None, :]
                kept += ((e, f, a, i),)
                # exp(hA) x by itself: nothing precise of it is left in a state that dies within a step.
                decayed += ((a * x_re - i * x_im, a * x_im + i * x_re) if COMPLEX else (a * x_re, a),)
                x_re, x_im = advanced(x_re, x_im, e, f, a, i, b_re * v, b_im * v, COMPLEX, EXACT)
                if z is not None:
                    c_re, c_im = coefficient(C + at, c, k * parts * PADDED + n, PADDED, COMPLEX, OWN_C)
                    read += (ys[k] + tl.sum(2 * (c_re * x_re - c_im * x_im) if COMPLEX else c_re * x_re, 0),)
            if z is not None:
                ys = read
            g_re, g_im = pair(flow + slot + there, corner, size, mask, COMPLEX)
            s_re, s_im = tl.zeros_like(g_re), tl.zeros_like(g_re)
            own_b, own_c = (tl.zeros_like(g_re), tl.zeros_like(g_re)), (tl.zeros_like(g_re), tl.zeros_like(g_re))
            more_h, more_v = (), ()
            for k in tl.static_range(STEPS - 1, -1, -1):
                e, f, a, turn = kept[k]
                p_re, p_im = decayed[k]
                h_k, v, dy = hs[k][None, :], vs[k][None, :], gs[k][None, :]
                b_re, b_im = coefficient(B + at, b, k * parts * PADDED + n, PADDED, COMPLEX, OWN_B)
                c_re, c_im = coefficient(C + at, c, k * parts * PADDED + n, PADDED, COMPLEX, OWN_C)
                after_re, after_im = p_re + b_re * v, p_im + b_im * v
                if COMPLEX:
                    g_re, g_im = g_re + c_re * dy, g_im - c_im * dy
                    of_c, of_b = (after_re * dy, -after_im * dy), (g_re * v, g_im * v)
                    of_v = b_re * g_re + b_im * g_im
                    q_re, q_im = g_re * p_re + g_im * p_im, g_im * p_re - g_re * p_im
                    of_h = A_re * q_re + A_im * q_im
                    s_re, s_im = s_re + h_k * q_re, s_im + h_k * q_im
                else:
                    g_re += c_re * dy
                    of_c, of_b = (after_re * dy, after_re), (g_re * v, g_re)
                    of_v = b_re * g_re
                    q_re = g_re * p_re
                    of_h = A_re * q_re
                    s_re += h_k * q_re
                g_re, g_im = advanced(g_re, g_im, e, -f, a, -turn, 0.0, 0.0, COMPLEX, EXACT)
                more_h += (of_hs[STEPS - 1 - k] + tl.sum(of_h, 0),)
                more_v += (of_vs[STEPS - 1 - k] + tl.sum(of_v, 0),)
                line = (sheet + lines + start) * (parts * PADDED) + k * parts * PADDED + n
                if OWN_B:
                    own_b = own_b[0] + of_b[0], own_b[1] + of_b[1]
                else:
                    put(of_B, line, PADDED, n < PADDED, tl.sum(of_b[0], 1), tl.sum(of_b[1], 1), COMPLEX)
                if OWN_C:
                    own_c = own_c[0] + of_c[0], own_c[1] + of_c[1]
                else:
                    put(of_C, line, PADDED, n < PADDED, tl.sum(of_c[0], 1), tl.sum(of_c[1], 1), COMPLEX)
            of_hs, of_vs = more_h, more_v
            put(flow + slot + there, corner, size, mask, g_re, g_im, COMPLEX)
            add(of_A + slot + there, corner, size, mask, s_re, s_im, COMPLEX)
            if OWN_B:
                add(of_B + slot + there, corner, size, mask, own_b[0], own_b[1], COMPLEX)
            if OWN_C:
                add(of_C + slot + there, corner, size, mask, own_c[0], own_c[1], COMPLEX)
        of_v = joined(turned(of_vs, STEPS), CHANNELS, STEPS, LEVELS)
        of_h = joined(turned(of_hs, STEPS), CHANNELS, STEPS, LEVELS) + of_v * x
        of_x, y = of_v * h, joined(ys, CHANNELS, STEPS, LEVELS)
        time = t.to(tl.int64)[None, :]
        if D is not None:
            of_x += D * g
            y += D * x
            sums_D += tl.sum(g * x, 1)
        if z is not None:
            of_gate = outer * y * logistic * (1 + gate * (1 - logistic))
            tl.store(of_z + time * of_z_time, of_gate, mask=inside)
        if gaps is not None:
            tl.store(of_gaps + t, tl.sum(of_h * rates, 0), mask=t < L)
        of_raw = tl.where(inside, of_h * gap * slope, 0)
        if bias is not None:
            sums_bias += tl.sum(of_raw, 1)
        tl.store(of_u + time * of_u_time, of_x, mask=inside)
        tl.store(of_delta + time * of_delta_time, of_raw, mask=inside)
        # What the next tile reads again may have been written by other lanes.
        tl.debug_barrier()
    line = (record * tl.num_programs(1) + own) * channels + d
    if D is not None:
        tl.store(of_D + line, sums_D, mask=ours)
    if bias is not None:
        tl.store(of_bias + line, sums_bias, mask=ours)
