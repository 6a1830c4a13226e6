"""RWKV's weighted average compiled: sixteen channels in a vector, sums and their exponent in registers.

``G`` vectors of channels, ``per`` of them in a record, ``V`` with rates and bonuses of their own: those of one record,
if records share them, or all. Flat arrays, time before channels:

    k, v, y     (records, L, per · lanes)
    dt          (records, L, lanes), or None where all gaps are 1; its gradient (G, L, lanes)
    w, u        (V, lanes); their gradients (G, lanes)
    sums        (G, 4, lanes)              numerator a, denominator b, the exponent o of a e^o and b e^o in two parts
    stored      (G, segments, 4, lanes)    the sums at the beginning of each segment
"""

import numpy as np

from statespace.kernels.compiled import entry, helper
from statespace.kernels.lanes import WIDTH, load
from statespace.kernels.vectors import fused, nothing, store, where
from statespace.kernels.wkv.exponential import exp_of_minus_modulus

SEGMENT = 32  # steps between two stored states; the reverse sweep computes one segment again at a time
W = WIDTH


@helper()
def _shares(d):
    """e^p and e^q divided by the larger one, for d = p - q."""
    one, small, later = nothing(d) + 1.0, exp_of_minus_modulus(d), d > nothing(d)
    return where(later, one, small), where(later, small, one)


@helper()
def _weights(b, o, key, w, u, dt, i):
    """What the numerator and the current value are weighted with, in y and in the sums behind; the exponent of these.

    An exponent is a pair (top, drift), the largest key and the decay since, summed from 0: where the rate is small, the
    rounding of their sum, alike at every step, would be another rate.
    """
    top, drift = o
    # Large exponents meet first: where they are close, and it matters, their difference is exact.
    d = top - key
    if dt is None:
        read, written, decayed = d + (drift - u), d + (drift - w), drift - w
    else:
        gap = load(dt, i)
        read, written, decayed = fused(w, 1.0 - gap, d + (drift - u)), fused(-w, gap, d + drift), fused(-w, gap, drift)
    past, now = _shares(read)
    scale = 1.0 / (b * past + now)
    old, new = _shares(written)
    zero = nothing(d)
    later = written > zero
    return scale * past, scale * now, old, new, (where(later, top, key), where(later, decayed, zero))


@helper()
def _behind(a, b, o, value, old, new, exponent, dt, i):
    """The sums after a sample; those before it, if it is padding."""
    if dt is None:
        return old * a + new * value, old * b + new, exponent
    gap = load(dt, i)
    real = gap > nothing(gap)
    o = where(real, exponent[0], o[0]), where(real, exponent[1], o[1])
    return where(real, old * a + new * value, a), where(real, old * b + new, b), o


@helper()
def _sums(x, i):
    """Numerator, denominator and the exponent as a pair, as they lie in x from index i on."""
    return load(x, i), load(x, i + W), (load(x, i + 2 * W), load(x, i + 3 * W))


@helper()
def _keep(a, b, o, x, i):
    """The inverse of `_sums`."""
    store(a, x, i)
    store(b, x, i + W)
    store(o[0], x, i + 2 * W)
    store(o[1], x, i + 3 * W)


