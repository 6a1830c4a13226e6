"""Four real states of a vector of channels through a segment, forth and back.

Offsets point into the scratch: ``rows`` to the rows of the segment, ``b`` and ``c`` to its coefficients (steps, n),
which the channels share; ``own`` is not None where each channel also has factors of its own, ``own_b`` and ``own_c``.
"""

from numba import njit, types
from numba.extending import overload

from statespace.kernels.lanes import load
from statespace.kernels.selective_scan.exponential import expm1_exp
from statespace.kernels.selective_scan.segments import OF_H, OF_V, OF_Y, H, V, W, Y
from statespace.kernels.vectors import nothing, store, without_tiny

UNROLLED = 4
FIELDS = 1  # of a state's rate: A / ln 2
LN2 = 0.6931471805599453
# A state that dies away must not become subnormal: such numbers slow a processor a hundredfold.
TINY = 1e-30


def _coefficient(scratch, at, own, factor):
    """B or C of a step and state: one number for all channels, or a vector."""
    raise TypeError("called from compiled code only")


@overload(_coefficient)
def _coefficient_(scratch, at, own, factor):
    if own is types.none:
        return lambda scratch, at, own, factor: scratch[at]
    return lambda scratch, at, own, factor: load(scratch, factor) * scratch[at]


@njit(cache=True, error_model="numpy")
def _next(x, h, v, a, b):
    """exp(h A) x + B h u."""
    e, _ = expm1_exp(h * a)
    return x + (e * x + v * b)


@njit(cache=True, error_model="numpy")
def advance(steps, n, i, rows, b, c, a, x, own, own_b, own_c, scratch):
    """States i … i + 3 through a segment; their read-out is added to the outputs."""
    b, c, a, x, own_b, own_c = b + i, c + i, a + i * W, x + i * W, own_b + i * W, own_c + i * W
    a0, a1, a2, a3 = load(scratch, a), load(scratch, a + W), load(scratch, a + 2 * W), load(scratch, a + 3 * W)
    x0, x1 = without_tiny(load(scratch, x), TINY), without_tiny(load(scratch, x + W), TINY)
    x2, x3 = without_tiny(load(scratch, x + 2 * W), TINY), without_tiny(load(scratch, x + 3 * W), TINY)
    for t in range(steps):
        at, k, m = rows + t * W, b + t * n, c + t * n
        h, v = load(scratch, at + H), load(scratch, at + V)
        x0 = _next(x0, h, v, a0, _coefficient(scratch, k, own, own_b))
        x1 = _next(x1, h, v, a1, _coefficient(scratch, k + 1, own, own_b + W))
        x2 = _next(x2, h, v, a2, _coefficient(scratch, k + 2, own, own_b + 2 * W))
        x3 = _next(x3, h, v, a3, _coefficient(scratch, k + 3, own, own_b + 3 * W))
        one = x0 * _coefficient(scratch, m, own, own_c) + x1 * _coefficient(scratch, m + 1, own, own_c + W)
        two = x2 * _coefficient(scratch, m + 2, own, own_c + 2 * W) + x3 * _coefficient(
            scratch, m + 3, own, own_c + 3 * W
        )
        store(load(scratch, at + Y) + (one + two), scratch, at + Y)
    store(x0, scratch, x)
    store(x1, scratch, x + W)
    store(x2, scratch, x + 2 * W)
    store(x3, scratch, x + 3 * W)


@njit(cache=True, error_model="numpy")
def _repeat(x, h, v, a, b, scratch, kept):
    """`_next`; exp(h A) x and exp(h A) - 1 are kept for the way back."""
    e, decay = expm1_exp(h * a)
    store(decay * x, scratch, kept)
    store(e, scratch, kept + W)
    return x + (e * x + v * b)


@njit(cache=True, error_model="numpy")
def _back(g, h, v, of_y, a, of_a, of_h, of_v, b, c, of_b, of_c, own, own_b, own_c, of_own, scratch, kept):
    """One step of the reverse sweep for one state: from the gradient g in the state after to that before."""
    decayed, e = load(scratch, kept), load(scratch, kept + W)
    if own is None:
        after = decayed + v * b
        g = g + of_y * c
        store(load(scratch, of_c) + of_y * after, scratch, of_c)
        store(load(scratch, of_b) + g * v, scratch, of_b)
        of_v = of_v + g * b
    else:
        factor_b, factor_c = load(scratch, own_b), load(scratch, own_c)
        after = decayed + v * (factor_b * b)
        g = g + of_y * (factor_c * c)
        back, through = of_y * after, g * v
        store(load(scratch, of_c) + back * factor_c, scratch, of_c)
        store(load(scratch, of_b) + through * factor_b, scratch, of_b)
        of_own = of_own[0] + through * b, of_own[1] + back * c
        of_v = of_v + g * (factor_b * b)
    s = g * decayed  # the gradient in h A
    return g + g * e, of_a + s * h, of_h + s * a, of_v, of_own


