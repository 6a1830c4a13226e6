"""The recurrence as it is written, in float64 or complex128."""

import numpy as np

from statespace.kernels.dispatch import refuse_tensors as unusable  # noqa: F401


def selective_scan(
    u,
    delta,
    A,
    B,
    C,
    D=None,
    z=None,
    delta_bias=None,
    delta_softplus=False,
    return_last_state=False,
    *,
    initial_state=None,
    dt=None,
):
    batch, channels, length = u.shape
    given = [np.asarray(x) for x in (A, B, C, initial_state) if x is not None]
    kind = np.complex128 if any(map(np.iscomplexobj, given)) else np.float64
    u, h = u.astype(np.float64), delta.astype(np.float64)
    if delta_bias is not None:
        h = h + delta_bias[:, None]
    if delta_softplus:
        h = np.logaddexp(h, 0)
    if dt is not None:
        h = h * dt[:, None]
    x = np.zeros((batch, *A.shape), kind) if initial_state is None else initial_state.astype(kind)
    y = np.empty((batch, channels, length))
    for k in range(length):
        step = h[:, :, k, None]
        x = np.exp(step * A) * x + step * _at(B, k, channels) * u[:, :, k, None]
        y_k = np.sum(_at(C, k, channels) * x, axis=-1)
        y[:, :, k] = 2 * y_k.real if kind == np.complex128 else y_k
    if D is not None:
        y = y + D[:, None] * u
    if z is not None:
        z = z.astype(np.float64)
        y = y * z * np.exp(-np.logaddexp(-z, 0))
    return (y, x) if return_last_state else y


def _at(x, k, channels):
    """B or C of step k, of shape (batch or 1, channels, states)."""
    if x.ndim == 2:
        return x
    x = x[..., k] if x.ndim == 4 else x[:, None, :, k]
    return np.repeat(x, channels // x.shape[1], axis=1)
