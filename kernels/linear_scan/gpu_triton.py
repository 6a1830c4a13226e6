"""Linear scan as Triton kernels: a program for a stretch of some rows, chunk by chunk, forth and back.

Where the rows alone keep a GPU busy, a stretch is the whole record: a and b are read and x is written, once. Fewer rows
are cut into stretches, in three passes: what each stretch makes of a state (the product of its factors, and what it
adds), a scan over the stretches' ends, and the stretches again, each from the state before it.

Tensors inside are rows (R1, R2, R3) by steps; a has 1 in place of a size that its rows share, and one step if one
factor serves all. Complex numbers are pairs along a last axis.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from statespace.kernels.arrays import accepts_numpy
from statespace.kernels.launching import INTERPRETED, stretches, unusable, wide  # noqa: F401
from statespace.kernels.operators import operator
from statespace.kernels.tuning import tuned, warps

# Numbers of a program at a time, and steps of them at most; fewer steps in the interpreter, so that short records have
# several chunks and stretches.
TILE, STEPS = (512, 32) if INTERPRETED else (1024, 1024)
# More warps have fewer numbers each to scan in registers, and more ends to scan through shared memory.
_tuned = tuned(["size"], warps(0.5), warps(2))


@accepts_numpy
def linear_scan(a, b, initial=None, reverse=False):
    """See :func:`statespace.kernels.linear_scan`; torch tensors are differentiable, once."""
    initial = b.new_zeros(()) if initial is None else initial
    result = torch.promote_types(torch.promote_types(a.dtype, b.dtype), initial.dtype)
    working = torch.promote_types(result, torch.float32)
    rows, steps = b.shape[:-1], b.shape[-1]
    if not b.numel():
        return (a * b + initial.expand(rows).unsqueeze(-1)).to(result)
    # Half precision is read as it is and becomes float32 in the kernel.
    a, b, initial = (
        x if working == torch.float32 and x.is_floating_point() else x.to(working) for x in (a, b, initial)
    )
    a, sizes = _grouped(a if a.ndim else a.unsqueeze(0), b.shape)
    arguments = a, b.reshape(*sizes, steps), initial.expand(rows).reshape(sizes)
    if working.is_complex:
        x = _scan(*(torch.view_as_real(x.resolve_conj().contiguous()) for x in arguments), bool(reverse), True)
        return torch.view_as_complex(x).view(*rows, steps).to(result)
    kind = result if result.is_floating_point else working
    return _scan(*(x.contiguous() for x in arguments), bool(reverse), False).view(*rows, steps).to(kind)


def _grouped(a, shape):
    """a with its leading axes gathered into three, and the sizes that ``shape`` has in place of them.

    Neighbouring axes that a has itself, or that it shares, are one; where they alternate more often, a is written out.
    """
    a = a.reshape(*[1] * (len(shape) - a.ndim), *a.shape)
    groups = []
    for own, size in ((n == m, m) for n, m in zip(a.shape[:-1], shape[:-1], strict=True) if m > 1):
        if groups and groups[-1][0] == own:
            groups[-1][1] *= size
        else:
            groups.append([own, size])
    if len(groups) > 3:
        a, groups = a.expand(*shape[:-1], a.shape[-1]), [[True, shape[:-1].numel()]]
    groups += [[True, 1]] * (3 - len(groups))
    return a.reshape(*(size if own else 1 for own, size in groups), a.shape[-1]), [size for _, size in groups]


@triton.jit
def _load(pointer, at, inside, other, COMPLEX: tl.constexpr):
    """Real and imaginary parts; a real number stands for both."""
    if COMPLEX:
        pairs = tl.load(pointer + 2 * at[:, :, None] + tl.arange(0, 2)[None, None, :], mask=inside[:, :, None], other=0)
        real, imag = tl.split(wide(pairs))
        return tl.where(inside, real, other), imag
    else:
        x = wide(tl.load(pointer + at, mask=inside, other=other))
        return x, x


@triton.jit
def _store(pointer, at, real, imag, inside, COMPLEX: tl.constexpr):
    if COMPLEX:
        pairs = tl.join(real, imag)
        tl.store(pointer + 2 * at[:, :, None] + tl.arange(0, 2)[None, None, :], pairs, mask=inside[:, :, None])
    else:
        tl.store(pointer + at, real, mask=inside)


@triton.jit
def _product(a, b, c, d, COMPLEX: tl.constexpr):
    """(a + ib) (c + id); of real numbers, b and d say nothing."""
    if COMPLEX:
        return a * c - b * d, a * d + b * c
    else:
        return a * c, d


@triton.jit
def _then(a, x, b, y):
    """One stretch of steps, s -> a s + x, and then another one."""
    return a * b, b * x + y


@triton.jit
def _then_complex(a, c, x, z, b, d, y, w):
    return a * b - c * d, a * d + c * b, b * x - d * z + y, b * z + d * x + w


@triton.jit
def _cumulate(a, c, x, z, COMPLEX: tl.constexpr):
    """What the steps up to each one make of the state before the first."""
    if COMPLEX:
        return tl.associative_scan((a, c, x, z), 1, _then_complex)
    else:
        a, x = tl.associative_scan((a, x), 1, _then)
        return a, a, x, x


@triton.jit
def _last(x, STEPS: tl.constexpr):
    return tl.sum(tl.where(tl.arange(0, STEPS)[None, :] == STEPS - 1, x, 0), 1, keep_dims=True)


@triton.jit
def _rows(R, R2, R3, s1, s2, s3, ROWS: tl.constexpr):
    """The rows of this program, those of a that they take, and which of them there are, each (ROWS, 1)."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    return row, row // (R2 * R3) * s1 + row // R3 % R2 * s2 + row % R3 * s3, row < R


