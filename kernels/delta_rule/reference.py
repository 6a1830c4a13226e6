"""The recurrence as it is written, in float64."""

import numpy as np

from statespace.kernels.delta_rule import SHORTEST
from statespace.kernels.dispatch import refuse_tensors as unusable  # noqa: F401


def delta_rule(q, k, v, beta, decay=None, initial_state=None, *, chunk_size=None, qk_l2norm=False):
    (B, L, H, K), V = k.shape, v.shape[-1]
    q, k, v, beta = (x.astype(np.float64) for x in (q, k, v, beta))
    if qk_l2norm:
        q, k = (x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), SHORTEST) for x in (q, k))
    alpha = np.ones((B, L, H)) if decay is None else np.exp(decay.astype(np.float64))
    S = np.zeros((B, H, K, V)) if initial_state is None else initial_state.astype(np.float64)
    o = np.empty((B, L, H, V))
    for t in range(L):
        S = alpha[:, t, :, None, None] * S
        error = v[:, t] - np.einsum("bhkv,bhk->bhv", S, k[:, t])
        S = S + np.einsum("bh,bhk,bhv->bhkv", beta[:, t], k[:, t], error)
        o[:, t] = np.einsum("bhkv,bhk->bhv", S, q[:, t])
    return o, S
