"""RWKV's weighted average as Triton kernels: the steps of a segment in turn, sums and their exponent in registers.

    k, v, y     (B, L, D)
    dt          (B, L), or None where all gaps are 1
    start, final    (B, 4, D)          numerator a, denominator b, the exponent of a e^o and b e^o in two parts
    stored      (B, blocks, 4, D)      the same at the beginning of each block of `STEPS` steps
    pieces      (B, S, 5, D)           what a segment comes to from nothing, and how far it decays what was before it;
                                       backward (B, S, 3, D), the gradients it hands on from nothing, and their factor

Arithmetic, and the exponent as a pair of the largest key and the decay since, are those of `loops.py`.
"""

# Triton compiles tuples that grow, which mypy cannot type.
# mypy: disable-error-code="assignment"

import triton
import triton.language as tl

from statespace.kernels.launching import wide
from statespace.kernels.tuning import tuned
from statespace.kernels.wkv import state

STEPS = 8  # between two stored states; the reverse sweep holds so many steps in registers
_NOTHING = tl.constexpr(state.NOTHING)
# Channels of a program forward. One for each lane: twice as many programs. Two warps: more of them at a time.
_tuned = tuned(["SPAN"], {"CHANNELS": 32}, {"CHANNELS": 128, "num_warps": 2})


@triton.jit
def _place(L, D, SPAN, S, CHANNELS: tl.constexpr):
    """Record, segment, its first step and the one behind it, channels."""
    b, s = tl.program_id(0) // S, tl.program_id(0) % S
    d = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    return b.to(tl.int64), s, s * SPAN, tl.minimum(L, (s + 1) * SPAN), d


@triton.jit
def _shares(d):
    """e^p and e^q divided by the larger one, for d = p - q."""
    small = tl.exp(-tl.abs(d))
    return tl.where(d > 0, 1.0, small), tl.where(d > 0, small, 1.0)


@triton.jit
def _gap(dt, at, like):
    """The gap of a step, the same for all channels; 1 without gaps, which the compiler folds."""
    return tl.full((), 1.0, like.dtype) if dt is None else tl.load(dt + at)


@triton.jit
def _written(top, drift, key, w, gap):
    """What the sums and the current value are weighted with in the sums behind, and the exponent of these."""
    d = (top - key) + (drift - w * gap)
    old, new = _shares(d)
    return old, new, tl.where(d > 0, top, key), tl.where(d > 0, drift - w * gap, 0.0)


@triton.jit
def _read(b, top, drift, key, w, u, gap):
    """What the numerator and the current value are weighted with in y."""
    past, now = _shares((top - key) + (drift - u) + w * (1 - gap))
    scale = 1 / (b * past + now)
    return scale * past, scale * now


@triton.jit
def _load(x, at, inside):
    return wide(tl.load(x + at, mask=inside, other=0))


@triton.jit
def _triple(x, at, step, inside):
    """Numerator, denominator and the exponent as a pair, which lie ``step`` apart."""
    nothing = tl.load(x + at + 2 * step, mask=inside, other=0)
    return (
        tl.load(x + at, mask=inside, other=0), tl.load(x + at + step, mask=inside, other=0),
        nothing, tl.load(x + at + 3 * step, mask=inside, other=0),
    )  # fmt: skip


@triton.jit
def _hand_on(x, at, step, a, b, top, drift, inside):
    tl.store(x + at, a, mask=inside)
    tl.store(x + at + step, b, mask=inside)
    tl.store(x + at + 2 * step, top, mask=inside)
    tl.store(x + at + 3 * step, drift, mask=inside)


@_tuned
@triton.jit
def summary(pieces, w, k, v, dt, L, D, SPAN, S, CHANNELS: tl.constexpr):
    """What each segment comes to from nothing, and how far it decays what was before it."""
    record, s, first, stop, d = _place(L, D, SPAN, S, CHANNELS)
    inside = d < D
    rate = tl.load(w + d, mask=inside, other=0)
    a = tl.zeros_like(rate)
    b, drift, decay, top = a, a, a, a + _NOTHING
    # The last one is followed by none.
    if s + 1 < S:
        for t in tl.range(first, stop, num_stages=4):
            at = (record * L + t) * D + d
            key, value = _load(k, at, inside), _load(v, at, inside)
            gap = _gap(dt, record * L + t, rate)
            old, new, now_top, now_drift = _written(top, drift, key, rate, gap)
            real = gap > 0
            a, b = tl.where(real, old * a + new * value, a), tl.where(real, old * b + new, b)
            top, drift = tl.where(real, now_top, top), tl.where(real, now_drift, drift)
            decay -= tl.where(real, rate * gap, 0.0)
        place = (record * S + s) * 5 * D + d
        _hand_on(pieces, place, D, a, b, top, drift, inside)
        tl.store(pieces + place + 4 * D, decay, mask=inside)


