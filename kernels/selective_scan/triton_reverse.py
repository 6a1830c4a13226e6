"""Kernels of the selective scan back: stretches in parallel, tiles backwards, recomputed from their first states."""

import triton
import triton.language as tl

from statespace.kernels.launching import sigmoid, wide
from statespace.kernels.selective_scan.triton_tiles import (
    add,
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
    turned,
    zeros,
)


@triton.jit
def ends(
    found, totals, grad, delta, z, gaps, C, rate, bias, L, N, groups, per_group, stretch, grad_record, grad_channel,
    grad_time, delta_record, delta_channel, delta_time, z_record, z_channel, z_time, SOFT: tl.constexpr,
    COMPLEX: tl.constexpr, EXACT: tl.constexpr, OWN_C: tl.constexpr, STATES: tl.constexpr, CHANNELS: tl.constexpr,
    STEPS: tl.constexpr, LEVELS: tl.constexpr,
):  # fmt: skip
    """What a stretch's outputs alone make the gradient in the state before it, and the sum of its steps.

    ``found`` (records, stretches, parts, N, channels) holds zeros at first.
    """
    record, group, d, ours = place(groups, per_group, CHANNELS)
    own, channels = tl.program_id(1), groups * per_group
    parts: tl.constexpr = 2 if COMPLEX else 1
    size, mine = N.to(tl.int64) * channels, ours[None, :]
    first, last = own * stretch, tl.minimum(L, (own + 1) * stretch)
    sums = tl.zeros((CHANNELS,), rate.dtype.element_ty)
    slot = (record * tl.num_programs(1) + own) * parts
    for j in range(0, tl.cdiv(last - first, STEPS)):
        start = first + (tl.cdiv(last - first, STEPS) - 1 - j) * STEPS
        t = start + tl.arange(0, STEPS)
        inside = ours[:, None] & (t < L)[None, :]
        at = offsets(record, d, t, delta_record, delta_channel, delta_time)
        h, _, _, _ = steps(delta, at, inside, bias, gaps, record, L, d, ours, t, SOFT)
        g = wide(tl.load(grad + offsets(record, d, t, grad_record, grad_channel, grad_time), mask=inside, other=0))
        g = g.to(h.dtype)
        if z is not None:
            gate = wide(tl.load(z + offsets(record, d, t, z_record, z_channel, z_time), mask=inside, other=0))
            g *= gate * sigmoid(gate)
        if COMPLEX:
            g *= 2
        hs, gs = rows(h, CHANNELS, STEPS, LEVELS), rows(g, CHANNELS, STEPS, LEVELS)
        for low in range(0, N, STATES):
            n = low + tl.arange(0, STATES)
            here, mask = n.to(tl.int64)[:, None] * channels + d[None, :], (n < N)[:, None] & mine
            c = (h, h)
            if OWN_C:
                c = pair(C, here, size, mask, COMPLEX)
            r0, r1 = pair(rate, here, size, mask, COMPLEX)
            r2 = tl.load(rate + here + 2 * size, mask=mask, other=0) if COMPLEX else r0
            x_re, x_im = pair(found, here + slot * size, size, mask, COMPLEX)
            for i in tl.static_range(STEPS):
                k: tl.constexpr = STEPS - 1 - i
                c_re, c_im = coefficient(C, c, record, group, groups, start + k, L, n, N, COMPLEX, OWN_C)
                e, f, a, b = decay(hs[k][None, :], r0, r1, r2, COMPLEX, EXACT)
                p, q = c_re * gs[k][None, :], c_im * gs[k][None, :]
                # conj(exp(hA)) (x + conj(C) g)
                x_re, x_im = x_re + p, x_im - q
                x_re, x_im = advanced(x_re, x_im, e, -f, a, -b, 0.0, 0.0, COMPLEX, EXACT)
            put(found, here + slot * size, size, mask, x_re, x_im, COMPLEX)
        sums += tl.sum(h, 1)
        tl.debug_barrier()
    tl.store(totals + (record * tl.num_programs(1) + own) * channels + d, sums, mask=ours)


