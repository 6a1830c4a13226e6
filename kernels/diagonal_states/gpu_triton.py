"""The states as Triton kernels: a program for a stretch of some states of one record, step by step, forth and back.

States lie side by side in memory, so that the lanes of a warp are states and no step needs another lane. Programs load
several steps' inputs before the first is used. Where records and states are too few to keep a GPU busy, the record is
cut into stretches, in three passes: what each stretch adds and multiplies by, the states between them, the stretches.
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

NODES = 64  # states of a program, two for each lane of a warp
AHEAD = 4  # steps loaded at a time
_tuned = tuned(["size"], {"AHEAD": 8})
CHUNK = 8 if INTERPRETED else 32  # steps of a stretch at least


@accepts_numpy
def diagonal_states(v, dt, rate, initial=None, *, discretization="zoh", reverse=False):
    """See :func:`statespace.kernels.diagonal_states`; torch tensors are differentiable, once."""
    dtype = torch.promote_types(v.dtype, torch.float32)
    initial = v.new_zeros(len(v), 2, v.shape[-1], dtype=dtype) if initial is None else initial.to(dtype)
    rate = torch.view_as_real(rate.to(torch.complex128).resolve_conj().contiguous())
    dt = None if dt is None else dt.to(dtype).contiguous()
    return _states(v.contiguous(), dt, rate, initial.contiguous(), RULES[discretization], bool(reverse))


@triton.jit
def _place(rate, L, P, size, NODES: tl.constexpr):
    """Of this program: its states, which of them there are, their fields, its record's beginning, its first step."""
    p = tl.program_id(0) * NODES + tl.arange(0, NODES)
    there = p < P
    field = (
        tl.load(rate + p, mask=there, other=0), tl.load(rate + P + p, mask=there, other=0),
        tl.load(rate + 2 * P + p, mask=there, other=0),
    )  # fmt: skip
    return p, there, field, tl.program_id(2).to(tl.int64) * L, tl.program_id(1) * size


@triton.jit
def _where(p, P, condition):
    """The states there are, if a condition on a number holds (whose conjunction the interpreter makes an integer)."""
    return p < tl.where(condition, P, 0)


@triton.jit
def _gap(dt, at, inside, RULE: tl.constexpr):
    """The gap of a step; 0 after the record's end, 1 in it if there are no gaps."""
    if RULE == 0:
        return tl.where(inside, 1.0, 0.0)
    else:
        return tl.load(dt + at, mask=inside, other=0)


@triton.jit
def _pair(pointer, k, P, p, inside):
    """Real and imaginary parts of step k of (steps, 2, P)."""
    at = k * 2 * P + p
    return wide(tl.load(pointer + at, mask=inside, other=0)), wide(tl.load(pointer + at + P, mask=inside, other=0))


@triton.jit
def _put(pointer, k, P, p, real, imag, inside):
    at = k * 2 * P + p
    tl.store(pointer + at, real, mask=inside)
    tl.store(pointer + at + P, imag, mask=inside)


@_tuned
@triton.jit
def _sums(
    product, total, v, dt, rate, L, P, size,
    FLIP: tl.constexpr, BACK: tl.constexpr, RULE: tl.constexpr, NODES: tl.constexpr, AHEAD: tl.constexpr,
):  # fmt: skip
    """What each stretch makes of a state, less 1, and what it adds: of states, or BACK of their gradients."""
    p, there, field, record, begin = _place(rate, L, P, size, NODES)
    f, g = tl.zeros_like(field[0]), tl.zeros_like(field[0])
    x, z = f, g
    for start in range(begin, min(begin + size, L), AHEAD):
        found = ()
        for i in tl.static_range(AHEAD):
            step = start + i
            k = record + (L - 1 - step if FLIP else step)
            inside = _where(p, P, step < L)
            y, w = _pair(v, k, P, p, inside)
            found = found + ((y, w, _gap(dt, k, step < L, RULE)),)
        for i in tl.static_range(AHEAD):
            y, w, gap = found[i]
            d, e = discretise(gap, field[0], field[1], field[2], RULE)
            if BACK:
                e = -e
                x, z = x + y, z + w
                a, b = times(x, z, d, e)
            else:
                a, b = times(x + y, z + w, d, e)
            x, z = x + a, z + b
            a, b = times(f, g, d, e)
            f, g = f + a + d, g + b + e
    lanes = tl.num_programs(2) * P
    at = tl.program_id(1).to(tl.int64) * 2 * lanes + tl.program_id(2) * P + p
    tl.store(product + at, f, mask=there)
    tl.store(product + at + lanes, g, mask=there)
    tl.store(total + at, x, mask=there)
    tl.store(total + at + lanes, z, mask=there)


