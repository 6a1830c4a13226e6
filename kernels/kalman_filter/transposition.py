"""Between arrays of records, one sample after the other, and vectors, one record beside the other.

An array holds ``columns`` numbers for every sample. Eight consecutive numbers of each of eight records are an 8 × 8
matrix, whose transpose is eight vectors in the order of these numbers.
"""

import numpy as np

from statespace.kernels.kalman_filter.compiled import ZERO, embedded, helper, shared
from statespace.kernels.vectors import loading, splatting, store, store_rows, turned

WIDTH = 8
load, splat = loading(WIDTH), splatting(WIDTH)


def aligned(length):
    """Zeros from a multiple of 64 bytes on, where a vector's cache line begins."""
    array = np.zeros(length + 8)
    skipped = -array.ctypes.data // 8 % 8
    return array[skipped : skipped + length]


@helper()
def taken(x, first, e, end, otherwise, scratch):
    """x[first + e], … of one record, ``otherwise`` from e = ``end`` on."""
    if e + WIDTH > end:
        for i in range(WIDTH):
            scratch[i] = x[first + e + i] if e + i < end else otherwise
        return load(scratch, 0)
    return load(x, first + e)


@helper()
def put(row, x, first, e, end, scratch):
    if e + WIDTH > end:
        store(row, scratch, 0)
        for i in range(min(WIDTH, end - e)):
            x[first + e + i] = scratch[i]
    else:
        store(row, x, first + e)


@helper()
def rows_of(x, at, apart):
    """Eight vectors whose first numbers lie ``apart`` from one another, from x[at] on."""
    return (
        load(x, at), load(x, at + apart), load(x, at + 2 * apart), load(x, at + 3 * apart), load(x, at + 4 * apart),
        load(x, at + 5 * apart), load(x, at + 6 * apart), load(x, at + 7 * apart),
    )  # fmt: skip


@embedded()
def bring_in(x, columns, begin, size, at, stops, otherwise, C, to, scratch):
    """Steps begin..begin + size − 1 of every lane from ``x`` to vectors from ``to`` on, padded to whole eights."""
    # one compilation for all numbers of columns, each of which is a constant where this is called
    _bring_in(x, columns + ZERO, begin, size, at, stops, otherwise, C, to + ZERO, scratch)


@embedded()
def hand_out(C, place, columns, begin, size, at, stops, x, scratch):
    """The way back."""
    _hand_out(C, place + ZERO, columns + ZERO, begin, size, at, stops, x, scratch)


@shared()
def _bring_in(x, columns, begin, size, at, stops, otherwise, C, to, scratch):
    n = columns
    for e in range(0, size * n, WIDTH):
        rows = (
            taken(x, (at[0] + begin) * n, e, min(size, stops[0] - at[0] - begin) * n, otherwise, scratch),
            taken(x, (at[1] + begin) * n, e, min(size, stops[1] - at[1] - begin) * n, otherwise, scratch),
            taken(x, (at[2] + begin) * n, e, min(size, stops[2] - at[2] - begin) * n, otherwise, scratch),
            taken(x, (at[3] + begin) * n, e, min(size, stops[3] - at[3] - begin) * n, otherwise, scratch),
            taken(x, (at[4] + begin) * n, e, min(size, stops[4] - at[4] - begin) * n, otherwise, scratch),
            taken(x, (at[5] + begin) * n, e, min(size, stops[5] - at[5] - begin) * n, otherwise, scratch),
            taken(x, (at[6] + begin) * n, e, min(size, stops[6] - at[6] - begin) * n, otherwise, scratch),
            taken(x, (at[7] + begin) * n, e, min(size, stops[7] - at[7] - begin) * n, otherwise, scratch),
        )  # fmt: skip
        store_rows(turned(rows), C, to + e * WIDTH, WIDTH)


@shared()
def _hand_out(C, place, columns, begin, size, at, stops, x, scratch):
    n = columns
    for e in range(0, size * n, WIDTH):
        rows = turned(rows_of(C, place + e * WIDTH, WIDTH))
        put(rows[0], x, (at[0] + begin) * n, e, min(size, stops[0] - at[0] - begin) * n, scratch)
        put(rows[1], x, (at[1] + begin) * n, e, min(size, stops[1] - at[1] - begin) * n, scratch)
        put(rows[2], x, (at[2] + begin) * n, e, min(size, stops[2] - at[2] - begin) * n, scratch)
        put(rows[3], x, (at[3] + begin) * n, e, min(size, stops[3] - at[3] - begin) * n, scratch)
        put(rows[4], x, (at[4] + begin) * n, e, min(size, stops[4] - at[4] - begin) * n, scratch)
        put(rows[5], x, (at[5] + begin) * n, e, min(size, stops[5] - at[5] - begin) * n, scratch)
        put(rows[6], x, (at[6] + begin) * n, e, min(size, stops[6] - at[6] - begin) * n, scratch)
        put(rows[7], x, (at[7] + begin) * n, e, min(size, stops[7] - at[7] - begin) * n, scratch)
