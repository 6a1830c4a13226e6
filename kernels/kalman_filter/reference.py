"""The mathematics, as plain NumPy loops over dense matrices: the truth that the other backends are tested against.

Nothing here shares a formula with the fast path: Q(Δ) is integrated and doubled instead of taken from a closed form,
the diffuse covariance P∞ is carried as a matrix and not as directions, and the gradient is a central difference.
"""

import numpy as np
from scipy.linalg import block_diag, expm

from statespace.kernels.dispatch import refuse_accelerators as unusable  # noqa: F401
from statespace.kernels.kalman_filter.blocks import (
    MATERN32,
    MATERN52,
    OU,
    RANDOM_WALK,
    ROTATED_MATERN32,
    ROTATED_MATERN52,
    ROTATED_OU,
    ROTATION,
    SHO,
    TABLE,
    TREND,
    Blocks,
    wanted_entries,
)
from statespace.kernels.kalman_filter.looping import filter_each, gradient_each, likelihood_each, smooth_each
from statespace.kernels.kalman_filter.results import FilterResult, Gradient, SmootherResult

INVISIBLE = 1e-13
TURNED = {ROTATED_OU: OU, ROTATED_MATERN32: MATERN32, ROTATED_MATERN52: MATERN52}


def generator(kind, size, parameters):
    """F and the diffusion matrix G of dx = F x dt + dw, cov(dw) = G dt."""
    first, second, third = parameters
    if kind in TURNED:
        F, G = generator(TURNED[kind], size // 2, parameters)
        turn = third * np.array([[0.0, 1.0], [-1.0, 0.0]])
        return np.kron(turn, np.eye(size // 2)) + np.kron(np.eye(2), F), np.kron(np.eye(2), G)
    if kind == SHO:
        return first * np.array([[0.0, 1.0], [-1.0, -1.0 / third]]), np.diag([0.0, 2.0 * first * second / third])
    if kind == RANDOM_WALK:
        return np.zeros((size, size)), first * np.eye(size)
    if kind == TREND:
        return np.array([[0.0, 1.0], [0.0, 0.0]]), np.diag([first, second])
    if kind == ROTATION:
        return first * np.array([[0.0, 1.0], [-1.0, 0.0]]), second * np.eye(2)
    if kind == OU:
        return np.array([[-first]]), np.array([[2.0 * first * second]])
    if kind == MATERN32:
        return np.array([[0.0, 1.0], [-(first**2), -2.0 * first]]), np.diag([0.0, 4.0 * first**3 * second])
    F = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [-(first**3), -3.0 * first**2, -3.0 * first]])
    return F, np.diag([0.0, 0.0, 16.0 / 3.0 * first**5 * second])


def discretize_system(F, G, gap):
    """A = exp(FΔ) and Q = ∫₀^Δ exp(Fs) G exp(Fs)ᵀ ds: Gauss–Legendre on a short gap, then Q ← Q + A Q Aᵀ, A ← A A."""
    doublings = max(0, int(np.ceil(np.log2(max(np.linalg.norm(F) * gap, 1e-300)))) + 1)
    step = gap / 2.0**doublings
    nodes, weights = np.polynomial.legendre.leggauss(12)
    Q = sum(
        0.5 * step * weight * expm(F * s) @ G @ expm(F * s).T
        for weight, s in zip(weights, 0.5 * step * (nodes + 1.0), strict=True)
    )
    A = expm(F * step)
    for _ in range(doublings):
        Q = Q + A @ Q @ A.T
        A = A @ A
    return A, 0.5 * (Q + Q.T)


def discretize_blocks(blocks, dt):
    transition, process_noise = [], []
    for t, gap in enumerate(dt):
        pairs, table = [], 0
        for kind, size, parameters in zip(blocks.kind, blocks.size, blocks.parameters, strict=True):
            if kind == TABLE:
                cut = slice(table, table + size * size)
                row = blocks.gap_index[t]
                rows = [m[row, cut].reshape(size, size) for m in (blocks.transition, blocks.process_noise)]
                pairs.append(rows if row >= 0 else [np.eye(size), np.zeros((size, size))])
                table += size * size
            else:
                pairs.append(discretize_system(*generator(kind, size, parameters), gap))
        transition.append(block_diag(*[A for A, _ in pairs]))
        process_noise.append(block_diag(*[Q for _, Q in pairs]))
    return np.array(transition), np.array(process_noise)


def contract_blocks(blocks, dt, transition_bar, process_noise_bar):
    """Central differences of fourth order."""
    result = np.zeros_like(blocks.parameters)
    for index in np.ndindex(result.shape):
        width = 2e-4 * max(abs(blocks.parameters[index]), 0.1)
        for factor, weight in ((1, 8), (-1, -8), (2, -1), (-2, 1)):
            moved = blocks.parameters.copy()
            moved[index] += factor * width
            A, Q = discretize_blocks(blocks._replace(parameters=moved), dt)
            result[index] += weight * ((transition_bar * A).sum() + (process_noise_bar * Q).sum()) / (12.0 * width)
    return result


def _sweep(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse):
    """Forward recursion of Durbin & Koopman (2012), section 5.2, with a list of all it met."""
    A, Q = discretize_blocks(blocks, dt)
    T, n = len(y), len(mean)
    H, R = np.broadcast_to(observation, (T, n)), np.broadcast_to(noise_variance, T)
    a, P, P_inf = mean, covariance, diffuse @ diffuse.T
    scale, left = np.trace(P_inf), np.linalg.matrix_rank(diffuse) if diffuse.size else 0
    log_likelihood, before, steps = 0.0, 0.0, []
    for t in range(T):
        a, P, P_inf = A[t] @ a, A[t] @ P @ A[t].T + Q[t], A[t] @ P_inf @ A[t].T
        h = H[t]
        M, M_inf = P @ h, P_inf @ h
        F, F_inf, v = h @ M + R[t], h @ M_inf, y[t] - h @ a
        step = {"A": A[t], "h": h, "a": a, "P": P, "P_inf": P_inf, "v": v, "F": F, "F_inf": 0.0, "K0": None}
        step["left"] = left
        sees = left > 0 and F_inf > scale * (h @ h) * INVISIBLE
        if sees:
            step["F_inf"] = F_inf
        if np.isnan(y[t]):
            pass
        elif sees:
            K0 = M_inf / F_inf
            step |= {"K0": K0, "K1": (M - K0 * F) / F_inf}
            a, P = a + K0 * v, P - np.outer(M, K0) - np.outer(K0, M) + F * np.outer(K0, K0)
            left -= 1
            P_inf = P_inf - np.outer(M_inf, K0) if left else np.zeros_like(P_inf)
            log_likelihood -= 0.5 * (np.log(2.0 * np.pi) + np.log(F_inf))
        elif R[t] == 0.0 and 1e-14 * before >= F:
            if v * v > 1e-14 * before + 1e-16 * y[t] ** 2:
                log_likelihood = -np.inf
        else:
            step["K0"] = M / F
            a, P, before = a + M * v / F, P - np.outer(M, M) / F, F
            log_likelihood -= 0.5 * (np.log(2.0 * np.pi) + np.log(F) + v * v / F)
        steps.append(step | {"filtered": (a, P)})
    return log_likelihood, steps, P_inf, left


def kalman_log_likelihood(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse, *, starts=None):
    if starts is not None:
        given = (y, dt, blocks, observation, noise_variance, mean, covariance, diffuse)
        return likelihood_each(kalman_log_likelihood, starts, *given)
    return float(_sweep(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse)[0])


def kalman_filter(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse, *, starts=None):
    if starts is not None:
        return filter_each(
            kalman_filter, starts, y, dt, blocks, observation, noise_variance, mean, covariance, diffuse
        )  # fmt: skip
    value, steps, P_inf, left = _sweep(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse)
    eigenvalues, vectors = np.linalg.eigh(P_inf)
    return FilterResult(
        float(value),
        np.array([step["filtered"][0] for step in steps]),
        np.array([step["filtered"][1] for step in steps]),
        np.array([step["v"] for step in steps]),
        np.array([np.inf if step["F_inf"] else step["F"] for step in steps]),
        (vectors * np.sqrt(np.maximum(eigenvalues, 0.0)))[:, len(mean) - left :],
        sum(step["left"] > 0 for step in steps),
    )


class Stepper:
    def __init__(self, blocks, observation, mean, covariance, diffuse):
        self._blocks, self._observation = blocks, observation
        self.mean, self.covariance, self.diffuse = mean, covariance, diffuse

    @property
    def n_diffuse(self):
        return self.diffuse.shape[1]

    def step(self, y, dt, noise_variance, observation=None, table=None, predict=True):
        h = self._observation if observation is None else np.reshape(observation, (1, -1))
        blocks = self._blocks
        if table is not None:
            blocks = blocks._replace(transition=np.atleast_2d(table[0]), process_noise=np.atleast_2d(table[1]))
        if not predict:
            dt, blocks = 0.0, blocks._replace(gap_index=np.full(1, -1))
        result = kalman_filter(
            np.array([y]), np.array([dt]), blocks, h, np.array([noise_variance]), self.mean, self.covariance,
            self.diffuse,
        )  # fmt: skip
        self.mean, self.covariance, self.diffuse = result.mean[0], result.covariance[0], result.diffuse
        self.innovation, self.innovation_variance = float(result.innovation[0]), float(result.innovation_variance[0])


def kalman_smoother(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse, readout, *, starts=None):
    """Backward recursion of Durbin & Koopman (2012), sections 4.4 and 5.3, with the matrices L."""
    if starts is not None:
        given = (y, dt, blocks, observation, noise_variance, mean, covariance, diffuse, readout)
        return smooth_each(kalman_smoother, starts, *given)
    value, steps, _, left = _sweep(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse)
    n, eye = len(mean), np.eye(len(mean))
    r0, r1, N0, N1, N2 = np.zeros(n), np.zeros(n), np.zeros((n, n)), np.zeros((n, n)), np.zeros((n, n))
    means, covariances = [], []
    for t in reversed(range(len(steps))):
        step = steps[t]
        h, K0, v, F, F_inf, P, P_inf = (step[key] for key in ("h", "K0", "v", "F", "F_inf", "P", "P_inf"))
        if K0 is not None:
            L0 = eye - np.outer(K0, h)
            if F_inf:
                L1 = -np.outer(step["K1"], h)
                r1 = h * v / F_inf + L0.T @ r1 + L1.T @ r0
                r0 = L0.T @ r0
                N2 = L0.T @ N2 @ L0 + L0.T @ N1 @ L1 + L1.T @ N1 @ L0 + L1.T @ N0 @ L1 - np.outer(h, h) * F / F_inf**2
                N1 = L0.T @ N1 @ L0 + L1.T @ N0 @ L0 + L0.T @ N0 @ L1 + np.outer(h, h) / F_inf
                N0 = L0.T @ N0 @ L0
            else:
                r0, r1 = h * v / F + L0.T @ r0, L0.T @ r1
                N0, N1, N2 = L0.T @ N0 @ L0 + np.outer(h, h) / F, L0.T @ N1 @ L0, L0.T @ N2 @ L0
        z = eye if readout is None else readout[t if len(readout) > 1 else 0]
        cross = P_inf @ N1 @ P
        V = P - P @ N0 @ P - cross - cross.T - P_inf @ N2 @ P_inf
        V_inf = np.diag(z @ (P_inf - P_inf @ N1 @ P_inf) @ z.T)
        means.append(z @ (step["a"] + P @ r0 + P_inf @ r1))
        V = z @ V @ z.T
        unbounded = V_inf > 1e-12 * max(np.trace(P_inf), 1e-300) if left else np.zeros(len(z), dtype=bool)
        V[unbounded, unbounded] = np.inf
        covariances.append(V if readout is None else np.diag(V))
        A = step["A"]
        r0, r1, N0, N1, N2 = A.T @ r0, A.T @ r1, A.T @ N0 @ A, A.T @ N1 @ A, A.T @ N2 @ A
    return SmootherResult(float(value), np.array(means[::-1]), np.array(covariances[::-1]))


def kalman_gradient(
    y, dt, blocks, observation, noise_variance, mean, covariance, diffuse, free_parameters, by_observation, *,
    starts=None,
):
    """Central differences of fourth order, one input after the other: about nine digits, at a prohibitive price."""
    if starts is not None:
        given = (y, dt, blocks, observation, noise_variance, mean, covariance, diffuse, free_parameters)
        return gradient_each(kalman_gradient, starts, *given, by_observation)

    def value(parameters, transition, process_noise, noise_variance, observation, mean, covariance, diffuse):
        moved = Blocks(blocks.kind, blocks.size, parameters, transition, process_noise, blocks.gap_index)
        covariance = 0.5 * (covariance + covariance.T)
        return kalman_log_likelihood(y, dt, moved, observation, noise_variance, mean, covariance, diffuse)

    inputs = (*blocks[2:5], noise_variance, observation, mean, covariance, diffuse)
    gradients = []
    for position, array in enumerate(inputs):
        gradient = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            width = 2e-4 * max(abs(array[index]), 0.1)
            for factor, weight in ((1, 8), (-1, -8), (2, -1), (-2, 1)):
                moved = array.copy()
                moved[index] += factor * width
                gradient[index] += weight * value(*inputs[:position], moved, *inputs[position + 1 :]) / (12.0 * width)
        gradients.append(gradient)
    gradients[0][~free_parameters] = 0.0
    gradients[1][:, ~wanted_entries(blocks, free_parameters)] = 0.0
    gradients[4] *= by_observation
    return value(*inputs), Gradient(*gradients)
