"""The sum as it is written, tap by tap, in float64."""

import numpy as np
from scipy.special import expit

from statespace.kernels.dispatch import refuse_tensors as unusable  # noqa: F401


def causal_conv1d(
    x, weight, bias=None, seq_idx=None, initial_states=None, return_final_states=False, activation=None, *, lengths=None
):
    (B, D, L), W = x.shape, weight.shape[1]
    lengths = np.full(B, L) if lengths is None else lengths
    y, final = np.empty((B, D, L)), np.zeros((B, D, W - 1))
    for b in range(B):
        # What lies before the record belongs to its first sequence.
        samples = {t: x[b, :, t].astype(np.float64) for t in range(L)}
        before = np.zeros((D, W - 1)) if initial_states is None else initial_states[b].astype(np.float64)
        samples |= {i - W + 1: before[:, i] for i in range(W - 1)}
        begins = [t for t in range(1, L) if seq_idx is not None and seq_idx[b, t] != seq_idx[b, t - 1]]
        for t in range(L):
            first = max([s for s in begins if s <= t], default=1 - W)
            p = np.zeros(D) if bias is None else bias.astype(np.float64)
            for j in range(W):
                if t - j >= first:
                    p = p + weight[:, W - 1 - j] * samples[t - j]
            y[b, :, t] = p if activation is None else p * expit(p)
        n = lengths[b]
        first = max([s for s in begins if s < n], default=1 - W)
        for i in range(W - 1):
            if n - W + 1 + i >= first:
                final[b, :, i] = samples[n - W + 1 + i]
    return (y, final) if return_final_states else y
