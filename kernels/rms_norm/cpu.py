"""The norm as compiled loops over vectors of channels, which pass over memory once; threads over rows."""

import torch
from torch.nn.functional import pad

from statespace.kernels.arrays import accepts_numpy
from statespace.kernels.dispatch import refuse_accelerators as unusable  # noqa: F401
from statespace.kernels.lanes import WIDTH, flat, memory
from statespace.kernels.rms_norm.loops import backward, forward
from statespace.kernels.threads import in_parallel

PIECE = 256  # rows of a task


@accepts_numpy
def rms_norm(x, weight, z=None, *, eps=1e-5, group_size=None):
    """See :func:`statespace.kernels.rms_norm`; torch tensors are differentiable, once."""
    dtype, size = torch.promote_types(x.dtype, torch.float32), group_size or x.shape[-1]
    rows = [None if a is None else _filled(a.to(dtype), size) for a in (x, z, weight)]
    y = _Norm.apply(*rows, size, eps)
    y = y if size % WIDTH == 0 else y.unflatten(-1, (-1, size + -size % WIDTH))[..., :size].flatten(-2)
    y = y.reshape(x.shape)
    return y.to(x.dtype) if x.is_floating_point() else y


def _filled(x, size):
    """Rows of channels, each group filled up with zeros to a multiple of the vector."""
    x = x if x.ndim == 2 else x.reshape(-1, x.shape[-1])
    return pad(x.unflatten(-1, (-1, size)), (0, -size % WIDTH)).flatten(-2) if size % WIDTH else x


def _rows(x):
    """Rows (n, channels) as a flat array from the first one on, and how far apart they lie."""
    x = x if x.stride(1) == 1 and x.stride(0) >= x.shape[1] else x.contiguous()
    return memory(x), x.stride(0)


class _Norm(torch.autograd.Function):
    """x, z and y (rows, channels), weight (1, channels)."""

    @staticmethod
    def forward(ctx, x, z, weight, size, eps):
        ctx.save_for_backward(x, z, weight)
        vectors = (size - 1) // WIDTH + 1
        ctx.sizes = len(x), x.shape[1] // (vectors * WIDTH), vectors, size, eps, PIECE
        y = x.new_empty(x.shape)
        gate = (None, 0) if z is None else _rows(z)
        in_parallel(forward, -(-len(x) // PIECE), 10 * x.numel(), *ctx.sizes, *_rows(x), *gate, flat(weight), flat(y))
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_y):
        x, z, weight = ctx.saved_tensors
        tasks = -(-len(x) // PIECE)
        grad_x, grad_weight = x.new_empty(x.shape), x.new_zeros(tasks, weight.shape[1])
        grad_z = None if z is None else z.new_empty(z.shape)
        gate = (None, 0) if z is None else _rows(z)
        inputs = *_rows(x), *gate, flat(weight), *_rows(grad_y)
        in_parallel(backward, tasks, 20 * x.numel(), *ctx.sizes, *inputs, flat(grad_x), flat(grad_z), flat(grad_weight))
        return grad_x, grad_z, grad_weight.sum(0, keepdim=True), None, None
