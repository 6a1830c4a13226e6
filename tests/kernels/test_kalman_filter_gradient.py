"""The exact gradient: against central differences of the reference, and torch's autograd of a dense Gaussian."""

from importlib import import_module

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from statespace.kernels.kalman_filter import Blocks, discretize_blocks, kalman_gradient, kalman_log_likelihood
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
)

EVERYTHING = [
    (TREND, 2, 0.2, 0.1, 0.0), (ROTATION, 2, 1.7, 0.1, 0.0), (MATERN32, 2, 0.9, 1.3, 0.0),
    (MATERN52, 3, 1.1, 0.8, 0.0), (OU, 1, 0.6, 0.5, 0.0), (RANDOM_WALK, 2, 0.2, 0.0, 0.0),
]  # fmt: skip
TURNING = [
    (SHO, 2, 1.1, 0.8, 2.5), (ROTATED_OU, 2, 0.4, 0.7, 1.3), (ROTATED_MATERN32, 4, 0.8, 0.6, 2.1),
    (ROTATED_MATERN52, 6, 1.2, 0.9, 0.7), (SHO, 2, 0.9, 0.5, 0.3), (SHO, 2, 1.3, 0.4, 0.501),
]  # fmt: skip
TURNED = {ROTATED_OU: OU, ROTATED_MATERN32: MATERN32, ROTATED_MATERN52: MATERN52}


def problem(items=EVERYTHING, T=14, d=4, seed=0, varying=True, regular=False):
    """Everything general: correlated initial covariance, oblique diffuse directions, missing values, equal times."""
    rng = np.random.default_rng(seed)
    kind, size = (np.array([item[i] for item in items]) for i in (0, 1))
    blocks = Blocks(kind, size, np.array([item[2:] for item in items], dtype=float))
    n = blocks.n_states
    d = min(d, n)
    y = rng.normal(size=T)
    y[2::5] = np.nan
    dt = np.full(T, 0.7) if regular else rng.exponential(size=T)
    if not regular and T > 7:
        dt[6] = 0.0
    root = rng.normal(size=(n, n)) / np.sqrt(n)
    h = rng.normal(size=(T, n)) if varying else rng.normal(size=n)
    R = rng.uniform(0.3, 1.0, size=T) if varying else np.array(0.4)
    return y, dt, blocks, h, R, rng.normal(size=n), root @ root.T, rng.normal(size=(n, d))


CASES = {
    **{str(item[0]): {"items": [item], "d": 1} for item in EVERYTHING},
    **{f"{item[0]} {item[-1]}": {"items": [item], "d": 0} for item in TURNING},
    "everything": {},
    "turning": {"items": [EVERYTHING[0], *TURNING, EVERYTHING[3]], "d": 2},
    "turning, constant": {"items": TURNING[:4], "d": 0, "varying": False},
    "no diffuse direction": {"d": 0},
    "many diffuse directions": {"d": 8, "T": 40},
    "constant H and R": {"varying": False},
    "regular grid": {"regular": True},
    "regular, constant": {"regular": True, "varying": False},
    "too short to resolve": {"T": 3, "items": EVERYTHING[:2]},
    "one sample": {"T": 1, "d": 1},
}


