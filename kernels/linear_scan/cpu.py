"""Linear scan as a Numba loop over time, threads over the rows; its backward is one more such loop."""

import torch
from numba import njit, prange

from statespace.kernels.dispatch import refuse_devices as unusable  # noqa: F401


@njit(cache=True, parallel=True)
def _forward(a, b, initial, x):
    for i in prange(b.shape[0]):
        state = initial[i]
        for k in range(b.shape[1]):
            state = a[i, k] * state + b[i, k]
            x[i, k] = state


@njit(cache=True, parallel=True)
def _backward(a, x, initial, grad, grad_a, grad_initial):
    """``grad`` comes with the gradient in x and leaves with that in b."""
    for i in prange(x.shape[0]):
        g = grad[i, 0] * 0
        for k in range(x.shape[1] - 1, -1, -1):
            g = g + grad[i, k]
            grad[i, k] = g
            before = x[i, k - 1] if k > 0 else initial[i]
            grad_a[i, k] = g * before.conjugate()
            g = g * a[i, k].conjugate()
        grad_initial[i] = g


def linear_scan(a, b, initial=None, reverse=False):
    """See :func:`statespace.kernels.linear_scan`; torch tensors are differentiable, once."""
    arrays = not isinstance(b, torch.Tensor)
    a, b = torch.as_tensor(a), torch.as_tensor(b)
    initial = torch.zeros((), dtype=b.dtype) if initial is None else torch.as_tensor(initial)
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), initial.dtype)
    dtype = torch.promote_types(dtype, torch.float32)
    # Broadcasting stands before the scan, so that torch sums the gradients back.
    rows = [x.to(dtype).expand(b.shape).reshape(-1, b.shape[-1]) for x in (a, b)]
    if reverse:
        rows = [x.flip(-1) for x in rows]
    x = _Scan.apply(*(x.contiguous() for x in rows), initial.to(dtype).expand(b.shape[:-1]).reshape(-1).contiguous())
    x = (x.flip(-1) if reverse else x).view(b.shape)
    return x.numpy() if arrays else x


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b, initial):
        x = torch.empty_like(b)
        _forward(*(t.detach().resolve_conj().numpy() for t in (a, b, initial, x)))
        ctx.save_for_backward(a, x, initial)
        return x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        a, x, initial = ctx.saved_tensors
        grad = grad.resolve_conj().clone(memory_format=torch.contiguous_format)
        grad_a, grad_initial = torch.empty_like(a), torch.empty_like(initial)
        _backward(*(t.detach().numpy() for t in (a, x, initial, grad, grad_a, grad_initial)))
        return grad_a, grad, grad_initial
