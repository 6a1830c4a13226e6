"""Many records in one call: compiled loops over records, groups of them on several threads.

Records lie one after the other in the arrays of a ``Record``; ``starts`` (n_records + 1,) are their offsets. What is
summed over records is summed group by group, and the groups in their order: the number of threads changes nothing.
"""

import numpy as np

from statespace.kernels.intrinsics import address_of
from statespace.kernels.kalman_filter.compiled import entry, helper, workspace
from statespace.kernels.kalman_filter.forward import log_likelihood
from statespace.kernels.kalman_filter.gradient import add_initial_adjoints
from statespace.kernels.kalman_filter.record import (
    FILTERED,
    NOTHING,
    PREDICTED,
    TILES,
    State,
    nothing_seen,
    room,
    way_back,
    width_of,
)
from statespace.kernels.kalman_filter.results import Gradient
from statespace.kernels.kalman_filter.routes import forward_by, forward_sweeps, gradient_by, gradient_sweeps, run
from statespace.kernels.kalman_filter.smoothing import smooth_segment
from statespace.kernels.threads import in_parallel

# groups whose sums are kept apart, and how many numbers all of them may take
GROUPS = 64
NUMBERS = 2_000_000


def likelihood_batch(record, units, origin, starts):
    values = np.empty(len(starts) - 1)
    kept = room(0, len(origin.mean), 0, NOTHING)
    left, counts = np.empty((0, *origin.diffuse.shape)), np.empty(0, dtype=np.int64)

    filter_each(record, units, origin, starts, everyone(starts), NOTHING, kept, values, left, counts)
    return values


def filter_batch(record, units, origin, starts, kept):
    """Fills ``kept``; returns log-likelihoods (R,), the directions left (R, n, d), how many samples began diffuse."""
    values = np.empty(len(starts) - 1)
    left, counts = np.empty((len(values), *origin.diffuse.shape)), np.empty(len(values), dtype=np.int64)

    filter_each(record, units, origin, starts, everyone(starts), FILTERED, kept, values, left, counts)
    return values, left.transpose(0, 2, 1).copy(), counts


def filter_each(record, units, origin, starts, records, keep, kept, values, left, counts):
    """Filter ``records``, one after the other in each thread."""
    sweeps = forward_sweeps(record, units, copied(origin), keep, kept, own_workspace(units, origin))

    def part(first, last):
        filter_records(
            first, last, sweeps, records, starts, record, units, origin, copied(origin), keep, kept, values, left,
            counts, own_workspace(units, origin),
        )  # fmt: skip

    in_parallel(part, len(records), operations(starts, origin))


def gradient_batch(record, units, origin, starts, moving, by_observation, gradient):
    """Adds to ``gradient``; returns the log-likelihoods (R,)."""
    values = np.empty(len(starts) - 1)
    gradient_each(record, units, origin, starts, everyone(starts), moving, by_observation, values, gradient)
    return values


