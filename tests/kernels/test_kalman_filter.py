"""Filter, likelihood, smoother: against dense Gaussian conditioning, the plain reference, mpmath and the literature."""

import subprocess
import sys

import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.linalg import block_diag

from statespace.kernels.kalman_filter import (
    Blocks,
    discretize_blocks,
    kalman_filter,
    kalman_gradient,
    kalman_log_likelihood,
    kalman_smoother,
    kalman_step,
    kalman_stepper,
)
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
    SIZES,
    TABLE,
    TREND,
)

PARAMETERS = 3
SIZE = SIZES


def make_blocks(*items):
    """(kind, first, second) or (RANDOM_WALK, q, 0, size)."""
    sizes = [item[3] if len(item) == 4 else SIZE.get(item[0], 1) for item in items]
    return Blocks(np.array([i[0] for i in items]), np.array(sizes), np.array([i[1:3] for i in items], dtype=float))


def stationary(kind, rate, variance):
    if kind == OU:
        return np.array([[variance]])
    if kind == MATERN32:
        return variance * np.diag([1.0, rate**2])
    off = -(rate**2) / 3.0
    return variance * np.array([[1.0, 0.0, off], [0.0, -off, 0.0], [off, 0.0, rate**4]])


def problem(items, T=25, seed=0, diffuse=True, time_varying=False, dt=None, noise=0.3, missing=(3, 4, 11)):
    """Arguments of kalman_filter; RANDOM_WALK, TREND and ROTATION start diffuse, the rest in their stationary law."""
    rng = np.random.default_rng(seed)
    blocks = make_blocks(*items)
    n = blocks.n_states
    covariance, columns, observation = [], [], []
    for kind, size, (first, second) in zip(blocks.kind, blocks.size, blocks.parameters, strict=True):
        loose = kind in (RANDOM_WALK, TREND, ROTATION)
        covariance.append(np.eye(size) * (not diffuse) if loose else stationary(kind, first, second))
        columns += [loose] * size
        observation += [1.0] + [0.0] * (size - 1)
    y = rng.normal(size=T).cumsum()
    y[[m for m in missing if m < T]] = np.nan
    gaps = rng.exponential(size=T) if dt is None else np.array(dt, dtype=float)
    if dt is None:
        gaps[0] = 0.0
    h = rng.normal(size=(T, n)) if time_varying else np.array(observation)
    R = rng.uniform(0.2, 1.0, size=T) if time_varying else noise
    D = np.eye(n)[:, np.array(columns)] if diffuse else None
    return y, gaps, blocks, h, R, np.zeros(n), block_diag(*covariance), D


def dense(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse):
    """Log-likelihood, smoothed means and covariances by conditioning all states at once; κ → ∞ by least squares."""
    A, Q = discretize_blocks(blocks, dt, backend="reference")
    T, n = len(y), len(mean)
    H, R = np.broadcast_to(observation, (T, n)), np.broadcast_to(noise_variance, T)
    D = np.zeros((n, 0)) if diffuse is None else np.asarray(diffuse)
    means, directions, S = [], [], np.zeros((T * n, T * n))
    for t in range(T):
        m, d, P = (mean, D, covariance) if t == 0 else (means[-1], directions[-1], S[(t - 1) * n : t * n, : t * n])
        here = slice(t * n, (t + 1) * n)
        means.append(A[t] @ m)
        directions.append(A[t] @ d)
        if t:
            S[here, : t * n] = A[t] @ P
            S[: t * n, here] = S[here, : t * n].T
            P = P[:, (t - 1) * n :]
        S[here, here] = A[t] @ P @ A[t].T + Q[t]
    m, X = np.concatenate(means), np.concatenate(directions)
    seen = ~np.isnan(y)
    C = np.zeros((T, T * n))
    for t in range(T):
        C[t, t * n : (t + 1) * n] = H[t]
    C = C[seen]
    K = C @ S @ C.T + np.diag(R[seen])
    e, U = y[seen] - C @ m, C @ X
    inverse = np.linalg.inv(K)
    W = U.T @ inverse @ U
    delta = np.linalg.solve(W, U.T @ inverse @ e) if D.size else np.zeros(0)
    rest = e - U @ delta
    value = -0.5 * (
        seen.sum() * np.log(2 * np.pi) + np.linalg.slogdet(K)[1] + np.linalg.slogdet(W)[1] + rest @ inverse @ rest
    )
    gain = S @ C.T @ inverse
    smoothed = m + X @ delta + gain @ rest
    V = S - gain @ C @ S
    if D.size:
        G = X - gain @ U
        V = V + G @ np.linalg.solve(W, G.T)
    return value, smoothed.reshape(T, n), np.array([V[t * n : (t + 1) * n, t * n : (t + 1) * n] for t in range(T)])


