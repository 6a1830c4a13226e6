"""Ā - 1 of a diagonal system in Triton: the rules of discretisation, their derivatives, and a step with them.

What `decay.py` and `exponential.py` are for a processor: e^z - 1 in polynomials, so that a tiny z keeps its digits and
a phase of many turns its last ones. Tensors here are of float32 or float64.
"""

# Tuples grow while a kernel is traced, which is no change of type there; Triton knows no starred ones.
# ruff: noqa: RUF005
# mypy: disable-error-code="assignment, var-annotated, misc, has-type"

import math

import torch
import triton
import triton.language as tl

from statespace.kernels.launching import INTERPRETED

GIVEN, ZOH, BILINEAR = 0, 1, 2
RULES = {"zoh": ZOH, "bilinear": BILINEAR}
ZOH_RULE, BILINEAR_RULE = tl.constexpr(ZOH), tl.constexpr(BILINEAR)
LN2, TURN = tl.constexpr(math.log(2)), tl.constexpr(2 * math.pi)
UNFUSED = tl.constexpr(INTERPRETED)


def decay_of(rate, rule):
    """Ā - 1 for a gap of 1, from complex rates."""
    return torch.special.expm1(rate) if rule == ZOH else rate / (1 - rate / 2)


def chained(grad, rate, rule):
    """The gradient in complex rates from that in Ā - 1 for a gap of 1."""
    d = decay_of(rate, rule)
    return grad * ((1 + d) if rule == ZOH else (1 + d / 2).square()).conj()


def fields(rate, rule, dtype):
    """What `discretise` reads, three numbers for each of the rates (..., 2), along a new first axis.

    Zero-order hold: Re / ln 2, and Im / 2π as a sum of two numbers; else real part, imaginary part, nothing.
    """
    real, imag = rate.unbind(-1)
    if rule != ZOH:
        return torch.stack([real, imag, torch.zeros_like(real)]).to(dtype)
    turns = imag / (2 * math.pi)
    high = turns.to(dtype)
    return torch.stack([(real / math.log(2)).to(dtype), high, (turns - high).to(dtype)])


@triton.jit
def _fused(x, y, z):
    """x y + z, rounded once; the interpreter's own rounds the product too."""
    if UNFUSED and x.dtype == tl.float32:
        return (x.to(tl.float64) * y + z).to(tl.float32)
    else:
        return tl.fma(x, y, z)


@triton.jit
def _power(x):
    """2^k and x - k with the integer k nearest to x, for x from -1022 (float64) or -126 to 0."""
    if x.dtype == tl.float64:
        shifted = x + 6755399441055744.0
        power = ((shifted.to(tl.int64, bitcast=True) << 52) + 4607182418800017408).to(tl.float64, bitcast=True)
        return power, x - (shifted - 6755399441055744.0)
    else:
        shifted = x + 12582912.0
        power = ((shifted.to(tl.int32, bitcast=True) << 23) + 1065353216).to(tl.float32, bitcast=True)
        return power, x - (shifted - 12582912.0)


@triton.jit
def _exp2m1(r):
    """2^r - 1 for r in [-1/2, 1/2]: minimax polynomials, relative."""
    if r.dtype == tl.float64:
        p = r * 2.5678429104123610884e-11 + 4.455804851545879953e-10
        p = ((p * r + 7.0549322716041566848e-9) * r + 1.0178057169304502643e-7) * r + 1.3215486721358576058e-6
        p = ((p * r + 0.000015252733841378433742) * r + 0.00015403530393466168344) * r + 0.0013333558146406629814
        p = ((p * r + 0.009618129107628436948) * r + 0.05550410866482162654) * r + 0.24022650695910071286
        return (p * r + 0.69314718055994530926) * r
    else:
        p = (r * 0.00015403512367553546 + 0.0013390735477607874) * r + 0.0096182374949070143
        p = ((p * r + 0.055503574336426599) * r + 0.24022649794962265) * r + 0.69314718792669306
        return p * r


