"""What stands around the scan in every backend of tensors: types, the steps Δ, the sequences' starts, the gate."""

import numpy as np
import torch


def around(
    scan, x, dt, A, B, C, chunk_size, D, z, dt_bias, initial_states, seq_idx, dt_softplus, dt_limit,
    return_final_states, gap, decay,
):  # fmt: skip
    """The arguments of :func:`statespace.kernels.ssd`, arrays or tensors, around a ``scan`` of tensors.

    ``scan(x, step, exponent, B, C, D, initial, starts, chunk_size)`` returns y and the final states; all are of one
    type, float32 at least. The logarithms of the decays are ``exponent``, ``D`` is (heads, P) or None, ``initial`` may
    be None, ``starts`` (batch, length) tells where a sequence begins, the first one apart, or is None.
    """
    arrays = not isinstance(x, torch.Tensor)
    x = _tensor(x)
    dtype = torch.promote_types(x.dtype, torch.float32)

    def working(a):
        return None if a is None else _tensor(a).to(dtype)

    step = working(dt)
    if dt_bias is not None:
        step = step + working(dt_bias)
    if dt_softplus:
        # From 40 on it is the identity to the last digit of float64.
        step = torch.nn.functional.softplus(step, threshold=40.0)
    step = step.clamp(*dt_limit)
    if gap is not None:
        step = step * working(gap).unsqueeze(-1)
    starts = None
    if seq_idx is not None:
        seq_idx = _tensor(seq_idx)
        starts = torch.nn.functional.pad(seq_idx[:, 1:] != seq_idx[:, :-1], (1, 0))
        starts = starts if bool(starts.any()) else None
    D = working(D)
    if D is not None and D.ndim == 1:
        D = D.unsqueeze(-1).expand(x.shape[2:])
    exponent = step * working(A) if decay is None else working(decay)
    y, final = scan(*map(working, (x, step, exponent, B, C)), D, working(initial_states), starts, chunk_size)
    if z is not None:
        y = y * torch.nn.functional.silu(working(z))
    y = y.to(x.dtype) if x.is_floating_point() else y
    if arrays:
        y, final = y.numpy(), final.numpy()
    return (y, final) if return_final_states else y


def _tensor(a):
    """Arrays are copied: they may be read-only or run backwards, which tensors cannot."""
    return a if isinstance(a, torch.Tensor) else torch.from_numpy(np.array(a, order="C"))
