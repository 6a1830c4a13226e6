"""Linear scan as Numba loops over time, four rows at a time and threads over the rows; the backward is another one.

A row is a chain of dependent multiplications, each of which waits for the one before; four rows in one loop fill the
wait. Rows of b that share their factors read one and the same row of a, which is never copied out.
"""

import numpy as np
import torch

from statespace.kernels.compiled import entry
from statespace.kernels.dispatch import refuse_devices as unusable  # noqa: F401
from statespace.kernels.threads import in_parallel

FAST = {"contract"}
PARTS = 16  # rows that share their factors are cut into so many sums of gradients at most, one for a thread


@entry(fastmath=FAST)
def _forward(first, last, bounds, rows, row_a, reverse, a, b, initial, x):
    """The states x (R, L) of the rows in parts first..last−1; ``row_a`` (R,) says which row of ``a`` each one has, a
    row of one factor if it serves all steps.
    """
    L, moving = b.shape[1], 0 if a.shape[1] == 1 else 1
    begin, end = bounds[first], bounds[last]
    fours = begin + (end - begin) // 4 * 4
    for i in range(begin, fours, 4):
        r0, r1, r2, r3 = rows[i], rows[i + 1], rows[i + 2], rows[i + 3]
        a0, a1, a2, a3 = a[row_a[r0]], a[row_a[r1]], a[row_a[r2]], a[row_a[r3]]
        b0, b1, b2, b3 = b[r0], b[r1], b[r2], b[r3]
        x0, x1, x2, x3 = x[r0], x[r1], x[r2], x[r3]
        s0, s1, s2, s3 = initial[r0], initial[r1], initial[r2], initial[r3]
        for step in range(L):
            k = L - 1 - step if reverse else step
            j = k * moving
            s0, s1, s2, s3 = a0[j] * s0 + b0[k], a1[j] * s1 + b1[k], a2[j] * s2 + b2[k], a3[j] * s3 + b3[k]
            x0[k], x1[k], x2[k], x3[k] = s0, s1, s2, s3
    for i in range(fours, end):
        r0 = rows[i]
        a0, s0 = a[row_a[r0]], initial[r0]
        for step in range(L):
            k = L - 1 - step if reverse else step
            s0 = a0[k * moving] * s0 + b[r0, k]
            x[r0, k] = s0


@entry(fastmath=FAST)
def _backward(first, last, bounds, rows, row_a, part, own, reverse, a, x, initial, grad, grad_a, grad_b, grad_initial):
    """From ``grad``, the gradient in x; that in a goes to the row ``part`` (R,) of ``grad_a``: it is written there if
    every row and step has a factor of its ``own``, and added to what is there otherwise.
    """
    L, moving = x.shape[1], 0 if a.shape[1] == 1 else 1
    back = 1 if reverse else -1
    end = bounds[last]
    for i in range(bounds[first], end, 2):
        # Two rows at a time; of an odd number the last one stands in for both and counts once.
        r0, r1 = rows[i], rows[min(i + 1, end - 1)]
        both = i + 1 < end
        a0, a1, x0, x1 = a[row_a[r0]], a[row_a[r1]], x[r0], x[r1]
        h0, h1, out0, out1 = grad[r0], grad[r1], grad_b[r0], grad_b[r1]
        sum0, sum1 = grad_a[part[r0]], grad_a[part[r1]]
        g0, g1 = h0[0] * 0, h1[0] * 0
        for step in range(L):
            k = step if reverse else L - 1 - step
            j = k * moving
            g0, g1 = g0 + h0[k], g1 + h1[k]
            out0[k], out1[k] = g0, g1
            before0 = x0[k + back] if step < L - 1 else initial[r0]
            before1 = x1[k + back] if step < L - 1 else initial[r1]
            if own:
                sum0[j], sum1[j] = g0 * before0.conjugate(), g1 * before1.conjugate()
            else:
                sum0[j] += g0 * before0.conjugate()
                if both:
                    sum1[j] += g1 * before1.conjugate()
            g0, g1 = g0 * a0[j].conjugate(), g1 * a1[j].conjugate()
        grad_initial[r0], grad_initial[r1] = g0, g1


def linear_scan(a, b, initial=None, reverse=False):
    """See :func:`statespace.kernels.linear_scan`; torch tensors are differentiable, once."""
    arrays = not isinstance(b, torch.Tensor)
    a, b = torch.as_tensor(a), torch.as_tensor(b)
    initial = torch.zeros((), dtype=b.dtype) if initial is None else torch.as_tensor(initial)
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), initial.dtype)
    dtype = torch.promote_types(dtype, torch.float32)
    shape = b.shape
    a = (a if a.ndim else a.unsqueeze(0)).to(dtype)
    row_a = np.arange(a[..., 0].numel()).reshape(a.shape[:-1])
    row_a = np.broadcast_to(row_a, shape[:-1]).ravel()
    x = _Scan.apply(
        a.reshape(-1, a.shape[-1]).contiguous(),
        b.to(dtype).reshape(-1, shape[-1]).contiguous(),
        initial.to(dtype).expand(shape[:-1]).reshape(-1).contiguous(),
        row_a,
        bool(reverse),
    ).view(shape)
    return x.numpy() if arrays else x


def _parts(row_a, n_factors):
    """Rows in an order that puts those of the same factors together, and where each of the parts begins."""
    rows = np.argsort(row_a, kind="stable")
    each = max(1, min(len(rows) // max(n_factors, 1), PARTS // max(n_factors, 1)))
    # In whole numbers: a part that began one row too early would hold rows of two factors.
    n_parts = max(n_factors, 1) * each
    return rows, np.arange(n_parts + 1) * len(rows) // n_parts, each


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b, initial, row_a, reverse):
        x = torch.empty_like(b)
        rows, bounds, each = _parts(row_a, len(a))
        in_parallel(_forward, len(bounds) - 1, b.numel(), bounds, rows, row_a, reverse, *_arrays(a, b, initial, x))
        ctx.save_for_backward(a, x, initial)
        ctx.order, ctx.each, ctx.reverse = (bounds, rows, row_a), each, reverse
        return x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        a, x, initial = ctx.saved_tensors
        bounds, rows, row_a = ctx.order
        grad = grad.resolve_conj().contiguous()
        own = a.shape == x.shape
        shape = len(a) * ctx.each, a.shape[1]
        grad_a = a.new_empty(shape) if own else a.new_zeros(shape)
        grad_b, grad_initial = torch.empty_like(x), torch.empty_like(initial)
        part = np.empty_like(rows)
        part[rows] = np.searchsorted(bounds, np.arange(len(rows)), side="right") - 1
        in_parallel(
            _backward, len(bounds) - 1, x.numel(), bounds, rows, row_a, part, own, ctx.reverse,
            *_arrays(a, x, initial, grad, grad_a, grad_b, grad_initial),
        )  # fmt: skip
        if ctx.each > 1:
            grad_a = grad_a.view(len(a), ctx.each, -1).sum(1)
        return grad_a, grad_b, grad_initial, None, None


def _arrays(*tensors):
    return [x.detach().resolve_conj().numpy() for x in tensors]