@entry()
def forward(first, last, L, per, V, w, u, k, v, dt, sums, y, stored):
    """Of the vectors first..last−1: writes y, and leaves the final sums in ``sums``; ``stored`` may be empty."""
    segments = (L - 1) // SEGMENT + 1
    for g in range(first, last):
        rate, bonus = load(w, (g % V) * W), load(u, (g % V) * W)
        a, b, o = _sums(sums, 4 * g * W)
        own, gaps = (g // per) * L * per * W + (g % per) * W, (g // per) * L * W
        for t in range(L):
            if len(stored) > 0 and t % SEGMENT == 0:
                _keep(a, b, o, stored, 4 * (g * segments + t // SEGMENT) * W)
            key, value = load(k, own + t * per * W), load(v, own + t * per * W)
            i = gaps + t * W
            past, now, old, new, exponent = _weights(b, o, key, rate, bonus, dt, i)
            out = past * a + now * value
            if dt is not None:
                gap = load(dt, i)
                out = where(gap > nothing(gap), out, nothing(out))
            a, b, o = _behind(a, b, o, value, old, new, exponent, dt, i)
            store(out, y, own + t * per * W)
        _keep(a, b, o, sums, 4 * g * W)


@entry()
def backward(
    first, last, L, per, V, w, u, k, v, dt, stored, grad_y, grad_sums, grad_w, grad_u, grad_k, grad_v, grad_dt,
):  # fmt: skip
    """The reverse sweep. ``grad_sums`` comes with the gradients in the final sums and leaves with those in the initial
    ones; that in an exponent follows from those in numerator and denominator. ``grad_dt`` may be empty.
    """
    segments = (L - 1) // SEGMENT + 1
    # Of each step of a segment: the sums before it, and the four weights of `_read` and `_write`.
    scratch = np.empty(6 * SEGMENT * W + 16, k.dtype)
    aligned = -(scratch.ctypes.data // scratch.itemsize) % 16
    for g in range(first, last):
        rate, bonus = load(w, (g % V) * W), load(u, (g % V) * W)
        of_a, of_b = load(grad_sums, 4 * g * W), load(grad_sums, (4 * g + 1) * W)
        of_w, of_u = nothing(rate), nothing(rate)
        own, gaps = (g // per) * L * per * W + (g % per) * W, (g // per) * L * W
        for segment in range(segments - 1, -1, -1):
            start = segment * SEGMENT
            stop = min(L, start + SEGMENT)
            a, b, o = _sums(stored, 4 * (g * segments + segment) * W)
            for t in range(start, stop):
                key, value = load(k, own + t * per * W), load(v, own + t * per * W)
                i = gaps + t * W
                past, now, old, new, exponent = _weights(b, o, key, rate, bonus, dt, i)
                at = aligned + (t - start) * 6 * W
                store(a, scratch, at)
                store(b, scratch, at + W)
                store(past, scratch, at + 2 * W)
                store(now, scratch, at + 3 * W)
                store(old, scratch, at + 4 * W)
                store(new, scratch, at + 5 * W)
                a, b, o = _behind(a, b, o, value, old, new, exponent, dt, i)
            for t in range(stop - 1, start - 1, -1):
                value, back = load(v, own + t * per * W), load(grad_y, own + t * per * W)
                at = aligned + (t - start) * 6 * W
                a, b = load(scratch, at), load(scratch, at + W)
                past, now = load(scratch, at + 2 * W), load(scratch, at + 3 * W)
                old, new = load(scratch, at + 4 * W), load(scratch, at + 5 * W)
                decay = old * (a * of_a + b * of_b)  # minus the gradient in wΔ where the sums decay
                of_k, of_v = new * (value * of_a + of_b), new * of_a
                y = past * a + now * value
                share = back * now
                bonus_share = share * (value - y)  # in u + k, and minus that in the exponent of the past
                of_k, of_v = of_k + bonus_share, of_v + share
                before_a, before_b = old * of_a + back * past, old * of_b - back * past * y
                if dt is None:
                    of_w, of_u, of_a, of_b = of_w - decay, of_u + bonus_share, before_a, before_b
                else:
                    gap = load(dt, gaps + t * W)
                    zero, real = nothing(gap), gap > nothing(gap)
                    of_k, of_v = where(real, of_k, zero), where(real, of_v, zero)
                    decay, bonus_share = where(real, decay, zero), where(real, bonus_share, zero)
                    of_a, of_b = where(real, before_a, of_a), where(real, before_b, of_b)
                    of_w, of_u = of_w - gap * decay - (1.0 - gap) * bonus_share, of_u + bonus_share
                    if len(grad_dt) > 0:
                        store(rate * (bonus_share - decay), grad_dt, (g * L + t) * W)
                store(of_k, grad_k, own + t * per * W)
                store(of_v, grad_v, own + t * per * W)
        a, b, o = _sums(stored, 4 * g * segments * W)
        whole = a * of_a + b * of_b
        _keep(of_a, of_b, (whole, whole), grad_sums, 4 * g * W)
        store(of_w, grad_w, g * W)
        store(of_u, grad_u, g * W)
