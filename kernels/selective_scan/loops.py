"""The selective scan compiled: sixteen channels in a vector, states in registers for a segment of steps.

A task is some vectors of channels of one group of one record. They take a segment in turn, so that the group's B and C
are read once for all, and the gradients in them, sums over channels, gather in vectors, summed up once a segment.
``sizes`` is (length, groups, tasks of a group, channels of a group, states). Of arrays with strides, flat views:

    u, delta, z, y      (record, channel, time)
    gaps                (record, time)
    B, C                (record, group, state, time, part)    parts: real and imaginary, where states are complex
    state               (record, channel, state, part)

Contiguous ones, V the vectors of a record and n the states filled up to a multiple of `UNROLLED`:

    rate                (channels, states, fields)    what `real` or `turning` make decays of
    own_b, own_c        (channels, states, parts)     a channel's own factors of B and C, where ``own`` is not None
    D, bias             (channels,)
    stored              (records, V, segments, parts, n, lanes)    the state at the beginning of each segment
    of_b, of_c          (tasks, length, parts, n)     a task's share of the gradients
    of_gaps             (tasks, length)
    of_rate, of_own_b, of_own_c     (records, channels, states, parts)
    of_D, of_bias       (records, channels)
"""

import numpy as np

from statespace.kernels.compiled import entry, helper
from statespace.kernels.lanes import load
from statespace.kernels.selective_scan import real, turning
from statespace.kernels.selective_scan.segments import (
    BUFFERS,
    ROWS,
    SEGMENT,
    UNROLLED,
    W,
    add_up,
    aligned,
    enter,
    enter_reverse,
    gather,
    gather_coefficients,
    gather_states,
    leave,
    leave_reverse,
    scatter,
    scatter_states,
)
from statespace.kernels.vectors import nothing, store

# What the reverse sweep keeps of each part of four states in a segment: themselves, decayed, and their decays.
KEPT = 2 * UNROLLED * ROWS


