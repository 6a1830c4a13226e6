"""Two-level Vandermonde product in torch operations, differentiable, on any device.

There is no Numba file beside this one: the work is a matrix product, which torch hands to BLAS.
"""

import math

import torch

from statespace.kernels.arrays import accepts_numpy


@accepts_numpy
def vandermonde(c, x, L, *, log_nodes=False, real=False):
    """See :func:`statespace.kernels.vandermonde`; every operation is a torch operation."""
    c, x = torch.broadcast_tensors(c, x)
    dtype = torch.promote_types(torch.promote_types(c.dtype, x.dtype), torch.complex64)
    # A power of a float32 node has lost three digits by l = 4096: the tables are made in float64 and then cast.
    nodes = x.to(torch.complex128)
    nodes = torch.exp(nodes) if log_nodes else nodes
    M = 1 << math.ceil(math.log2(max(L, 1)) / 2)
    R = -(-L // M)
    fine, stride = powers(nodes, M)  # (..., N, M)
    coarse, _ = powers(stride, R)  # (..., N, R)
    left = flush((c.unsqueeze(-1) * coarse).to(dtype)).transpose(-1, -2)  # (..., R, N)
    right = flush(fine.to(dtype))
    columns = torch.cat([right.real, right.imag], dim=-2)  # (..., 2 N, M)
    kernel = (torch.cat([left.real, -left.imag], dim=-1) @ columns).flatten(-2)[..., :L]
    if real:
        return kernel
    return torch.complex(kernel, (torch.cat([left.imag, left.real], dim=-1) @ columns).flatten(-2)[..., :L])


def powers(x, n):
    """x^0 .. x^(n-1) along a new last axis, by doubling, and x^n."""
    table, stride = torch.ones_like(x).unsqueeze(-1), x
    while table.shape[-1] < n:
        table = torch.cat([table, table * stride.unsqueeze(-1)], dim=-1)
        stride = stride * stride
    if table.shape[-1] > n:
        stride = table[..., n]
        table = table[..., :n]
    return table, stride


def flush(table):
    """Zero for entries whose products would be subnormal: a CPU multiplies such numbers a hundred times slower."""
    if table.dtype != torch.complex64:
        return table
    return torch.where(table.abs() < 1e-30, 0.0, table)
