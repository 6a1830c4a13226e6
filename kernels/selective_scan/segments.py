"""What stands around the recurrence in a segment: memory to vectors and back, steps, gate, sums over channels.

A segment's rows lie one behind the other, sixteen channels each, in a scratch that stays in the nearest cache. Arrays
are flat views of tensors in whatever order their axes lie: an index and a stride for each axis find a number.
"""


from statespace.kernels.compiled import helper
from statespace.kernels.lanes import WIDTH, load
from statespace.kernels.selective_scan.exponential import silu, softplus
from statespace.kernels.vectors import folding, loading, nothing, repeating, spreading, store, turned

SEGMENT = 64  # steps between two stored states; the reverse sweep computes one segment again at a time
W = WIDTH
UNROLLED = 4  # states beside each other in one vector, which fills as many registers
BLOCK = UNROLLED * W
load_block, spread, repeat, fold = loading(BLOCK), spreading(BLOCK, W), repeating(UNROLLED), folding(UNROLLED)
# A state that dies away must not become subnormal: such numbers slow a processor a hundredfold.
TINY = 1e-30
ROWS = SEGMENT * W
# Rows of a segment: input, step, their product and output; in the reverse sweep also what follows.
U, H, V, Y, RATE, SLOPE, GATE, OF_Y, OF_V, OF_H = (ROWS * i for i in range(10))
BUFFERS = 10 * ROWS


