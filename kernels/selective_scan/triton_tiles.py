"""Device functions of the selective scan: tiles of channels and time, their steps one by one, decays.

What a tile needs once (softplus, gate, products with u) is computed with a number for each lane, whatever order the
memory has. The recurrence then goes through the tile's steps in turn: a row is a number for each channel, a state
(states, channels) a tile of its own in registers, the states of a channel in one thread. Complex states are two such
tiles, real and imaginary; where they are real, the second stands for nothing.
"""

# Triton compiles these functions; its tuples grow, which Python's types do not foresee.
# mypy: disable-error-code="assignment, var-annotated"

import triton
import triton.language as tl

from statespace.kernels.launching import sigmoid, softplus, wide

# The powers of ln 2 over factorials: 2^z - 1 of a small z.
P1, P2, P3, P4 = (
    tl.constexpr(x) for x in (0.6931471805599453, 0.2402265069591007, 0.0555041086648216, 0.009618129107628)
)
PI = tl.constexpr(3.141592653589793)
# sin(πt) / t and cos(πt) as polynomials in t², t in [-1/2, 1/2].
S0, S1, S2, S3, S4 = (
    tl.constexpr(x)
    for x in (3.1415926368954115, -5.1677096847994767, 2.5500697263299961, -0.59824212634209369, 0.077560386790797222)
)
C1, C2, C3, C4, C5 = (
    tl.constexpr(x)
    for x in (-4.9348021372283223, 4.0587091643412954, -1.3352120566536518, 0.23493755890074913, -0.024396716536961510)
)


