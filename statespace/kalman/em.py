"""Expectation-maximisation: closed steps that never lower the likelihood.

Expected products come from the smoother and, for the noises, from the gradient of the likelihood (Fisher's identity):
with Ā, Q̄ its derivatives by A and by G Q Gᵀ,

    Σ E[w_t x_tᵀ | y] = Q Ā,     Σ E[η_t η_tᵀ | y] = (T − 1) Q + 2 Q Gᵀ Q̄ G Q   (w = G η),

which needs no inverse of Q or of a predicted covariance. With z = (x, 1, u), C = Σ E[w zᵀ], S = Σ E[z zᵀ] the
coefficients (A, c, B) move by C S⁻¹, and the noise is what is left. Observations: the same with ε; where their noises
are correlated, a missing one counts by its expectation given the others.

Shumway & Stoffer (1982), J. Time Series Analysis 3; Bańbura & Modugno (2014) for missing entries. Above: `estimation`.
"""

from typing import NamedTuple

import numpy as np

from statespace.kalman.sequential import Sequence
from statespace.kalman.smoothing import conditional
from statespace.kernels.kalman_filter import kalman_smoother

_STATE = ("transition", "state_intercept", "input_matrix")
_OUTPUT = ("observation", "observation_intercept", "feedthrough")


class Expectation(NamedTuple):
    """What one record contributes; sums over it."""

    log_likelihood: float
    state: tuple  # S (z, z), C (n, z), E[η ηᵀ] (r, r), the number of steps
    outputs: list  # the same for each observation, or one of all
    initial: tuple  # E[x_1], cov[x_1]


def check_em(free, system, varying):
    """ValueError where a step would not be closed; the message says that method="ml" has no such limits."""
    names = {f.name for f in free}
    hint = "Use method='ml'."
    if system.cross_covariance is not None:
        raise ValueError(f"method='em' knows no cross_covariance. {hint}")
    if system.stationary and names & {"transition", "process_noise", "state_intercept"}:
        raise ValueError(f"with a stationary start these have no closed step: {sorted(names)}. {hint}")
    for group, noise in ((_STATE, "process_noise"), (_OUTPUT, "observation_noise")):
        if names & set(group) and noise in varying:
            raise ValueError(f"{sorted(names & set(group))} have no closed step while {noise} changes. {hint}")
        if names & set(group) and "selection" in varying:
            raise ValueError(f"{sorted(names & set(group))} have no closed step while selection changes. {hint}")
        matrix = system.state_noise()[0] if noise == "process_noise" else system.observation_noise[0]
        for f in free:
            if f.name in group:
                rows = np.flatnonzero(f.mask.reshape(len(matrix), -1).any(axis=1) & (np.diag(matrix) <= 0.0))
                if len(rows):
                    raise ValueError(f"{f.name} cannot be learned in row {rows[0]}, which has no {noise}. {hint}")


def is_diagonal(free, system):
    """Whether the observations' noises are uncorrelated and stay so."""
    R = system.observation_noise
    return not (R * (1.0 - np.eye(R.shape[1]))).any() and all(
        f.name != "observation_noise" or f.kind != "full" for f in free
    )


def expect(system, y, u, diagonal, moving):
    """The expectations of one record; ``moving``: whether something of (A, c, B) is free."""
    T, p = y.shape
    n = system.n_states
    sequence = Sequence(system, y, u)
    arguments = sequence.arguments()
    smoothed = kalman_smoother(*arguments)
    mean, V = smoothed.mean[::p, :n], smoothed.covariance[::p, :n, :n]
    if np.isinf(V).any():
        raise ValueError("a record leaves a part of the diffuse start unbounded: EM has no expectation of it.")
    value, A_bar, Q_bar = sequence.transition_gradient(moving)
    Z = np.column_stack([mean, np.ones(T)] + ([] if u is None else [u]))
    ahead = (system.transition @ mean[:-1, :, np.newaxis])[..., 0] + system.push(u)
    w = mean[1:] - ahead if T > 1 else np.zeros((0, n))
    products = _products(Z[:-1], V[:-1])
    C = np.column_stack([(system.state_noise() @ A_bar).sum(axis=0), w.T @ Z[:-1, n:]])
    Q, G = system.process_noise, system.selection
    total = Q_bar.sum(axis=0) if G is None or len(G) == 1 else Q_bar
    if G is not None:
        total = (np.swapaxes(G, 1, 2) @ total @ G).sum(axis=0)
    own = (T - 1) * Q[0] + 2.0 * Q[0] @ total @ Q[0]
    state = products, C, own, T - 1
    return Expectation(value, state, _outputs(sequence, mean, V, Z, diagonal), (mean[0], V[0]))


