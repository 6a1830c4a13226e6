"""One long record in eight stretches against one sweep from its beginning to its end, and a dense covariance."""

import numpy as np
import pytest
from scipy.linalg import solve_triangular

from statespace.kernels.kalman_filter import (
    Blocks,
    cpu,
    kalman_gradient,
    kalman_log_likelihood,
    routes,
    stretches,
    stretches_gradient,
)
from statespace.kernels.kalman_filter.blocks import (
    MATERN32,
    OU,
    RANDOM_WALK,
    ROTATED_OU,
    ROTATION,
    TABLE,
    TREND,
)

T = 3203
RNG = np.random.default_rng(5)
GAPS = RNG.exponential(size=T)
TIMES = np.cumsum(GAPS)
Y = np.cumsum(RNG.standard_normal(T)) * 0.1 + np.sin(TIMES) + 0.3 * RNG.standard_normal(T)
MATERNS = [(MATERN32, 2, 0.7, 1.0), (MATERN32, 2, 0.35, 1.0)]
STRUCTURAL = [(TREND, 2, 0.1, 0.1), (ROTATION, 2, 0.5, 0.1), (OU, 1, 1.0, 1.0)]


def model(items, y=Y, gaps=GAPS, noise=0.1, rows=None, diffuse=0, start=1.0):
    kind, size, *parameters = zip(*[(*item, 0.0)[:5] for item in items], strict=True)
    blocks = Blocks(np.array(kind), np.array(size), np.array(parameters).T)
    n = blocks.n_states
    h = np.concatenate([np.eye(s)[0] for s in size]) if rows is None else rows
    P = np.diag(np.where(np.arange(n) < diffuse, 0.0, start))
    return y, gaps, blocks, h, noise, np.zeros(n), P, np.eye(n)[:, :diffuse].copy()


def gappy():
    y = Y.copy()
    y[RNG.random(T) < 0.3] = np.nan
    y[1000:1060] = np.nan
    return y


def tables(first=True):
    """Rotations and shrinkages, another at every sample; every third sample is a second entry of a vector."""
    angle, radius = RNG.uniform(0.0, 3.0, 7), RNG.uniform(0.5, 0.95, 7)
    c, s = radius * np.cos(angle), radius * np.sin(angle)
    Q = np.tile([1.0, 0.3, 0.3, 0.5], (7, 1))
    row = RNG.integers(0, 7, T)
    row[::3] = -1
    order = [0, 1] if first else [1, 0]
    blocks = Blocks(
        np.array([TABLE, MATERN32])[order], np.array([2, 2]), np.array([[0.0, 0.0, 0.0], [0.5, 1.0, 0.0]])[order],
        np.column_stack([c, s, -s, c]), Q, row,
    )  # fmt: skip
    gaps = np.where(row < 0, 0.0, GAPS)
    return Y, gaps, blocks, RNG.standard_normal((T, 4)), 0.2, np.zeros(4), np.eye(4), np.zeros((4, 0))


ROWS = np.column_stack([np.ones(T), np.zeros(T), RNG.standard_normal((T, 3))])
CASES = {
    "three states": model([(OU, 1, 0.3, 1.0), (MATERN32, 2, 0.7, 1.0)]),
    "four": model(MATERNS),
    "thirteen": model([*[(MATERN32, 2, 0.3 * k, 1.0) for k in range(1, 7)], (OU, 1, 0.5, 1.0)]),
    "missing": model(MATERNS, y=gappy()),
    "all missing": model(MATERNS, y=np.full(T, np.nan)),
    "equal times": model(MATERNS, gaps=np.where(RNG.random(T) < 0.4, 0.0, GAPS)),
    "regular": model(STRUCTURAL, gaps=np.ones(T)),
    "gaps of any size": model(MATERNS, gaps=10.0 ** RNG.uniform(-8, 4, T)),
    "noise of each sample": model(STRUCTURAL, noise=RNG.exponential(size=T) + 0.01),
    "hardly any noise": model(STRUCTURAL, noise=1e-12),
    "diffuse": model(STRUCTURAL, diffuse=4),
    "diffuse, missing": model(STRUCTURAL, diffuse=4, y=gappy()),
    "regression": model([(TREND, 2, 0.1, 0.1), (RANDOM_WALK, 3, 0.01, 0.0)], rows=ROWS, diffuse=5),
    "turned": model([(ROTATED_OU, 2, 0.05, 1.0, 1.0), (ROTATED_OU, 2, 0.1, 1.0, 2.0)]),
    "scaled": model([(MATERN32, 2, 0.7, 1e-100), (MATERN32, 2, 0.35, 1e-100)], y=Y * 1e-50, noise=1e-101, start=1e-100),
    "tables": tables(),
    "tables behind": tables(first=False),
}


@pytest.fixture
def reached(monkeypatch):
    """Where the stretches of each call began and ended."""
    calls = []

    def watched(record, units, first, last, state):
        end = stretches.forward_stretches(record, units, first, last, state)
        calls.append((first, end, last))
        return end

    monkeypatch.setattr(routes, "forward_stretches", watched)
    return calls


