"""One step in Triton: a program for some channels of one head of one record, their states in its registers."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from statespace.kernels.arrays import accepts_numpy
from statespace.kernels.launching import sigmoid, softplus, unusable, wide  # noqa: F401
from statespace.kernels.operators import operator
from statespace.kernels.selective_scan.pytorch import kinds
from statespace.kernels.selective_scan.triton_tiles import decay, pair, put
from statespace.kernels.selective_state_update.pytorch import selective_state_update as in_torch

# Numbers of a state that a program holds.
NUMBERS = 1024


@accepts_numpy
def selective_state_update(state, x, dt, A, B, C, D=None, z=None, dt_bias=None, dt_softplus=False):
    """See :func:`statespace.kernels.selective_state_update`; torch tensors are differentiable."""
    given = state, x, dt, A, B, C, D, z, dt_bias
    if torch.is_grad_enabled() and any(m is not None and m.requires_grad for m in given):
        # A stream asks for no gradient. Where one is wanted, torch has each of its operations differentiated.
        return in_torch(*given, dt_softplus)
    real, kind = kinds(x, state, A, B, C)
    heads = state.ndim == 4
    B, C = (m.to(kind).unsqueeze(1) if m.ndim == 2 else m.to(kind) for m in (B, C))
    headed = [m if m is None or heads else m.unsqueeze(1) for m in (x, dt, z)]
    A, D, dt_bias = (m if m is None or heads else m.unsqueeze(0) for m in (A, D, dt_bias))
    state = (state if heads else state.unsqueeze(1)).to(kind)
    y, new = _step(
        _parts(state), headed[0].contiguous(), headed[1].contiguous(), _parts(A.to(kind)), _parts(B), _parts(C),
        *(None if m is None else m.to(real).contiguous() for m in (D, dt_bias)),
        None if z is None else headed[2].contiguous(), heads, dt_softplus,
    )  # fmt: skip
    new = torch.complex(new[..., 0], new[..., 1]) if kind.is_complex else new.squeeze(-1)
    return (y, new) if heads else (y.squeeze(1), new.squeeze(1))


def _parts(x):
    """Complex numbers as pairs, real ones alone."""
    return (torch.view_as_real(x) if x.is_complex() else x.unsqueeze(-1)).contiguous()


@triton.jit
def step(
    y, new, state, x, dt, A, B, C, D, bias, z, heads, channels, groups, members, N: tl.constexpr, SOFT: tl.constexpr,
    HEADED: tl.constexpr, COMPLEX: tl.constexpr, CHANNELS: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    """Shapes: state (records, heads, channels, N, parts), A without records, B and C (records, groups, N, parts).

    A group has ``members`` heads, or channels where there are no heads.
    """
    parts: tl.constexpr = 2 if COMPLEX else 1
    record, head = (tl.program_id(0) // heads).to(tl.int64), tl.program_id(0) % heads
    d, n = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS), tl.arange(0, STATES)
    ours, mask = d < channels, (d < channels)[:, None] & (n < N)[None, :]
    row = head * channels + d
    at = record * heads * channels + row
    h = wide(tl.load(dt + at, mask=ours, other=0)).to(A.dtype.element_ty)
    if bias is not None:
        h += tl.load(bias + row, mask=ours, other=0)
    h = (softplus(h) if SOFT else h)[:, None]
    u = wide(tl.load(x + at, mask=ours, other=0)).to(h.dtype)
    a, turns = pair(A, (row[:, None] * N + n[None, :]) * parts, 1, mask, COMPLEX)
    e, f, p, q = decay(h, a * 1.4426950408889634, turns * 0.15915494309189535, 0.0, COMPLEX, False)
    group = (head + d * 0 if HEADED else d) // members
    own = ((record * groups + group)[:, None] * N + n[None, :]) * parts
    b_re, b_im = pair(B, own, 1, mask, COMPLEX)
    c_re, c_im = pair(C, own, 1, mask, COMPLEX)
    there = (at[:, None] * N + n[None, :]) * parts
    s_re, s_im = pair(state, there, 1, mask, COMPLEX)
    v = h * u[:, None]
    if COMPLEX:
        s_re, s_im = p * s_re - q * s_im + b_re * v, p * s_im + q * s_re + b_im * v
        out = 2 * tl.sum(c_re * s_re - c_im * s_im, 1)
    else:
        s_re = p * s_re + b_re * v
        out = tl.sum(c_re * s_re, 1)
    put(new, there, 1, mask, s_re, s_im, COMPLEX)
    if D is not None:
        out += tl.load(D + row, mask=ours, other=0) * u
    if z is not None:
        gate = wide(tl.load(z + at, mask=ours, other=0)).to(h.dtype)
        out *= gate * sigmoid(gate)
    tl.store(y + at, out, mask=ours)


def _results(
    state: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, bias: Tensor | None,
    z: Tensor | None, heads: bool, soft: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return x.new_empty(x.shape), state.new_empty(state.shape)


def _compute(y, new, state, x, dt, A, B, C, D, bias, z, heads, soft):
    batch, own, channels, N, parts = state.shape
    groups, states = B.shape[1], triton.next_power_of_2(N)
    block = min(max(1, NUMBERS // states), triton.next_power_of_2(channels))
    step[batch * own, triton.cdiv(channels, block)](
        y, new, state, x, dt, A, B, C, D, bias, z, own, channels, groups, (own if heads else channels) // groups, N=N,
        SOFT=soft, HEADED=heads, COMPLEX=parts == 2, CHANNELS=block, STATES=states,
    )  # fmt: skip


_step = operator("selective_state_update", _results, _compute)
