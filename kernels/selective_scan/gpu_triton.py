"""Selective scan as Triton kernels: tiles of channels and steps, states in registers, long records in stretches."""

import math

import torch
import triton
from torch import Tensor

from statespace.kernels.arrays import accepts_numpy
from statespace.kernels.launching import unusable  # noqa: F401
from statespace.kernels.operators import operator
from statespace.kernels.selective_scan.pytorch import kinds
from statespace.kernels.selective_scan.triton_forward import connect, forward
from statespace.kernels.selective_scan.triton_reverse import ends, reverse

CHANNELS, STEPS = 32, 8
# States that a thread takes at once, forth and back: back, it keeps those of all steps of a tile.
STATES, STATES_BACK = 4, 2
BLOCK = 128
# Programs that fill a GPU, and the fewest steps of a stretch.
PROGRAMS, STRETCH = 2048, 256


@accepts_numpy
def selective_scan(
    u,
    delta,
    A,
    B,
    C,
    D=None,
    z=None,
    delta_bias=None,
    delta_softplus=False,
    return_last_state=False,
    *,
    initial_state=None,
    dt=None,
):
    """See :func:`statespace.kernels.selective_scan`; torch tensors are differentiable, once."""
    real, kind = kinds(u, A, B, C, initial_state)
    groups = math.lcm(*(x.shape[1] for x in (B, C) if x.ndim == 4))
    A, state = _rows(A.to(kind)), None if initial_state is None else _rows(initial_state.to(kind))
    B, C = (_rows(x.to(kind)) if x.ndim == 2 else _lines(x.to(kind), groups) for x in (B, C))
    D, bias, gaps = (None if x is None else x.to(real).contiguous() for x in (D, delta_bias, dt))
    keep = torch.is_grad_enabled() and any(
        x is not None and x.requires_grad for x in (u, delta, A, B, C, D, z, bias, state, gaps)
    )
    y, state, _ = _scan(u, delta, z, gaps, A, B, C, D, bias, state, bool(delta_softplus), keep)
    if not return_last_state:
        return y
    return y, (torch.complex(state[:, 0], state[:, 1]) if kind.is_complex else state[:, 0]).transpose(1, 2)


def _rows(x):
    """(…, channels, states) -> (…, parts, states, channels): channels side by side, as threads are."""
    x = torch.view_as_real(x).movedim(-1, -3) if x.is_complex() else x.unsqueeze(-3)
    return x.transpose(-1, -2).contiguous()