MODELS = {
    "OU": [(OU, 0.7, 1.3)],
    "two OU": [(OU, 0.7, 1.3), (OU, 3.0, 0.4)],
    "Matern32": [(MATERN32, 0.9, 1.3)],
    "Matern52": [(MATERN52, 1.1, 0.8)],
    "level": [(RANDOM_WALK, 0.4, 0.0, 1)],
    "trend": [(TREND, 0.2, 0.1)],
    "rotation": [(ROTATION, 1.7, 0.1)],
    "level + seasonal": [(RANDOM_WALK, 0.4, 0.0, 1), (ROTATION, 0.5, 0.1), (ROTATION, 1.0, 0.1)],
    "everything": [(TREND, 0.2, 0.1), (ROTATION, 1.7, 0.1), (MATERN32, 0.9, 1.3), (MATERN52, 1.1, 0.8), (OU, 0.6, 0.5)],
}
CASES = {
    **{name: {"items": items} for name, items in MODELS.items()},
    "proper start": {"items": MODELS["everything"], "diffuse": False},
    "regression, varying H and R": {"items": [*MODELS["everything"], (RANDOM_WALK, 0.1, 0.0, 3)], "time_varying": True},
    "varying H, two states": {"items": MODELS["Matern32"], "time_varying": True},
    "no noise": {"items": [(MATERN32, 0.9, 1.3)], "noise": 0.0},
    "equal times": {"items": MODELS["everything"], "dt": [0, 1, 0, 0, 1, 2, 0, 0, 0.5, 0.5, 1, 0, 2, 2, 0, 1]},
    "one sample": {"items": MODELS["level"], "dt": [0.0], "missing": ()},
    "one sample, proper": {"items": MODELS["two OU"], "dt": [0.4], "missing": ()},
    "missing start": {"items": MODELS["level + seasonal"], "missing": (0, 1, 2, 5)},
    "a gap before the first sample": {"items": MODELS["trend"], "dt": [3.0, 1, 1, 1, 1, 0.2]},
}


def arguments(case):
    options = dict(CASES[case])
    items = options.pop("items")
    if "dt" in options:
        options["T"] = len(options["dt"])
    return problem(items, **options)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("case", CASES)
