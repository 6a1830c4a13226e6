"""Which compiled sweep takes which part of a record, chosen in Python: each is compiled when it is first needed.

``forward.forward`` and ``gradient.gradient_segment`` are the same choices compiled as one, for loops over many records.
"""

from statespace.kernels.kalman_filter.blocks import MATERN32, OU, RANDOM_WALK, TREND
from statespace.kernels.kalman_filter.forward import (
    forward_direct,
    forward_slotted,
    forward_small,
    forward_start,
    forward_tiled,
)
from statespace.kernels.kalman_filter.gradient import (
    gradient_direct,
    gradient_slotted,
    gradient_start,
    gradient_tiled,
)
from statespace.kernels.kalman_filter.record import NOTHING, TILES

# ``is_direct`` of projective.py
_DIRECT = frozenset((OU, MATERN32, TREND, RANDOM_WALK))


def forward(record, units, first, last, state, keep, kept, base, work):
    """Filter samples first..last−1; what is kept of sample t stands at t − base."""
    n = len(state.mean)
    linear = keep in (NOTHING, TILES)
    if state.counts[0] > 0 or not (n <= 2 or (linear and len(work.tiles.a))):
        first = forward_start(record, units, first, last, state, keep, kept, base, work)
    if first < last and n <= 2 and linear:
        sweep = forward_direct if _DIRECT.issuperset(units[0].tolist()) else forward_slotted
        first = sweep(record, units, first, last, state, keep, kept, base, work)
    if first < last:
        sweep = forward_small if n <= 2 else forward_tiled
        sweep(record, units, first, last, state, keep, kept, base, work)


def gradient_segment(
    record, units, moving, by_observation, first, last, start, stop, last_diffuse, tiled, origin, kept, base, b,
    out, work,
):  # fmt: skip
    """Take ``b`` from after sample last−1 to after sample first−1, or to before the start: see gradient.py."""
    resolved = min(last, max(first, last_diffuse)) if tiled else last
    given = by_observation, resolved, last, stop, kept, base, b, out, work
    if resolved < last and len(b.r0) > 2:
        gradient_tiled(record, units, moving.any(), *given)
    elif resolved < last:
        sweep = gradient_direct if _DIRECT.issuperset(units[0].tolist()) else gradient_slotted
        sweep(record, units, *given)
    begins = first == start and (record.dt[start] > 0.0 or (len(record.gap_index) and record.gap_index[start] >= 0))
    if resolved > first or begins:
        gradient_start(
            record, units, moving, by_observation, first, resolved, start, stop, last_diffuse, origin, kept, base, b,
            out, work,
        )  # fmt: skip