def _lines(x, groups):
    """B or C that varies -> (batch, groups, length, parts, states), as many groups as are asked for; whole tiles."""
    x = x.unsqueeze(1) if x.ndim == 3 else x
    x = x if x.shape[1] == groups else x.repeat_interleave(groups // x.shape[1], dim=1)
    x = torch.view_as_real(x).movedim(-1, -3) if x.is_complex() else x.unsqueeze(-3)
    x = x.permute(0, 1, 4, 2, 3)
    padding = 0, -x.shape[4] % max(STATES, STATES_BACK), 0, 0, 0, -x.shape[2] % STEPS
    return torch.nn.functional.pad(x, padding).contiguous()


def _like(x):
    """Memory for a tensor of this shape, whose channels come last where those of x do."""
    if x.stride(1) == 1:
        return x.new_empty(x.shape[0], x.shape[2], x.shape[1]).transpose(1, 2)
    return x.new_empty(x.shape)


def _groups(B, C):
    return max(x.shape[1] if x.ndim == 5 else 1 for x in (B, C))


def _blocks(u, B, C):
    """Programs of a record."""
    groups = _groups(B, C)
    return groups * triton.cdiv(u.shape[1] // groups, CHANNELS)


def _stretches(u, B, C, worth):
    """Stretches of a record, and their steps.

    A record in stretches is read twice: only where the programs are ``worth`` times too few.
    """
    batch, _, length = u.shape
    missing = PROGRAMS // (batch * _blocks(u, B, C))
    count = min(missing, triton.cdiv(length, STRETCH)) if missing >= worth else 1
    steps = triton.cdiv(triton.cdiv(length, max(count, 1)), STEPS) * STEPS
    return triton.cdiv(length, steps), steps


def _outputs(
    u: Tensor, delta: Tensor, z: Tensor | None, gaps: Tensor | None, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
    bias: Tensor | None, state: Tensor | None, soft: bool, keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    slots = triton.cdiv(u.shape[2], STEPS) if keep else _stretches(u, B, C, 3)[0]
    return _like(u), A.new_empty(len(u), *A.shape), A.new_empty(len(u), slots, *A.shape)


def _compute(y, final, states, u, delta, z, gaps, A, B, C, D, bias, state, soft, keep):
    stretches, steps = _stretches(u, B, C, 3)
    rate, kinds, sizes, exact = _rate(A), _kinds(A, B, C), _sizes(u, B, C), _exact(A, delta)
    states[:, 0] = 0 if state is None else state
    slots, grid = states.shape[1], (len(u) * _blocks(u, B, C), stretches)
    gate = u if z is None else z
    strides = *y.stride(), *u.stride(), *delta.stride(), *gate.stride()
    options = dict(SOFT=soft, EXACT=exact, STATES=STATES, **kinds, **_tile())
    inputs = u, delta, z, gaps, B, C, rate, D, bias, *sizes, steps
    if stretches > 1:
        found, totals = _stretch_ends(u, A, stretches)
        forward[grid](None, None, found, totals, *inputs, stretches, 1, *strides, READ=False, KEEP=False, **options,
                      num_warps=1)  # fmt: skip
        _connect(states, found, totals, rate, steps // STEPS if keep else 1, False, kinds, exact)
    forward[grid](y, final, states, None, *inputs, slots, 1, *strides, READ=True, KEEP=keep, **options, num_warps=1)


def _gradients(
    u: Tensor, delta: Tensor, z: Tensor | None, gaps: Tensor | None, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
    bias: Tensor | None, soft: bool, states: Tensor, grad: Tensor, grad_final: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    batch, channels, length = u.shape
    blocks, stretches = _blocks(u, B, C), _stretches(u, B, C, 2)[0]
    sums = batch, stretches, *A.shape
    of_B, of_C = (x.new_empty(blocks // _groups(B, C), *x.shape) if x.ndim == 5 else x.new_empty(sums) for x in (B, C))
    of_z = u.new_empty(0) if z is None else _like(z)
    of_gaps = A.new_empty(0 if gaps is None else blocks, batch, length)
    of_D, of_bias = (A.new_empty(batch, stretches, 0 if x is None else channels) for x in (D, bias))
    return _like(u), _like(delta), of_z, of_gaps, of_B, of_C, A.new_empty(sums), of_D, of_bias, A.new_empty(sums)


def _compute_gradients(
    of_u, of_delta, of_z, of_gaps, of_B, of_C, of_A, of_D, of_bias, flow, u, delta, z, gaps, A, B, C, D, bias, soft,
    states, grad, grad_final,
):  # fmt: skip
    stretches, steps = _stretches(u, B, C, 2)
    rate, kinds, sizes, exact = _rate(A), _kinds(A, B, C), _sizes(u, B, C), _exact(A, delta)
    gate, of_gate = (u, u) if z is None else (z, of_z)
    strides = *grad.stride(), *u.stride(), *delta.stride(), *gate.stride()
    options = dict(SOFT=soft, EXACT=exact, **_tile(), num_warps=1)
    grid = len(u) * _blocks(u, B, C), stretches
    flow[:, -1] = 0 if grad_final is None else grad_final
    if stretches > 1:
        found, totals = _stretch_ends(u, A, stretches)
        ends[grid](
            found, totals, grad, delta, z, gaps, C, rate, bias, *sizes, steps, 1, *grad.stride(), *delta.stride(),
            *gate.stride(), **{name: x for name, x in kinds.items() if name != "OWN_B"}, STATES=STATES, **options,
        )  # fmt: skip
        _connect(flow, found, totals, rate, 1, True, kinds, exact)
    for x in (of_A, *(of for of, given in ((of_B, B), (of_C, C)) if given.ndim == 3)):
        x.zero_()
    reverse[grid](
        of_u, of_delta, of_z, of_gaps, of_B, of_C, of_A, of_D, of_bias, flow, grad, states, u, delta, z, gaps, B, C, A,
        rate, D, bias, *sizes, steps, states.shape[1], 1, *strides, *of_u.stride(), *of_delta.stride(),
        *of_gate.stride(),
        STATES=STATES_BACK, **kinds, **options,
    )  # fmt: skip


def _rate(A):
    """A / ln 2, or with a frequency in turns, in two parts."""
    wide = A.double()
    if len(A) == 1:
        return (wide / math.log(2)).to(A.dtype)
    turns = wide[1] / (2 * math.pi)
    high = turns.to(A.dtype)
    return torch.stack([(wide[0] / math.log(2)).to(A.dtype), high, (turns - high).to(A.dtype)])


def _exact(A, delta):
    """Whether decays near 1 need more digits than an exponential leaves them: not beside the rounding of half types."""
    return A.dtype == torch.float32 and delta.dtype.itemsize >= 4


def _kinds(A, B, C):
    padded = next((x.shape[-1] for x in (B, C) if x.ndim == 5), 0)
    return {"N": A.shape[1], "PADDED": padded, "COMPLEX": len(A) == 2, "OWN_B": B.ndim == 3, "OWN_C": C.ndim == 3}


def _tile():
    return {"CHANNELS": CHANNELS, "STEPS": STEPS, "LEVELS": STEPS.bit_length() - 1}


def _sizes(u, B, C):
    groups = _groups(B, C)
    return u.shape[2], groups, u.shape[1] // groups


def _stretch_ends(u, A, stretches):
    """Memory for the states that stretches leave, zeros at first, and for the sums of their steps."""
    return A.new_zeros(len(u), stretches, *A.shape), A.new_empty(len(u), stretches, u.shape[1])


def _connect(states, found, totals, rate, per_stretch, backwards, kinds, exact):
    N, channels = rate.shape[1:]
    connect[triton.cdiv(N * channels, BLOCK), len(states)](
        states, found, totals, rate, N, channels, found.shape[1], states.shape[1], per_stretch, REVERSE=backwards,
        COMPLEX=kinds["COMPLEX"], EXACT=exact, BLOCK=BLOCK,
    )  # fmt: skip


_scan = operator("selective_scan", _outputs, _compute)
_scan_backward = operator("selective_scan_backward", _gradients, _compute_gradients)


def _keep(ctx, inputs, output):
    ctx.has_state, ctx.soft = inputs[9] is not None, inputs[10]
    ctx.save_for_backward(*inputs[:9], output[2])
    ctx.set_materialize_grads(False)


def _differentiate(ctx, grad, grad_final, _):
    u, delta, z, gaps, A, B, C, D, bias, states = ctx.saved_tensors
    grad = torch.zeros_like(u) if grad is None else grad
    of_u, of_delta, of_z, of_gaps, of_B, of_C, of_A, of_D, of_bias, flow = _scan_backward(
        u, delta, z, gaps, A, B, C, D, bias, ctx.soft, states, grad, grad_final
    )
    return (
        of_u, of_delta, None if z is None else of_z, None if gaps is None else of_gaps.sum(0), of_A.sum((0, 1)),
        *(of.sum(0) if given.ndim == 5 else of.sum((0, 1)) for of, given in ((of_B, B), (of_C, C))),
        None if D is None else of_D.sum((0, 1)), None if bias is None else of_bias.sum((0, 1)),
        flow[:, 0] if ctx.has_state else None, None, None,
    )  # fmt: skip


_scan.register_autograd(_differentiate, setup_context=_keep)
