"""The short convolution as Triton kernels: a program for some channels of some steps, read where they lie."""

# Triton compiles tuples that grow, which mypy cannot type.
# mypy: disable-error-code="assignment"

import torch
import triton
import triton.language as tl
from torch import Tensor

from statespace.kernels.arrays import accepts_numpy
from statespace.kernels.launching import sigmoid, unusable, wide  # noqa: F401
from statespace.kernels.operators import operator
from statespace.kernels.tuning import tuned, warps

# Steps and channels of a tile, the axis that lies in a block in memory being the longer one.
TILES = {True: (16, 64), False: (128, 8)}
# Tiles of a program of the reverse sweep, one after the other, beside which its sums for the taps are little.
REPEATS = 8


@accepts_numpy
def causal_conv1d(
    x, weight, bias=None, seq_idx=None, initial_states=None, return_final_states=False, activation=None, *, lengths=None
):
    """See :func:`statespace.kernels.causal_conv1d`; differentiable, once."""
    lengths = None if lengths is None else torch.as_tensor(lengths, device=x.device)
    options = activation is not None, return_final_states
    y, final = _convolution(x, weight, bias, seq_idx, initial_states, lengths, *options)
    return (y, final) if return_final_states else y


@triton.jit
def _place(program, D, CHANNELS: tl.constexpr):
    """What is left of the number of a program, its first channel, and its channels from there on."""
    blocks = tl.cdiv(D, CHANNELS)
    return program // blocks, program % blocks * CHANNELS, tl.arange(0, CHANNELS)[None, :]


@triton.jit
def _samples(
    x, register, b, first, i, begin, d, inside, L, W, x_record, x_channel, x_step, r_record, r_channel, r_step,
):  # fmt: skip
    """The samples at the steps first + i of the channels begin + d: of the record, or of the register before it."""
    s = first + i
    at = x + b * x_record + begin * x_channel + first * x_step
    found = wide(tl.load(at + d * x_channel + i * x_step, mask=inside & (s >= 0) & (s < L), other=0))
    if register is not None:
        at = register + b * r_record + begin * r_channel + (first + W - 1) * r_step
        found += tl.load(at + d * r_channel + i * r_step, mask=inside & (s < 0) & (s > -W), other=0).to(found.dtype)
    return found


@triton.jit
def _unbroken(seq_idx, b, s, L):
    """Whether the step s belongs to the sequence of the step before; the register belongs to the first one."""
    inside = (s > 0) & (s < L)
    now = tl.load(seq_idx + b * L + s, mask=inside, other=0)
    return now == tl.load(seq_idx + b * L + s - 1, mask=inside, other=0)


@triton.jit
def _taps(weight, begin, d, D, j, kind: tl.constexpr, W: tl.constexpr):
    """The taps that meet the samples j steps back."""
    return tl.load(weight + (begin + d) * W + (W - 1 - j), mask=begin + d < D, other=0).to(kind)