@triton.jit
def _half_turn(t):
    """sin(πt) and cos(πt) for t in [-1/2, 1/2]."""
    q = t * t
    if t.dtype == tl.float64:
        s = (q * 7.6947273844559141955e-7 - 0.000021903185429548639509) * q + 0.00046629968877916672934
        s = ((s * q - 0.007370430478764629614) * q + 0.082145886569893038774) * q - 0.59926452931873826139
        s = ((s * q + 2.5501640398772939404) * q - 5.1677127800499695287) * q + 3.1415926535897932377
        c = (q * -1.3435271532313808683e-7 + 4.3007248318146787192e-6) * q - 0.00010463741712648405534
        c = ((c * q + 0.0019295741873593386058) * q - 0.025806891376604471109) * q + 0.23533063035779601577
        c = ((c * q - 1.3352627688545550128) * q + 4.0587121264167675451) * q - 4.9348022005446793043
    else:
        s = (q * 0.077560386790797222 - 0.59824212634209369) * q + 2.5500697263299961
        s = (s * q - 5.1677096847994767) * q + 3.1415926368954115
        c = (q * -0.024396716536961510 + 0.23493755890074913) * q - 1.3352120566536518
        c = (c * q + 4.0587091643412954) * q - 4.9348021372283223
    return s * t, c * q + 1


@triton.jit
def discretise(gap, p, q, r, RULE: tl.constexpr):
    """Ā - 1 over a gap as real and imaginary part; p, q and r are `fields`."""
    if RULE == ZOH_RULE:
        power, rest = _power(tl.maximum(gap * p, -1022.0 if p.dtype == tl.float64 else -126.0))
        e = power * _exp2m1(rest) + (power - 1)
        turns = tl.floor(gap * q + 0.5)
        t = _fused(gap, q, -turns) + gap * r
        s, c = _half_turn(t - tl.floor(t + 0.5))  # again: beyond 2^24 turns the first is off by turns
        size = 2 * (e * s + s)
        return e - size * s, size * c
    elif RULE == BILINEAR_RULE:
        a, w = 0.5 * gap * p, 0.5 * gap * q
        away = 1 - a
        scale = gap / (away * away + w * w)
        return scale * (p * away - q * w), scale * q
    else:
        return gap * p, gap * q


@triton.jit
def rate_of(p, q, r, RULE: tl.constexpr):
    """Real and imaginary part of the rates, from `fields`."""
    if RULE == ZOH_RULE:
        return p * LN2, (q + r) * TURN
    else:
        return p, q


@triton.jit
def chain(real, imag, d, e, RULE: tl.constexpr):
    """The gradient in z = Δ · rate from that in Ā - 1: times the conjugate of 1 + d, (1 + d/2)² or 1."""
    if RULE == ZOH_RULE:
        return real + real * d + imag * e, imag + imag * d - real * e
    elif RULE == BILINEAR_RULE:
        a, b = 1 + 0.5 * d, 0.5 * e
        p, q = a * a - b * b, 2 * a * b
        return real * p + imag * q, imag * p - real * q
    else:
        return real, imag


@triton.jit
def times(x, z, d, e):
    """(x + iz) (d + ie)."""
    return x * d - z * e, x * e + z * d


@triton.jit
def through(product, total, states, R, stretches, LANES: tl.constexpr, AHEAD: tl.constexpr):
    """``total`` (stretches, 2, R), what each stretch adds, becomes the state before each.

    ``product`` holds what is to be added to 1 for the stretch's factor, ``states`` (2, R) the state before the first.
    """
    lane = tl.program_id(0).to(tl.int64) * LANES + tl.arange(0, LANES)
    there, two = lane < R, 2 * tl.cast(R, tl.int64)
    x, z = tl.load(states + lane, mask=there, other=0), tl.load(states + R + lane, mask=there, other=0)
    for start in range(0, stretches, AHEAD):
        found = ()
        for i in tl.static_range(AHEAD):
            at = (start + i) * two + lane
            valid = lane < tl.where(start + i < stretches, R, 0)
            found = found + (
                (
                    tl.load(product + at, mask=valid, other=0), tl.load(product + R + at, mask=valid, other=0),
                    tl.load(total + at, mask=valid, other=0), tl.load(total + R + at, mask=valid, other=0),
                ),
            )  # fmt: skip
        for i in tl.static_range(AHEAD):
            at = (start + i) * two + lane
            valid = lane < tl.where(start + i < stretches, R, 0)
            tl.store(total + at, x, mask=valid)
            tl.store(total + R + at, z, mask=valid)
            d, e, y, w = found[i]
            of_x, of_z = times(x, z, d, e)
            x, z = x + of_x + y, z + of_z + w


def carry(product, total, states):
    """Launches `through`: the states before each stretch, (stretches, 2, R), in ``total``."""
    stretches, _, R = total.shape
    through[(triton.cdiv(R, 128),)](product, total, states, R, stretches, LANES=128, AHEAD=4)
    return total
