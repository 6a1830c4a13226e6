"""The delta rule in torch operations on any device: chunks by the WY representation, all of them at once but for the
state that one hands to the next; see README.md. Gradients of any order are torch's own.
"""

import torch
from torch.nn.functional import normalize, pad

from statespace.kernels.arrays import accepts_numpy
from statespace.kernels.delta_rule import SHORTEST

CHUNK = 64


@accepts_numpy
def delta_rule(q, k, v, beta, decay=None, initial_state=None, *, chunk_size=None, qk_l2norm=False):
    """See :func:`statespace.kernels.delta_rule`."""
    (B, L, H, K), V = k.shape, v.shape[-1]
    dtype = torch.promote_types(torch.promote_types(q.dtype, k.dtype), torch.promote_types(v.dtype, torch.float32))
    C = min(chunk_size or CHUNK, L)

    def chunked(x):
        """(B, L, H, ...) -> (B, H, chunks, C, ...); steps that fill the last chunk write nothing."""
        x = x.to(dtype).transpose(1, 2)
        return pad(x, [0, 0] * (x.ndim - 3) + [0, -L % C]).unflatten(2, (-1, C))

    queries, keys, values, strength = chunked(q), chunked(k), chunked(v), chunked(beta.unsqueeze(-1))
    if qk_l2norm:
        queries, keys = (normalize(x, dim=-1, eps=SHORTEST) for x in (queries, keys))
    overlaps, reads = keys @ keys.mT, queries @ keys.mT
    from_start, to_end, over_chunk = keys, keys, None
    if decay is not None:
        g = pad(decay.to(dtype).transpose(1, 2), [0, -L % C]).unflatten(2, (-1, C))
        # Sums over the steps between, not differences of sums from the start: those would cancel.
        after = torch.ones(C, C, dtype=torch.bool, device=g.device).tril(-1)
        between = torch.where(after, g.unsqueeze(-1), 0.0).cumsum(-2)
        between = torch.where(after.mT, -torch.inf, between).exp()
        overlaps, reads = overlaps * between, reads * between
        since = g.cumsum(-1).exp().unsqueeze(-1)
        from_start, to_end = keys * since, keys * between[..., -1, :].unsqueeze(-1)
        queries, over_chunk = queries * since, since[..., -1:, :]
    reads = reads.tril()
    # (I + strictly lower part of β K Kᵀ) W = β (V - K S): what each step adds, before and after S is known.
    right = torch.cat([strength * values, strength * from_start], dim=-1)
    solved = torch.linalg.solve_triangular((strength * overlaps).tril(-1), right, upper=False, unitriangular=True)
    own, of_state = solved.split([V, K], dim=-1)
    state = k.new_zeros(B, H, K, V, dtype=dtype) if initial_state is None else initial_state.to(dtype)
    outputs = []
    for c in range(own.shape[2]):
        written = own[:, :, c] - of_state[:, :, c] @ state
        outputs.append(queries[:, :, c] @ state + reads[:, :, c] @ written)
        kept = state if over_chunk is None else over_chunk[:, :, c] * state
        state = kept + to_end[:, :, c].mT @ written
    o = torch.cat(outputs, dim=2)[:, :, :L].transpose(1, 2)
    return o.to(v.dtype if v.is_floating_point() else dtype), state
