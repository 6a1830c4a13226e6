"""Which compiled sweep takes which part of a record: each is compiled when it is first needed.

For one record the choice is made in Python. Compiled loops over many records (``batch.py``, ``lanes.py``) make the same
choice among sweeps that they are given by their addresses, so that these are compiled once for all.
"""

from typing import NamedTuple

from numba import types

from statespace.kernels.intrinsics import address_of, calling
from statespace.kernels.kalman_filter.abreast import LONG
from statespace.kernels.kalman_filter.blocks import MATERN32, OU, RANDOM_WALK, TREND
from statespace.kernels.kalman_filter.compiled import helper
from statespace.kernels.kalman_filter.forward import (
    forward_abreast_pair,
    forward_abreast_single,
    forward_direct,
    forward_slotted,
    forward_small,
    forward_start,
    forward_tiled,
)
from statespace.kernels.kalman_filter.gradient import (
    gradient_abreast_pair,
    gradient_abreast_single,
    gradient_direct,
    gradient_slotted,
    gradient_start,
    gradient_tiled,
)
from statespace.kernels.kalman_filter.record import NOTHING, TILES
from statespace.kernels.kalman_filter.stretches import forward_stretches

# ``is_direct`` of projective.py
_DIRECT = frozenset((OU, MATERN32, TREND, RANDOM_WALK))


def forward(record, units, first, last, state, keep, kept, base, work):
    """Filter samples first..last−1; what is kept of sample t stands at t − base."""
    n = len(state.mean)
    linear = keep in (NOTHING, TILES)
    if state.counts[0] > 0 or not (n <= 2 or (linear and len(work.tiles.a))):
        first = forward_start(record, units, first, last, state, keep, kept, base, work)
    if first < last and n <= 2 and linear:
        direct = _DIRECT.issuperset(units[0].tolist())
        kept.abreast[:] = first
        if direct and len(units[0]) == 1 and last - first >= LONG:
            sweep = forward_abreast_single if n == 1 else forward_abreast_pair
            first = sweep(record, units, first, last, state, keep, kept, base, work)
            kept.abreast[1] = first
    if first < last and n <= 2 and linear:
        sweep = forward_direct if direct else forward_slotted
        first = sweep(record, units, first, last, state, keep, kept, base, work)
    elif first < last and keep == NOTHING and len(work.tiles.a):
        first = forward_stretches(record, units, first, last, state)
    if first < last:
        sweep = forward_small if n <= 2 else forward_tiled
        sweep(record, units, first, last, state, keep, kept, base, work)


def gradient_segment(
    record, units, moving, by_observation, first, last, start, stop, last_diffuse, tiled, origin, kept, base, b,
    out, work,
):  # fmt: skip
    """Take ``b`` from after sample last−1 to after sample first−1, or to before the start if first = start.

    Adds to ``out``. The record is samples start..stop−1, ``origin`` the state before them; ``kept`` holds what it
    left of sample t at t − base. The predicted moments are read where a block is ``moving`` (its A depends on a
    parameter), where the gradient is wanted ``by_observation``, and through the diffuse start; elsewhere m, F and v
    are enough. ``tiled``: the filter kept TILES, and nothing is diffuse after ``last_diffuse``.
    """
    resolved = min(last, max(first, last_diffuse)) if tiled else last
    given = by_observation, resolved, last, stop, kept, base, b, out, work
    if resolved < last and len(b.r0) > 2:
        gradient_tiled(record, units, moving.any(), *given)
    elif resolved < last:
        abreast = kept.abreast[1]
        if abreast < last:
            sweep = gradient_direct if _DIRECT.issuperset(units[0].tolist()) else gradient_slotted
            sweep(record, units, by_observation, max(resolved, abreast), *given[2:])
        if resolved < abreast:
            sweep = gradient_abreast_single if len(b.r0) == 1 else gradient_abreast_pair
            sweep(record, units, by_observation, resolved, abreast, *given[3:])
    begins = first == start and (record.dt[start] > 0.0 or (len(record.gap_index) and record.gap_index[start] >= 0))
    if resolved > first or begins:
        gradient_start(
            record, units, moving, by_observation, first, resolved, start, stop, last_diffuse, origin, kept, base, b,
            out, work,
        )  # fmt: skip


