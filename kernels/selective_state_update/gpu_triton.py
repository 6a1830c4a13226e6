"""One step in Triton: a program for some channels of one head of one record, their states in its registers.

Without heads, the groups of B and C are the heads. Back, a program finds the step again from what it was given, and
leaves the gradients of what several programs share in parts, which are summed afterwards in a fixed order.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from statespace.kernels.arrays import accepts_numpy
from statespace.kernels.launching import sigmoid, softplus, unusable, wide  # noqa: F401
from statespace.kernels.operators import operator
from statespace.kernels.selective_scan.pytorch import kinds
from statespace.kernels.selective_scan.triton_tiles import decay, pair, put

# Numbers of a state that a program holds.
NUMBERS = 1024


@accepts_numpy
def selective_state_update(state, x, dt, A, B, C, D=None, z=None, dt_bias=None, dt_softplus=False):
    """See :func:`statespace.kernels.selective_state_update`; torch tensors are differentiable, once."""
    real, kind = kinds(x, state, A, B, C)
    B, C = (m.to(kind).unsqueeze(1) if m.ndim == 2 else m.to(kind) for m in (B, C))
    groups = math.lcm(B.shape[1], C.shape[1])
    B, C = (m if m.shape[1] == groups else m.repeat_interleave(groups // m.shape[1], dim=1) for m in (B, C))
    heads, shape = state.shape[1] if state.ndim == 4 else groups, x.shape
    x, dt, z = (m if m is None else m.reshape(len(m), heads, -1).contiguous() for m in (x, dt, z))
    A = A.reshape(heads, -1, A.shape[-1])
    D, dt_bias = (m if m is None else m.reshape(heads, -1) for m in (D, dt_bias))
    y, new = _step(
        _parts(state.to(kind).reshape(*x.shape, -1)), x, dt, _parts(A.to(kind)), _parts(B), _parts(C),
        *(m if m is None else m.to(real).contiguous() for m in (D, dt_bias)), z, dt_softplus,
    )  # fmt: skip
    new = torch.complex(new[..., 0], new[..., 1]) if kind.is_complex else new.squeeze(-1)
    return y.view(shape), new.view(*shape, -1)


def _parts(x):
    """Complex numbers as pairs, real ones alone."""
    return (torch.view_as_real(x.resolve_conj()) if x.is_complex() else x.unsqueeze(-1)).contiguous()


@triton.jit
def _place(
    heads, channels, members, N: tl.constexpr, CHANNELS: tl.constexpr, STATES: tl.constexpr, PARTS: tl.constexpr
):  # fmt: skip
    """Of this program: channels, which there are; where they lie in a record, and in all; states likewise; B and C's.

    A group has ``members`` heads.
    """
    record, head = (tl.program_id(0) // heads).to(tl.int64), tl.program_id(0) % heads
    d, n = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS), tl.arange(0, STATES)
    row = head * channels + d
    at = record * heads * channels + row
    group = (record * (heads // members) + head // members) * N + n
    return (
        d < channels, (d < channels)[:, None] & (n < N)[None, :], row, at, (row[:, None] * N + n[None, :]) * PARTS,
        (at[:, None] * N + n[None, :]) * PARTS, n < N, group * PARTS,
    )  # fmt: skip


@triton.jit
def _rates(dt, bias, at, row, ours, like: tl.constexpr, SOFT: tl.constexpr):
    """The steps h, and what they are the softplus of."""
    raw = wide(tl.load(dt + at, mask=ours, other=0)).to(like)
    if bias is not None:
        raw += tl.load(bias + row, mask=ours, other=0)
    return softplus(raw) if SOFT else raw, raw


@triton.jit
def _advance(
    state, x, dt, A, B, C, bias, heads, channels, members, N: tl.constexpr, SOFT: tl.constexpr, COMPLEX: tl.constexpr,
    CHANNELS: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    """A step without D and gate: where its numbers lie; its scalars; A, exp(hA), B, C, each in two parts; states; y."""
    parts: tl.constexpr = 2 if COMPLEX else 1
    ours, mask, row, at, own, there, states, shared = _place(heads, channels, members, N, CHANNELS, STATES, parts)
    h, raw = _rates(dt, bias, at, row, ours, A.dtype.element_ty, SOFT)
    u = wide(tl.load(x + at, mask=ours, other=0)).to(h.dtype)
    a, turns = pair(A, own, 1, mask, COMPLEX)
    _, _, p, q = decay(h[:, None], a * 1.4426950408889634, turns * 0.15915494309189535, 0.0, COMPLEX, False)
    b_re, b_im = pair(B, shared, 1, states, COMPLEX)
    c_re, c_im = pair(C, shared, 1, states, COMPLEX)
    b_re, b_im, c_re, c_im = b_re[None, :], b_im[None, :], c_re[None, :], c_im[None, :]
    s_re, s_im = pair(state, there, 1, mask, COMPLEX)
    v = (h * u)[:, None]
    # What is left of the state, and the state behind the step.
    if COMPLEX:
        left_re, left_im = p * s_re - q * s_im, p * s_im + q * s_re
        new_re, new_im = left_re + b_re * v, left_im + b_im * v
        out = 2 * tl.sum(c_re * new_re - c_im * new_im, 1)
    else:
        left_re, left_im = p * s_re, s_im
        new_re, new_im = left_re + b_re * v, s_im
        out = tl.sum(c_re * new_re, 1)
    return (
        (ours, mask, row, at, there, states), (h, raw, u, v), (a, turns, p, q, b_re, b_im, c_re, c_im),
        (left_re, left_im, new_re, new_im), out,
    )  # fmt: skip


@triton.jit
def step(
    y, new, state, x, dt, A, B, C, D, bias, z, heads, channels, members, N: tl.constexpr, SOFT: tl.constexpr,
    COMPLEX: tl.constexpr, CHANNELS: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    """Shapes: state (records, heads, channels, N, parts), A without records, B and C (records, groups, N, parts)."""
    (ours, mask, row, at, there, _), (h, _, u, _), _, (_, _, new_re, new_im), out = _advance(
        state, x, dt, A, B, C, bias, heads, channels, members, N, SOFT, COMPLEX, CHANNELS, STATES
    )
    put(new, there, 1, mask, new_re, new_im, COMPLEX)
    if D is not None:
        out += tl.load(D + row, mask=ours, other=0) * u
    if z is not None:
        gate = wide(tl.load(z + at, mask=ours, other=0)).to(h.dtype)
        out *= gate * sigmoid(gate)
    tl.store(y + at, out, mask=ours)


@triton.jit
def step_back(
    of_state, of_x, of_raw, of_A, of_B, of_C, of_D, of_z, state, x, dt, A, B, C, D, bias, z, grad, grad_new,
    heads, channels, members, N: tl.constexpr, SOFT: tl.constexpr, COMPLEX: tl.constexpr, CHANNELS: tl.constexpr,
    STATES: tl.constexpr,
):  # fmt: skip
    """All gradients: of_A and of_D for each record, of_B and of_C (records, heads, blocks, N, parts) each program's."""
    where, scalars, factors, both, out = _advance(
        state, x, dt, A, B, C, bias, heads, channels, members, N, SOFT, COMPLEX, CHANNELS, STATES
    )
    (ours, mask, row, at, there, states), (h, raw, u, v) = where, scalars
    (a, turns, p, q, b_re, b_im, c_re, c_im), (left_re, left_im, new_re, new_im) = factors, both
    parts: tl.constexpr = 2 if COMPLEX else 1
    g_re, g_im = pair(grad_new, there, 1, mask, COMPLEX)
    g = wide(tl.load(grad + at, mask=ours, other=0)).to(h.dtype)
    skip = tl.zeros_like(h)
    if D is not None:
        skip = tl.load(D + row, mask=ours, other=0).to(h.dtype)
    if z is not None:
        gate = wide(tl.load(z + at, mask=ours, other=0)).to(h.dtype)
        open_ = sigmoid(gate)
        tl.store(of_z + at, g * (out + skip * u) * open_ * (1 + gate * (1 - open_)), mask=ours)
        g *= gate * open_
    if D is not None:
        tl.store(of_D + at, g * u, mask=ours)
    dy = g[:, None]
    part = (tl.program_id(0).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)) * N * parts
    line = part + tl.arange(0, STATES) * parts
    if COMPLEX:
        g_re, g_im = g_re + 2 * c_re * dy, g_im - 2 * c_im * dy
        put(of_C, line, 1, states, tl.sum(2 * new_re * dy, 0), tl.sum(-2 * new_im * dy, 0), COMPLEX)
        put(of_B, line, 1, states, tl.sum(g_re * v, 0), tl.sum(g_im * v, 0), COMPLEX)
        of_v = tl.sum(b_re * g_re + b_im * g_im, 1)
        # In hA: the state's gradient with what is left, conjugate.
        r, t = g_re * left_re + g_im * left_im, g_im * left_re - g_re * left_im
        of_h = tl.sum(a * r + turns * t, 1)
        put(of_A, there, 1, mask, h[:, None] * r, h[:, None] * t, COMPLEX)
        put(of_state, there, 1, mask, p * g_re + q * g_im, p * g_im - q * g_re, COMPLEX)
    else:
        g_re += c_re * dy
        put(of_C, line, 1, states, tl.sum(new_re * dy, 0), 0.0, COMPLEX)
        put(of_B, line, 1, states, tl.sum(g_re * v, 0), 0.0, COMPLEX)
        of_v = tl.sum(b_re * g_re, 1)
        r = g_re * left_re
        of_h = tl.sum(a * r, 1)
        put(of_A, there, 1, mask, h[:, None] * r, 0.0, COMPLEX)
        put(of_state, there, 1, mask, p * g_re, 0.0, COMPLEX)
    of_h += u * of_v
    tl.store(of_raw + at, of_h * sigmoid(raw) if SOFT else of_h, mask=ours)
    tl.store(of_x + at, h * of_v + skip * g, mask=ours)