@helper()
def aligned(scratch):
    """The index where a cache line begins: a vector that spans two takes twice the time."""
    return -(scratch.ctypes.data // scratch.itemsize) % 16


@helper()
def _turn_tile(x, at, row, y, to, column):
    """Sixteen rows of sixteen numbers of x into as many columns of y."""
    s = turned((
        load(x, at), load(x, at + row), load(x, at + 2 * row), load(x, at + 3 * row), load(x, at + 4 * row),
        load(x, at + 5 * row), load(x, at + 6 * row), load(x, at + 7 * row), load(x, at + 8 * row),
        load(x, at + 9 * row), load(x, at + 10 * row), load(x, at + 11 * row), load(x, at + 12 * row),
        load(x, at + 13 * row), load(x, at + 14 * row), load(x, at + 15 * row),
    ))  # fmt: skip
    for i in range(W):
        store(s[i], y, to + i * column)


@helper()
def gather(x, at, row, lane, rows, lanes, scratch, to):
    """x[at + i · row + l · lane] into rows of vectors; zeros in the lanes that no channel fills."""
    if lane == 1 and lanes == W:
        for i in range(rows):
            store(load(x, at + i * row), scratch, to + i * W)
    else:
        tiled = rows // W * W if row == 1 and lanes == W else 0
        for i in range(0, tiled, W):
            _turn_tile(x, at + i, lane, scratch, to + i * W, W)
        for j in range(W):
            for i in range(tiled, rows):
                scratch[to + i * W + j] = x[at + i * row + j * lane] if j < lanes else 0.0


@helper()
def scatter(scratch, at, x, to, row, lane, rows, lanes):
    """The inverse of `gather`."""
    if lane == 1 and lanes == W:
        for i in range(rows):
            store(load(scratch, at + i * W), x, to + i * row)
    else:
        tiled = rows // W * W if row == 1 and lanes == W else 0
        for i in range(0, tiled, W):
            _turn_tile(scratch, at + i * W, W, x, to + i, lane)
        for j in range(lanes):
            for i in range(tiled, rows):
                x[to + i * row + j * lane] = scratch[at + i * W + j]


@helper()
def gather_states(x, row, states, parts, n, lanes, scratch, to):
    """A vector's channels of x (rows, states, parts), from this row on, as vectors (parts, n).

    What pads the states is zero again, too: 0 times a record's NaN must not stay there for the next record.
    """
    for p in range(parts):
        gather(x, row * states * parts + p, parts, states * parts, states, lanes, scratch, to + p * n * W)
        scratch[to + (p * n + states) * W : to + (p + 1) * n * W] = 0.0


@helper()
def scatter_states(scratch, at, x, row, states, parts, n, lanes):
    """The inverse of `gather_states`."""
    for p in range(parts):
        scatter(scratch, at + p * n * W, x, row * states * parts + p, parts, states * parts, states, lanes)


@helper()
def gather_coefficients(x, strides, record, group, start, steps, states, n, parts, scale, scratch, to):
    """B or C of a segment, (steps, parts, n), times ``scale``; what pads the states stays as it is."""
    begin = record * strides[0] + group * strides[1] + start * strides[3]
    for t in range(steps):
        for p in range(parts):
            at, row = begin + t * strides[3] + p * strides[4], to + (t * parts + p) * n
            if strides[2] == 1:
                for i in range(states):
                    scratch[row + i] = scale * x[at + i]
            else:
                for i in range(states):
                    scratch[row + i] = scale * x[at + i * strides[2]]


@helper()
def enter(steps, u, u_from, u_at, delta, delta_from, delta_at, gaps, gap, per, bias, D, soft, lanes, scratch, rows):
    """The steps of a segment and their products with the inputs; the outputs begin with D u."""
    gather(u, u_from, u_at[2], u_at[1], steps, lanes, scratch, rows + U)
    gather(delta, delta_from, delta_at[2], delta_at[1], steps, lanes, scratch, rows + H)
    for t in range(steps):
        at = rows + t * W
        v, rate = load(scratch, at + U), load(scratch, at + H) + bias
        if soft:
            rate, slope = softplus(rate)
            store(slope, scratch, at + SLOPE)
        h = rate * gaps[gap + t * per]
        store(rate, scratch, at + RATE)
        store(h, scratch, at + H)
        store(h * v, scratch, at + V)
        store(D * v, scratch, at + Y)


@helper()
def leave(steps, z, z_from, z_at, y, y_from, y_at, lanes, scratch, rows):
    """The outputs of a segment through the gate and into ``y``."""
    if len(z) > 0:
        gather(z, z_from, z_at[2], z_at[1], steps, lanes, scratch, rows + GATE)
        for t in range(steps):
            at = rows + t * W
            gate, _ = silu(load(scratch, at + GATE))
            store(gate * load(scratch, at + Y), scratch, at + Y)
    scatter(scratch, rows + Y, y, y_from, y_at[2], y_at[1], steps, lanes)


@helper()
def enter_reverse(steps, z, z_from, z_at, grad_y, y_from, y_at, lanes, scratch, rows):
    """The gradient in the outputs before the gate, and what turns them into the gradient in z."""
    gather(grad_y, y_from, y_at[2], y_at[1], steps, lanes, scratch, rows + OF_Y)
    if len(z) > 0:
        gather(z, z_from, z_at[2], z_at[1], steps, lanes, scratch, rows + GATE)
    for t in range(steps):
        at = rows + t * W
        of_y = load(scratch, at + OF_Y)
        if len(z) > 0:
            gate, slope = silu(load(scratch, at + GATE))
            store(slope * of_y, scratch, at + GATE)
            store(gate * of_y, scratch, at + OF_Y)
        store(nothing(of_y), scratch, at + OF_V)
        store(nothing(of_y), scratch, at + OF_H)


@helper()
def leave_reverse(
    steps, gaps, gap, per, D, soft, of_u, u_to, u_at, of_delta, delta_to, delta_at, of_z, z_to, z_at, lanes, of_D,
    of_bias, scratch, rows, of_gaps,
):  # fmt: skip
    """Writes the gradients in u, delta and z, adds to those in the gaps, and returns those in D and the bias."""
    for t in range(steps):
        at = rows + t * W
        v, h, of_y, of_v = (
            load(scratch, at + U), load(scratch, at + H), load(scratch, at + OF_Y), load(scratch, at + OF_V),
        )  # fmt: skip
        of_h = load(scratch, at + OF_H) + v * of_v
        of_rate = of_h * gaps[gap + t * per]
        if soft:
            of_rate = of_rate * load(scratch, at + SLOPE)
        of_bias, of_D = of_bias + of_rate, of_D + of_y * v
        store(load(scratch, of_gaps + t * W) + of_h * load(scratch, at + RATE), scratch, of_gaps + t * W)
        store(h * of_v + D * of_y, scratch, at + V)
        store(of_rate, scratch, at + H)
        if len(of_z) > 0:
            store(load(scratch, at + GATE) * load(scratch, at + Y), scratch, at + GATE)
    scatter(scratch, rows + V, of_u, u_to, u_at[2], u_at[1], steps, lanes)
    scatter(scratch, rows + H, of_delta, delta_to, delta_at[2], delta_at[1], steps, lanes)
    if len(of_z) > 0:
        scatter(scratch, rows + GATE, of_z, z_to, z_at[2], z_at[1], steps, lanes)
    return of_D, of_bias


@helper()
def add_up(scratch, at, count, scale, x, to):
    """The sum of each of so many rows of vectors, times ``scale``, into x[to], x[to + 1], …"""
    for i in range(0, count, W):
        k = at + i * W
        s = turned((
            load(scratch, k), load(scratch, k + W), load(scratch, k + 2 * W), load(scratch, k + 3 * W),
            load(scratch, k + 4 * W), load(scratch, k + 5 * W), load(scratch, k + 6 * W), load(scratch, k + 7 * W),
            load(scratch, k + 8 * W), load(scratch, k + 9 * W), load(scratch, k + 10 * W), load(scratch, k + 11 * W),
            load(scratch, k + 12 * W), load(scratch, k + 13 * W), load(scratch, k + 14 * W), load(scratch, k + 15 * W),
        ))  # fmt: skip
        one = ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]))
        two = ((s[8] + s[9]) + (s[10] + s[11])) + ((s[12] + s[13]) + (s[14] + s[15]))
        total = scale * (one + two)
        if i + W <= count:
            store(total, x, to + i)
        else:
            store(total, scratch, k)
            for j in range(count - i):
                x[to + i + j] = scratch[k + j]
