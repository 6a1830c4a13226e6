"""The step as it is written, in float64 or complex128."""

import numpy as np

from statespace.kernels.dispatch import refuse_tensors as unusable  # noqa: F401


def selective_state_update(state, x, dt, A, B, C, D=None, z=None, dt_bias=None, dt_softplus=False):
    kind = np.complex128 if any(np.iscomplexobj(m) for m in (state, A, B, C)) else np.float64
    x, h = x.astype(np.float64), dt.astype(np.float64)
    if dt_bias is not None:
        h = h + dt_bias
    if dt_softplus:
        h = np.logaddexp(h, 0)
    h = h[..., None]
    B, C = (_spread(m, state.ndim, state.shape[1]) for m in (B, C))
    new = np.exp(h * A) * state.astype(kind) + h * B * x[..., None]
    y = np.sum(C * new, axis=-1)
    y = 2 * y.real if kind == np.complex128 else y
    if D is not None:
        y = y + D * x
    if z is not None:
        z = z.astype(np.float64)
        y = y * z * np.exp(-np.logaddexp(-z, 0))
    return y, new


def _spread(m, ndim, members):
    """(batch, states) or (batch, groups, states) -> a row for each head, or channel without heads."""
    m = m[:, None] if m.ndim == 2 else m
    m = np.repeat(m, members // m.shape[1], axis=1)
    return m[:, :, None] if ndim == 4 else m