def from_beginning_to_end(given, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(stretches, "SHORTEST", T + 1)
        return kalman_log_likelihood(*given)


@pytest.mark.parametrize("name", CASES)
def test_the_likelihood_is_that_of_one_sweep(name, reached, monkeypatch):
    value = kalman_log_likelihood(*CASES[name])
    _, end, last = reached[0]
    assert end == last == T
    # with hardly any noise both lose what cancels in P
    rtol = 1e-10 if name == "hardly any noise" else 1e-12
    np.testing.assert_allclose(value, from_beginning_to_end(CASES[name], monkeypatch), rtol=rtol)


def test_the_likelihood_is_that_of_the_dense_covariance(reached):
    K = 0.1 * np.eye(T)
    lag = np.abs(TIMES[:, None] - TIMES)
    for _, _, rate, variance in MATERNS:
        K += variance * (1.0 + rate * lag) * np.exp(-rate * lag)
    given = [*CASES["four"]]
    given[6] = np.diag([1.0, 0.7**2, 1.0, 0.35**2])
    value = kalman_log_likelihood(*given)
    assert reached[0][1] == T
    L = np.linalg.cholesky(K)
    z = solve_triangular(L, Y, lower=True)
    dense = -0.5 * (T * np.log(2 * np.pi) + z @ z) - np.log(np.diag(L)).sum()
    np.testing.assert_allclose(value, dense, rtol=1e-11)


@pytest.mark.parametrize("slope", [0.0, 1e-9])
def test_what_is_not_forgotten_is_swept_as_ever(slope, reached, monkeypatch):
    given = model([(TREND, 2, 0.1, slope), (OU, 1, 1.0, 1.0)])
    value = kalman_log_likelihood(*given)
    assert reached[0][1] < T
    np.testing.assert_allclose(value, from_beginning_to_end(given, monkeypatch), rtol=1e-12)


def test_a_stretch_that_is_not_forgotten_ends_what_is_taken(reached, monkeypatch):
    y = Y.copy()
    # the fifth of eight, where no filter is tried beforehand
    length = -(-T // 8)
    y[4 * length + 8 : 5 * length - 4] = np.nan
    given = model([(TREND, 2, 0.1, 0.1), (OU, 1, 1.0, 1.0)], y=y)
    value = kalman_log_likelihood(*given)
    assert reached[0] == (0, 4 * length, T)
    np.testing.assert_allclose(value, from_beginning_to_end(given, monkeypatch), rtol=1e-12)


def test_a_sample_without_noise_is_left_to_the_usual_sweep(reached, monkeypatch):
    noise = np.full(T, 0.1)
    noise[1500] = 0.0
    given = model(MATERNS, noise=noise)
    value = kalman_log_likelihood(*given)
    assert reached[0][1] == 0
    np.testing.assert_allclose(value, from_beginning_to_end(given, monkeypatch), rtol=1e-12)


@pytest.fixture
def taken(monkeypatch):
    """Whether each gradient was taken in stretches."""
    calls = []

    def watched(*arguments):
        state = stretches_gradient.gradient_in_stretches(*arguments)
        calls.append(state is not None)
        return state

    monkeypatch.setattr(cpu, "gradient_in_stretches", watched)
    return calls


def same_gradient(given, monkeypatch, rtol, **wanted):
    value, gradient = kalman_gradient(*given, **wanted)
    with monkeypatch.context() as patch:
        patch.setattr(stretches, "SHORTEST", T + 1)
        other, expected = kalman_gradient(*given, **wanted)
    np.testing.assert_allclose(value, other, rtol=rtol)
    for name, found, sought in zip(gradient._fields, gradient, expected, strict=True):
        scale = np.abs(sought).max(initial=0.0)
        # through a diffuse start nearly all of these cancels
        scale = max(1e4, scale) if name in ("mean", "covariance", "diffuse") and given[7].size else scale
        np.testing.assert_allclose(found, sought, rtol=rtol, atol=rtol * scale, err_msg=name)


@pytest.mark.parametrize("by_observation", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_the_gradient_is_that_of_one_sweep(name, by_observation, taken, monkeypatch):
    rtol = {"hardly any noise": 1e-9, "diffuse, missing": 1e-10}.get(name, 1e-11)
    same_gradient(CASES[name], monkeypatch, rtol, by_observation=by_observation)
    assert taken[0]


def test_the_gradient_of_what_does_not_move(taken, monkeypatch):
    free = np.array([[True, True, False], [False, True, False], [False, True, False]])
    same_gradient(CASES["regular"], monkeypatch, 1e-11, by_observation=False, free_parameters=free)
    assert taken[0]


def test_adjoints_that_are_not_found_leave_the_gradient_to_one_sweep(taken, monkeypatch):
    monkeypatch.setattr(stretches_gradient, "gradient_stretches", lambda *given: False)
    same_gradient(CASES["four"], monkeypatch, 1e-12, by_observation=False)
    assert not taken[0]


def test_the_gradient_of_what_is_not_forgotten(taken, monkeypatch):
    same_gradient(model([(TREND, 2, 0.1, 0.0), (OU, 1, 1.0, 1.0)]), monkeypatch, 1e-12)
    assert not taken[0]