@triton.jit
def _start(before, P, p, there):
    """The state before this program's stretch, and where it lies in (stretches, 2, records · P)."""
    lanes = tl.num_programs(2) * P
    at = tl.program_id(1).to(tl.int64) * 2 * lanes + tl.program_id(2) * P + p
    return tl.load(before + at, mask=there, other=0), tl.load(before + at + lanes, mask=there, other=0)


@_tuned
@triton.jit
def _forward(
    states, v, dt, rate, before, L, P, size,
    FLIP: tl.constexpr, RULE: tl.constexpr, NODES: tl.constexpr, AHEAD: tl.constexpr,
):  # fmt: skip
    p, there, field, record, begin = _place(rate, L, P, size, NODES)
    x, z = _start(before, P, p, there)
    for start in range(begin, min(begin + size, L), AHEAD):
        found = ()
        for i in tl.static_range(AHEAD):
            step = start + i
            k = record + (L - 1 - step if FLIP else step)
            y, w = _pair(v, k, P, p, _where(p, P, step < L))
            found = found + ((y, w, _gap(dt, k, step < L, RULE)),)
        for i in tl.static_range(AHEAD):
            step = start + i
            k = record + (L - 1 - step if FLIP else step)
            y, w, gap = found[i]
            d, e = discretise(gap, field[0], field[1], field[2], RULE)
            a, b = times(x + y, z + w, d, e)
            x, z = x + a, z + b
            _put(states, k, P, p, x, z, _where(p, P, step < L))


@_tuned
@triton.jit
def _backward(
    grad_v, grad_dt, grad_rate, grad_initial, v, dt, rate, initial, states, grad, before, L, P, size,
    FLIP: tl.constexpr, RULE: tl.constexpr, WANT_DT: tl.constexpr, NODES: tl.constexpr, AHEAD: tl.constexpr,
):  # fmt: skip
    """The reverse sweep, FLIP from the last step to the first one; ``grad_dt`` (blocks, records, L) and ``grad_rate``
    (records, stretches, 2, P) are left for the caller to sum.
    """
    p, there, field, record, begin = _place(rate, L, P, size, NODES)
    g, h = _start(before, P, p, there)
    real, imag = rate_of(field[0], field[1], field[2], RULE)
    of_real, of_imag = tl.zeros_like(real), tl.zeros_like(real)
    # One step from the end the sweep comes from to that it goes to.
    ahead = -1 if FLIP else 1
    batch = tl.program_id(2).to(tl.int64)
    for start in range(begin, min(begin + size, L), AHEAD):
        found = ()
        for i in tl.static_range(AHEAD):
            step = start + i
            k = record + (L - 1 - step if FLIP else step)
            inside = _where(p, P, step < L)
            x, z = _pair(states, k + ahead, P, p, _where(p, P, step < L - 1))
            y, w = _pair(initial, batch, P, p, _where(p, P, step == L - 1))
            a, b = _pair(v, k, P, p, inside)
            found = found + ((x + y + a, z + w + b, _pair(grad, k, P, p, inside), _gap(dt, k, step < L, RULE)),)
        for i in tl.static_range(AHEAD):
            step = start + i
            k = record + (L - 1 - step if FLIP else step)
            inside = _where(p, P, step < L)
            x, z, back, gap = found[i]
            d, e = discretise(gap, field[0], field[1], field[2], RULE)
            g, h = g + back[0], h + back[1]
            a, b = chain(g * x + h * z, h * x - g * z, d, e, RULE)
            of_real, of_imag = of_real + gap * a, of_imag + gap * b
            if WANT_DT:
                total = tl.sum(real * a + imag * b, 0)
                at = tl.program_id(0).to(tl.int64) * tl.num_programs(2) * L
                tl.store(grad_dt + at + k, total, mask=step < L)
            a, b = times(g, h, d, -e)
            _put(grad_v, k, P, p, a, b, inside)
            g, h = g + a, h + b
    _put(grad_rate, batch * tl.num_programs(1) + tl.program_id(1), P, p, of_real, of_imag, there)
    _put(grad_initial, batch, P, p, g, h, _where(p, P, tl.program_id(1) == tl.num_programs(1) - 1))


