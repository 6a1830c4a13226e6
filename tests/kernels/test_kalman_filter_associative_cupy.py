"""One long record parallel in time, on a GPU or as host code, against the sweep from beginning to end on the CPU."""

import numpy as np
import pytest

from statespace.kernels import cuda
from statespace.kernels.kalman_filter import (
    Blocks,
    associative,
    kalman_filter,
    kalman_gradient,
    kalman_log_likelihood,
    kalman_smoother,
)
from statespace.kernels.kalman_filter.blocks import MATERN32, RANDOM_WALK, TABLE
from tests.kernels.host import compile_for_gpus

RNG = np.random.default_rng(0)
T = 389


def record(samples=T):
    """Gaps from 1e-6 to 1e6, equal times, missing samples, and none at all for a while."""
    dt = RNG.exponential(size=samples) * RNG.choice([1e-6, 1, 1, 1, 30], size=samples)
    dt[0], dt[17], dt[200] = 0.0, 0.0, 1e6
    y = np.cumsum(RNG.normal(size=samples)) * 0.3
    y[RNG.random(samples) < 0.2] = np.nan
    y[[0, 1, 2]], y[100:160] = [0.3, np.nan, 0.7], np.nan
    return y, dt


def diffuse_model(samples=T):
    """A level, which starts diffuse, and a Matérn process; noise of each sample."""
    blocks = Blocks([RANDOM_WALK, MATERN32], [1, 2], [[0.1, 0.0], [0.8, 0.5]])
    noise = RNG.uniform(0.05, 0.3, samples)
    return blocks, np.array([1.0, 1.0, 0.0]), noise, np.zeros(3), np.diag([0, 0.5, 0.32]), np.eye(3)[:, :1]


def tables():
    """Two states of which a table says all, observations of each sample."""
    rows = RNG.integers(0, 3, T)
    rows[30] = -1
    A = np.array([[0.9, 0.1, -0.1, 0.8], [0.5, 0.2, 0.0, 0.7], [0.95, 0.0, 0.05, 0.9]])
    Q = np.array([[0.1, 0.02, 0.02, 0.1], [0.3, 0.1, 0.1, 0.2], [0.05, 0.0, 0.0, 0.04]])
    h = RNG.uniform(0.5, 1.5, (T, 2))
    return Blocks([TABLE], [2], [[0.0, 0.0]], A, Q, rows), h, 0.2, np.ones(2), np.eye(2), np.zeros((2, 0))


@pytest.fixture
def lines(cuda_runtime, monkeypatch):
    """Where the lines begin that are made meanwhile; stretches are a few samples long."""
    made, true = [], associative.line

    def noting(*arguments, **options):
        found = true(*arguments, **options)
        made.append(found and (found.begin, found.count, found.groups))
        return found

    monkeypatch.setattr(associative, "line", noting)
    monkeypatch.setattr(associative, "SHORTEST", 100)
    monkeypatch.setattr(associative, "STRETCH", 8)
    return made


def compare(got, expected, tolerance=1e-11):
    for name, x in zip(got._fields, got, strict=True):
        y = np.asarray(getattr(expected, name))
        assert np.shape(x) == y.shape, name
        np.testing.assert_array_equal(np.isnan(x), np.isnan(y), err_msg=name)
        np.testing.assert_allclose(
            x, y, rtol=0, atol=tolerance * max(1e-3, np.abs(y[np.isfinite(y)]).max(initial=0)), err_msg=name
        )


