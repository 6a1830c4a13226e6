"""Which records of a batch advance side by side (``lockstep.py``): groups of them, on several threads.

A record that starts diffuse is filtered by the general sweep until its directions are resolved, a few samples, and
takes its lane then. Records of like length share a group, so that few lanes idle. The groups do not depend on the
number of threads.
"""

from typing import NamedTuple

import numpy as np

from statespace.kernels.kalman_filter import batch
from statespace.kernels.kalman_filter.adjoints import gradient_lanes, vectors_needed
from statespace.kernels.kalman_filter.batch import (
    add_up,
    copied,
    first_of,
    in_sums,
    nothing,
    operations,
    own_workspace,
    restart,
    smoothing_sweep,
    sum_of,
)
from statespace.kernels.kalman_filter.compiled import entry, helper
from statespace.kernels.kalman_filter.gradient import add_initial_adjoints
from statespace.kernels.kalman_filter.hindsight import Wanted, smooth_lanes, vectors_carried
from statespace.kernels.kalman_filter.lockstep import CHUNK, Flat, Room, filter_lanes, width_of_way
from statespace.kernels.kalman_filter.record import FILTERED, NOTHING, PREDICTED, nothing_seen, room
from statespace.kernels.kalman_filter.routes import advance, gradient_by, gradient_sweeps, run, start_sweep
from statespace.kernels.kalman_filter.transposition import WIDTH, aligned
from statespace.kernels.kalman_filter.vector_blocks import KINDS
from statespace.kernels.threads import in_parallel

# Beyond this a step of the vectors, whose moments no longer fit into registers, gains too little.
MOST_STATES = 4
# records that must be there, and how many of a group's lanes must be busy on average
FEWEST = 3.0
# samples in which a start must be resolved
HEAD = 32
# rows of a readout whose chunk stays in a second cache
MOST_ROWS = 16
# what a group's steps may take until the way back
WAY_BYTES = 32_000_000


class Starts(NamedTuple):
    """Where every record takes its lane: the sample (R,), the moments there, totals (R, 5) and what was diffuse.

    ``begin`` is −1 for a record that never does. One row of moments stands for all where nothing is diffuse.
    """

    begin: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    totals: np.ndarray
    n_diffuse: np.ndarray


def room_for(n):
    at, stops = np.zeros((2, WIDTH), dtype=np.int64)
    sizes = (4 * n * n + 2 * n, (3 + n) * CHUNK, 5, CHUNK * (n + n * n + 2), 3)
    return Room(*(aligned(size * WIDTH) for size in sizes), at, stops)


def flat_arrays(record, kept):
    """One axis, as vectors are read and written."""
    arrays = (record.y, record.dt, record.noise_variance, record.observation)
    return Flat(*(x.reshape(-1) for x in (*arrays, kept.mean, kept.covariance, kept.innovation, kept.variance)))


def suits(units, origin, starts):
    """Whether lanes are worth while: few states, kinds whose A(Δ), Q(Δ) are vectors, and enough records."""
    kinds = units[0].tolist()
    return len(origin.mean) <= MOST_STATES and len(starts) > FEWEST and all(kind in KINDS for kind in kinds)