def test_equals_dense_conditioning(case, backend):
    given = arguments(case)
    value, mean, covariance = dense(*given)
    assert_allclose(kalman_log_likelihood(*given, backend=backend), value, rtol=1e-10)
    smoothed = kalman_smoother(*given, backend=backend)
    assert_allclose(smoothed.log_likelihood, value, rtol=1e-10)
    assert_allclose(smoothed.mean, mean, atol=1e-9)
    assert_allclose(smoothed.covariance, covariance, atol=1e-9)
    filtered = kalman_filter(*given, backend=backend)
    assert_allclose(filtered.log_likelihood, value, rtol=1e-10)
    assert_allclose(filtered.mean[-1], mean[-1], atol=1e-9)
    assert_allclose(filtered.covariance[-1], covariance[-1], atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_cpu_equals_reference(case):
    given = arguments(case)
    ours, truth = kalman_filter(*given), kalman_filter(*given, backend="reference")
    for name in ("log_likelihood", "mean", "covariance", "innovation", "innovation_variance", "diffuse_covariance"):
        assert_allclose(getattr(ours, name), getattr(truth, name), rtol=1e-11, atol=1e-12, err_msg=name)
    assert ours.n_diffuse == truth.n_diffuse
    assert ours.diffuse.shape == truth.diffuse.shape


@pytest.mark.parametrize("case", CASES)
def test_readout(case):
    given = arguments(case)
    T, n = len(given[0]), len(given[5])
    whole = kalman_smoother(*given)
    rows = np.random.default_rng(1).normal(size=(T, 2, n))
    read = kalman_smoother(*given, readout=rows)
    assert_allclose(read.mean, np.einsum("trn,tn->tr", rows, whole.mean), atol=1e-10)
    assert_allclose(read.covariance, np.einsum("trn,tnm,trm->tr", rows, whole.covariance, rows), atol=1e-10)
    assert_allclose(kalman_smoother(*given, readout=rows[0]).mean, whole.mean @ rows[0].T, atol=1e-10)


# A(Δ) and Q(Δ)

FEEDBACK = {
    OU: lambda l: ([[-l]], 2 * l),
    MATERN32: lambda l: ([[0, 1], [-(l**2), -2 * l]], 4 * l**3),
    MATERN52: lambda l: ([[0, 1, 0], [0, 0, 1], [-(l**3), -3 * l**2, -3 * l]], mpmath.mpf(16) / 3 * l**5),
}


def exact(kind, rate, variance, gap):
    """A = exp(FΔ) and Q = P∞ − A P∞ Aᵀ with enough digits that the difference does not matter."""
    with mpmath.workdps(120):
        rate, variance, gap = mpmath.mpf(rate), mpmath.mpf(variance), mpmath.mpf(gap)
        F, _ = FEEDBACK[kind](rate)
        F = mpmath.matrix(F)
        n = F.rows
        x = rate * gap
        # F + λI is nilpotent
        N = (F + rate * mpmath.eye(n)) * gap
        A = (mpmath.eye(n) + N + N * N / 2) * mpmath.exp(-x)
        off = -(rate**2) / 3
        P = {
            OU: lambda: mpmath.matrix([[1]]),
            MATERN32: lambda: mpmath.diag([1, rate**2]),
            MATERN52: lambda: mpmath.matrix([[1, 0, off], [0, -off, 0], [off, 0, rate**4]]),
        }[kind]()
        Q = variance * (P - A * P * A.T)
        return [np.array(M.tolist(), dtype=float) for M in (A, Q)]


@pytest.mark.parametrize("rate", [1.0, 7.3e-3])
@pytest.mark.parametrize("kind", FEEDBACK)
def test_process_noise_against_mpmath(kind, rate):
    x = np.concatenate([np.geomspace(1e-6, 1e4, 61), np.linspace(0.1, 3.0, 30)])
    blocks = make_blocks((kind, rate, 2.5))
    A, Q = discretize_blocks(blocks, x / rate)
    for t, gap in enumerate(x / rate):
        true_A, true_Q = exact(kind, rate, 2.5, gap)
        # entrywise; an entry of mixed sign is compared with its Cauchy–Schwarz bound where it crosses zero
        scale = np.sqrt(np.outer(np.diag(true_Q), np.diag(true_Q)))
        assert_allclose(Q[t] / scale, true_Q / scale, rtol=1e-10, atol=1e-13)
        assert_allclose(np.diag(Q[t]), np.diag(true_Q), rtol=1e-12)
        powers = rate ** np.arange(len(true_A))
        to_unit_rate = np.outer(1.0 / powers, powers)
        assert_allclose(A[t] * to_unit_rate, true_A * to_unit_rate, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kind", [*FEEDBACK, TREND, ROTATION])
@pytest.mark.parametrize("gap", [0.0, 1e-8, 1e-3, 1.0, 1e5])
def test_process_noise_is_a_covariance(kind, gap):
    A, Q = discretize_blocks(make_blocks((kind, 1.0, 0.7)), [gap])
    assert np.isfinite(Q).all()
    assert (Q[0] == Q[0].T).all()
    scale = np.sqrt(np.maximum(np.diag(Q[0]), 1e-300))
    assert np.linalg.eigvalsh(Q[0] / np.outer(scale, scale)).min() > -1e-12
    if gap == 0.0:
        assert_allclose(A[0], np.eye(len(A[0])), atol=0)
        assert_allclose(Q[0], 0.0, atol=0)


def test_discretization_equals_the_reference():
    blocks = make_blocks(*MODELS["everything"], (RANDOM_WALK, 0.3, 0.0, 2))
    dt = np.array([0.0, 1e-4, 0.3, 1.0, 2.5, 40.0])
    truth = discretize_blocks(blocks, dt, backend="reference")
    for ours, expected in zip(discretize_blocks(blocks, dt), truth, strict=True):
        assert_allclose(ours, expected, rtol=1e-10, atol=1e-13)


def as_table(given):
    """The same model with every block but the first looked up in a table of distinct gaps."""
    y, dt, blocks, *rest = given
    gaps, index = np.unique(dt, return_inverse=True)
    A, Q = discretize_blocks(blocks, gaps)
    s = int(blocks.size[0])
    n = blocks.n_states - s
    flat = [M[:, s:, s:].reshape(len(gaps), -1) for M in (A, Q)]
    table = Blocks(
        np.array([blocks.kind[0], TABLE]), np.array([s, n]), np.array([blocks.parameters[0], [0.0, 0.0]]), *flat, index
    )
    return y, dt, table, *rest


@pytest.mark.parametrize("case", ["everything", "two OU", "level + seasonal", "equal times"])
def test_table(case):
    given = arguments(case)
    table = as_table(given)
    assert_allclose(kalman_log_likelihood(*table), kalman_log_likelihood(*given), rtol=1e-12)
    assert_allclose(kalman_smoother(*table).mean, kalman_smoother(*given).mean, atol=1e-11)
    assert_allclose(kalman_log_likelihood(*table, backend="reference"), kalman_log_likelihood(*given), rtol=1e-11)


def skipping(d=2, seed=0, T=24):
    """A model of tables that stays in place at half of its samples, and the same with a row (I, 0) for that."""
    rng = np.random.default_rng(seed)
    sizes = [2, 3]
    n = sum(sizes)
    A = np.concatenate([rng.normal(size=(3, s * s)) / s for s in sizes], axis=1)
    roots = [rng.normal(size=(3, s, s)) for s in sizes]
    Q = np.concatenate([(root @ root.transpose(0, 2, 1)).reshape(3, -1) for root in roots], axis=1)
    eye = np.concatenate([np.eye(s).ravel() for s in sizes])[None]
    index = rng.integers(0, 3, size=T)
    index[rng.permutation(T)[: T // 2]] = -1
    kind, parameters = np.full(2, TABLE), np.zeros((2, PARAMETERS))
    short = Blocks(kind, np.array(sizes), parameters, A, Q, index)
    full = Blocks(
        kind, np.array(sizes), parameters, np.append(A, eye, axis=0), np.append(Q, 0 * eye, axis=0),
        np.where(index < 0, 3, index),
    )  # fmt: skip
    y = rng.normal(size=T)
    y[[2, 7]] = np.nan
    # gaps that a model of tables alone must not look at
    dt = rng.exponential(size=T)
    rest = (rng.normal(size=(T, n)), rng.uniform(0.2, 1.0, T), rng.normal(size=n), np.eye(n), rng.normal(size=(n, d)))
    return (y, dt, short, *rest), (y, dt, full, *rest)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("d", [0, 2])
def test_a_row_of_minus_one_stays_in_place(d, backend):
    short, full = skipping(d=d)
    assert_allclose(kalman_log_likelihood(*short, backend=backend), kalman_log_likelihood(*full), rtol=1e-12)
    for ours, theirs in (
        (kalman_filter(*short, backend=backend), kalman_filter(*full)),
        (kalman_smoother(*short, backend=backend), kalman_smoother(*full)),
    ):
        assert_allclose(ours.mean, theirs.mean, rtol=1e-9, atol=1e-10)
        assert_allclose(ours.covariance, theirs.covariance, rtol=1e-9, atol=1e-10)
    if backend == "cpu":
        (value, gradient), (same, truth) = kalman_gradient(*short), kalman_gradient(*full)
        assert_allclose(value, same, rtol=1e-12)
        for name, ours, theirs in zip(gradient._fields, gradient, truth, strict=True):
            theirs = theirs[: len(ours)] if name in ("transition", "process_noise") else theirs
            assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9, err_msg=name)


def test_minus_one_beside_blocks_that_move():
    """A table stays where it is, a closed form goes on over its gap."""
    y, dt, blocks, *rest = as_table(arguments("everything"))
    eye = np.eye(int(blocks.size[1])).ravel()[None]
    index = np.where(np.arange(len(y)) % 3 == 1, -1, blocks.gap_index)
    short = blocks._replace(gap_index=index)
    full = blocks._replace(
        transition=np.append(blocks.transition, eye, axis=0),
        process_noise=np.append(blocks.process_noise, 0 * eye, axis=0),
        gap_index=np.where(index < 0, len(blocks.transition), index),
    )
    for backend in ("cpu", "reference"):
        value = kalman_log_likelihood(y, dt, short, *rest, backend=backend)
        assert_allclose(value, kalman_log_likelihood(y, dt, full, *rest), rtol=1e-11)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_stepper_that_stays_in_place(backend):
    (y, dt, blocks, h, R, *state), _ = skipping()
    truth = kalman_filter(y, dt, blocks, h, R, *state)
    stepper = kalman_stepper(blocks._replace(gap_index=np.zeros(1, int)), h[:1], *state, backend=backend)
    for t, row in enumerate(blocks.gap_index):
        table = None if row < 0 else (blocks.transition[row], blocks.process_noise[row])
        stepper.step(y[t], dt[t], R[t], h[t], table, predict=row >= 0)
    assert_allclose(stepper.mean, truth.mean[-1], rtol=1e-9)
    assert_allclose(stepper.covariance, truth.covariance[-1], rtol=1e-8)


def test_a_companion_matrix():
    """A table of zeros and few others: its products skip the zeros and give the same."""
    rng = np.random.default_rng(4)
    n, T = 14, 60
    A = np.eye(n, k=1)
    A[[0, 11, 12], 0] = 0.9, 0.5, -0.4
    g = np.zeros(n)
    g[[0, 1, 12]] = 1.0, 0.4, 0.3
    Q = np.outer(g, g)
    blocks = Blocks([TABLE], [n], np.zeros((1, PARAMETERS)), A.reshape(1, -1), Q.reshape(1, -1), np.zeros(T))
    given = (rng.normal(size=T).cumsum(), np.ones(T), blocks, np.eye(n)[0], 0.1, np.zeros(n), np.eye(n))
    truth = kalman_filter(*given, backend="reference")
    ours = kalman_filter(*given)
    assert_allclose(ours.log_likelihood, truth.log_likelihood, rtol=1e-12)
    assert_allclose(ours.covariance, truth.covariance, atol=1e-12)
    assert (ours.covariance == ours.covariance.transpose(0, 2, 1)).all()


# The diffuse start


def test_nile():
    statsmodels = pytest.importorskip("statsmodels.api")
    y = statsmodels.datasets.nile.load_pandas().data["volume"]
    level = make_blocks((RANDOM_WALK, 1469.1, 0.0, 1))
    for backend in ("cpu", "reference"):
        value = kalman_log_likelihood(y, np.ones(100), level, [1.0], 15099.0, [0.0], [[0.0]], [[1.0]], backend=backend)
        assert_allclose(value, -633.46456, atol=5e-6)


def structural(T, period=12, seed=3):
    """Level + all harmonics of an even period on a unit grid; the sine at period/2 is never visible."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=T).cumsum() + np.tile(rng.normal(size=period), T // period + 1)[:T]
    items = [(TREND, 0.3, 0.02), *[(ROTATION, 2 * np.pi * k / period, 0.05) for k in range(1, period // 2 + 1)]]
    blocks = make_blocks(*items)
    n = blocks.n_states
    h = np.tile([1.0, 0.0], n // 2)
    return y, np.ones(T), blocks, h, 0.4, np.zeros(n), np.zeros((n, n)), np.eye(n)


def test_invisible_state_changes_nothing():
    y, dt, blocks, h, R, mean, covariance, D = structural(200)
    last = len(h) - 2
    # the textbook's form: one state at period/2, alternating in sign
    one = Blocks(
        np.array([*blocks.kind[:-1], TABLE]), np.array([*blocks.size[:-1], 1]), blocks.parameters, np.array([[-1.0]]),
        np.array([[0.05]]), np.zeros(200, dtype=int),
    )  # fmt: skip
    keep = last + 1
    small = (y, dt, one, h[:keep], R, mean[:keep], covariance[:keep, :keep], D[:keep, :keep])
    given = (y, dt, blocks, h, R, mean, covariance, D)
    assert_allclose(kalman_log_likelihood(*given), kalman_log_likelihood(*small), rtol=1e-12)
    result = kalman_filter(*given)
    assert result.n_diffuse == 200
    assert_allclose(np.abs(result.diffuse.ravel()), np.eye(len(h))[-1], atol=1e-13)
    smoothed = kalman_smoother(*given)
    assert np.isinf(smoothed.covariance[:, -1, -1]).all()
    assert np.isfinite(smoothed.covariance[:, :keep, :keep]).all()
    read = kalman_smoother(*given, readout=h[None])
    assert_allclose(read.mean, kalman_smoother(*small, readout=h[None, :keep]).mean, atol=1e-10)
    assert_allclose(read.covariance, kalman_smoother(*small, readout=h[None, :keep]).covariance, rtol=1e-9)
    _, gradient = kalman_gradient(*given)
    _, smaller = kalman_gradient(*small)
    assert_allclose(gradient.parameters[:-1], smaller.parameters[:-1], rtol=1e-8, atol=1e-10)


def test_invisible_state_over_a_long_record():
    given = structural(100_000)
    y, dt, blocks, h, R, mean, covariance, D = given
    proper = kalman_log_likelihood(y, dt, blocks, h, R, mean, covariance, D[:, :-1])
    assert_allclose(kalman_log_likelihood(*given), proper, rtol=1e-13)
    # times k/12, whose gaps carry rounding errors of 1e-12, must not make it visible either
    times = np.arange(100_000) / 12.0
    rate = blocks.parameters.copy()
    rate[1:, 0] *= 12.0
    scaled = blocks._replace(parameters=rate * np.array([1.0, 12.0]))
    result = kalman_filter(y[:5000], np.diff(times, prepend=0.0)[:5000], scaled, h, R, mean, covariance, D)
    assert result.diffuse.shape[1] == 1


def test_collinear_covariates_stay_unresolved():
    T = 30
    x = np.random.default_rng(0).normal(size=T)
    y = 2.0 * x + 0.1 * np.random.default_rng(1).normal(size=T)
    blocks = make_blocks((RANDOM_WALK, 0.0, 0.0, 2))
    H = np.stack([x, 3.0 * x], axis=1)
    given = (y, np.ones(T), blocks, H, 0.01, np.zeros(2), np.zeros((2, 2)), np.eye(2))
    result = kalman_filter(*given)
    assert result.diffuse.shape == (2, 1)
    smoothed = kalman_smoother(*given, readout=[[1.0, 0.0], [1.0, 3.0]])
    assert np.isinf(smoothed.covariance[:, 0]).all()
    assert_allclose(smoothed.mean[:, 1], 2.0, atol=0.1)
    assert np.isfinite(smoothed.covariance[:, 1]).all()


def test_units_of_time_do_not_hide_a_slope():
    """Gaps of 1e-9 (seconds in units of decades): the slope is seen by 1e-9 of its own size, and is seen."""
    y, dt, _, h, R, mean, covariance, D = problem([(TREND, 0.2, 0.1)], missing=())
    c = 1e-9
    plain = kalman_log_likelihood(y, dt, make_blocks((TREND, 0.2, 0.1)), h, R, mean, covariance, D)
    small = kalman_log_likelihood(y, dt * c, make_blocks((TREND, 0.2 / c, 0.1 / c**3)), h, R, mean, covariance, D)
    assert_allclose(small, plain - np.log(c), rtol=1e-10)


def test_statsmodels_exact_diffuse():
    statsmodels = pytest.importorskip("statsmodels.api")
    y, dt, blocks, h, R, mean, covariance, D = structural(120, period=5)
    model = statsmodels.tsa.UnobservedComponents(
        y, "lltrend", freq_seasonal=[{"period": 5, "harmonics": 2}], use_exact_diffuse=True
    )
    # the textbook's trend in discrete time has uncorrelated noises: a table says so
    table = Blocks(
        np.array([TABLE, ROTATION, ROTATION]), np.array([2, 2, 2]), np.array([[0.0, 0.0], *blocks.parameters[1:3]]),
        np.array([[1.0, 1.0, 0.0, 1.0]]), np.array([[0.3, 0.0, 0.0, 0.02]]), np.zeros(120, dtype=int),
    )  # fmt: skip
    names = dict(zip(model.param_names, range(len(model.param_names)), strict=True))
    parameters = np.zeros(len(names))
    for name, value in (("sigma2.irregular", R), ("sigma2.level", 0.3), ("sigma2.trend", 0.02)):
        parameters[names[name]] = value
    parameters[[i for name, i in names.items() if "freq_seasonal" in name]] = 0.05
    ours = kalman_log_likelihood(y, dt, table, h, R, mean, covariance, D)
    theirs = model.smooth(parameters)
    assert_allclose(ours, theirs.llf, rtol=1e-9)


# Carrying on, streams, hard records


@pytest.mark.parametrize("cut", [1, 2, 3, 5, 12, 24])
@pytest.mark.parametrize("case", ["everything", "level + seasonal", "Matern32", "level"])
def test_cut_anywhere(case, cut):
    y, dt, blocks, h, R, mean, covariance, D = arguments(case)
    whole = kalman_filter(y, dt, blocks, h, R, mean, covariance, D)
    first = kalman_filter(y[:cut], dt[:cut], blocks, h, R, mean, covariance, D)
    second = kalman_filter(y[cut:], dt[cut:], blocks, h, R, first.mean[-1], first.covariance[-1], first.diffuse)
    assert_allclose(first.log_likelihood + second.log_likelihood, whole.log_likelihood, rtol=1e-12)
    assert_allclose(second.mean, whole.mean[cut:], atol=1e-11)
    assert_allclose(second.covariance, whole.covariance[cut:], atol=1e-11)


@pytest.mark.parametrize("case", ["everything", "Matern32", "no noise", "missing start"])
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_steps_equal_the_filter(case, backend):
    y, dt, blocks, h, R, *state = arguments(case)
    whole = kalman_filter(y, dt, blocks, h, R, *state)
    for t in range(len(y)):
        step = kalman_step(y[t], dt[t], blocks, h, R, *state, backend=backend)
        state = step[:3]
        assert_allclose(step.mean, whole.mean[t], atol=1e-10)
        assert_allclose(step.covariance, whole.covariance[t], atol=1e-10)
        assert_allclose(step.innovation_variance, whole.innovation_variance[t], rtol=1e-10)


def test_all_missing():
    y, dt, blocks, h, R, mean, covariance, D = arguments("everything")
    given = (np.full(len(y), np.nan), dt, blocks, h, R, mean, covariance, D)
    assert kalman_log_likelihood(*given) == 0.0
    result = kalman_filter(*given)
    assert result.diffuse.shape == D.shape
    assert np.isnan(result.innovation).all()
    smoothed = kalman_smoother(*given, readout=np.eye(len(h)))
    assert np.isinf(smoothed.covariance[:, :4]).all()
    assert np.isfinite(smoothed.covariance[:, 4:]).all()
    _, gradient = kalman_gradient(*given)
    assert all((np.asarray(part) == 0.0).all() for part in gradient)


@pytest.mark.parametrize("quality", [1e-6, 0.01, 0.39, 0.45, 0.4999, 0.5 - 1e-9, 0.5, 0.5 + 1e-9, 0.51, 1.0, 30.0, 1e6])
def test_oscillator_has_ten_digits_in_every_regime(quality):
    """Each entry of Q against σ² (I − A Aᵀ) with 120 digits, from ω₀Δ = 1e-6 to 1e4."""
    gaps = np.geomspace(1e-6, 1e4, 31)
    A, Q = discretize_blocks(Blocks([SHO], [2], [[2.0, 3.0, quality]]), gaps / 2.0)
    for t, gap in enumerate(gaps):
        with mpmath.workdps(120):
            damping, tau = 1 / (2 * mpmath.mpf(quality)), 2 * mpmath.mpf(gap / 2.0)
            root = mpmath.sqrt(damping**2 - 1)
            C, S = mpmath.cosh(root * tau), mpmath.sinh(root * tau) / root if root else tau
            rows = [[C + damping * S, S], [-S, C - damping * S]]
            A_true = mpmath.exp(-damping * tau) * mpmath.matrix(rows).apply(mpmath.re)
            Q_true = 3 * (mpmath.eye(2) - A_true * A_true.T)
            A_true, Q_true = (np.array(M.tolist(), dtype=float) for M in (A_true, Q_true))
        assert_allclose(A[t], A_true, rtol=0, atol=1e-10 * np.abs(A_true).max(), err_msg=str(gap))
        assert_allclose(Q[t], Q_true, rtol=1e-10, atol=1e-300, err_msg=str(gap))


@pytest.mark.parametrize(
    ("kind", "still"), [(ROTATED_OU, OU), (ROTATED_MATERN32, MATERN32), (ROTATED_MATERN52, MATERN52)]
)
def test_a_turning_process_is_a_product(kind, still):
    gaps = np.array([0.0, 1e-5, 0.3, 7.0, 1e4])
    A, Q = discretize_blocks(Blocks([kind], [SIZE[kind]], [[0.8, 1.3, 2.1]]), gaps)
    A_still, Q_still = discretize_blocks(Blocks([still], [SIZE[still]], [[0.8, 1.3]]), gaps)
    for t, gap in enumerate(gaps):
        c, s = np.cos(2.1 * gap), np.sin(2.1 * gap)
        assert_allclose(A[t], np.kron([[c, s], [-s, c]], A_still[t]), rtol=1e-14, atol=0)
        assert_allclose(Q[t], np.kron(np.eye(2), Q_still[t]), rtol=1e-14, atol=0)


@pytest.mark.parametrize("R", [0.0, 1e-12, 1e6])
@pytest.mark.parametrize("kind", [OU, MATERN32, MATERN52])
def test_bursts_and_long_gaps(kind, R):
    """λΔ from 1e-8 to 1e5 in one record: everything stays finite, covariances stay covariances."""
    rng = np.random.default_rng(5)
    T = 400
    y, dt, blocks, h, _, mean, covariance, _ = problem([(kind, 1.0, 1.0)], T=T, dt=10.0 ** rng.uniform(-8, 5, size=T))
    y = np.sin(dt.cumsum())
    result = kalman_filter(y, dt, blocks, h, R, mean, covariance)
    assert np.isfinite(result.log_likelihood) or R == 0.0
    assert np.isfinite(result.mean).all()
    assert (result.covariance == result.covariance.transpose(0, 2, 1)).all()
    assert np.linalg.eigvalsh(result.covariance).min() > -1e-10
    smoothed = kalman_smoother(y, dt, blocks, h, max(R, 1e-6), mean, covariance, readout=h[None])
    assert np.isfinite(smoothed.mean).all()
    assert (smoothed.covariance >= 0.0).all()


def test_noise_free_repetition():
    """R = 0 and the same time twice: the same value adds nothing, another one is impossible."""
    process = make_blocks((MATERN32, 1.0, 1.0))
    start = (np.zeros(2), np.eye(2))
    once = kalman_log_likelihood([0.3, 0.7], [0.0, 1.0], process, [1.0, 0.0], 0.0, *start)
    for backend in ("cpu", "reference"):
        twice = kalman_log_likelihood([0.3, 0.3, 0.7], [0, 0, 1], process, [1.0, 0.0], 0.0, *start, backend=backend)
        assert_allclose(twice, once, rtol=1e-13)
        other = kalman_log_likelihood([0.3, 0.4, 0.7], [0, 0, 1], process, [1.0, 0.0], 0.0, *start, backend=backend)
        assert other == -np.inf


def test_the_determinant_neither_overflows_nor_underflows():
    process = make_blocks((OU, 1.0, 1.0))
    for scale in (1e-120, 1e-30, 1.0, 1e30, 1e120):
        y = np.sqrt(scale) * np.random.default_rng(0).normal(size=3000)
        blocks = process._replace(parameters=np.array([[1.0, scale]]))
        value = kalman_log_likelihood(y, np.ones(3000), blocks, [1.0], scale, [0.0], [[scale]])
        plain = kalman_log_likelihood(y / np.sqrt(scale), np.ones(3000), process, [1.0], 1.0, [0.0], [[1.0]])
        assert_allclose(value, plain - 1500 * np.log(scale), rtol=1e-12)


# Whatever the scale, the unit of time or the way it is written down


@pytest.mark.parametrize("scale", [10.0**-k for k in range(0, 110, 12)] + [1e-109])
def test_scales_down_to_1e_109(scale):
    """A trend whose variances span the floating point numbers: every innovation's variance stays positive.

    The series of Helske (2017), "KFAS: Exponential family state space models in R", section 2.3, is of this kind.
    """
    rng = np.random.default_rng(0)
    T = 100
    trend = (TREND, 0.0, 1.0)
    for items in ([trend], [trend, (ROTATION, 1.0, 1e-3)], [trend, (MATERN52, 1.0, 1.0)]):
        blocks = make_blocks(*((kind, *parameters) for kind, *parameters in items))
        n = blocks.n_states
        parameters = blocks.parameters.copy()
        parameters[0, 1] *= scale
        if len(items) > 1:
            parameters[1, 1] *= scale
        h = np.eye(n)[0] + (np.eye(n)[2] if n > 2 else 0.0)
        for R in (scale, 1.0, scale * 1e-20):
            y = np.sqrt(scale) * rng.normal(size=T).cumsum()
            start = (np.zeros(n), np.zeros((n, n)), np.eye(n))
            given = (y, np.ones(T), blocks._replace(parameters=parameters), h, R, *start)
            result = kalman_filter(*given)
            assert (result.innovation_variance > 0.0).all()
            assert np.isfinite(result.log_likelihood)
            assert np.isfinite(kalman_log_likelihood(*given))
            assert (np.diagonal(result.covariance, axis1=1, axis2=2) >= 0.0).all()


@pytest.mark.parametrize("case", ["Matern32", "trend", "level + seasonal", "everything"])
def test_a_gap_split_by_missing_rows_changes_nothing(case):
    y, dt, blocks, h, R, mean, covariance, D = arguments(case)
    thirds = np.repeat(dt / 3.0, 3)
    split = np.full(3 * len(y), np.nan)
    split[2::3] = y
    given, cut = (y, dt, blocks, h, R, mean, covariance, D), (split, thirds, blocks, h, R, mean, covariance, D)
    assert_allclose(kalman_log_likelihood(*cut), kalman_log_likelihood(*given), rtol=1e-11)
    assert_allclose(kalman_smoother(*cut).mean[2::3], kalman_smoother(*given).mean, atol=1e-9)
    (_, gradient), (_, whole) = kalman_gradient(*cut), kalman_gradient(*given)
    for name in ("parameters", "observation", "noise_variance", "mean", "covariance", "diffuse"):
        ours, theirs = getattr(gradient, name), getattr(whole, name)
        assert_allclose(ours, theirs, rtol=1e-8, atol=1e-8 * max(1.0, np.abs(theirs).max(initial=0.0)), err_msg=name)


def test_another_unit_of_time_changes_nothing():
    """Gaps times c, rates by c: the same likelihood, whatever path computes it."""
    for items, power in (
        ([(OU, 0.7, 1.3)], (1, 0)), ([(OU, 0.7, 1.3), (OU, 3.0, 0.4), (OU, 0.1, 1.0)], (1, 0)),
        ([(ROTATION, 1.7, 0.1)], (1, 1)), ([(RANDOM_WALK, 0.4, 0.0, 1), (RANDOM_WALK, 0.2, 0.0, 2)], (1, 0)),
    ):  # fmt: skip
        y, dt, blocks, h, R, *start = problem(items)
        value = kalman_log_likelihood(y, dt, blocks, h, R, *start)
        for c in (1e-9, 86400.0, 1e9):
            parameters = blocks.parameters / np.array([c ** power[0], c ** power[1]])
            other = kalman_log_likelihood(y, dt * c, blocks._replace(parameters=parameters), h, R, *start)
            assert_allclose(other, value, rtol=1e-10)


def test_an_offset_of_a_diffuse_level_costs_few_digits():
    """y + 1e9: the level takes the offset at its first sample; what is lost is the rounding of y itself."""
    y, *model = arguments("level + seasonal")
    offset = 2.0**30
    y = np.round(y * 2.0**20) / 2.0**20
    assert_allclose(kalman_log_likelihood(y + offset, *model), kalman_log_likelihood(y, *model), rtol=2e-6)
    moved, plain = kalman_smoother(y + offset, *model).mean, kalman_smoother(y, *model).mean
    assert_allclose(moved[:, 0] - offset, plain[:, 0], atol=1e-5)


@pytest.mark.parametrize("items", [
    [(OU, 0.7, 1.3), (MATERN32, 0.9, 1.3)], [(TREND, 0.2, 0.1), (ROTATION, 1.7, 0.1), (SHO, 1.2, 0.7, 3.0)],
    [(ROTATED_OU, 0.3, 1.0, 2.0), (MATERN32, 0.9, 1.3), (RANDOM_WALK, 0.3)],
])  # fmt: skip
@pytest.mark.parametrize("time_varying", [False, True])
@pytest.mark.parametrize("noise", [0.3, 0.0])
def test_tiles_equal_the_general_path(items, time_varying, noise):
    """The likelihood runs on tiles of 2 × 2, the filter does not."""
    T = 700
    rng = np.random.default_rng(3)
    sizes = [SIZE.get(item[0], 1) for item in items]
    n = sum(sizes)
    parameters = np.array([(*item[1:], 0.0, 0.0)[:3] for item in items])
    blocks = Blocks(np.array([item[0] for item in items]), np.array(sizes), parameters)
    y = rng.normal(size=T)
    y[rng.random(T) < 0.2] = np.nan
    # repeated gaps, equal times
    dt = rng.choice([0.0, 0.5, 0.5, 1.0, 2.0, 7.0, 0.01], size=T) + (rng.random(T) < 0.3) * rng.random(T)
    dt[1:] += (dt[1:] == 0.0) * (noise == 0.0)
    h = rng.normal(size=(T, n)) if time_varying else rng.normal(size=n)
    R = rng.uniform(0.0, 1.0, size=T) * noise
    given = (y, dt, blocks, h, R, rng.normal(size=n), np.eye(n), np.eye(n)[:, :1])
    assert_allclose(kalman_log_likelihood(*given), kalman_filter(*given).log_likelihood, rtol=1e-9)
    assert_allclose(kalman_gradient(*given)[0], kalman_filter(*given).log_likelihood, rtol=1e-9)


# Arguments


def test_one_compilation_for_every_kind_of_array():
    from statespace.kernels.kalman_filter import discretization, forward, gradient, smoothing

    y, dt, blocks, h, R, mean, covariance, D = arguments("everything")
    frozen = covariance.copy()
    frozen.flags.writeable = False
    variants = [
        (y, dt, blocks, h, R, mean, covariance, D),
        (y.tolist(), dt.tolist(), blocks, h.tolist(), R, mean.tolist(), covariance.tolist(), D.tolist()),
        (y.astype("f4"), dt[::-1][::-1], blocks, h, np.full(len(y), R), mean, covariance.T, D[:, ::-1]),
        (np.repeat(y, 2)[::2], dt, blocks, np.tile(h, (len(y), 1)), np.float32(R), mean, frozen, None),
        (y.astype(">f8"), dt, blocks._replace(kind=blocks.kind.astype("i4")), h, R, mean, covariance, D),
        (y, dt, as_table((y, dt, blocks))[2], h, R, mean, covariance, D),
    ]
    for given in variants:
        kalman_filter(*given)
        kalman_log_likelihood(*given)
        kalman_gradient(*given)
        kalman_smoother(*given)
        kalman_smoother(*given, readout=[h.tolist()])
        discretize_blocks(given[2], given[1])
    small = arguments("Matern32")
    kalman_log_likelihood(*small)
    for function in (
        forward.forward_start, forward.forward_direct, gradient.gradient_start, smoothing.smooth_segment,
        discretization.discretize_all,
    ):  # fmt: skip
        assert len(function.signatures) == 1, function.__name__


def test_segments_change_nothing(monkeypatch):
    from statespace.kernels.kalman_filter import cpu

    given = arguments("everything")
    value, gradient = kalman_gradient(*given)
    smoothed = kalman_smoother(*given)
    monkeypatch.setattr(cpu, "SEGMENT_BYTES", 1)
    monkeypatch.setattr(cpu, "SHORTEST_SEGMENT", 4)
    cut_value, cut_gradient = kalman_gradient(*given)
    assert cut_value == value
    for name, part, other in zip(gradient._fields, cut_gradient, gradient, strict=True):
        assert_allclose(part, other, rtol=1e-12, atol=1e-12, err_msg=name)
    assert_allclose(kalman_smoother(*given).mean, smoothed.mean, atol=1e-13)
    assert_allclose(kalman_smoother(*given).covariance, smoothed.covariance, atol=1e-13)


def test_importing_loads_no_backend():
    code = "import sys, statespace.kernels, statespace.kernels.kalman_filter; print('numba' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


LEVEL = make_blocks((RANDOM_WALK, 0.5, 0.0, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": []}, "at least one sample"),
        ({"y": [1.0, np.inf, 2.0]}, r"y\[1\] is infinite"),
        ({"dt": [0.0, 1.0]}, r"dt must have shape \(3,\)"),
        ({"dt": [0.0, -1.0, 1.0]}, r"dt\[1\] = -1.0. Sort"),
        ({"dt": [0.0, 1.0, np.nan]}, r"dt\[2\] = nan"),
        ({"observation": [1.0, 0.0]}, r"observation must have shape \(1,\) or \(3, 1\)"),
        ({"noise_variance": -1.0}, "must not be negative"),
        ({"noise_variance": [1.0, 1.0]}, "noise_variance must be a number"),
        ({"mean": [0.0, 0.0]}, r"mean must have shape \(1,\)"),
        ({"diffuse": [[1.0, 2.0]]}, r"diffuse must have shape \(1, d\)"),
        ({"blocks": LEVEL._replace(kind=[11])}, "block 0 has kind 11"),
        ({"blocks": LEVEL._replace(kind=[MATERN32])}, "must have 2 states; got size 1"),
        ({"blocks": LEVEL._replace(kind=[TABLE])}, r"shape \(n_gaps, 1\)"),
        ({"blocks": LEVEL._replace(parameters=[1.0])}, r"parameters \(n_blocks, 3\)"),
    ],
)
def test_errors_say_what_was_expected(change, message):
    given = {
        "y": [1.0, 2.0, 3.0], "dt": [0.0, 1.0, 1.0], "blocks": LEVEL, "observation": [1.0], "noise_variance": 1.0,
        "mean": [0.0], "covariance": [[0.0]], "diffuse": [[1.0]],
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        kalman_filter(**(given | change))