@pytest.mark.parametrize("model", [diffuse_model, tables])
def test_every_function(model, lines):
    arguments = *record(), *model()
    expected, got = (kalman_filter(*arguments, backend=backend) for backend in ("cpu", "cupy"))
    value = kalman_log_likelihood(*arguments, backend="cupy")
    assert value == pytest.approx(expected.log_likelihood, rel=1e-13)
    compare(got, expected)
    compare(*(kalman_smoother(*arguments, backend=backend) for backend in ("cupy", "cpu")))
    value, gradient = kalman_gradient(*arguments, backend="cupy")
    expected = kalman_gradient(*arguments, backend="cpu")
    assert value == pytest.approx(expected[0], rel=1e-13)
    compare(gradient, expected[1], 1e-10)
    begin = 64 if model is diffuse_model else 0
    count = -(-(T - begin) // 8)
    assert lines == [(begin, count, -(-count // round(count**0.5)))] * 4


@pytest.mark.parametrize("each", [False, True])
def test_linear_combinations(each, lines):
    arguments = *record(), *diffuse_model()
    rows = RNG.normal(size=(T, 2, 3) if each else (2, 3))
    compare(*(kalman_smoother(*arguments, rows, backend=backend) for backend in ("cupy", "cpu")))
    assert lines[0][0] == 64


def test_some_parameters_alone(lines):
    arguments = *record(), *diffuse_model()
    free = np.zeros((2, 2), dtype=bool)
    free[1, 0] = True
    given = {"free_parameters": free, "by_observation": False}
    got, expected = (kalman_gradient(*arguments, **given, backend=backend)[1] for backend in ("cupy", "cpu"))
    compare(got, expected, 1e-10)
    assert np.count_nonzero(got.parameters) == 1
    assert lines[0][0] == 64


def test_a_state_is_carried_on(lines):
    """From the moments after the first half, and its gap."""
    (y, dt), (blocks, h, R, mean, covariance, diffuse) = record(), diffuse_model()
    cut = 180
    first = kalman_filter(y[:cut], dt[:cut], blocks, h, R[:cut], mean, covariance, diffuse, backend="cpu")
    whole = kalman_filter(y, dt, blocks, h, R, mean, covariance, diffuse, backend="cpu")
    start = first.mean[-1], first.covariance[-1]
    rest = kalman_filter(y[cut:], dt[cut:], blocks, h, R[cut:], *start, backend="cupy")
    assert lines == [(0, 27, 6)]
    np.testing.assert_allclose(rest.mean, whole.mean[cut:], rtol=0, atol=1e-11)
    arguments = y[cut:], dt[cut:], blocks, h, R[cut:], *start
    compare(*(kalman_gradient(*arguments, backend=backend)[1] for backend in ("cupy", "cpu")), 1e-10)


def test_what_is_swept_from_beginning_to_end(lines):
    """Many records, noise-free samples, and a start that nothing resolves."""
    (y, dt), (blocks, h, R, mean, covariance, diffuse) = record(), diffuse_model()
    rest = mean, covariance, diffuse
    kalman_log_likelihood(y, dt, blocks, h, R, *rest, starts=[0, 200, T], backend="cupy")
    kalman_log_likelihood(y, dt, blocks, h, np.where(np.arange(T) == 250, 0.0, R), *rest, backend="cupy")
    got = kalman_log_likelihood(np.full(T, np.nan), dt, blocks, h, R, *rest, backend="cupy")
    assert got == 0.0
    assert lines == [None] * 3


@pytest.mark.parametrize(
    ("file", "more"),
    [
        ("associative.cu", {}),
        ("associative_back.cu", {}),
        ("associative_smoother.cu", dict(READ=0, EACH_READ=0)),
        ("associative_gradient.cu", dict(MOVES=1, BY_OBSERVATION=1)),
    ],
    ids=str,
)
def test_it_compiles_for_gpus(file, more, nvcc):
    """Elements are in memory: few are made. The sweep of all samples spills nothing."""
    macros = dict(N=3, UNITS=2, DIRECTIONS=0, THREADS=32, KINDS="0, 4", SIZES="1, 2", OWNERS="0, 1", EACH_H=0, EACH_R=1)
    for kernel in compile_for_gpus(cuda.source("kalman_filter", file, **macros, **more)):
        assert kernel["spilled"] == 0, kernel


@pytest.mark.gpu
def test_a_million_samples(cuda_runtime):
    samples = 1 << 20
    arguments = *record(samples), *diffuse_model(samples)
    compare(*(kalman_filter(*arguments, backend=backend) for backend in ("cupy", "cpu")), 1e-9)
    compare(*(kalman_smoother(*arguments, np.eye(3), backend=backend) for backend in ("cupy", "cpu")), 1e-9)
    compare(*(kalman_gradient(*arguments, backend=backend)[1] for backend in ("cupy", "cpu")), 1e-8)
