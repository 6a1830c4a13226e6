"""The recurrence as it is written, in float64."""

import numpy as np

from statespace.kernels.dispatch import refuse_tensors as unusable  # noqa: F401


def ssd(
    x, dt, A, B, C, chunk_size=None, D=None, z=None, dt_bias=None, initial_states=None, seq_idx=None,
    dt_softplus=False, dt_limit=(0.0, float("inf")), return_final_states=False, *, gap=None, decay=None,
):  # fmt: skip
    batch, L, H, P = x.shape
    B, C = (np.repeat(a.astype(np.float64), H // a.shape[2], axis=2) for a in (B, C))
    x, step = x.astype(np.float64), dt.astype(np.float64)
    if dt_bias is not None:
        step = step + dt_bias
    if dt_softplus:
        step = np.logaddexp(0.0, step)
    step = np.clip(step, *dt_limit)
    if gap is not None:
        step = step * gap[..., np.newaxis]
    exponent = step * A if decay is None else decay.astype(np.float64)
    h = np.zeros((batch, H, P, B.shape[-1])) if initial_states is None else initial_states.astype(np.float64)
    y = np.empty(x.shape)
    for b in range(batch):
        for k in range(L):
            if seq_idx is not None and k > 0 and seq_idx[b, k] != seq_idx[b, k - 1]:
                h[b] = 0.0
            for i in range(H):
                h[b, i] = np.exp(exponent[b, k, i]) * h[b, i] + step[b, k, i] * np.outer(x[b, k, i], B[b, k, i])
                y[b, k, i] = h[b, i] @ C[b, k, i]
    if D is not None:
        y = y + (D if D.ndim == 2 else D[:, np.newaxis]) * x
    if z is not None:
        y = y * z / (1 + np.exp(-z.astype(np.float64)))
    return (y, h) if return_final_states else y