def transition_torch(kind, size, first, second, third, gap):
    eye, zero, one = torch.eye(size, dtype=torch.float64), torch.zeros(()).double(), torch.ones(()).double()

    def matrix(rows):
        return torch.stack([torch.stack([x if torch.is_tensor(x) else x * one for x in row]) for row in rows])

    if kind == RANDOM_WALK:
        return eye, first * gap * eye
    if kind == TREND:
        Q = matrix([[first * gap + second * gap**3 / 3, second * gap**2 / 2], [second * gap**2 / 2, second * gap]])
        return matrix([[1.0, gap], [0.0, 1.0]]), Q
    if kind == ROTATION:
        c, s = torch.cos(first * gap), torch.sin(first * gap)
        return matrix([[c, s], [-s, c]]), second * gap * eye
    if kind in TURNED:
        A, Q = transition_torch(TURNED[kind], size // 2, first, second, third, gap)
        c, s = torch.cos(third * gap), torch.sin(third * gap)
        return torch.kron(matrix([[c, s], [-s, c]]), A), torch.block_diag(Q, Q)
    if kind == SHO:
        F, P = matrix([[zero, first], [-first, -first / third]]), matrix([[second, zero], [zero, second]])
    elif kind == OU:
        F, P = matrix([[-first]]), matrix([[second]])
    elif kind == MATERN32:
        F, P = matrix([[0.0, 1.0], [-(first**2), -2 * first]]), matrix([[second, zero], [zero, second * first**2]])
    else:
        F = matrix([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [-(first**3), -3 * first**2, -3 * first]])
        P = torch.stack([
            torch.stack([second, zero, -second * first**2 / 3]), torch.stack([zero, second * first**2 / 3, zero]),
            torch.stack([-second * first**2 / 3, zero, second * first**4]),
        ])  # fmt: skip
    A = torch.linalg.matrix_exp(F * gap)
    return A, P - A @ P @ A.T


def dense_torch(y, dt, blocks, parameters, h, R, mean, covariance, diffuse):
    """The exact diffuse log-likelihood by generalised least squares on the joint Gaussian: nothing recursive, no κ."""
    T, n = len(y), len(mean)
    means, loose, rows = [], [], []
    a, D, P = mean, diffuse, covariance
    past: list = []
    for t in range(T):
        pairs = [
            transition_torch(k, int(s), *parameters[b], float(dt[t]))
            for b, (k, s) in enumerate(zip(blocks.kind, blocks.size, strict=True))
        ]
        A, Q = torch.block_diag(*[p[0] for p in pairs]), torch.block_diag(*[p[1] for p in pairs])
        a, D, P = A @ a, A @ D, A @ P @ A.T + Q
        # cov(x_s, x_t), s < t
        past = [C @ A.T for C in past]
        means.append(a)
        loose.append(D)
        rows.append([*past, P])
        past = [*past, P]
    seen = [t for t in range(T) if not np.isnan(y[t])]
    H = h.expand(T, n)
    R = R.expand(T)

    def covariance_of(s, t):
        s, t = min(s, t), max(s, t)
        return H[s] @ rows[t][s] @ H[t] + (R[t] if s == t else 0.0)

    K = torch.stack([torch.stack([covariance_of(s, t) for s in seen]) for t in seen])
    e = torch.stack([y[t] - H[t] @ means[t] for t in seen])
    value = -0.5 * (len(seen) * np.log(2 * np.pi) + torch.linalg.slogdet(K)[1])
    if diffuse.shape[1] == 0:
        return value - 0.5 * e @ torch.linalg.solve(K, e)
    U = torch.stack([H[t] @ loose[t] for t in seen])
    W = U.T @ torch.linalg.solve(K, U)
    e = e - U @ torch.linalg.solve(W, U.T @ torch.linalg.solve(K, e))
    return value - 0.5 * (torch.linalg.slogdet(W)[1] + e @ torch.linalg.solve(K, e))


@pytest.mark.parametrize("case", [case for case in CASES if case not in ("too short to resolve",)])
def test_equals_autograd_of_the_dense_gaussian(case):
    y, dt, blocks, h, R, mean, covariance, diffuse = problem(**CASES[case])
    value, gradient = kalman_gradient(y, dt, blocks, h, R, mean, covariance, diffuse)
    leaves = [torch.tensor(x, requires_grad=True) for x in (blocks.parameters, h, R, mean, covariance, diffuse)]
    truth = dense_torch(y, dt, blocks, *leaves)
    truth.backward()
    assert_allclose(value, truth.item(), rtol=1e-9)
    names = ("parameters", "observation", "noise_variance", "mean", "covariance", "diffuse")
    for name, leaf in zip(names, leaves, strict=True):
        expected = np.zeros(leaf.shape) if leaf.grad is None else leaf.grad.numpy()
        if name == "covariance":
            expected = 0.5 * (expected + expected.T)
        ours = getattr(gradient, name)
        assert_allclose(ours, expected, rtol=1e-8, atol=1e-9 * max(1.0, np.abs(expected).max(initial=0)), err_msg=name)


@pytest.mark.parametrize("case", ["everything", "too short to resolve", "constant H and R"])
def test_equals_differences_of_the_reference(case):
    options = {"T": 6, "items": EVERYTHING[1:3], "d": 2} | CASES[case]
    given = problem(**options)
    value, gradient = kalman_gradient(*given)
    true_value, truth = kalman_gradient(*given, backend="reference")
    assert_allclose(value, true_value, rtol=1e-12)
    for name, ours, expected in zip(gradient._fields, gradient, truth, strict=True):
        assert_allclose(ours, expected, rtol=1e-6, atol=1e-7 * max(1.0, np.abs(expected).max(initial=0)), err_msg=name)


def test_tables():
    """A table's gradient is that of its entries, and chained through dA/dθ it is the closed form's."""
    items = [(RANDOM_WALK, 1, 0.2, 0.0, 0.0), (MATERN32, 2, 0.9, 1.3, 0.0)]
    y, dt, blocks, h, R, mean, covariance, diffuse = problem(items=items, d=2)
    dt = np.round(dt) * 0.5
    gaps, index = np.unique(dt, return_inverse=True)
    _, closed = kalman_gradient(y, dt, blocks, h, R, mean, covariance, diffuse)

    def tables(parameters):
        process = Blocks(np.array([MATERN32]), np.array([2]), parameters[None])
        return np.array(discretize_blocks(process, gaps)).reshape(2, len(gaps), 4)

    table = Blocks(
        np.array([RANDOM_WALK, TABLE]), np.array([1, 2]), np.array([[0.2, 0.0, 0.0], [0.0, 0.0, 0.0]]),
        *tables(blocks.parameters[1]), index,
    )  # fmt: skip
    _, gradient = kalman_gradient(y, dt, table, h, R, mean, covariance, diffuse)
    for i in range(2):
        step = 1e-4 * np.eye(3)[i]
        dA, dQ = (tables(blocks.parameters[1] + step) - tables(blocks.parameters[1] - step)) / 2e-4
        chained = (gradient.transition * dA).sum() + (gradient.process_noise * dQ).sum()
        assert_allclose(chained, closed.parameters[1, i], rtol=1e-6)
    assert_allclose(gradient.parameters[0], closed.parameters[0], rtol=1e-11)


EXTREME = [
    (OU, 1, 0.0), (MATERN32, 2, 0.0), (MATERN52, 3, 0.0), (ROTATED_OU, 2, 1e-3), (ROTATED_MATERN32, 4, 1e-3),
    (ROTATED_MATERN52, 6, 1e-3), (SHO, 2, 3.0), (SHO, 2, 0.7), (SHO, 2, 0.5), (SHO, 2, 0.45), (SHO, 2, 0.1),
    (SHO, 2, 1e-4),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "size", "third"), EXTREME)