@triton.jit
def reverse(
    of_u, of_delta, of_z, of_gaps, of_B, of_C, of_A, of_D, of_bias, flow, grad, states, u, delta, z, gaps, B, C, A,
    rate, D, bias, L, N, groups, per_group, stretch, slots, grad_record, grad_channel, grad_time, u_record, u_channel, u_time,
    delta_record, delta_channel, delta_time, z_record, z_channel, z_time, of_u_record, of_u_channel, of_u_time,
    of_delta_record, of_delta_channel, of_delta_time, of_z_record, of_z_channel, of_z_time, SOFT: tl.constexpr,
    COMPLEX: tl.constexpr, EXACT: tl.constexpr, OWN_B: tl.constexpr, OWN_C: tl.constexpr, STATES: tl.constexpr,
    CHANNELS: tl.constexpr, STEPS: tl.constexpr, LEVELS: tl.constexpr,
):  # fmt: skip
    """All gradients of a stretch.

    ``flow`` (records, stretches, parts, N, channels) holds the gradient in the state after each stretch and takes that
    before it; ``states`` those before each tile. Sums over time, of_A and of constant B and C like ``flow``, of_D and
    of_bias without states, begin with zeros; of_B, of_C (programs of a group, records, groups, length, parts, N) and
    of_gaps (programs of a record, records, length) are each program's sums over its channels.
    """
    record, group, d, ours = place(groups, per_group, CHANNELS)
    own, channels = tl.program_id(1), groups * per_group
    programs = tl.cdiv(per_group, CHANNELS)
    records, block = tl.num_programs(0) // (groups * programs), tl.program_id(0) % (groups * programs)
    parts: tl.constexpr = 2 if COMPLEX else 1
    size, mine = N.to(tl.int64) * channels, ours[None, :]
    first, last = own * stretch, tl.minimum(L, (own + 1) * stretch)
    sums_D = tl.zeros((CHANNELS,), rate.dtype.element_ty)
    sums_bias = tl.zeros((CHANNELS,), rate.dtype.element_ty)
    slot = (record * tl.num_programs(1) + own) * parts
    sheet = (((block % programs).to(tl.int64) * records + record) * groups + group) * L
    for j in range(0, tl.cdiv(last - first, STEPS)):
        start = first + (tl.cdiv(last - first, STEPS) - 1 - j) * STEPS
        t = start + tl.arange(0, STEPS)
        inside = ours[:, None] & (t < L)[None, :]
        at = offsets(record, d, t, delta_record, delta_channel, delta_time)
        h, rates, gap, slope = steps(delta, at, inside, bias, gaps, record, L, d, ours, t, SOFT)
        x = wide(tl.load(u + offsets(record, d, t, u_record, u_channel, u_time), mask=inside, other=0)).to(h.dtype)
        outer = wide(tl.load(grad + offsets(record, d, t, grad_record, grad_channel, grad_time), mask=inside, other=0))
        outer = outer.to(h.dtype)
        g = outer
        if z is not None:
            gate = wide(tl.load(z + offsets(record, d, t, z_record, z_channel, z_time), mask=inside, other=0))
            logistic = sigmoid(gate)
            g = outer * gate * logistic
        twice = 2 * g if COMPLEX else g
        hs, vs = rows(h, CHANNELS, STEPS, LEVELS), rows(h * x, CHANNELS, STEPS, LEVELS)
        gs = rows(twice, CHANNELS, STEPS, LEVELS)
        of_hs, of_vs, ys = zeros(h, CHANNELS, STEPS), zeros(h, CHANNELS, STEPS), zeros(h, CHANNELS, STEPS)
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
            A_re, A_im = pair(A, here, size, mask, COMPLEX)
            x_re, x_im = pair(states, here + (record * slots + start // STEPS) * parts * size, size, mask, COMPLEX)
            kept, decayed, read = (), (), ()
            for k in tl.static_range(STEPS):
                e, f, a, i = decay(hs[k][None, :], r0, r1, r2, COMPLEX, EXACT)
                b_re, b_im = coefficient(B, b, record, group, groups, start + k, L, n, N, COMPLEX, OWN_B)
                v = vs[k][None, :]
                kept += ((e, f, a, i),)
                # exp(hA) x by itself: nothing precise of it is left in a state that dies within a step.
                decayed += ((a * x_re - i * x_im, a * x_im + i * x_re) if COMPLEX else (a * x_re, a),)
                x_re, x_im = advanced(x_re, x_im, e, f, a, i, b_re * v, b_im * v, COMPLEX, EXACT)
                if z is not None:
                    c_re, c_im = coefficient(C, c, record, group, groups, start + k, L, n, N, COMPLEX, OWN_C)
                    read += (ys[k] + tl.sum(2 * (c_re * x_re - c_im * x_im) if COMPLEX else c_re * x_re, 0),)
            if z is not None:
                ys = read
            g_re, g_im = pair(flow, here + slot * size, size, mask, COMPLEX)
            s_re, s_im = tl.zeros_like(g_re), tl.zeros_like(g_re)
            own_b, own_c = (tl.zeros_like(g_re), tl.zeros_like(g_re)), (tl.zeros_like(g_re), tl.zeros_like(g_re))
            more_h, more_v = (), ()
            for i in tl.static_range(STEPS):
                k: tl.constexpr = STEPS - 1 - i
                e, f, a, turn = kept[k]
                p_re, p_im = decayed[k]
                h_k, v, dy = hs[k][None, :], vs[k][None, :], gs[k][None, :]
                b_re, b_im = coefficient(B, b, record, group, groups, start + k, L, n, N, COMPLEX, OWN_B)
                c_re, c_im = coefficient(C, c, record, group, groups, start + k, L, n, N, COMPLEX, OWN_C)
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
                more_h += (of_hs[i] + tl.sum(of_h, 0),)
                more_v += (of_vs[i] + tl.sum(of_v, 0),)
                line, there = (sheet + start + k) * parts * N + n, n < tl.where(start + k < L, N, 0)
                if OWN_B:
                    own_b = own_b[0] + of_b[0], own_b[1] + of_b[1]
                else:
                    put(of_B, line, N, there, tl.sum(of_b[0], 1), tl.sum(of_b[1], 1), COMPLEX)
                if OWN_C:
                    own_c = own_c[0] + of_c[0], own_c[1] + of_c[1]
                else:
                    put(of_C, line, N, there, tl.sum(of_c[0], 1), tl.sum(of_c[1], 1), COMPLEX)
            of_hs, of_vs = more_h, more_v
            put(flow, here + slot * size, size, mask, g_re, g_im, COMPLEX)
            add(of_A, here + slot * size, size, mask, s_re, s_im, COMPLEX)
            if OWN_B:
                add(of_B, here + slot * size, size, mask, own_b[0], own_b[1], COMPLEX)
            if OWN_C:
                add(of_C, here + slot * size, size, mask, own_c[0], own_c[1], COMPLEX)
        # They were gathered from the last step on.
        of_v = joined(turned(of_vs, STEPS), CHANNELS, STEPS, LEVELS)
        of_h = joined(turned(of_hs, STEPS), CHANNELS, STEPS, LEVELS)
        of_h += of_v * x
        of_x, y = of_v * h, joined(ys, CHANNELS, STEPS, LEVELS)
        if D is not None:
            direct = tl.load(D + d, mask=ours, other=0)[:, None]
            of_x += direct * g
            y += direct * x
            sums_D += tl.sum(g * x, 1)
        if z is not None:
            of_gate = outer * y * logistic * (1 + gate * (1 - logistic))
            tl.store(of_z + offsets(record, d, t, of_z_record, of_z_channel, of_z_time), of_gate, mask=inside)
        if gaps is not None:
            tl.store(of_gaps + (block.to(tl.int64) * records + record) * L + t, tl.sum(of_h * rates, 0), mask=t < L)
        of_raw = tl.where(inside, of_h * gap * slope, 0)
        if bias is not None:
            sums_bias += tl.sum(of_raw, 1)
        tl.store(of_u + offsets(record, d, t, of_u_record, of_u_channel, of_u_time), of_x, mask=inside)
        tl.store(
            of_delta + offsets(record, d, t, of_delta_record, of_delta_channel, of_delta_time), of_raw, mask=inside
        )
        # What the next tile reads again may have been written by other lanes.
        tl.debug_barrier()
    line = (record * tl.num_programs(1) + own) * channels + d
    if D is not None:
        tl.store(of_D + line, sums_D, mask=ours)
    if bias is not None:
        tl.store(of_bias + line, sums_bias, mask=ours)
