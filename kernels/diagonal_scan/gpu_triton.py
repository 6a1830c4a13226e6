"""The diagonal scan as Triton kernels: a program for a stretch of some channels of one record, states in registers.

A lane of the program's one warp holds a few nodes; time is a loop, and a step's output a sum over the nodes. Most of
the work is the decay of an irregular gap: computed twice if the record is cut into stretches, and twice more in the
reverse sweep, which starts from one stored state in a chunk, notes the states of every few steps, and goes back through
those.
"""

# Tuples grow while a kernel is traced, which is no change of type there; Triton knows no starred ones.
# ruff: noqa: RUF005
# mypy: disable-error-code="assignment, var-annotated, misc, has-type"

import torch
import triton
import triton.language as tl
from torch import Tensor

from statespace.kernels.arrays import accepts_numpy
from statespace.kernels.diagonal_scan.triton_decay import (
    GIVEN,
    RULES,
    carry,
    chain,
    chained,
    decay_of,
    discretise,
    fields,
    rate_of,
    times,
)  # fmt: skip
from statespace.kernels.launching import INTERPRETED, stretches, unusable, wide  # noqa: F401
from statespace.kernels.operators import operator
from statespace.kernels.tuning import tuned

TILE = 64  # nodes of a program, two for each lane
# Steps that are loaded together, and whose states the reverse sweep keeps in registers: with 8, half as many programs
# fit on a multiprocessor.
AHEAD = 4
_tuned = tuned(["size"], {"AHEAD": 8})
CHUNK = 8 if INTERPRETED else 64  # steps between two stored states


@accepts_numpy
def diagonal_scan(u, dt, rate, c, initial=None, skip=None, *, discretization="zoh"):
    """See :func:`statespace.kernels.diagonal_scan`; torch tensors are differentiable, once."""
    dtype = torch.promote_types(u.dtype, torch.float32)
    shape = len(u), *rate.shape
    state = u.new_zeros(2, *shape, dtype=dtype) if initial is None else _parts(initial, dtype)
    rate = torch.view_as_real(rate.to(torch.complex128).resolve_conj().contiguous())
    dt = None if dt is None else dt.to(dtype).contiguous()
    skip = None if skip is None else skip.to(dtype).contiguous()
    arguments = u.contiguous(), dt, rate, _parts(c, dtype), skip, state
    keep = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in arguments)
    y, final, _ = _scan(*arguments, RULES[discretization], keep)
    return y, torch.complex(final[0], final[1])


def _parts(x, dtype):
    x = x.to(torch.promote_types(x.dtype, torch.complex64))
    return torch.stack([x.real, x.imag]).to(dtype)


@triton.jit
def _place(H, N, CHANNELS: tl.constexpr, NODES: tl.constexpr):
    """The channels of this program, their nodes, where they lie in (H, N), and which of them there are."""
    h = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)[:, None]
    n = tl.arange(0, NODES)[None, :]
    return h, h * N + n, (h < H) & (n < N)


@triton.jit
def _system(rate, c, at, there, HN):
    """The fields of the rates, and the read-out."""
    return (
        tl.load(rate + at, mask=there, other=0), tl.load(rate + HN + at, mask=there, other=0),
        tl.load(rate + 2 * HN + at, mask=there, other=0),
        tl.load(c + at, mask=there, other=0), tl.load(c + HN + at, mask=there, other=0),
    )  # fmt: skip


@triton.jit
def _sample(field, h, k, L, H):
    """Step k of the channels (records, H, L) of this program's record, 0 after its end."""
    at = (tl.program_id(2).to(tl.int64) * H + h) * L + k
    return wide(tl.load(field + at, mask=h < tl.where(k < L, H, 0), other=0))


@triton.jit
def _gap(dt, k, L, RULE: tl.constexpr):
    """The gap of a step; 0 after the record's end, 1 in it if there are no gaps."""
    if RULE == 0:
        return tl.where(k < L, 1.0, 0.0)
    else:
        return tl.load(dt + tl.program_id(2).to(tl.int64) * L + k, mask=k < L, other=0)