def _all(v: Tensor, dt: Tensor | None, rate: Tensor, initial: Tensor, rule: int, reverse: bool) -> Tensor:
    return torch.empty_like(v, dtype=initial.dtype)


def _compute(states, v, dt, rate, initial, rule, reverse):
    plan = _Plan(v, dt, rate, initial.dtype, rule)
    before = plan.before(v, dt, initial, FLIP=reverse, BACK=False)
    _forward[plan.grid](states, v, dt, plan.rate, before, *plan.sizes, FLIP=reverse, **plan.constants, num_warps=1)


def _gradients(
    v: Tensor, dt: Tensor | None, rate: Tensor, initial: Tensor, states: Tensor, grad: Tensor, rule: int,
    reverse: bool, want_dt: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    grad_dt = initial.new_empty(v.shape[:2] if want_dt else 0)
    return torch.empty_like(v), grad_dt, torch.empty_like(rate), torch.empty_like(initial)


def _compute_gradients(
    grad_v, grad_dt, grad_rate, grad_initial, v, dt, rate, initial, states, grad, rule, reverse, want_dt
):
    plan = _Plan(v, dt, rate, initial.dtype, rule)
    before = plan.before(grad, dt, torch.zeros_like(initial), FLIP=not reverse, BACK=True)
    blocks, pieces, records = plan.grid
    of_dt = initial.new_empty(blocks if want_dt else 0, *grad_dt.shape)
    of_rate = initial.new_empty(records, pieces, *rate.T.shape)
    _backward[plan.grid](
        grad_v, of_dt, of_rate, grad_initial, v, dt, plan.rate, initial, states, grad, before, *plan.sizes,
        FLIP=not reverse, WANT_DT=want_dt, **plan.constants, num_warps=1,
    )  # fmt: skip
    torch.sum(of_dt, 0, out=grad_dt)
    total = of_rate.double().sum((0, 1)).T
    if dt is None:
        given = torch.view_as_complex(rate)
        total = torch.view_as_real(chained(torch.view_as_complex(total.contiguous()), given, rule))
    grad_rate.copy_(total)


class _Plan:
    """How the records, stretches and states are laid over programs."""

    def __init__(self, v, dt, rate, dtype, rule):
        records, L, _, P = v.shape
        if dt is None:
            rate, rule = torch.view_as_real(decay_of(torch.view_as_complex(rate), rule)), GIVEN
        self.rate = fields(rate, rule, dtype)
        blocks = triton.cdiv(P, NODES)
        pieces, chunks = stretches(v, blocks * records, triton.cdiv(L, CHUNK), each=16)
        self.grid, self.sizes = (blocks, pieces, records), (L, P, chunks * CHUNK)
        self.constants = {"RULE": rule, "NODES": min(NODES, triton.next_power_of_2(P)), "AHEAD": AHEAD}

    def before(self, v, dt, initial, **options):
        """The states before each stretch, (stretches, 2, records · P)."""
        states = initial.transpose(0, 1).reshape(1, 2, -1)
        if self.grid[1] == 1:
            return states.contiguous()
        product, total = (states.new_empty(self.grid[1], *states.shape[1:]) for _ in range(2))
        _sums[self.grid](product, total, v, dt, self.rate, *self.sizes, **options, **self.constants, num_warps=1)
        return carry(product, total, states.contiguous())


_states = operator("diagonal_states", _all, _compute)
_states_backward = operator("diagonal_states_backward", _gradients, _compute_gradients)


def _keep(ctx, inputs, output):
    v, dt, rate, initial, *ctx.options = inputs
    ctx.save_for_backward(v, dt, rate, initial, output)


def _differentiate(ctx, grad):
    saved = ctx.saved_tensors
    want_dt = ctx.needs_input_grad[1]
    grad_v, grad_dt, *others = _states_backward(*saved, grad.contiguous(), *ctx.options, want_dt)
    return grad_v, grad_dt if want_dt else None, *others, None, None


_states.register_autograd(_differentiate, setup_context=_keep)