@triton.jit
def place(groups, per_group, CHANNELS: tl.constexpr):
    """Record, group and channels of this program, which of these exist, and the number of programs in a group."""
    programs = tl.cdiv(per_group, CHANNELS)
    block = tl.program_id(0) % (groups * programs)
    own = block % programs * CHANNELS + tl.arange(0, CHANNELS)
    group = block // programs
    return (tl.program_id(0) // (groups * programs)).to(tl.int64), group, group * per_group + own, own < per_group


@triton.jit
def beginning(record, d, of_record, of_channel):
    """Offsets of the channels' first samples (channels, 1)."""
    return record * of_record + d.to(tl.int64)[:, None] * of_channel


@triton.jit
def tile(x, t, of_time, inside):
    """A tile (channels, steps)."""
    return wide(tl.load(x + t.to(tl.int64)[None, :] * of_time, mask=inside, other=0))


@triton.jit
def steps(raw, inside, bias, gaps, t, L, SOFT: tl.constexpr):
    """A tile of steps h = Δ rate, the rates, the gaps, and the slopes of the rates; h is 0 outside of the record."""
    if bias is not None:
        raw += bias
    rate = tl.where(inside, softplus(raw) if SOFT else raw, 0)
    slope = sigmoid(raw) if SOFT else tl.full(raw.shape, 1, raw.dtype)
    if gaps is not None:
        gap = tl.load(gaps + t, mask=t < L, other=0)[None, :]
    else:
        gap = tl.full((1, t.shape[0]), 1, raw.dtype)
    return rate * gap, rate, gap, slope


@triton.jit
def rows(x, CHANNELS: tl.constexpr, STEPS: tl.constexpr, LEVELS: tl.constexpr):
    """The steps of a tile (channels, steps), one by one."""
    parts = (x,)
    for level in tl.static_range(LEVELS):
        halves = ()
        for i in tl.static_range(2**level):
            both = tl.permute(tl.reshape(parts[i], (CHANNELS, 2, STEPS // 2 ** (level + 1))), (0, 2, 1))
            halves += tl.split(both)
        parts = halves
    flat = ()
    for i in tl.static_range(STEPS):
        flat += (tl.reshape(parts[i], (CHANNELS,)),)
    return flat


@triton.jit
def joined(parts, CHANNELS: tl.constexpr, STEPS: tl.constexpr, LEVELS: tl.constexpr):
    """The tile (channels, steps) of which these are the steps."""
    for level in tl.static_range(LEVELS):
        wider = ()
        for i in tl.static_range(STEPS // 2 ** (level + 1)):
            both = tl.join(parts[2 * i], parts[2 * i + 1])
            if level > 0:
                both = tl.permute(both, (0, 2, 1))
            wider += (tl.reshape(both, (CHANNELS, 2 ** (level + 1))),)
        parts = wider
    return tl.reshape(parts[0], (CHANNELS, STEPS))


@triton.jit
def turned(parts, STEPS: tl.constexpr):
    """The last first."""
    found = ()
    for i in tl.static_range(STEPS):
        found += (parts[STEPS - 1 - i],)
    return found


@triton.jit
def zeros(x, CHANNELS: tl.constexpr, STEPS: tl.constexpr):
    """A row of zeros for each step, of the type of x."""
    found = ()
    for _ in tl.static_range(STEPS):
        found += (tl.zeros((CHANNELS,), x.dtype),)
    return found


@triton.jit
def decay(h, rate, turns, rest, COMPLEX: tl.constexpr, EXACT: tl.constexpr):
    """exp(hA) - 1, precise relatively if EXACT, and exp(hA), in pairs, where A is ln 2 rate + 2πi (turns + rest)."""
    z = h * rate
    size = tl.exp2(z)
    less = size - 1
    if EXACT:
        less = tl.where(tl.abs(z) < 0.0625, z * (P1 + z * (P2 + z * (P3 + z * P4))), less)
    if COMPLEX:
        s, c = _half_turn(h, turns, rest)
        twice = 2 * size
        drop, across = twice * s * s, twice * s * c
        return less - drop, across, size - drop, across
    else:
        return less, less, size, size


@triton.jit
def _half_turn(h, turns, rest):
    """Sine and cosine of π h (turns + rest)."""
    whole = h * turns
    whole = tl.floor(whole + 0.5)
    t = tl.fma(h, turns, -whole) + h * rest
    if t.dtype == tl.float64:
        return tl.sin(t * PI), tl.cos(t * PI)
    else:
        q = t * t
        s = t * (S0 + q * (S1 + q * (S2 + q * (S3 + q * S4))))
        return s, 1 + q * (C1 + q * (C2 + q * (C3 + q * (C4 + q * C5))))


@triton.jit
def pair(x, at, size, mask, COMPLEX: tl.constexpr):
    """Real and imaginary parts, ``size`` numbers apart."""
    real = tl.load(x + at, mask=mask, other=0)
    return real, tl.load(x + at + size, mask=mask, other=0) if COMPLEX else real


@triton.jit
def put(x, at, size, mask, real, imag, COMPLEX: tl.constexpr):
    tl.store(x + at, real, mask=mask)
    if COMPLEX:
        tl.store(x + at + size, imag, mask=mask)


@triton.jit
def add(x, at, size, mask, real, imag, COMPLEX: tl.constexpr):
    """To what the program itself has written there."""
    tl.store(x + at, tl.load(x + at, mask=mask, other=0) + real, mask=mask)
    if COMPLEX:
        tl.store(x + at + size, tl.load(x + at + size, mask=mask, other=0) + imag, mask=mask)


@triton.jit
def coefficient(x, own, n, SIZE: tl.constexpr, COMPLEX: tl.constexpr, OWN: tl.constexpr):
    """B or C of a step, ``n`` offsets of its states, what broadcasts with a state; ``own`` where it is constant."""
    if OWN:
        return own
    else:
        real = tl.load(x + n)
        return real[:, None], (tl.load(x + n + SIZE) if COMPLEX else real)[:, None]


@triton.jit
def advanced(x, y, e, f, a, b, p, q, COMPLEX: tl.constexpr, EXACT: tl.constexpr):
    """The state x + iy after a step: the decay less one is e + if, the decay a + ib, and p + iq is written to it."""
    if COMPLEX:
        if EXACT:
            return x + (e * x - f * y + p), y + (e * y + f * x + q)
        else:
            return a * x - b * y + p, a * y + b * x + q
    else:
        new = x + (e * x + p) if EXACT else a * x + p
        return new, new