advance = calling(types.int64)
run = calling(types.none)


class Sweeps(NamedTuple):
    """Addresses of the sweeps that take the parts of every record of a batch; 0 for one that none needs."""

    start: int
    linear: int
    rest: int


def forward_sweeps(record, units, state, keep, kept, work):
    """The sweeps of `forward` for records that begin as ``state`` does."""
    n = len(state.mean)
    linear = keep in (NOTHING, TILES)
    given = record, units, 0, 0, state, keep, kept, 0, work
    quick = n <= 2 or (linear and len(work.tiles.a) > 0)
    start = address_of(forward_start, *given) if state.counts[0] > 0 or not quick else 0
    if not quick:
        return Sweeps(start, 0, 0)
    if n > 2:
        return Sweeps(start, 0, address_of(forward_tiled, *given))
    if not linear:
        return Sweeps(start, 0, address_of(forward_small, *given))
    direct = _DIRECT.issuperset(units[0].tolist())
    quickest = address_of(forward_direct if direct else forward_slotted, *given)
    return Sweeps(start, quickest, address_of(forward_small, *given))


def start_sweep(record, units, state, keep, kept, work):
    """The sweep that takes a record through its diffuse start."""
    return address_of(forward_start, record, units, 0, 0, state, keep, kept, 0, work)


def gradient_sweeps(record, units, moving, by_observation, tiled, origin, kept, b, out, work):
    """The sweeps of `gradient_segment`; ``tiled``: whether any record may be."""
    start = address_of(
        gradient_start, record, units, moving, by_observation, 0, 0, 0, 0, 0, origin, kept, 0, b, out, work
    )
    given = by_observation, 0, 0, 0, kept, 0, b, out, work
    if not tiled:
        return Sweeps(start, 0, 0)
    if len(b.r0) > 2:
        return Sweeps(start, 0, address_of(gradient_tiled, record, units, bool(moving.any()), *given))
    direct = _DIRECT.issuperset(units[0].tolist())
    return Sweeps(start, address_of(gradient_direct if direct else gradient_slotted, record, units, *given), 0)


@helper()
def forward_by(sweeps, record, units, first, last, state, keep, kept, base, work):
    t = first
    if sweeps.start != 0 and (state.counts[0] > 0 or sweeps.linear + sweeps.rest == 0):
        t = advance(sweeps.start, (record, units, t, last, state, keep, kept, base, work))
    if t < last and sweeps.linear != 0:
        t = advance(sweeps.linear, (record, units, t, last, state, keep, kept, base, work))
    if t < last:
        run(sweeps.rest, (record, units, t, last, state, keep, kept, base, work))


@helper()
def gradient_by(
    sweeps, record, units, moving, by_observation, first, last, start, stop, last_diffuse, tiled, origin, kept, base, b,
    out, work,
):  # fmt: skip
    resolved = min(last, max(first, last_diffuse)) if tiled else last
    if resolved < last and sweeps.rest != 0:
        some = False
        for moved in moving:
            some = some or moved
        run(sweeps.rest, (record, units, some, by_observation, resolved, last, stop, kept, base, b, out, work))
    elif resolved < last:
        run(sweeps.linear, (record, units, by_observation, resolved, last, stop, kept, base, b, out, work))
    begins = first == start and (record.dt[start] > 0.0 or (len(record.gap_index) > 0 and record.gap_index[start] >= 0))
    if resolved > first or begins:
        run(
            sweeps.start,
            (record, units, moving, by_observation, first, resolved, start, stop, last_diffuse, origin, kept, base, b,
             out, work),
        )  # fmt: skip
