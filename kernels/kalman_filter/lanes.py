"""Which records of a batch advance side by side (``lockstep.py``), and the loops over groups of them, on several threads.

A record that starts diffuse is filtered by the general sweep until its directions are resolved, a few samples, and takes its
lane then. Records of like length share a group, so that few lanes idle; the groups are the same whatever the number of
threads.
"""

from typing import NamedTuple

import numpy as np

from statespace.kernels.kalman_filter import batch
from statespace.kernels.kalman_filter.batch import copied, everyone, operations, own_workspace, restart
from statespace.kernels.kalman_filter.compiled import entry
from statespace.kernels.kalman_filter.forward import forward_any
from statespace.kernels.kalman_filter.lockstep import CHUNK, filter_lanes
from statespace.kernels.kalman_filter.record import FILTERED, NOTHING, room
from statespace.kernels.kalman_filter.vector_blocks import KINDS
from statespace.kernels.kalman_filter.vectors import WIDTH
from statespace.kernels.threads import in_parallel

# Beyond this a step of the vectors, whose moments no longer fit into registers, gains too little.
MOST_STATES = 4
# records that must be there, and how many of a group's lanes must be busy on average
FEWEST = 3.0
# samples in which a start must be resolved
HEAD = 32


class Starts(NamedTuple):
    """Where every record takes its lane: the sample (R,), the moments there, totals (R, 5) and what was diffuse.

    ``begin`` is −1 for a record that never does. One row of moments stands for all where nothing is diffuse.
    """

    begin: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    totals: np.ndarray
    n_diffuse: np.ndarray


class Room(NamedTuple):
    """Vectors side by side: the moments, a chunk of samples, the totals, what a chunk leaves; scratch; sample numbers."""

    moments: np.ndarray
    chunk: np.ndarray
    totals: np.ndarray
    results: np.ndarray
    scratch: np.ndarray
    at: np.ndarray
    stops: np.ndarray


def aligned(length):
    """Zeros from a multiple of 64 bytes on, where a vector's cache line begins."""
    array = np.zeros(length + 8)
    skipped = -array.ctypes.data // 8 % 8
    return array[skipped : skipped + length]


def room_for(n):
    at, stops = np.zeros((2, WIDTH), dtype=np.int64)
    sizes = (4 * n * n + 2 * n, (3 + n) * CHUNK, 5, CHUNK * (n + n * n + 2), 3)
    return Room(*(aligned(size * WIDTH) for size in sizes), at, stops)


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
    R, d, n = len(starts) - 1, *origin.diffuse.shape
    if d == 0:
        return Starts(
            starts[:-1], origin.mean[None], origin.covariance[None], np.zeros((1, 5)), np.zeros(R, dtype=np.int64)
        )
    begin, n_diffuse = np.empty((2, R), dtype=np.int64)
    found = Starts(begin, np.empty((R, n)), np.empty((R, n, n)), np.empty((R, 5)), n_diffuse)

    def part(first, last):
        start_records(
            first, last, HEAD, starts, record, units, origin, copied(origin), keep, kept, found,
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

    def part(first, last):
        filter_lanes(first, last, members, starts, found, record, units, keep, kept, values, room_for(n))

    in_parallel(part, len(members), operations(starts, origin) // 4)
    left = np.zeros((R if keep == FILTERED else 0, *origin.diffuse.shape))
    n_diffuse = found.n_diffuse[: len(left)]
    if len(alone):
        batch.filter_each(record, units, origin, starts, alone, keep, kept, values, left, n_diffuse)
    return values, left.transpose(0, 2, 1).copy(), n_diffuse


@entry(nogil=True)
def start_records(first, last, most, starts, record, units, origin, state, keep, kept, found, work):
    """Filter records first..last−1 until nothing is diffuse any more, at most ``most`` samples."""
    n = len(origin.mean)
    for i in range(first, last):
        restart(origin, state)
        t = starts[i]
        end = min(starts[i + 1], t + most)
        while t < end and state.counts[0] > 0:
            # one or two states: it stops by itself
            t = forward_any(record, units, t, end if n <= 2 else t + 1, state, keep, kept, 0, work)
        found.begin[i] = t if state.counts[0] == 0 else -1
        found.n_diffuse[i] = state.counts[3]
        for j in range(n):
            found.mean[i, j] = state.mean[j]
            for k in range(n):
                found.covariance[i, j, k] = state.covariance[j, k]
        for q in range(4):
            found.totals[i, q] = state.totals[q]
        found.totals[i, 4] = state.counts[1]