@triton.jit
def _factors(a, owner, k, inside, L, CONSTANT: tl.constexpr, COMPLEX: tl.constexpr):
    """The factors of steps k, 1 outside."""
    if CONSTANT:
        real, imag = _load(a, owner, owner >= 0, 1.0, COMPLEX)
        return tl.where(inside, real, 1), tl.where(inside, imag, 0)
    else:
        return _load(a, owner * L + k, inside, 1.0, COMPLEX)


@_tuned
@triton.jit
def _sums(
    product, total, a, b, R, L, R2, R3, s1, s2, s3, size,
    FLIP: tl.constexpr, LATE: tl.constexpr, CONSTANT: tl.constexpr, COMPLEX: tl.constexpr,
    ROWS: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """What each stretch of ``size`` steps makes of a state: its product of factors, and what it adds.

    FLIP goes from the last step to the first one; LATE takes the conjugate factor of the step gone through before.
    """
    row, owner, there = _rows(R, R2, R3, s1, s2, s3, ROWS)
    begin = tl.program_id(1) * size
    p = tl.zeros([ROWS, 1], b.dtype.element_ty)
    p, q = wide(p) + 1, wide(p)
    x, z = q, q
    for start in range(begin, min(begin + size, L), STEPS):
        step = start + tl.arange(0, STEPS)[None, :]
        k = L - 1 - step if FLIP else step
        inside = there & (step < L)
        y, w = _load(b, row * L + k, inside, 0.0, COMPLEX)
        if LATE:
            f, g = _factors(a, owner, k + (1 if FLIP else -1), inside & (step > 0), L, CONSTANT, COMPLEX)
            f, g, y, w = _cumulate(f, -g, y, w, COMPLEX)
        else:
            f, g = _factors(a, owner, k, inside, L, CONSTANT, COMPLEX)
            f, g, y, w = _cumulate(f, g, y, w, COMPLEX)
        f, y = _last(f, STEPS), _last(y, STEPS)
        if COMPLEX:
            g, w = _last(g, STEPS), _last(w, STEPS)
        p, q = _product(f, g, p, q, COMPLEX)
        x, z = _product(f, g, x, z, COMPLEX)
        x += y
        if COMPLEX:
            z += w
    at = row * tl.num_programs(1) + tl.program_id(1)
    _store(product, at, p, q, there, COMPLEX)
    _store(total, at, x, z, there, COMPLEX)


@triton.jit
def _before(initial, ends, row, there, COMPLEX: tl.constexpr):
    """The state before this program's stretch: the end of the one before, or the initial state."""
    stretch, stretches = tl.program_id(1) + tl.zeros_like(row), tl.num_programs(1)
    x, z = _load(initial, row, there & (stretch == 0), 0.0, COMPLEX)
    y, w = _load(ends, row * stretches + stretch - 1, there & (stretch > 0), 0.0, COMPLEX)
    return x + y, z + w


@_tuned
@triton.jit
def _states(
    x, a, b, initial, ends, R, L, R2, R3, s1, s2, s3, size,
    FLIP: tl.constexpr, CONSTANT: tl.constexpr, COMPLEX: tl.constexpr, ROWS: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    row, owner, there = _rows(R, R2, R3, s1, s2, s3, ROWS)
    begin = tl.program_id(1) * size
    state, turned = _before(initial, ends, row, there, COMPLEX)
    for start in range(begin, min(begin + size, L), STEPS):
        step = start + tl.arange(0, STEPS)[None, :]
        k = L - 1 - step if FLIP else step
        inside = there & (step < L)
        y, w = _load(b, row * L + k, inside, 0.0, COMPLEX)
        f, g = _factors(a, owner, k, inside, L, CONSTANT, COMPLEX)
        f, g, y, w = _cumulate(f, g, y, w, COMPLEX)
        of_state, of_turned = _product(f, g, state, turned, COMPLEX)
        y, w = of_state + y, of_turned + w
        _store(x, row * L + k, y, w, inside, COMPLEX)
        state = _last(y, STEPS)
        if COMPLEX:
            turned = _last(w, STEPS)


@_tuned
@triton.jit
def _backward(
    grad_a, grad_b, grad_initial, a, x, initial, grad, rest, ends, R, L, R2, R3, s1, s2, s3, size,
    FLIP: tl.constexpr, CONSTANT: tl.constexpr, COMPLEX: tl.constexpr, ROWS: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """The scan of the gradients, FLIP from the last step to the first one, and the gradient in the factors.

    ``grad_a`` is (R, L), or (R, stretches) if one factor serves all steps; ``rest`` the zeros after the last step.
    """
    row, owner, there = _rows(R, R2, R3, s1, s2, s3, ROWS)
    begin = tl.program_id(1) * size
    state, turned = _before(rest, ends, row, there, COMPLEX)
    sum_real = tl.zeros_like(state)
    sum_imag = tl.zeros_like(state)
    # One step from the end the scan comes from to that it goes to.
    ahead = -1 if FLIP else 1
    for start in range(begin, min(begin + size, L), STEPS):
        step = start + tl.arange(0, STEPS)[None, :]
        k = L - 1 - step if FLIP else step
        inside = there & (step < L)
        y, w = _load(grad, row * L + k, inside, 0.0, COMPLEX)
        f, g = _factors(a, owner, k - ahead, inside & (step > 0), L, CONSTANT, COMPLEX)
        f, g, y, w = _cumulate(f, -g, y, w, COMPLEX)
        of_state, of_turned = _product(f, g, state, turned, COMPLEX)
        y, w = of_state + y, of_turned + w
        _store(grad_b, row * L + k, y, w, inside, COMPLEX)
        before, below = _load(x, row * L + k + ahead, inside & (step < L - 1), 0.0, COMPLEX)
        first, under = _load(initial, row + step * 0, inside & (step == L - 1), 0.0, COMPLEX)
        if COMPLEX:
            real, imag = _product(y, w, before + first, -(below + under), COMPLEX)
        else:
            real, imag = y * (before + first), w
        if CONSTANT:
            sum_real += tl.sum(tl.where(inside, real, 0), 1, keep_dims=True)
            if COMPLEX:
                sum_imag += tl.sum(tl.where(inside, imag, 0), 1, keep_dims=True)
        else:
            _store(grad_a, row * L + k, real, imag, inside, COMPLEX)
        state = _last(y, STEPS)
        if COMPLEX:
            turned = _last(w, STEPS)
    if CONSTANT:
        _store(grad_a, row * tl.num_programs(1) + tl.program_id(1), sum_real, sum_imag, there, COMPLEX)
    if tl.program_id(1) == tl.num_programs(1) - 1:
        k = (0 if FLIP else L - 1) + row * 0
        f, g = _factors(a, owner, k, there, L, CONSTANT, COMPLEX)
        if COMPLEX:
            state, turned = _product(f, -g, state, turned, COMPLEX)
        else:
            state = f * state
        _store(grad_initial, row, state, turned, there, COMPLEX)


def _results(a: Tensor, b: Tensor, initial: Tensor, reverse: bool, is_complex: bool) -> Tensor:
    return b.new_empty(b.shape, dtype=torch.promote_types(torch.promote_types(a.dtype, b.dtype), initial.dtype))


def _compute(x, a, b, initial, reverse, is_complex):
    plan = _Plan(a, b, is_complex)
    ends = initial
    if plan.stretches > 1:
        product, total = plan.sums(a, b, FLIP=reverse, LATE=False)
        ends = torch.empty_like(total)
        _compute(ends, product, total, initial, False, is_complex)
    _states[plan.grid](x, a, b, initial, ends, *plan.sizes, FLIP=reverse, **plan.constants)


def _gradients(
    a: Tensor, x: Tensor, initial: Tensor, grad: Tensor, reverse: bool, is_complex: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Those in the factors of each row, in b and in the initial state."""
    wide_type = torch.promote_types(x.dtype, torch.float32)
    steps = x.shape[:3] + a.shape[3:]
    return a.new_empty(steps, dtype=wide_type), torch.empty_like(grad), torch.empty_like(initial)


def _compute_gradients(grad_a, grad_b, grad_initial, a, x, initial, grad, reverse, is_complex):
    plan = _Plan(a, x, is_complex)
    rest = torch.zeros_like(initial, dtype=grad_a.dtype)
    ends = rest
    if plan.stretches > 1:
        product, total = plan.sums(a, grad, FLIP=not reverse, LATE=True)
        ends = torch.empty_like(total)
        _compute(ends, product, total, rest, False, is_complex)
    constant = plan.constants["CONSTANT"]
    partial = plan.scratch(grad) if constant else grad_a
    _backward[plan.grid](
        partial, grad_b, grad_initial, a, x, initial, grad, rest, ends, *plan.sizes, FLIP=not reverse, **plan.constants
    )
    if constant:
        torch.sum(partial, 3, keepdim=True, out=grad_a)


class _Plan:
    """How the rows and steps of b are laid over programs."""

    def __init__(self, a, b, is_complex):
        (R1, R2, R3, L), (A1, A2, A3, _) = b.shape[:4], a.shape[:4]
        tile = TILE >> is_complex
        steps = min(triton.next_power_of_2(L), STEPS, tile)
        rows = min(triton.next_power_of_2(R1 * R2 * R3), tile // steps)
        programs = triton.cdiv(R1 * R2 * R3, rows)
        self.stretches, chunks = stretches(b, programs, triton.cdiv(L, steps))
        self.grid = programs, self.stretches
        # How far the rows of a lie apart along each of the three axes; 0 along a shared one.
        strides = (A1 > 1) * A2 * A3, (A2 > 1) * A3, int(A3 > 1)
        self.sizes = R1 * R2 * R3, L, R2, R3, *strides, chunks * steps
        self.rows = (R1, R2, R3)
        self.constants = {"CONSTANT": a.shape[3] == 1, "COMPLEX": is_complex, "ROWS": rows, "STEPS": steps}

    def scratch(self, like):
        """A number for each row and stretch."""
        dtype = torch.promote_types(like.dtype, torch.float32)
        return like.new_empty(*self.rows, self.stretches, *like.shape[4:], dtype=dtype)

    def sums(self, a, b, **options):
        product, total = self.scratch(b), self.scratch(b)
        _sums[self.grid](product, total, a, b, *self.sizes, **options, **self.constants)
        return product, total


_scan = operator("linear_scan", _results, _compute)
_scan_backward = operator("linear_scan_backward", _gradients, _compute_gradients)


def _keep(ctx, inputs, output):
    a, b, initial, ctx.reverse, ctx.is_complex = inputs
    ctx.kind = b.dtype
    ctx.save_for_backward(a, output, initial)


def _differentiate(ctx, grad):
    a, x, initial = ctx.saved_tensors
    grad_a, grad_b, grad_initial = _scan_backward(a, x, initial, grad.contiguous(), ctx.reverse, ctx.is_complex)
    return grad_a.sum_to_size(a.shape).to(a.dtype), grad_b.to(ctx.kind), grad_initial, None, None


_scan.register_autograd(_differentiate, setup_context=_keep)