def _products(Z, V):
    S = Z.T @ Z
    n = V.shape[1]
    S[:n, :n] += V.sum(axis=0)
    return S


def _outputs(sequence, mean, V, Z, diagonal):
    system, observed = sequence.system, sequence.observed
    T, p = sequence.y.shape
    n = mean.shape[1]
    H = np.broadcast_to(system.observation, (T, p, n))
    noise = sequence.y - sequence.offset - (H @ mean[..., np.newaxis])[..., 0]
    HV = H @ V
    if diagonal:
        result = []
        for i in range(p):
            t = observed[:, i]
            C = np.append(noise[t, i] @ Z[t, :n] - HV[t, i].sum(axis=0), noise[t, i] @ Z[t, n:])
            squares = noise[t, i] @ noise[t, i] + np.einsum("tj,tj->", HV[t, i], H[t, i])
            result.append((_products(Z[t], V[t]), C[np.newaxis], np.array([[squares]]), int(t.sum())))
        return result
    spread = HV @ np.swapaxes(H, 1, 2)
    C, E = np.zeros((p, Z.shape[1])), np.zeros((p, p))
    R = system.observation_noise
    # a sample without any observation need not be completed
    some = observed.any(axis=1)
    for pattern in np.unique(observed[some], axis=0):
        t = np.flatnonzero((observed == pattern).all(axis=1))
        gain, rest = conditional(R if len(R) == 1 else R[t], pattern)
        error = (gain @ np.where(pattern, noise[t], 0.0)[..., np.newaxis])[..., 0]
        C[:, :n] += error.T @ Z[t, :n] - (gain @ HV[t]).sum(axis=0)
        C[:, n:] += error.T @ Z[t, n:]
        E += error.T @ error + (gain @ spread[t] @ np.swapaxes(gain, 1, 2)).sum(axis=0)
        E += rest.sum(axis=0) * (len(t) if len(rest) == 1 else 1)
    return [(_products(Z[some], V[some]), C, E, int(some.sum()))]


def _sum(parts):
    S, C, E, N = (sum(part[k] for part in parts) for k in range(4))
    return S, C, E, N


def _move(S, C, mask, noise):
    """The Δ within ``mask`` that minimises tr noise⁻¹ (Δ S Δᵀ − 2 C Δᵀ)."""
    delta = np.zeros_like(C)
    if (mask == mask[0]).all():
        columns = np.flatnonzero(mask[0])
        delta[:, columns] = np.linalg.lstsq(S[np.ix_(columns, columns)], C[:, columns].T, rcond=1e-14)[0].T
        return delta
    inverse = np.linalg.pinv(noise, hermitian=True)
    i, j = np.nonzero(mask)
    K = inverse[i[:, np.newaxis], i] * S[j[:, np.newaxis], j]
    delta[i, j] = np.linalg.lstsq(K, (inverse @ C)[i, j], rcond=1e-14)[0]
    return delta


def _masks(free, names, shapes):
    """The masks of the coefficients (x, 1, u) side by side."""
    by_name = {f.name: f.mask for f in free}
    parts = []
    for name, (rows, columns) in zip(names, shapes, strict=True):
        mask = by_name.get(name, np.zeros((rows, columns), bool))
        parts.append(mask.reshape(rows, columns))
    return np.concatenate(parts, axis=1)


def _left(S, C, E, delta):
    return E - C @ delta.T - delta @ C.T + delta @ S @ delta.T