@triton.jit
def _lane(stretch, at, HN):
    """Where the nodes' real parts lie in (stretches, 2, records · H · N), and how far from them the imaginary ones."""
    lanes = tl.num_programs(2).to(tl.int64) * HN
    return stretch * 2 * lanes + tl.program_id(2).to(tl.int64) * HN + at, lanes


@triton.jit
def _put(pointer, index, at, HN, real, imag, there):
    """Writes nodes into place ``index`` of (..., 2, H · N)."""
    place = tl.cast(index, tl.int64) * 2 * HN + at
    tl.store(pointer + place, real, mask=there)
    tl.store(pointer + place + HN, imag, mask=there)


@_tuned
@triton.jit
def _sums(
    product, total, field, dt, rate, c, L, H, N, size,
    BACK: tl.constexpr, RULE: tl.constexpr, CHANNELS: tl.constexpr, NODES: tl.constexpr, AHEAD: tl.constexpr,
):  # fmt: skip
    """What each stretch makes of a state, less 1, and what it adds: of states, or BACK of gradients, the last first."""
    h, at, there = _place(H, N, CHANNELS, NODES)
    p, q, r, read, turned = _system(rate, c, at, there, H * N)
    f, g = tl.zeros_like(p), tl.zeros_like(p)
    x, z = f, g
    stretch = tl.num_programs(1) - 1 - tl.program_id(1) if BACK else tl.program_id(1)
    groups = size // AHEAD
    for group in range(0, groups):
        start = stretch * size + (groups - 1 - group if BACK else group) * AHEAD
        found = ()
        for i in tl.static_range(AHEAD):
            k = start + (AHEAD - 1 - i if BACK else i)
            found = found + ((_sample(field, h, k, L, H), _gap(dt, k, L, RULE)),)
        for i in tl.static_range(AHEAD):
            v, gap = found[i]
            d, e = discretise(gap, p, q, r, RULE)
            if BACK:
                e = -e
                x, z = x + v * read, z - v * turned
                a, b = times(x, z, d, e)
            else:
                a, b = times(x + v, z, d, e)
            x, z = x + a, z + b
            a, b = times(f, g, d, e)
            f, g = f + a + d, g + b + e
    place, lanes = _lane(tl.program_id(1), at, H * N)
    tl.store(product + place, f, mask=there)
    tl.store(product + place + lanes, g, mask=there)
    tl.store(total + place, x, mask=there)
    tl.store(total + place + lanes, z, mask=there)