def test_derivative_of_the_noise_over_extreme_gaps(kind, size, third):
    """One gap at a time from λΔ = 1e-6 to 1e4, against differences: no digit is lost to cancellation."""
    h = np.eye(size)[0]
    for gap in np.geomspace(1e-6, 1e4, 21):
        given = ([0.4, 0.1], [0.0, gap])

        def value(parameters, given=given, h=h):
            blocks = Blocks([kind], [size], [parameters])
            return kalman_log_likelihood(*given, blocks, h, 0.0, np.zeros(size), 1e-3 * np.eye(size))

        at = np.array([1.0, 1.0, third])
        _, gradient = kalman_gradient(*given, Blocks([kind], [size], [at]), h, 0.0, np.zeros(size), 1e-3 * np.eye(size))
        scale = max(1.0, abs(value(at)))
        for i in range(3 if third else 2):
            w = 1e-3 * at * np.eye(3)[i]
            truth = (8 * (value(at + w) - value(at - w)) - value(at + 2 * w) + value(at - 2 * w)) / 12e-3
            ours = gradient.parameters[0, i] * at[i]
            assert_allclose(ours, truth, rtol=1e-7, atol=1e-8 * scale, err_msg=f"{gap} {i}")


@pytest.mark.parametrize(
    "case", ["everything", "many diffuse directions", "regular grid", "no diffuse direction", "turning"]
)
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("by_observation", [True, False])
def test_what_is_asked_for_does_not_depend_on_what_else_is(case, first, by_observation, monkeypatch):
    """Sweeps that keep less give the same numbers, also over several segments."""
    cpu = import_module("statespace.kernels.kalman_filter.cpu")
    given = problem(**{"T": 40, **CASES[case]})
    free = np.ones((len(given[2].kind), 3), dtype=bool)
    free[:, [0, 2]] = first
    value, whole = kalman_gradient(*given)
    monkeypatch.setattr(cpu, "SHORTEST_SEGMENT", 4)
    for length in (10**9, 1):
        monkeypatch.setattr(cpu, "SEGMENT_BYTES", length)
        same, part = kalman_gradient(*given, free_parameters=free, by_observation=by_observation)
        assert same == value
        expected = whole._replace(parameters=whole.parameters * free, observation=whole.observation * by_observation)
        for name, ours, theirs in zip(part._fields, part, expected, strict=True):
            assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10, err_msg=name)


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="free_parameters must have shape"):
        kalman_gradient(*problem(), free_parameters=np.ones(6, dtype=bool))
