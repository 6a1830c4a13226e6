"""How a record is cut into blocks, and into rings whose transforms fit into the shared memory of a GPU."""

import math
from functools import cache
from typing import NamedTuple

import numpy as np

SHORTEST = 64
# Bytes of one transform in shared memory, of which a block has 163 KB on an A100 and 227 KB on an H100.
ROW_BYTES = 1 << 17
# Columns are split into so many rings before their rows are transformed.
ROOTS = 16, 256, 1024
# What a detour through memory takes, in passes through shared memory.
DETOUR = 8


class Plan(NamedTuple):
    """``length`` · ``roots`` complex numbers, which hold twice as many samples; ``blocks`` of ``size`` samples."""

    length: int
    roots: int
    size: int
    blocks: int


def plan(L, K, itemsize):
    """The cheapest way to convolve records of L samples with kernels of K <= L, or None if K is too long.

    ``itemsize``: bytes of a real number. A block of m samples needs 2 M >= m + K - 1 of them in the ring.
    """
    row = ROW_BYTES // (2 * itemsize)
    best = None
    for exponent in range(SHORTEST.bit_length() - 1, (row * ROOTS[-1]).bit_length()):
        M = 1 << exponent
        size = min(L, 2 * M - K + 1)
        roots = 1 if row >= M else next(r for r in ROOTS if row * r >= M)
        # not for a few samples at a time; a row takes two passes at least
        if size < min(L, K // 4 + 1) or M // roots < 32:
            continue
        blocks = math.ceil(L / size)
        # fewer than 32 threads take as long as 32
        cost = blocks * max(M, 512) * (passes(M // roots) + (0 if roots == 1 else DETOUR))
        if best is None or (cost, blocks) < best[0]:
            best = (cost, blocks), Plan(M // roots, roots, size, blocks)
    return best and best[1]


def passes(N):
    """Passes through shared memory of a transform of length N: see ring.cuh."""
    return math.ceil((N.bit_length() - 1) / 4)


def levels(N):
    """Into how many rings each level splits each ring of a transform of length N."""
    exponent = N.bit_length() - 1
    return [2] * (exponent % 2) + [4] * (exponent // 2)


def twiddles(angles, N):
    """The twiddles of x^N - exp(2πi angle) for some angles, level by level, and the angles of the constants."""
    found = []
    for parts in levels(N):
        found.append(np.exp(2j * np.pi * angles / parts))
        angles = ((angles[:, None] + np.arange(parts)) / parts).ravel()
    return np.concatenate(found), angles


@cache
def tables(length, roots):
    """Twiddles of the columns, None for a transform in one step, and of the rows, of x^M - i in complex128."""
    columns, angles = (None, np.array([0.25])) if roots == 1 else twiddles(np.array([0.25]), roots)
    return columns, twiddles(angles, length)[0]
