"""The filter's forward sweep: any number of states, the exact diffuse start."""

import numpy as np

from statespace.kernels.kalman_filter.compiled import NO, embedded, entry
from statespace.kernels.kalman_filter.pair import forward_pair, forward_single
from statespace.kernels.kalman_filter.projective import forward_projective
from statespace.kernels.kalman_filter.record import FILTERED, GAINS, NOTHING, PREDICTED, TILES
from statespace.kernels.kalman_filter.strides import forward_pair_abreast, forward_single_abreast
from statespace.kernels.kalman_filter.sweep import (
    CERTAIN,
    DIFFUSE,
    MISSING,
    SEEN,
    add_blocks,
    congruence,
    contradicts,
    copy_matrix,
    copy_vector,
    correct,
    correct_diffuse,
    diffuse_gain,
    dot,
    eliminate,
    exposure,
    is_certain,
    multiply,
    multiply_in,
    symmetric_product,
    visible,
)
from statespace.kernels.kalman_filter.tiles import fits_tiles, forward_tiles
from statespace.kernels.kalman_filter.transitions import discretize_chunk

# What ``routes.py`` chooses from: each is compiled when a record first needs it.


@entry()
def forward_start(record, units, first, last, state, keep, kept, base, work):
    return forward_any(record, units, first, last, state, keep, kept, base, work)


@entry(fastmath={"contract"})
def forward_direct(record, units, first, last, state, keep, kept, base, work):
    return forward_projective(record, units, first, last, state, keep, kept, base, None, work)


@entry(fastmath={"contract"})
def forward_abreast_single(record, units, first, last, state, keep, kept, base, work):
    return forward_single_abreast(record, units, first, last, state, keep, kept, base, work)


@entry(fastmath={"contract"})
def forward_abreast_pair(record, units, first, last, state, keep, kept, base, work):
    return forward_pair_abreast(record, units, first, last, state, keep, kept, base, work)


@entry(fastmath={"contract"})
def forward_slotted(record, units, first, last, state, keep, kept, base, work):
    return forward_projective(record, units, first, last, state, keep, kept, base, work.steps, work)


@entry(fastmath={"contract"})
def forward_small(record, units, first, last, state, keep, kept, base, work):
    if len(state.mean) == 1:
        forward_single(record, units, first, last, state, keep, kept, base, work)
    else:
        forward_pair(record, units, first, last, state, keep, kept, base, work)


@entry(fastmath={"contract"})
def forward_tiled(record, units, first, last, state, keep, kept, base, work):
    forward_tiles(record, units, first, last, state, keep, kept, base, work)


@embedded()
def forward_any(record, units, first, last, state, keep, kept, base, work):
    """Returns where it stopped: where a faster path takes over, else ``last``."""
    a, P, D, counts, totals = state
    _, size, _ = units
    n = len(a)
    steps, W, m, k, g = work.steps, work.W, work.m, work.K0, work.g
    each_h = 1 if len(record.observation) > 1 else 0
    each_R = 1 if len(record.noise_variance) > 1 else 0
    # where this sweep may end after a few samples, it looks no further ahead
    hurried = n <= 2 or (keep in (NOTHING, TILES) and fits_tiles(size))
    chunk = 4 if hurried else len(steps.gap)
    for begin in range(first, last, chunk):
        end = min(last, begin + chunk)
        if hurried and counts[0] == 0:
            return begin
        discretize_chunk(record, units, begin, end, steps, NO)
        for t in range(begin, end):
            if hurried and counts[0] == 0:
                return t
            slot = steps.slot[t - begin]
            if slot >= 0:
                A = steps.A[slot]
                multiply(size, A, a, m)
                congruence(size, A, P, W)
                add_blocks(size, steps.Q[slot], P)
                for c in range(counts[0]):
                    multiply(size, A, D[c], m)
            if counts[0] > 0:
                counts[3] += 1
            h = record.observation[t * each_h]
            R = record.noise_variance[t * each_R]
            symmetric_product(P, h, m)
            signal = max(dot(h, m), 0.0)
            F = signal + R
            v = record.y[t] - dot(h, a)
            i = t - base
            if keep in (PREDICTED, TILES):
                copy_vector(a, kept.mean[i])
                copy_matrix(P, kept.covariance[i])
                kept.alive[i] = counts[0]
                for c in range(counts[0]):
                    copy_vector(D[c], kept.diffuse[i, c])
            if keep in (PREDICTED, GAINS, TILES):
                copy_vector(m, kept.product[i])
            status = MISSING if np.isnan(v) else SEEN
            F_inf = 0.0
            if counts[0] > 0:
                F_inf = visible(units, h, D, counts[0], g)
            if status == SEEN:
                counts[1] += 1
                if F_inf > 0.0:
                    status = DIFFUSE
                    diffuse_gain(D, counts[0], g, F_inf, k)
                    correct_diffuse(a, P, m, F, k, v)
                    eliminate(D, counts[0], g)
                    counts[0] -= 1
                    counts[2] = t + 1
                    multiply_in(totals, F_inf)
                    totals[4] = max(totals[4], exposure(units, h, P))
                elif is_certain(signal, R, totals[3]):
                    status = CERTAIN
                    counts[1] -= 1
                    if contradicts(v, record.y[t], totals[3]):
                        totals[2] = np.inf
                else:
                    correct(a, P, m, F, R, v)
                    totals[2] += v * v / F
                    totals[3] = F
                    multiply_in(totals, F)
            if keep != NOTHING:
                kept.innovation[i] = v
                kept.variance[i] = np.inf if F_inf > 0.0 else F
                kept.status[i] = status
            if keep == FILTERED:
                copy_vector(a, kept.mean[i])
                copy_matrix(P, kept.covariance[i])
    return last


@entry()
def log_likelihood(state):
    """The full exact diffuse log-likelihood of what ``state`` has seen."""
    totals = state.totals
    return -0.5 * (totals[0] + np.log(totals[1]) + totals[2] + state.counts[1] * np.log(2.0 * np.pi))