@tuned(["x_channel"], warps(0.5), warps(2))
@triton.jit
def _forward(
    y, x, weight, bias, register, seq_idx, L, D, x_record, x_channel, x_step, r_record, r_channel, r_step,
    y_record, y_channel, y_step,
    W: tl.constexpr, ACTIVATED: tl.constexpr, STEPS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    rest, begin, d = _place(tl.program_id(0).to(tl.int64), D, CHANNELS)
    tiles = tl.cdiv(L, STEPS)
    b, first, i = rest // tiles, rest % tiles * STEPS, tl.arange(0, STEPS)[:, None]
    inside = (first + i < L) & (begin + d < D)
    kind: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    total = tl.zeros((STEPS, CHANNELS), kind)
    if bias is not None:
        total += tl.load(bias + begin + d, mask=begin + d < D, other=0).to(kind)
    alike = inside
    for j in tl.static_range(W):
        found = _samples(
            x, register, b, first, i - j, begin, d, alike, L, W, x_record, x_channel, x_step, r_record, r_channel,
            r_step,
        )  # fmt: skip
        total += found * _taps(weight, begin, d, D, j, kind, W)
        if seq_idx is not None:
            alike = alike & _unbroken(seq_idx, b, first + i - j, L)
    if ACTIVATED:
        total *= sigmoid(total)
    at = y + b * y_record + begin * y_channel + first * y_step
    tl.store(at + d * y_channel + i * y_step, total, mask=inside)


@triton.jit
def _last(
    final, x, register, seq_idx, lengths, L, D, x_record, x_channel, x_step, r_record, r_channel, r_step,
    W: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """The last W - 1 samples of each record's last sequence."""
    b, begin, d = _place(tl.program_id(0).to(tl.int64), D, CHANNELS)
    n = tl.full((), L, tl.int64)
    if lengths is not None:
        n = tl.load(lengths + b).to(tl.int64)
    i, alike = tl.arange(0, 1)[:, None], begin + d < D
    for j in tl.static_range(1, W):
        found = _samples(
            x, register, b, n, i - j, begin, d, alike, L, W, x_record, x_channel, x_step, r_record, r_channel, r_step
        )
        tl.store(final + (b * D + begin + d) * (W - 1) + (W - 1 - j), found, mask=begin + d < D)
        if seq_idx is not None:
            alike = alike & _unbroken(seq_idx, b, n + i - j, L)


@tuned(["x_channel"], warps(2))
@triton.jit
def _backward(
    of_x, of_taps, of_register, x, weight, bias, register, seq_idx, lengths, grad, grad_final, L, D, parts, extra,
    x_record, x_channel, x_step, r_record, r_channel, r_step, y_record, y_channel, y_step, g_record, g_channel, g_step,
    W: tl.constexpr, ROWS: tl.constexpr, ACTIVATED: tl.constexpr, STEPS: tl.constexpr, CHANNELS: tl.constexpr,
    TILES: tl.constexpr,
):  # fmt: skip
    """``of_x`` lies as y does; ``of_taps`` (records, parts, W + 1, D) has a sum for each program, the bias's last.

    ``extra`` is W - 1 where there is a register, whose gradients are those of the steps before the record.
    """
    rest, begin, d = _place(tl.program_id(0).to(tl.int64), D, CHANNELS)
    b, part, i = rest // parts, rest % parts, tl.arange(0, STEPS)[:, None]
    n = tl.full((), L, tl.int64)
    if lengths is not None:
        n = tl.load(lengths + b).to(tl.int64)
    row = tl.arange(0, ROWS)[:, None]
    kind: tl.constexpr = of_taps.dtype.element_ty
    sums = tl.zeros((ROWS, CHANNELS), kind)
    for k in range(TILES):
        first = (part * TILES + k) * STEPS - extra
        s = first + i
        inside = (s < L) & (begin + d < D) & (s > -W)
        # The samples from W - 1 steps before to W - 1 behind, and which of them go on with the one before.
        samples, unbroken = (), ()
        for m in tl.static_range(2 * W - 1):
            if ACTIVATED or m == W - 1:
                samples += (
                    _samples(
                        x, register, b, first, i + (m - W + 1), begin, d, begin + d < D, L, W, x_record, x_channel,
                        x_step, r_record, r_channel, r_step,
                    ),
                )  # fmt: skip
            else:
                samples += (0,)
            unbroken += (0 if seq_idx is None else _unbroken(seq_idx, b, s + (m - W + 1), L),)
        total = tl.zeros((STEPS, CHANNELS), kind)
        alike = inside
        for j in tl.static_range(W):
            if seq_idx is not None and j > 0:
                alike = alike & unbroken[j + W - 1]
            read = alike & (s + j >= 0) & (s + j < L)
            at = grad + b * g_record + begin * g_channel + first * g_step
            q = tl.load(at + d * g_channel + (i + j) * g_step, mask=read, other=0).to(kind)
            if ACTIVATED:
                p = tl.zeros((STEPS, CHANNELS), kind)
                if bias is not None:
                    p += tl.load(bias + begin + d, mask=begin + d < D, other=0).to(kind)
                own = read
                for m in tl.static_range(W):
                    taps = _taps(weight, begin, d, D, m, kind, W)
                    if seq_idx is None:
                        p += samples[j - m + W - 1] * taps
                    else:
                        p += tl.where(own, samples[j - m + W - 1], 0) * taps
                        own = own & unbroken[j - m + W - 1]
                gate = sigmoid(p)
                q *= gate * (1 + p * (1 - gate))
            total += q * _taps(weight, begin, d, D, j, kind, W)
            there = tl.where(inside, samples[W - 1], 0)
            sums += tl.where(row == W - 1 - j, tl.sum(q * there, 0, keep_dims=True), 0)
            if j == 0 and bias is not None:
                sums += tl.where(row == W, tl.sum(q, 0, keep_dims=True), 0)
            if grad_final is not None and j < W - 1:
                at = grad_final + (b * D + begin) * (W - 1) + (W - 2 - j)
                total += tl.load(at + d * (W - 1) + i * 0, mask=alike & (s + j == n - 1), other=0).to(kind)
        at = of_x + b * y_record + begin * y_channel + first * y_step
        tl.store(at + d * y_channel + i * y_step, total, mask=inside & (s >= 0))
        if register is not None:
            at = of_register + (b * D + begin) * (W - 1) + first + W - 1
            tl.store(at + d * (W - 1) + i, total, mask=inside & (s < 0))
    at = of_taps + ((b * parts + part) * (W + 1)) * D + begin
    tl.store(at + row * D + d, sums, mask=(row <= W) & (begin + d < D))


def _tile(x, backwards=False):
    """Steps and channels of a program's tile, by which of the two lie side by side; the way back needs registers."""
    steps, channels = TILES[x.stride(1) == 1 and x.shape[2] > 1]
    return {"STEPS": steps // 2 if backwards else steps, "CHANNELS": channels}


def _strides(a):
    return (0, 0, 0) if a is None else a.stride()


def _outputs(
    x: Tensor, weight: Tensor, bias: Tensor | None, seq_idx: Tensor | None, register: Tensor | None,
    lengths: Tensor | None, activated: bool, final: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    B, D, W = *x.shape[:2], weight.shape[1]
    dtype = x.dtype if register is None else torch.promote_types(x.dtype, register.dtype)
    return _alike(x), x.new_empty((B, D, W - 1) if final else (0,), dtype=dtype)


def _alike(x):
    """Empty, with channels last in memory where x has them so."""
    B, D, L = x.shape
    return x.new_empty(B, L, D).transpose(1, 2) if x.stride(1) == 1 and L > 1 else x.new_empty(B, D, L)


def _compute(y, last, x, weight, bias, seq_idx, register, lengths, activated, final):
    (B, D, L), W = x.shape, weight.shape[1]
    tile = _tile(x)
    register = None if W == 1 else register
    weight, bias, seq_idx = (a if a is None else a.contiguous() for a in (weight, bias, seq_idx))
    places = *x.stride(), *_strides(register)
    blocks = triton.cdiv(D, tile["CHANNELS"])
    _forward[(B * triton.cdiv(L, tile["STEPS"]) * blocks,)](
        y, x, weight, bias, register, seq_idx, L, D, *places, *y.stride(), W=W, ACTIVATED=activated, **tile
    )
    if final and W > 1:
        _last[(B * triton.cdiv(D, 64),)](last, x, register, seq_idx, lengths, L, D, *places, W=W, CHANNELS=64)


def _parts(x, W, register):
    """How many programs go through the steps of a record, each through ``REPEATS`` tiles."""
    steps = x.shape[2] + (0 if register is None else W - 1)
    return triton.cdiv(steps, REPEATS * _tile(x, backwards=True)["STEPS"])


def _gradients(
    x: Tensor, weight: Tensor, bias: Tensor | None, seq_idx: Tensor | None, register: Tensor | None,
    lengths: Tensor | None, activated: bool, grad: Tensor, grad_final: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    (B, D, _), W = x.shape, weight.shape[1]
    sums = x.new_empty(B, _parts(x, W, register), W + 1, D, dtype=torch.promote_types(x.dtype, torch.float32))
    return _alike(x), sums, x.new_empty((0,) if register is None else register.shape, dtype=sums.dtype)


def _compute_gradients(
    of_x, of_taps, of_register, x, weight, bias, seq_idx, register, lengths, activated, grad, grad_final
):
    (B, D, L), W = x.shape, weight.shape[1]
    tile, parts = _tile(x, backwards=True), of_taps.shape[1]
    register = None if W == 1 else register
    weight, bias, seq_idx = (a if a is None else a.contiguous() for a in (weight, bias, seq_idx))
    grad_final = grad_final.contiguous() if grad_final.numel() else None
    _backward[(B * parts * triton.cdiv(D, tile["CHANNELS"]),)](
        of_x, of_taps, of_register, x, weight, bias, register, seq_idx, lengths, grad, grad_final, L, D, parts,
        0 if register is None else W - 1, *x.stride(), *_strides(register), *of_x.stride(), *grad.stride(),
        W=W, ROWS=triton.next_power_of_2(W + 1), ACTIVATED=activated, TILES=REPEATS, **tile,
    )  # fmt: skip


_convolution = operator("causal_conv1d", _outputs, _compute)
_convolution_backward = operator("causal_conv1d_backward", _gradients, _compute_gradients)


def _keep(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:6])
    ctx.activated = inputs[6]


def _differentiate(ctx, grad, grad_final):
    x, weight, bias, seq_idx, register, lengths = ctx.saved_tensors
    of_x, of_taps, of_register = _convolution_backward(
        x, weight, bias, seq_idx, register, lengths, ctx.activated, grad, grad_final
    )
    of_taps = of_taps.sum((0, 1))
    return (
        of_x, of_taps[:-1].t().to(weight.dtype), None if bias is None else of_taps[-1].to(bias.dtype), None,
        None if register is None else of_register.to(register.dtype), None, None, None,
    )  # fmt: skip


_convolution.register_autograd(_differentiate, setup_context=_keep)