def _results(
    state: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, bias: Tensor | None,
    z: Tensor | None, soft: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return x.new_empty(x.shape), state.new_empty(state.shape)


def _compute(y, new, state, x, dt, A, B, C, D, bias, z, soft):
    grid, sizes, options = _layout(state, B)
    step[grid](y, new, state, x, dt, A, B, C, D, bias, z, *sizes, SOFT=soft, **options)


def _layout(state, B):
    """The programs, the sizes, and what a program has."""
    batch, heads, channels, N, parts = state.shape
    states = triton.next_power_of_2(N)
    block = min(max(1, NUMBERS // states), triton.next_power_of_2(channels))
    options = {"N": N, "COMPLEX": parts == 2, "CHANNELS": block, "STATES": states}
    return (batch * heads, triton.cdiv(channels, block)), (heads, channels, heads // B.shape[1]), options


def _gradients(
    state: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, bias: Tensor | None,
    z: Tensor | None, grad: Tensor, grad_new: Tensor, soft: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    shared = *state.shape[:2], _layout(state, B)[0][1], *state.shape[3:]
    return (
        state.new_empty(state.shape), x.new_empty(x.shape), state.new_empty(dt.shape), state.new_empty(state.shape),
        state.new_empty(shared), state.new_empty(shared), state.new_empty((0,) if D is None else x.shape),
        x.new_empty((0,)) if z is None else z.new_empty(z.shape),
    )  # fmt: skip


def _compute_gradients(
    of_state, of_x, of_raw, of_A, of_B, of_C, of_D, of_z, state, x, dt, A, B, C, D, bias, z, grad, grad_new, soft
):
    grid, sizes, options = _layout(state, B)
    step_back[grid](
        of_state, of_x, of_raw, of_A, of_B, of_C, of_D, of_z, state, x, dt, A, B, C, D, bias, z, grad, grad_new, *sizes,
        SOFT=soft, **options,
    )  # fmt: skip


_step = operator("selective_state_update", _results, _compute)
_step_backward = operator("selective_state_update_backward", _gradients, _compute_gradients)


def _keep(ctx, inputs, output):
    *tensors, ctx.soft = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx, grad, grad_new):
    tensors = ctx.saved_tensors
    _, _, dt, _, B, _, D, bias, z = tensors
    of_state, of_x, of_raw, of_A, of_B, of_C, of_D, of_z = _step_backward(
        *tensors, grad.contiguous(), grad_new.contiguous(), ctx.soft
    )
    of_B, of_C = (m.view(*B.shape[:2], -1, *B.shape[2:]).sum(2) for m in (of_B, of_C))
    return (
        of_state, of_x, of_raw.to(dt.dtype), of_A.sum(0), of_B, of_C, None if D is None else of_D.sum(0),
        None if bias is None else of_raw.sum(0), None if z is None else of_z, None,
    )  # fmt: skip


_step.register_autograd(_differentiate, setup_context=_keep)