@_tuned
@triton.jit
def forward(
    y,
    final,
    stored,
    w,
    u,
    k,
    v,
    dt,
    start,
    pieces,
    L,
    D,
    SPAN,
    S,
    KEEP: tl.constexpr,
    STEPS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    record, s, first, stop, d = _place(L, D, SPAN, S, CHANNELS)
    inside = d < D
    rate, bonus = tl.load(w + d, mask=inside, other=0), tl.load(u + d, mask=inside, other=0)
    a, b, top, drift = _triple(start, record * 4 * D + d, D, inside)
    for earlier in tl.range(0, s, num_stages=4):
        place = (record * S + earlier) * 5 * D + d
        piece_a, piece_b, piece_top, piece_drift = _triple(pieces, place, D, inside)
        drift += tl.load(pieces + place + 4 * D, mask=inside, other=0)
        ahead = (top - piece_top) + (drift - piece_drift)
        old, new = _shares(ahead)
        a, b = old * a + new * piece_a, old * b + new * piece_b
        top, drift = tl.where(ahead > 0, top, piece_top), tl.where(ahead > 0, drift, piece_drift)
    for t in tl.range(first, stop, num_stages=4):
        at = (record * L + t) * D + d
        if KEEP:
            place = (record * tl.cdiv(L, STEPS) + t // STEPS) * 4 * D + d
            _hand_on(stored, place, D, a, b, top, drift, inside & (t % STEPS == 0))
        key, value = _load(k, at, inside), _load(v, at, inside)
        gap = _gap(dt, record * L + t, rate)
        past, now = _read(b, top, drift, key, rate, bonus, gap)
        old, new, now_top, now_drift = _written(top, drift, key, rate, gap)
        real = gap > 0
        tl.store(y + at, tl.where(real, past * a + now * value, 0.0), mask=inside)
        a, b = tl.where(real, old * a + new * value, a), tl.where(real, old * b + new, b)
        top, drift = tl.where(real, now_top, top), tl.where(real, now_drift, drift)
    if s + 1 == S:
        _hand_on(final, record * 4 * D + d, D, a, b, top, drift, inside)


@triton.jit
def _block(w, u, k, v, dt, stored, grad_y, L, D, record, block, stop, d, rate, bonus, STEPS: tl.constexpr):
    """The steps of a block forward again: before each one numerator and denominator, the weights, what comes back.

    A step behind the last one is padding.
    """
    inside = d < D
    a, b, top, drift = _triple(stored, (record * tl.cdiv(L, STEPS) + block // STEPS) * 4 * D + d, D, inside)
    keys, values, backs, gaps = (), (), (), ()
    for i in tl.static_range(STEPS):
        t = block + i
        at, own = (record * L + t) * D + d, d < tl.where(t < stop, D, 0)
        keys += (_load(k, at, own),)
        values += (_load(v, at, own),)
        backs += (_load(grad_y, at, own),)
        gap = tl.full((), 1.0, rate.dtype) if dt is None else tl.load(dt + record * L + t, mask=t < stop, other=0)
        gaps += (tl.where(t < stop, gap, 0.0),)
    before, weights = (), ()
    for i in tl.static_range(STEPS):
        real = gaps[i] > 0
        past, now = _read(b, top, drift, keys[i], rate, bonus, gaps[i])
        old, new, now_top, now_drift = _written(top, drift, keys[i], rate, gaps[i])
        before += ((a, b),)
        weights += ((past, now, old, new),)
        a, b = tl.where(real, old * a + new * values[i], a), tl.where(real, old * b + new, b)
        top, drift = tl.where(real, now_top, top), tl.where(real, now_drift, drift)
    return before, weights, values, backs, gaps


@triton.jit
def _before(sums, weights, value, back, gap, of_a, of_b):
    """The gradients in the sums before a step, from those behind it; in k, v, u, and minus that in wΔ by the decay."""
    a, b = sums
    past, now, old, new = weights
    real = gap > 0
    y = past * a + now * value
    decay = tl.where(real, old * (a * of_a + b * of_b), 0.0)
    of_u = tl.where(real, now * (value - y) * back, 0.0)
    of_k = tl.where(real, new * (value * of_a + of_b), 0.0) + of_u
    of_v = tl.where(real, new * of_a + now * back, 0.0)
    of_a = tl.where(real, old * of_a + past * back, of_a)
    of_b = tl.where(real, old * of_b - past * y * back, of_b)
    return of_a, of_b, of_k, of_v, of_u, decay


@triton.jit
def summary_backward(
    pieces, w, u, k, v, dt, stored, grad_y, L, D, SPAN, S, STEPS: tl.constexpr, CHANNELS: tl.constexpr
):
    """The gradients in the sums before each segment, from none in those behind it, and their factor otherwise."""
    record, s, first, stop, d = _place(L, D, SPAN, S, CHANNELS)
    inside = d < D
    rate, bonus = tl.load(w + d, mask=inside, other=0), tl.load(u + d, mask=inside, other=0)
    of_a, of_b, factor = tl.zeros_like(rate), tl.zeros_like(rate), tl.zeros_like(rate) + 1
    if s > 0:
        for step in range(0, tl.cdiv(stop - first, STEPS)):
            block = first + (tl.cdiv(stop - first, STEPS) - 1 - step) * STEPS
            before, weights, values, backs, gaps = _block(
                w, u, k, v, dt, stored, grad_y, L, D, record, block, stop, d, rate, bonus, STEPS
            )
            for i in tl.static_range(STEPS - 1, -1, -1):
                of_a, of_b, _, _, _, _ = _before(before[i], weights[i], values[i], backs[i], gaps[i], of_a, of_b)
                factor *= tl.where(gaps[i] > 0, weights[i][2], 1.0)
        place = (record * S + s) * 3 * D + d
        tl.store(pieces + place, of_a, mask=inside)
        tl.store(pieces + place + D, of_b, mask=inside)
        tl.store(pieces + place + 2 * D, factor, mask=inside)


@triton.jit
def backward(
    grad_w, grad_u, grad_k, grad_v, grad_dt, grad_start, w, u, k, v, dt, stored, grad_y, grad_final, pieces,
    L, D, SPAN, S, OF_DT: tl.constexpr, STEPS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """The reverse sweep. The gradient in an exponent follows from those in numerator and denominator.

    ``grad_w``, ``grad_u`` (B · S, D) and ``grad_dt`` (B, programs of channels, L): a sum for each program.
    """
    record, s, first, stop, d = _place(L, D, SPAN, S, CHANNELS)
    inside = d < D
    rate, bonus = tl.load(w + d, mask=inside, other=0), tl.load(u + d, mask=inside, other=0)
    of_a, of_b, _, _ = _triple(grad_final, record * 4 * D + d, D, inside)
    for later in tl.range(0, S - 1 - s, num_stages=4):
        place = (record * S + S - 1 - later) * 3 * D + d
        factor = tl.load(pieces + place + 2 * D, mask=inside, other=0)
        of_a = tl.load(pieces + place, mask=inside, other=0) + factor * of_a
        of_b = tl.load(pieces + place + D, mask=inside, other=0) + factor * of_b
    of_w, of_u = tl.zeros_like(rate), tl.zeros_like(rate)
    for step in range(0, tl.cdiv(stop - first, STEPS)):
        block = first + (tl.cdiv(stop - first, STEPS) - 1 - step) * STEPS
        before, weights, values, backs, gaps = _block(
            w, u, k, v, dt, stored, grad_y, L, D, record, block, stop, d, rate, bonus, STEPS
        )
        for i in tl.static_range(STEPS - 1, -1, -1):
            gap, t = gaps[i], block + i
            of_a, of_b, of_k, of_v, share, decay = _before(before[i], weights[i], values[i], backs[i], gap, of_a, of_b)
            at, own = (record * L + t) * D + d, d < tl.where(t < stop, D, 0)
            tl.store(grad_k + at, of_k, mask=own)
            tl.store(grad_v + at, of_v, mask=own)
            of_w -= gap * decay + (1 - gap) * share
            of_u += share
            if OF_DT:
                place = (record * tl.num_programs(1) + tl.program_id(1)) * L + t
                tl.store(grad_dt + place, tl.sum(tl.where(inside, rate * (share - decay), 0.0)), mask=t < stop)
    tl.store(grad_w + tl.program_id(0).to(tl.int64) * D + d, of_w, mask=inside)
    tl.store(grad_u + tl.program_id(0).to(tl.int64) * D + d, of_u, mask=inside)
    if s == 0:
        a, b, _, _ = _triple(stored, record * tl.cdiv(L, STEPS) * 4 * D + d, D, inside)
        whole = a * of_a + b * of_b
        _hand_on(grad_start, record * 4 * D + d, D, of_a, of_b, whole, whole, inside)