@njit(cache=True, error_model="numpy")
def reverse(
    steps, n, i, rows, b, c, a, x, own, own_b, own_c, of_b, of_c, of_a, g, of_own_b, of_own_c, kept, gated, scratch
):
    """States i … i + 3 through a segment again, and back; ``x`` points to them at its beginning."""
    b, c, of_b, of_c = b + i, c + i, of_b + i * W, of_c + i * W
    a, x, of_a, g, own_b, own_c = a + i * W, x + i * W, of_a + i * W, g + i * W, own_b + i * W, own_c + i * W
    of_own_b, of_own_c = of_own_b + i * W, of_own_c + i * W
    a0, a1, a2, a3 = load(scratch, a), load(scratch, a + W), load(scratch, a + 2 * W), load(scratch, a + 3 * W)
    x0, x1 = without_tiny(load(scratch, x), TINY), without_tiny(load(scratch, x + W), TINY)
    x2, x3 = without_tiny(load(scratch, x + 2 * W), TINY), without_tiny(load(scratch, x + 3 * W), TINY)
    for t in range(steps):
        at, k, m, to = rows + t * W, b + t * n, c + t * n, kept + t * 8 * W
        h, v = load(scratch, at + H), load(scratch, at + V)
        x0 = _repeat(x0, h, v, a0, _coefficient(scratch, k, own, own_b), scratch, to)
        x1 = _repeat(x1, h, v, a1, _coefficient(scratch, k + 1, own, own_b + W), scratch, to + 2 * W)
        x2 = _repeat(x2, h, v, a2, _coefficient(scratch, k + 2, own, own_b + 2 * W), scratch, to + 4 * W)
        x3 = _repeat(x3, h, v, a3, _coefficient(scratch, k + 3, own, own_b + 3 * W), scratch, to + 6 * W)
        if gated:
            one = x0 * _coefficient(scratch, m, own, own_c) + x1 * _coefficient(scratch, m + 1, own, own_c + W)
            two = x2 * _coefficient(scratch, m + 2, own, own_c + 2 * W)
            two = two + x3 * _coefficient(scratch, m + 3, own, own_c + 3 * W)
            store(load(scratch, at + Y) + (one + two), scratch, at + Y)
    g0, g1, g2, g3 = load(scratch, g), load(scratch, g + W), load(scratch, g + 2 * W), load(scratch, g + 3 * W)
    s0, s1 = load(scratch, of_a), load(scratch, of_a + W)
    s2, s3 = load(scratch, of_a + 2 * W), load(scratch, of_a + 3 * W)
    zero = nothing(g0)
    own0 = own1 = own2 = own3 = zero, zero
    for t in range(steps - 1, -1, -1):
        at, k, m, to = rows + t * W, b + t * n, c + t * n, kept + t * 8 * W
        p, q = of_b + t * n * W, of_c + t * n * W
        h, v, of_y = load(scratch, at + H), load(scratch, at + V), load(scratch, at + OF_Y)
        g0, s0, of_h, of_v, own0 = _back(
            g0, h, v, of_y, a0, s0, zero, zero, scratch[k], scratch[m], p, q, own, own_b, own_c, own0, scratch, to
        )
        g1, s1, of_h, of_v, own1 = _back(
            g1, h, v, of_y, a1, s1, of_h, of_v, scratch[k + 1], scratch[m + 1], p + W, q + W,
            own, own_b + W, own_c + W, own1, scratch, to + 2 * W,
        )  # fmt: skip
        g2, s2, of_h2, of_v2, own2 = _back(
            g2, h, v, of_y, a2, s2, zero, zero, scratch[k + 2], scratch[m + 2], p + 2 * W, q + 2 * W,
            own, own_b + 2 * W, own_c + 2 * W, own2, scratch, to + 4 * W,
        )  # fmt: skip
        g3, s3, of_h2, of_v2, own3 = _back(
            g3, h, v, of_y, a3, s3, of_h2, of_v2, scratch[k + 3], scratch[m + 3], p + 3 * W, q + 3 * W,
            own, own_b + 3 * W, own_c + 3 * W, own3, scratch, to + 6 * W,
        )  # fmt: skip
        store(load(scratch, at + OF_H) + LN2 * (of_h + of_h2), scratch, at + OF_H)
        store(load(scratch, at + OF_V) + (of_v + of_v2), scratch, at + OF_V)
    store(g0, scratch, g)
    store(g1, scratch, g + W)
    store(g2, scratch, g + 2 * W)
    store(g3, scratch, g + 3 * W)
    store(s0, scratch, of_a)
    store(s1, scratch, of_a + W)
    store(s2, scratch, of_a + 2 * W)
    store(s3, scratch, of_a + 3 * W)
    if own is not None:
        for pair, to in ((own0, 0), (own1, W), (own2, 2 * W), (own3, 3 * W)):
            store(load(scratch, of_own_b + to) + pair[0], scratch, of_own_b + to)
            store(load(scratch, of_own_c + to) + pair[1], scratch, of_own_c + to)