@helper()
def _vectors(task, sizes):
    """Record and group of a task, and the first and last of its vectors in the group."""
    _, groups, tasks, channels, _ = sizes
    per = -(-channels // W)
    record, group, part = task // (groups * tasks), task // tasks % groups, task % tasks
    return record, group, per * part // tasks, per * (part + 1) // tasks


@helper()
def _place(strides, record, channel, time):
    return record * strides[0] + channel * strides[1] + time * strides[2]


@entry()
def forward(
    first, last, sizes, u, u_at, delta, delta_at, z, z_at, gaps, gaps_at, B, B_at, C, C_at, rate, own_b, own_c, D, bias,
    soft, state, y, y_at, stored, own, complex_,
):  # fmt: skip
    """Of the tasks first..last−1: writes y, and leaves the last state in ``state``; ``stored`` may be empty."""
    length, groups, tasks, channels, states = sizes
    fields, parts, scale = (1, 1, 1.0) if complex_ is None else (3, 2, 2.0)
    n, per = -(-states // UNROLLED) * UNROLLED, -(-channels // W)
    block, coefficients = n * parts * W, SEGMENT * n * parts
    most, segments = -(-per // tasks), (length - 1) // SEGMENT + 1
    scratch = np.zeros(BUFFERS + 2 * coefficients + most * (3 * block + n * fields * W + 2 * W) + 16, u.dtype)
    rows = aligned(scratch)
    b, c, x = rows + BUFFERS, rows + BUFFERS + coefficients, rows + BUFFERS + 2 * coefficients
    factors_b, factors_c, rates = x + most * block, x + 2 * most * block, x + 3 * most * block
    constants = rates + most * n * fields * W
    for task in range(first, last):
        record, group, begin, end = _vectors(task, sizes)
        for j in range(begin, end):
            k, lanes, m = group * channels + j * W, min(W, channels - j * W), j - begin
            gather(D, k, 0, 1, 1, lanes, scratch, constants + 2 * m * W)
            gather(bias, k, 0, 1, 1, lanes, scratch, constants + (2 * m + 1) * W)
            gather_states(rate, k, states, fields, n, lanes, scratch, rates + m * n * fields * W)
            gather_states(state, record * groups * channels + k, states, parts, n, lanes, scratch, x + m * block)
            if own is not None:
                gather_states(own_b, k, states, parts, n, lanes, scratch, factors_b + m * block)
                gather_states(own_c, k, states, parts, n, lanes, scratch, factors_c + m * block)
        for start in range(0, length, SEGMENT):
            steps = min(SEGMENT, length - start)
            gather_coefficients(B, B_at, record, group, start, steps, states, n, parts, 1.0, scratch, b)
            gather_coefficients(C, C_at, record, group, start, steps, states, n, parts, scale, scratch, c)
            for j in range(begin, end):
                k, lanes, m = group * channels + j * W, min(W, channels - j * W), j - begin
                own_x, own_rates = x + m * block, rates + m * n * fields * W
                if len(stored) > 0:
                    to = (((record * groups + group) * per + j) * segments + start // SEGMENT) * block
                    for i in range(0, block, W):
                        store(load(scratch, own_x + i), stored, to + i)
                enter(
                    steps, u, _place(u_at, record, k, start), u_at, delta, _place(delta_at, record, k, start), delta_at,
                    gaps, record * gaps_at[0] + start * gaps_at[1], gaps_at[1],
                    load(scratch, constants + (2 * m + 1) * W), load(scratch, constants + 2 * m * W), soft, lanes,
                    scratch, rows,
                )  # fmt: skip
                for i in range(0, n, UNROLLED):
                    if complex_ is None:
                        real.advance(
                            steps, n, i, rows, b, c, own_rates, own_x, own, factors_b + m * block,
                            factors_c + m * block, scratch,
                        )  # fmt: skip
                    else:
                        turning.advance(
                            steps, n, i, rows, b, c, own_rates, own_x, factors_b + m * block, factors_c + m * block,
                            scratch,
                        )  # fmt: skip
                leave(
                    steps, z, _place(z_at, record, k, start), z_at, y, _place(y_at, record, k, start), y_at, lanes,
                    scratch, rows,
                )  # fmt: skip
        for j in range(begin, end):
            k, lanes = group * channels + j * W, min(W, channels - j * W)
            row, at = record * groups * channels + k, x + (j - begin) * block
            scatter_states(scratch, at, state, row, states, parts, n, lanes)


@entry()
def backward(
    first, last, sizes, u, u_at, delta, delta_at, z, z_at, gaps, gaps_at, B, B_at, C, C_at, rate, own_b, own_c, D, bias,
    soft, stored, grad_y, grad_y_at, grad_state, of_u, of_u_at, of_delta, of_delta_at, of_z, of_z_at, of_gaps, of_b,
    of_c, of_rate, of_own_b, of_own_c, of_D, of_bias, own, complex_,
):  # fmt: skip
    """Of the tasks first..last−1: writes all gradients, that of the first state into ``grad_state``."""
    length, groups, tasks, channels, states = sizes
    fields, parts, scale = (1, 1, 1.0) if complex_ is None else (3, 2, 2.0)
    n, per = -(-states // UNROLLED) * UNROLLED, -(-channels // W)
    block, coefficients = n * parts * W, SEGMENT * n * parts
    most, segments = -(-per // tasks), (length - 1) // SEGMENT + 1
    scratch = np.zeros(
        BUFFERS + parts * KEPT + ROWS + 2 * coefficients * (1 + W) + block
        + most * (6 * block + n * fields * W + 4 * W) + 272,
        u.dtype,
    )  # fmt: skip
    rows = aligned(scratch)
    kept, sums_gaps = rows + BUFFERS, rows + BUFFERS + parts * KEPT
    sums_b = sums_gaps + ROWS
    sums_c, x = sums_b + coefficients * W, sums_b + 2 * coefficients * W
    b, c = x + block, x + block + coefficients
    g, sums_rate = c + coefficients, c + coefficients + most * block
    factors_b, factors_c = g + 2 * most * block, g + 3 * most * block
    sums_own_b, sums_own_c = g + 4 * most * block, g + 5 * most * block
    rates, constants = g + 6 * most * block, g + 6 * most * block + most * n * fields * W
    for task in range(first, last):
        record, group, begin, end = _vectors(task, sizes)
        for i in range(g, factors_b, W):
            store(nothing(load(scratch, i)), scratch, i)
        for i in range(sums_own_b, rates, W):
            store(nothing(load(scratch, i)), scratch, i)
        for j in range(begin, end):
            k, lanes, m = group * channels + j * W, min(W, channels - j * W), j - begin
            gather(D, k, 0, 1, 1, lanes, scratch, constants + 4 * m * W)
            gather(bias, k, 0, 1, 1, lanes, scratch, constants + (4 * m + 1) * W)
            store(nothing(load(D, 0)), scratch, constants + (4 * m + 2) * W)
            store(nothing(load(D, 0)), scratch, constants + (4 * m + 3) * W)
            gather_states(rate, k, states, fields, n, lanes, scratch, rates + m * n * fields * W)
            gather_states(grad_state, record * groups * channels + k, states, parts, n, lanes, scratch, g + m * block)
            if own is not None:
                gather_states(own_b, k, states, parts, n, lanes, scratch, factors_b + m * block)
                gather_states(own_c, k, states, parts, n, lanes, scratch, factors_c + m * block)
        for start in range((segments - 1) * SEGMENT, -1, -SEGMENT):
            steps = min(SEGMENT, length - start)
            gather_coefficients(B, B_at, record, group, start, steps, states, n, parts, 1.0, scratch, b)
            gather_coefficients(C, C_at, record, group, start, steps, states, n, parts, scale, scratch, c)
            for i in range(sums_gaps, x, W):
                store(nothing(load(scratch, i)), scratch, i)
            for j in range(begin, end):
                k, lanes, m = group * channels + j * W, min(W, channels - j * W), j - begin
                own_constants, gap_at = constants + 4 * m * W, record * gaps_at[0] + start * gaps_at[1]
                direct = load(scratch, own_constants)
                at = (((record * groups + group) * per + j) * segments + start // SEGMENT) * block
                for i in range(0, block, W):
                    store(load(stored, at + i), scratch, x + i)
                enter(
                    steps, u, _place(u_at, record, k, start), u_at, delta, _place(delta_at, record, k, start), delta_at,
                    gaps, gap_at, gaps_at[1], load(scratch, own_constants + W), direct, soft, lanes, scratch, rows,
                )  # fmt: skip
                enter_reverse(
                    steps, z, _place(z_at, record, k, start), z_at, grad_y, _place(grad_y_at, record, k, start),
                    grad_y_at, lanes, scratch, rows,
                )  # fmt: skip
                for i in range(0, n, UNROLLED):
                    if complex_ is None:
                        real.reverse(
                            steps, n, i, rows, b, c, rates + m * n * fields * W, x, own, factors_b + m * block,
                            factors_c + m * block, sums_b, sums_c, sums_rate + m * block, g + m * block,
                            sums_own_b + m * block, sums_own_c + m * block, kept, len(z) > 0, scratch,
                        )  # fmt: skip
                    else:
                        turning.reverse(
                            steps, n, i, rows, b, c, rates + m * n * fields * W, x, factors_b + m * block,
                            factors_c + m * block, sums_b, sums_c, sums_rate + m * block, g + m * block,
                            sums_own_b + m * block, sums_own_c + m * block, kept, len(z) > 0, scratch,
                        )  # fmt: skip
                of_direct, of_shift = leave_reverse(
                    steps, gaps, gap_at, gaps_at[1], direct, soft, of_u, _place(of_u_at, record, k, start), of_u_at,
                    of_delta, _place(of_delta_at, record, k, start), of_delta_at, of_z,
                    _place(of_z_at, record, k, start), of_z_at, lanes, load(scratch, own_constants + 2 * W),
                    load(scratch, own_constants + 3 * W), scratch, rows, sums_gaps,
                )  # fmt: skip
                store(of_direct, scratch, own_constants + 2 * W)
                store(of_shift, scratch, own_constants + 3 * W)
            at = (task * length + start) * n * parts
            add_up(scratch, sums_b, steps * n * parts, 1.0, of_b, at)
            add_up(scratch, sums_c, steps * n * parts, scale, of_c, at)
            add_up(scratch, sums_gaps, steps, 1.0, of_gaps, task * length + start)
        for j in range(begin, end):
            k, lanes, m = group * channels + j * W, min(W, channels - j * W), j - begin
            row = record * groups * channels + k
            scatter_states(scratch, g + m * block, grad_state, row, states, parts, n, lanes)
            scatter_states(scratch, sums_rate + m * block, of_rate, row, states, parts, n, lanes)
            scatter(scratch, constants + (4 * m + 2) * W, of_D, row, 0, 1, 1, lanes)
            scatter(scratch, constants + (4 * m + 3) * W, of_bias, row, 0, 1, 1, lanes)
            if own is not None:
                scatter_states(scratch, sums_own_b + m * block, of_own_b, row, states, parts, n, lanes)
                scatter_states(scratch, sums_own_c + m * block, of_own_c, row, states, parts, n, lanes)