def groups(begin, stop):
    """Members (G, WIDTH) of each group, −1 where a lane stays empty, and the records that are better off alone."""
    lengths = np.where(begin >= 0, stop - begin, -1)
    order = np.flatnonzero(begin >= 0)
    alike = len(order) == 0 or lengths[order].min() == lengths[order].max()
    if not alike:
        order = order[np.argsort(-lengths[order], kind="stable")]
    members = np.full((-(-len(order) // WIDTH), WIDTH), -1)
    members.ravel()[: len(order)] = order
    work = np.where(members >= 0, lengths[members], 0)
    worth = work.sum(axis=1) >= FEWEST * work.max(axis=1, initial=1)
    members = members[worth]
    if not alike:
        # long and short groups alternate, so that any part of them takes a thread as long as another
        stride = next((k for k in range(int(0.618 * len(members)), 1, -1) if np.gcd(k, len(members)) == 1), 1)
        members = members[np.arange(len(members)) * stride % max(1, len(members))]
    alone = np.ones(len(begin), dtype=bool)
    alone[members[members >= 0]] = False
    return members, np.flatnonzero(alone)


def starts_of(record, units, origin, starts, keep, kept):
    """Filter every record through its diffuse start; what it leaves of those samples goes to ``kept``."""
    R, (d, n) = len(starts) - 1, origin.diffuse.shape
    if d == 0:
        return Starts(
            starts[:-1], origin.mean[None], origin.covariance[None], np.array([[0.0, 1.0, 0.0, 0.0, 0.0]]),
            np.zeros(R, dtype=np.int64),
        )  # fmt: skip
    begin, n_diffuse = np.empty((2, R), dtype=np.int64)
    found = Starts(begin, np.empty((R, n)), np.empty((R, n, n)), np.empty((R, 5)), n_diffuse)
    sweep = start_sweep(record, units, copied(origin), keep, kept, own_workspace(units, origin))

    def part(first, last):
        start_records(
            first, last, sweep, HEAD, starts, record, units, origin, copied(origin), keep, kept, found,
            own_workspace(units, origin),
        )  # fmt: skip

    in_parallel(part, R, 100 * R * n * n)
    return found


def likelihood_batch(record, units, origin, starts):
    if not suits(units, origin, starts):
        return batch.likelihood_batch(record, units, origin, starts)
    n = len(origin.mean)
    return filtered(record, units, origin, starts, NOTHING, room(0, n, 0, NOTHING))[0]


def filter_batch(record, units, origin, starts, kept):
    if not suits(units, origin, starts):
        return batch.filter_batch(record, units, origin, starts, kept)
    return filtered(record, units, origin, starts, FILTERED, kept)


def filtered(record, units, origin, starts, keep, kept):
    """As ``batch.filter_batch``."""
    R, n = len(starts) - 1, len(origin.mean)
    values = np.empty(R)
    found = starts_of(record, units, origin, starts, keep, kept)
    members, alone = groups(found.begin, starts[1:])
    flat = flat_arrays(record, kept)

    def part(first, last):
        filter_lanes((0,) * n, first, last, members, starts, found, record, units, flat, keep, values, room_for(n))

    in_parallel(part, len(members), operations(starts, origin) // 4)
    left = np.zeros((R if keep == FILTERED else 0, *origin.diffuse.shape))
    n_diffuse = found.n_diffuse[: len(left)]
    if len(alone):
        batch.filter_each(record, units, origin, starts, alone, keep, kept, values, left, n_diffuse)
    return values, left.transpose(0, 2, 1).copy(), n_diffuse


def gradient_batch(record, units, origin, starts, moving, by_observation, gradient):
    if not suits(units, origin, starts):
        return batch.gradient_batch(record, units, origin, starts, moving, by_observation, gradient)
    R, (d, n) = len(starts) - 1, origin.diffuse.shape
    values, kept = np.empty(R), room(0, n, 0, NOTHING)
    found = starts_of(record, units, origin, starts, NOTHING, kept)
    members, alone, step = groups_to_return(starts, found, n)
    a_bar, P_bar = np.empty((R, n)), np.empty((R, n, n))
    bounds, sums = in_sums(gradient, record, len(members), len(members))
    flat, some = flat_arrays(record, kept), bool(moving.any())
    by_R, by_h = gradient.noise_variance.reshape(-1), gradient.observation.reshape(-1)

    def part(first, last):
        steps = longest(starts, found, members[bounds[first] : bounds[last]])
        gradient_lanes(
            (0,) * n, first, last, bounds, members, starts, found, record, units, flat, some, by_observation, values,
            sums, a_bar, P_bar, room_for(n), aligned(vectors_needed(n, len(record.parameters)) * WIDTH),
            aligned(steps * step // 8), by_R, by_h,
        )  # fmt: skip

    in_parallel(part, len(bounds) - 1, operations(starts, origin) // 2)
    add_up(sums, gradient)

    # back through the diffuse start, or over the first gap
    records = np.sort(members[members >= 0])
    bounds, sums = in_sums(gradient, record, len(records), len(records) // 16)
    ahead, state, work = room(HEAD, n, d, PREDICTED), copied(origin), own_workspace(units, origin)
    sweep = start_sweep(record, units, state, PREDICTED, ahead, work)
    sweeps = gradient_sweeps(
        record, units, moving, by_observation, False, origin, ahead, nothing_seen(n), first_of(sums), work
    )

    def beginnings(first, last):
        finish_records(
            first, last, sweep, sweeps, bounds, records, HEAD, starts, record, units, moving, by_observation, origin,
            copied(origin), room(HEAD, n, d, PREDICTED), nothing_seen(n), a_bar, P_bar, sums,
            own_workspace(units, origin),
        )  # fmt: skip

    in_parallel(beginnings, len(bounds) - 1, 200 * R * n * n)
    add_up(sums, gradient)
    if len(alone):
        batch.gradient_each(record, units, origin, starts, alone, moving, by_observation, values, gradient)
    return values


def smooth_batch(record, units, origin, starts, readout, means, variances, covariances):
    rows, d = readout.shape[1], len(origin.diffuse)
    if not suits(units, origin, starts) or rows > MOST_ROWS:
        return batch.smooth_batch(record, units, origin, starts, readout, means, variances, covariances)
    R, n = len(starts) - 1, len(origin.mean)
    values, kept = np.empty(R), room(0, n, 0, NOTHING)
    found = starts_of(record, units, origin, starts, NOTHING, kept)
    members, alone, step = groups_to_return(starts, found, n)
    r, N = np.empty((R, n)), np.empty((R, n, n))
    flat = flat_arrays(record, kept)
    results = (means.reshape(-1), (variances if rows else covariances).reshape(-1))

    def part(first, last):
        vectors = aligned(CHUNK * (rows * n + (2 * rows if rows else n + n * n)) * WIDTH)
        smooth_lanes(
            (0,) * n, first, last, members, starts, found, record, units, flat, values, rows,
            Wanted(readout.reshape(-1), *results, vectors), r, N, room_for(n), aligned(vectors_carried(n) * WIDTH),
            aligned(longest(starts, found, members[first:last]) * step // 8),
        )  # fmt: skip

    in_parallel(part, len(members), operations(starts, origin))

    def beginnings(first, last):
        finish_smoothing(
            first, last, sweep, last_sweep, records, HEAD, starts, record, units, origin, copied(origin),
            room(HEAD, n, d, PREDICTED), nothing_seen(n), r, N, readout, means, variances, covariances,
            own_workspace(units, origin),
        )  # fmt: skip

    if d > 0:
        records = members[members >= 0]
        ahead, work = room(HEAD, n, d, PREDICTED), own_workspace(units, origin)
        sweep = start_sweep(record, units, copied(origin), PREDICTED, ahead, work)
        last_sweep = smoothing_sweep(record, units, ahead, n, readout, means, variances, covariances, work)
        in_parallel(beginnings, len(records), 200 * R * n * n)
    if len(alone):
        batch.smooth_each(record, units, origin, starts, alone, readout, values, means, variances, covariances)
    return values


def groups_to_return(starts, found, n):
    """``groups`` of records short enough to keep their way; the bytes of a step of it."""
    step = 8 * WIDTH * width_of_way.py_func(n)
    members, alone = groups(np.where(np.diff(starts) * step > WAY_BYTES, -1, found.begin), starts[1:])
    return members, alone, step


def longest(starts, found, members):
    return int(np.where(members >= 0, starts[1:][members] - found.begin[members], 0).max(initial=0))


@helper()
def resolve(sweep, record, units, first, last, state, keep, kept, base, work):
    """Filter until nothing is diffuse any more, or to the end; returns the next sample."""
    t = first
    while t < last and state.counts[0] > 0:
        t = advance(sweep, (record, units, t, t + 1, state, keep, kept, base, work))
    return t


@entry(nogil=True)
def start_records(first, last, sweep, most, starts, record, units, origin, state, keep, kept, found, work):
    """Filter records first..last−1 until nothing is diffuse any more, at most ``most`` samples."""
    n = len(origin.mean)
    for i in range(first, last):
        restart(origin, state)
        t = resolve(sweep, record, units, starts[i], min(starts[i + 1], starts[i] + most), state, keep, kept, 0, work)
        found.begin[i] = t if state.counts[0] == 0 else -1
        found.n_diffuse[i] = state.counts[3]
        for j in range(n):
            found.mean[i, j] = state.mean[j]
            for k in range(n):
                found.covariance[i, j, k] = state.covariance[j, k]
        for q in range(4):
            found.totals[i, q] = state.totals[q]
        found.totals[i, 4] = state.counts[1]


@entry(nogil=True)
def finish_records(
    first, last, sweep, sweeps, bounds, records, most, starts, record, units, moving, by_observation, origin, state,
    kept, b, a_bar, P_bar, sums, work,
):  # fmt: skip
    """The gradient's sweep from where the lanes began back to the start, filtered once more."""
    n = len(origin.mean)
    for g in range(first, last):
        out = sum_of(sums, g)
        for q in range(bounds[g], bounds[g + 1]):
            i = records[q]
            start = starts[i]
            stop = starts[i + 1]
            restart(origin, state)
            t = resolve(sweep, record, units, start, min(stop, start + most), state, PREDICTED, kept, start, work)
            nothing(b)
            for j in range(n):
                b.r0[j] = a_bar[i, j]
                for k in range(n):
                    b.N0[j, k] = a_bar[i, j] * a_bar[i, k] - 2.0 * P_bar[i, j, k]
            gradient_by(
                sweeps, record, units, moving, by_observation, start, t, start, stop, state.counts[2], False, origin,
                kept, start, b, out, work,
            )  # fmt: skip
            add_initial_adjoints(b, origin, out)


@entry(nogil=True)
def finish_smoothing(
    first, last, sweep, last_sweep, records, most, starts, record, units, origin, state, kept, b, r, N, readout, means,
    variances, covariances, work,
):  # fmt: skip
    """The smoother's sweep from where the lanes began back to the start, filtered once more."""
    n = len(origin.mean)
    for q in range(first, last):
        i = records[q]
        start = starts[i]
        stop = starts[i + 1]
        restart(origin, state)
        t = resolve(sweep, record, units, start, min(stop, start + most), state, PREDICTED, kept, start, work)
        nothing(b)
        for j in range(n):
            b.r0[j] = r[i, j]
            for k in range(n):
                b.N0[j, k] = N[i, j, k]
        run(
            last_sweep,
            (record, units, start, t, stop, state.counts[2], False, kept, start, b, readout, means, variances,
             covariances, work),
        )  # fmt: skip