def gradient_each(record, units, origin, starts, records, moving, by_observation, values, gradient):
    n, d = origin.diffuse.shape[::-1]
    keep, blocks = way_back(units, n), width_of(units)[1]
    bounds, sums = in_sums(gradient, record, len(records), len(records) // 4)
    state, kept, work = copied(origin), room(0, n, d, keep, blocks), own_workspace(units, origin)
    forwards = forward_sweeps(record, units, state, keep, kept, work)
    sweeps = gradient_sweeps(
        record, units, moving, by_observation, keep == TILES, origin, kept, nothing_seen(n), first_of(sums), work
    )

    def part(first, last):
        kept = room(longest(starts, records[bounds[first] : bounds[last]]), n, d, keep, blocks)
        gradient_records(
            first, last, forwards, sweeps, keep, bounds, records, starts, record, units, moving, by_observation, origin,
            copied(origin), values, sums, kept, nothing_seen(len(origin.mean)), own_workspace(units, origin),
        )  # fmt: skip

    in_parallel(part, len(bounds) - 1, operations(starts, origin))
    add_up(sums, gradient)


def in_sums(gradient, record, n_items, most):
    """Bounds of parts of ``n_items``, and a Gradient with one leading entry for the sums of each part.

    Gradients of single samples are written in place, the others part by part.
    """
    common = sum(array.size for array in (*gradient[:3], *gradient[5:]))
    n_sums = max(1, min(GROUPS, NUMBERS // common, most))
    bounds = np.array([n_items * g // n_sums for g in range(n_sums + 1)])
    by_sample = [len(array) == len(record.y) > 1 for array in (gradient.noise_variance, gradient.observation)]
    in_place = [False, False, False, *by_sample, False, False, False]
    sums = Gradient(
        *(array[None] if placed else np.zeros((n_sums, *array.shape))
          for array, placed in zip(gradient, in_place, strict=True))
    )  # fmt: skip
    return bounds, sums


def add_up(sums, gradient):
    for array, total in zip(gradient, sums, strict=True):
        if not np.shares_memory(array, total):
            array += total.sum(axis=0)


def smooth_batch(record, units, origin, starts, readout, means, variances, covariances):
    values = np.empty(len(starts) - 1)
    smooth_each(record, units, origin, starts, everyone(starts), readout, values, means, variances, covariances)
    return values


def smooth_each(record, units, origin, starts, records, readout, values, means, variances, covariances):
    state, work, n = copied(origin), own_workspace(units, origin), len(origin.mean)
    kept = room(0, n, len(origin.diffuse), PREDICTED)
    forwards = forward_sweeps(record, units, state, PREDICTED, kept, work)
    sweep = smoothing_sweep(record, units, kept, n, readout, means, variances, covariances, work)

    def part(first, last):
        kept = room(longest(starts, records[first:last]), len(origin.mean), len(origin.diffuse), PREDICTED)
        smooth_records(
            first, last, forwards, sweep, records, starts, record, units, origin, copied(origin), values, kept,
            nothing_seen(len(origin.mean)), readout, means, variances, covariances, own_workspace(units, origin),
        )  # fmt: skip

    in_parallel(part, len(records), operations(starts, origin))


def smoothing_sweep(record, units, kept, n, readout, means, variances, covariances, work):
    return address_of(
        smooth_segment, record, units, 0, 0, 0, 0, True, kept, 0, nothing_seen(n), readout, means, variances,
        covariances, work,
    )  # fmt: skip


def first_of(sums):
    return Gradient(*(array[0] for array in sums))


def everyone(starts):
    return np.arange(len(starts) - 1)


def copied(state):
    return State(*(array.copy() for array in state))


def own_workspace(units, origin):
    """Not shared with another thread."""
    return workspace.__wrapped__(*width_of(units), *origin.diffuse.shape[::-1])


def longest(starts, records):
    return int(np.diff(starts)[records].max(initial=0))


def operations(starts, origin):
    return int(starts[-1]) * 20 * len(origin.mean) ** 2


@helper()
def restart(origin, state):
    for i in range(len(origin.mean)):
        state.mean[i] = origin.mean[i]
        for j in range(len(origin.mean)):
            state.covariance[i, j] = origin.covariance[i, j]
        for c in range(len(origin.diffuse)):
            state.diffuse[c, i] = origin.diffuse[c, i]
    for i in range(4):
        state.counts[i] = origin.counts[i]
    for i in range(5):
        state.totals[i] = origin.totals[i]


@entry(nogil=True)
def filter_records(
    first, last, sweeps, records, starts, record, units, origin, state, keep, kept, values, left, counts, work
):  # fmt: skip
    for q in range(first, last):
        i = records[q]
        restart(origin, state)
        forward_by(sweeps, record, units, starts[i], starts[i + 1], state, keep, kept, 0, work)
        values[i] = log_likelihood(state)
        if len(counts) > 0:
            counts[i] = state.counts[3]
            for c in range(left.shape[1]):
                for j in range(left.shape[2]):
                    left[i, c, j] = state.diffuse[c, j] if c < state.counts[0] else 0.0


@helper()
def sum_of(sums, g):
    return Gradient(
        sums.parameters[g], sums.transition[g], sums.process_noise[g],
        sums.noise_variance[min(g, len(sums.noise_variance) - 1)],
        sums.observation[min(g, len(sums.observation) - 1)], sums.mean[g], sums.covariance[g], sums.diffuse[g],
    )  # fmt: skip


@entry(nogil=True)
def gradient_records(
    first, last, forwards, sweeps, keep, bounds, records, starts, record, units, moving, by_observation, origin, state,
    values, sums, kept, b, work,
):  # fmt: skip
    """The g-th sum, g = first..last−1, of records[bounds[g]], …, records[bounds[g + 1] − 1]."""
    for g in range(first, last):
        out = sum_of(sums, g)
        for q in range(bounds[g], bounds[g + 1]):
            i = records[q]
            start = starts[i]
            stop = starts[i + 1]
            restart(origin, state)
            forward_by(forwards, record, units, start, stop, state, keep, kept, start, work)
            values[i] = log_likelihood(state)
            nothing(b)
            gradient_by(
                sweeps, record, units, moving, by_observation, start, stop, start, stop, state.counts[2],
                keep == TILES and state.counts[0] == 0, origin, kept, start, b, out, work,
            )  # fmt: skip
            add_initial_adjoints(b, origin, out)


@entry(nogil=True)
def smooth_records(
    first, last, forwards, sweep, records, starts, record, units, origin, state, values, kept, b, readout, means,
    variances, covariances, work,
):  # fmt: skip
    for q in range(first, last):
        i = records[q]
        start = starts[i]
        stop = starts[i + 1]
        restart(origin, state)
        forward_by(forwards, record, units, start, stop, state, PREDICTED, kept, start, work)
        values[i] = log_likelihood(state)
        nothing(b)
        run(
            sweep,
            (record, units, start, stop, stop, state.counts[2], state.counts[0] > 0, kept, start, b, readout, means,
             variances, covariances, work),
        )  # fmt: skip


@helper()
def nothing(b):
    for i in range(len(b.r0)):
        b.r0[i] = 0.0
        b.r1[i] = 0.0
        for j in range(len(b.r0)):
            b.N0[i, j] = 0.0
            b.N1[i, j] = 0.0
            b.N2[i, j] = 0.0
