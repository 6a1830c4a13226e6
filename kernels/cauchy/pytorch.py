"""Cauchy products in torch operations, the nodes in chunks, differentiable, on any device."""

import torch
from torch.utils.checkpoint import checkpoint

from statespace.kernels.arrays import accepts_numpy

# Entries of the matrix 1 / (z - w) that are held at a time.
ENTRIES = 1 << 20


@accepts_numpy
def cauchy(v, z, w, *, conjugate=False):
    """See :func:`statespace.kernels.cauchy`; memory is that of one chunk of nodes."""
    dtype = torch.promote_types(torch.promote_types(v.dtype, z.dtype), torch.promote_types(w.dtype, torch.complex64))
    states = max(v.shape[-1], w.shape[-1])
    v, z, w = v.to(dtype).expand(*v.shape[:-1], states), z.to(dtype), w.to(dtype).expand(*w.shape[:-1], states)
    if conjugate:
        v, w = torch.cat([v, v.conj()], dim=-1), torch.cat([w, w.conj()], dim=-1)
    poles = torch.broadcast_shapes(w.shape, (*z.shape[:-1], 1))
    chunk = max(1, ENTRIES // poles.numel())
    needs_grad = torch.is_grad_enabled() and any(x.requires_grad for x in (v, z, w))
    parts = []
    for nodes in z.split(chunk, dim=-1):
        parts.append(checkpoint(_chunk, v, nodes, w, use_reentrant=False) if needs_grad else _chunk(v, nodes, w))
    return torch.cat(parts, dim=-1)


def _chunk(v, z, w):
    return torch.einsum("...n,...nl->...l", v, 1 / (z.unsqueeze(-2) - w.unsqueeze(-1)))
