"""The mixes as compiled loops: one pass over the record forth, and one back; threads over the records."""

import numpy as np
import torch

from statespace.kernels.compiled import entry
from statespace.kernels.dispatch import refuse_devices as unusable  # noqa: F401
from statespace.kernels.threads import in_parallel


def token_shift(u, mix, register=None):
    """See :func:`statespace.kernels.token_shift`; torch tensors are differentiable, once."""
    arrays = not isinstance(u, torch.Tensor)
    u, mix = torch.as_tensor(u), torch.as_tensor(mix)
    register = u.new_zeros(u.shape[0], u.shape[2]) if register is None else torch.as_tensor(register).to(u.dtype)
    x = _Shift.apply(u.contiguous(), mix.to(u.dtype).contiguous(), register.contiguous())
    return tuple(each.numpy() for each in x) if arrays else x


@entry(fastmath={"contract"})
def _forward(first, last, u, mix, register, x):
    J, L, D = len(mix), u.shape[1], u.shape[2]
    for b in range(first, last):
        for t in range(L):
            before, now = (register[b] if t == 0 else u[b, t - 1]), u[b, t]
            for j in range(J):
                row, out = mix[j], x[j][b, t]
                for d in range(D):
                    out[d] = before[d] + row[d] * (now[d] - before[d])


@entry(fastmath={"contract"})
def _backward(first, last, u, mix, register, grad, grad_u, grad_mix, grad_register):
    """``grad_mix`` (B, J, D) comes as zeros, a sum for each record."""
    J, L, D = len(mix), u.shape[1], u.shape[2]
    of_now, of_both = np.empty(D, u.dtype), np.empty(D, u.dtype)
    for b in range(first, last):
        for t in range(L):
            before, now = (register[b] if t == 0 else u[b, t - 1]), u[b, t]
            of_now[:] = 0
            of_both[:] = 0
            for j in range(J):
                row, back, total = mix[j], grad[j][b, t], grad_mix[b, j]
                for d in range(D):
                    of_both[d] += back[d]
                    of_now[d] += row[d] * back[d]
                    total[d] += back[d] * (now[d] - before[d])
            of_before, out = (grad_register[b] if t == 0 else grad_u[b, t - 1]), grad_u[b, t]
            for d in range(D):
                out[d] = of_now[d]
                of_before[d] += of_both[d] - of_now[d]


def _array(x):
    return x.detach().numpy()


class _Shift(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, mix, register):
        x = tuple(torch.empty_like(u) for _ in mix)
        in_parallel(_forward, len(u), len(x) * u.numel(), *map(_array, (u, mix, register)), tuple(map(_array, x)))
        ctx.save_for_backward(u, mix, register)
        return x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *grad):
        u, mix, register = ctx.saved_tensors
        grad_u, grad_register = torch.empty_like(u), torch.zeros_like(register)
        grad_mix = mix.new_zeros(len(u), *mix.shape)
        grad = tuple(_array(x.contiguous()) for x in grad)
        results = map(_array, (grad_u, grad_mix, grad_register))
        in_parallel(_backward, len(u), 2 * len(grad) * u.numel(), *map(_array, (u, mix, register)), grad, *results)
        return grad_u, grad_mix.sum(0), grad_register