def _covariance(free, array, E, N):
    """The closed step of a covariance: E / N, or its free part."""
    E = 0.5 * (E + E.T) / N
    if free.kind == "full":
        return E
    result = array.copy()
    variances = np.diag(E)[free.mask]
    result[free.mask, free.mask] = variances.mean() if free.kind == "scalar" else variances
    return result


def maximise(free, system, expectations, diagonal):
    """The arrays after one step, as a dict of arrays of the system's shapes."""
    wanted = {f.name: f for f in free}
    n, k = system.n_states, system.n_inputs
    with_input = k if expectations[0].state[0].shape[0] > n + 1 else 0
    result = {}
    S, C, E, N = _sum([e.state for e in expectations])
    G = system.selection
    if N and wanted.keys() & {*_STATE, "process_noise"}:
        delta = np.zeros_like(C)
        mask = _masks(free, _STATE[: 2 + bool(with_input)], [(n, n), (n, 1), (n, with_input)][: 2 + bool(with_input)])
        if mask.any():
            delta = _move(S, C, mask, system.state_noise()[0])
            _step(result, system, wanted, _STATE, delta, n)
        if "process_noise" in wanted:
            inverse = None if G is None else np.linalg.pinv(G[0])
            delta, C = (delta, C) if G is None else (inverse @ delta, inverse @ C)
            E = _left(S, C, E, delta) if mask.any() else E
            result["process_noise"] = _covariance(wanted["process_noise"], system.process_noise[0], E, N)[np.newaxis]
    if wanted.keys() & {*_OUTPUT, "observation_noise"}:
        _observe(result, free, wanted, system, expectations, diagonal, with_input)
    if "initial_mean" in wanted:
        f = wanted["initial_mean"]
        mean = system.initial_mean.copy()
        mean[f.mask] = np.mean([e.initial[0] for e in expectations], axis=0)[f.mask]
        result["initial_mean"] = mean
    if "initial_covariance" in wanted:
        mean = result.get("initial_mean", system.initial_mean)
        spread = sum(e.initial[1] + np.outer(e.initial[0] - mean, e.initial[0] - mean) for e in expectations)
        result["initial_covariance"] = _covariance(
            wanted["initial_covariance"], system.initial_covariance, spread, len(expectations)
        )
    return result


def _observe(result, free, wanted, system, expectations, diagonal, with_input):
    n, p = system.n_states, system.n_outputs
    count = 2 + bool(with_input)
    mask = _masks(free, _OUTPUT[:count], [(p, n), (p, 1), (p, with_input)][:count])
    delta = np.zeros(mask.shape)
    R = system.observation_noise[0]
    if diagonal:
        squares, counts = np.zeros(p), np.zeros(p)
        for i in range(p):
            S, C, E, counts[i] = _sum([e.outputs[i] for e in expectations])
            if mask[i].any():
                delta[i] = _move(S, C, mask[i : i + 1], None)[0]
            squares[i] = _left(S, C, E, delta[i : i + 1])[0, 0]
        # an observation that is never there says nothing about its noise
        seen = np.maximum(counts, 1)
        E, N = np.diag(np.where(counts > 0, squares / seen, np.diag(R))), 1
        f = wanted.get("observation_noise")
        if f is not None and f.kind == "scalar":
            E = np.eye(p) * squares.sum() / counts.sum()
    else:
        S, C, E, N = _sum([e.outputs[0] for e in expectations])
        if mask.any():
            delta = _move(S, C, mask, R)
        E = _left(S, C, E, delta)
    if mask.any():
        _step(result, system, wanted, _OUTPUT, delta, n)
    if "observation_noise" in wanted:
        result["observation_noise"] = _covariance(wanted["observation_noise"], R, E, N)[np.newaxis]


def _step(result, system, wanted, names, delta, n):
    for name, columns in zip(names, (slice(0, n), n, slice(n + 1, None)), strict=True):
        if name in wanted:
            result[name] = getattr(system, name) + delta[np.newaxis, :, columns]