@_tuned
@triton.jit
def _forward(
    y, final, stored, u, dt, rate, c, skip, before, L, H, N, size, KEEP: tl.constexpr, SKIP: tl.constexpr,
    RULE: tl.constexpr, CHANNELS: tl.constexpr, NODES: tl.constexpr, AHEAD: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """``stored`` (records, chunks, 2, H · N): the state before each chunk."""
    h, at, there = _place(H, N, CHANNELS, NODES)
    p, q, r, read, turned = _system(rate, c, at, there, H * N)
    place, lanes = _lane(tl.program_id(1), at, H * N)
    x, z = tl.load(before + place, mask=there, other=0), tl.load(before + place + lanes, mask=there, other=0)
    direct = tl.load(skip + h, mask=h < H, other=0) if SKIP else tl.zeros([CHANNELS, 1], tl.float32)
    begin = tl.program_id(1) * size
    chunks = tl.cdiv(L, CHUNK)
    for start in range(begin, min(begin + size, L), CHUNK):
        if KEEP:
            _put(stored, tl.program_id(2) * chunks + start // CHUNK, at, H * N, x, z, there)
        for first in range(start, min(start + CHUNK, L), AHEAD):
            found = ()
            for i in tl.static_range(AHEAD):
                found = found + ((_sample(u, h, first + i, L, H), _gap(dt, first + i, L, RULE)),)
            for i in tl.static_range(AHEAD):
                k = first + i
                v, gap = found[i]
                d, e = discretise(gap, p, q, r, RULE)
                a, b = times(x + v, z, d, e)
                x, z = x + a, z + b
                out = tl.sum(x * read - z * turned, 1, keep_dims=True) + direct * v
                out_at = (tl.program_id(2).to(tl.int64) * H + h) * L + k
                tl.store(y + out_at, out, mask=h < tl.where(k < L, H, 0))
    last = tl.program_id(1) == tl.num_programs(1) - 1
    place, lanes = _lane(0, at, H * N)
    inside = there & (h < tl.where(last, H, 0))
    tl.store(final + place, x, mask=inside)
    tl.store(final + place + lanes, z, mask=inside)


@_tuned
@triton.jit
def _backward(
    grad_u, grad_dt, grad_rate, grad_c, grad_skip, grad_initial, scratch,
    u, dt, rate, c, skip, stored, grad, before, L, H, N, size, SKIP: tl.constexpr, WANT_DT: tl.constexpr,
    RULE: tl.constexpr, CHANNELS: tl.constexpr, NODES: tl.constexpr, AHEAD: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """The reverse sweep of a stretch, the last ones first.

    ``grad_dt`` (blocks of channels, records, L), ``grad_rate`` and ``grad_c`` (records, stretches, 2, H · N) and
    ``grad_skip`` (records, stretches, H) are left for the caller to sum; ``scratch`` (records, stretches, groups of a
    chunk, 2, H · N).
    """
    h, at, there = _place(H, N, CHANNELS, NODES)
    p, q, r, read, turned = _system(rate, c, at, there, H * N)
    place, lanes = _lane(tl.program_id(1), at, H * N)
    g, o = tl.load(before + place, mask=there, other=0), tl.load(before + place + lanes, mask=there, other=0)
    direct = tl.load(skip + h, mask=h < H, other=0) if SKIP else tl.zeros([CHANNELS, 1], tl.float32)
    real, imag = rate_of(p, q, r, RULE)
    of_real, of_imag, of_read, of_turned = tl.zeros_like(p), tl.zeros_like(p), tl.zeros_like(p), tl.zeros_like(p)
    of_direct = tl.zeros_like(direct)
    own = tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)
    begin = (tl.num_programs(1) - 1 - tl.program_id(1)) * size
    chunks = tl.cdiv(min(begin + size, L) - begin, CHUNK)
    for chunk in range(0, chunks):
        start = begin + (chunks - 1 - chunk) * CHUNK
        groups = tl.cdiv(min(start + CHUNK, L) - start, AHEAD)
        noted = tl.cast(own, tl.int64) * (CHUNK // AHEAD) * 2 * H * N + at
        from_chunk = (tl.program_id(2) * tl.cdiv(L, CHUNK) + start // CHUNK).to(tl.int64) * 2 * H * N + at
        x = tl.load(stored + from_chunk, mask=there, other=0)
        z = tl.load(stored + from_chunk + H * N, mask=there, other=0)
        # Those who read what is noted here may be other lanes.
        tl.debug_barrier()
        for group in range(0, groups):
            tl.store(scratch + noted + group * 2 * H * N, x, mask=there)
            tl.store(scratch + noted + group * 2 * H * N + H * N, z, mask=there)
            found = ()
            for i in tl.static_range(AHEAD):
                k = start + group * AHEAD + i
                found = found + ((_sample(u, h, k, L, H), _gap(dt, k, L, RULE)),)
            for i in tl.static_range(AHEAD):
                v, gap = found[i]
                d, e = discretise(gap, p, q, r, RULE)
                a, b = times(x + v, z, d, e)
                x, z = x + a, z + b
        tl.debug_barrier()
        for back in range(0, groups):
            group = groups - 1 - back
            x = tl.load(scratch + noted + group * 2 * H * N, mask=there, other=0)
            z = tl.load(scratch + noted + group * 2 * H * N + H * N, mask=there, other=0)
            found = ()
            for i in tl.static_range(AHEAD):
                k = start + group * AHEAD + i
                found = found + ((_sample(u, h, k, L, H), _sample(grad, h, k, L, H), _gap(dt, k, L, RULE)),)
            passed = ()
            for i in tl.static_range(AHEAD):
                v, w, gap = found[i]
                d, e = discretise(gap, p, q, r, RULE)
                passed = passed + ((x, z, d, e),)
                a, b = times(x + v, z, d, e)
                x, z = x + a, z + b
            for j in tl.static_range(AHEAD):
                k = start + group * AHEAD + AHEAD - 1 - j
                v, w, gap = found[AHEAD - 1 - j]
                of_read, of_turned = of_read + w * x, of_turned - w * z
                of_direct += w * v
                x, z, d, e = passed[AHEAD - 1 - j]
                g, o = g + w * read, o - w * turned
                a, b = chain(g * (x + v) + o * z, o * (x + v) - g * z, d, e, RULE)
                of_real, of_imag = of_real + gap * a, of_imag + gap * b
                if WANT_DT:
                    part = (tl.program_id(0) * tl.num_programs(2) + tl.program_id(2)).to(tl.int64) * L
                    tl.store(grad_dt + part + k, tl.sum(tl.sum(real * a + imag * b, 1), 0), mask=k < L)
                a, b = times(g, o, d, -e)
                out_at = (tl.program_id(2).to(tl.int64) * H + h) * L + k
                out = tl.sum(a, 1, keep_dims=True) + direct * w
                tl.store(grad_u + out_at, out, mask=h < tl.where(k < L, H, 0))
                g, o = g + a, o + b
    _put(grad_rate, own, at, H * N, of_real, of_imag, there)
    _put(grad_c, own, at, H * N, of_read, of_turned, there)
    if SKIP:
        tl.store(grad_skip + tl.cast(own, tl.int64) * H + h, of_direct, mask=h < H)
    place, lanes = _lane(0, at, H * N)
    inside = there & (h < tl.where(tl.program_id(1) == tl.num_programs(1) - 1, H, 0))
    tl.store(grad_initial + place, g, mask=inside)
    tl.store(grad_initial + place + lanes, o, mask=inside)


def _results(
    u: Tensor, dt: Tensor | None, rate: Tensor, c: Tensor, skip: Tensor | None, initial: Tensor, rule: int, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the final state and, if asked for, the states before each chunk."""
    chunks = triton.cdiv(u.shape[2], CHUNK)
    stored = initial.new_empty(len(u) if keep else 0, chunks, 2, *rate.shape[:2])
    return torch.empty_like(u), torch.empty_like(initial), stored


def _compute(y, final, stored, u, dt, rate, c, skip, initial, rule, keep):
    plan = _Plan(u, dt, rate, initial.dtype, rule)
    before = plan.before(u, dt, c, initial, BACK=False)
    _forward[plan.grid](
        y, final, stored, u, dt, plan.rate, c, skip, before, *plan.sizes, KEEP=keep, SKIP=skip is not None,
        CHUNK=CHUNK, **plan.constants, num_warps=plan.warps,
    )  # fmt: skip


def _gradients(
    u: Tensor, dt: Tensor | None, rate: Tensor, c: Tensor, skip: Tensor | None, stored: Tensor, grad: Tensor,
    grad_final: Tensor, rule: int, want_dt: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Those in u, dt, the rates, c, skip and the initial state."""
    grad_dt = c.new_empty((len(u), u.shape[2]) if want_dt else 0)
    grad_skip = c.new_empty(0 if skip is None else skip.shape)
    return (
        torch.empty_like(u), grad_dt, torch.empty_like(rate), torch.empty_like(c), grad_skip,
        torch.empty_like(grad_final),
    )  # fmt: skip


def _compute_gradients(
    grad_u, grad_dt, grad_rate, grad_c, grad_skip, grad_initial,
    u, dt, rate, c, skip, stored, grad, grad_final, rule, want_dt,
):  # fmt: skip
    plan = _Plan(u, dt, rate, c.dtype, rule)
    before = plan.before(grad, dt, c, grad_final, BACK=True)
    blocks, pieces, records = plan.grid
    of_dt = c.new_empty(blocks if want_dt else 0, *grad_dt.shape)
    of_rate, of_c = (c.new_empty(records, pieces, *c.shape) for _ in range(2))
    of_skip = c.new_empty(records, pieces, *grad_skip.shape)
    scratch = c.new_empty(records, pieces, CHUNK // AHEAD, *c.shape)
    _backward[plan.grid](
        grad_u, of_dt, of_rate, of_c, of_skip, grad_initial, scratch,
        u, dt, plan.rate, c, skip, stored, grad, before, *plan.sizes, SKIP=skip is not None, WANT_DT=want_dt,
        CHUNK=CHUNK, **plan.constants, num_warps=plan.warps,
    )  # fmt: skip
    torch.sum(of_dt, 0, out=grad_dt)
    torch.sum(of_c, (0, 1), out=grad_c)
    torch.sum(of_skip, (0, 1), out=grad_skip)
    total = of_rate.double().sum((0, 1)).movedim(0, -1).contiguous()
    if dt is None:
        total = torch.view_as_real(chained(torch.view_as_complex(total), torch.view_as_complex(rate), rule))
    grad_rate.copy_(total)


class _Plan:
    """How the records, stretches and channels are laid over programs."""

    def __init__(self, u, dt, rate, dtype, rule):
        (records, H, L), N = u.shape, rate.shape[1]
        if dt is None:
            rate, rule = torch.view_as_real(decay_of(torch.view_as_complex(rate), rule)), GIVEN
        self.rate = fields(rate, rule, dtype)
        nodes = triton.next_power_of_2(N)
        channels = min(triton.next_power_of_2(H), max(1, TILE // nodes))
        blocks = triton.cdiv(H, channels)
        self.warps = max(1, min(8, channels * nodes // 128))
        pieces, chunks = stretches(u, blocks * records, triton.cdiv(L, CHUNK), each=16)
        self.grid, self.sizes = (blocks, pieces, records), (L, H, N, chunks * CHUNK)
        self.constants = {"RULE": rule, "CHANNELS": channels, "NODES": nodes, "AHEAD": AHEAD}

    def before(self, field, dt, c, states, **options):
        """The states before each stretch, (stretches, 2, records · H · N)."""
        states = states.reshape(1, 2, -1)
        if self.grid[1] == 1:
            return states
        product, total = (states.new_empty(self.grid[1], *states.shape[1:]) for _ in range(2))
        _sums[self.grid](
            product, total, field, dt, self.rate, c, *self.sizes, **options, **self.constants, num_warps=self.warps
        )
        return carry(product, total, states)


_scan = operator("diagonal_scan", _results, _compute)
_scan_backward = operator("diagonal_scan_backward", _gradients, _compute_gradients)


def _keep(ctx, inputs, output):
    u, dt, rate, c, skip, _, ctx.rule, _ = inputs
    ctx.save_for_backward(u, dt, rate, c, skip, output[2])


def _differentiate(ctx, grad, grad_final, _):
    u, dt, rate, c, skip, stored = ctx.saved_tensors
    want_dt = ctx.needs_input_grad[1]
    grad_u, grad_dt, grad_rate, grad_c, grad_skip, grad_initial = _scan_backward(
        u, dt, rate, c, skip, stored, grad.contiguous(), grad_final.contiguous(), ctx.rule, want_dt
    )
    of_dt, of_skip = grad_dt if want_dt else None, None if skip is None else grad_skip
    return grad_u, of_dt, grad_rate, grad_c, of_skip, grad_initial, None, None


_scan.register_autograd(_differentiate, setup_context=_keep)
