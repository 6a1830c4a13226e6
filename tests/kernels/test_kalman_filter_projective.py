"""One or two states in projective coordinates, against the same model with one more state, which nobody observes."""

import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose

from statespace.kernels.kalman_filter import (
    Blocks,
    cpu,
    discretize_blocks,
    kalman_filter,
    kalman_gradient,
    kalman_log_likelihood,
    routes,
)
from statespace.kernels.kalman_filter.blocks import MATERN32, OU, RANDOM_WALK, ROTATION, SHO, TABLE, TREND
from statespace.kernels.kalman_filter.record import TILES, bytes_of_a_sample

MODELS = {
    "OU": ([OU], [1], [[0.7, 1.3, 0.0]]),
    "level": ([RANDOM_WALK], [1], [[0.4, 0.0, 0.0]]),
    "Matern32": ([MATERN32], [2], [[0.9, 1.3, 0.0]]),
    "trend": ([TREND], [2], [[0.2, 0.1, 0.0]]),
    "two OU": ([OU, OU], [1, 1], [[0.7, 1.3, 0.0], [0.1, 0.4, 0.0]]),
    "level + OU": ([RANDOM_WALK, OU], [1, 1], [[0.4, 0.0, 0.0], [0.1, 0.4, 0.0]]),
    "OU + level": ([OU, RANDOM_WALK], [1, 1], [[0.1, 0.4, 0.0], [0.4, 0.0, 0.0]]),
    "rotation": ([ROTATION], [2], [[0.8, 0.3, 0.0]]),
    "oscillator": ([SHO], [2], [[1.1, 0.9, 2.5]]),
}
# A chunk has 128 samples; one of eight stretches side by side, which one block of these kinds has, 256.
LENGTHS = (1, 2, 127, 128, 129, 256, 600)
ABREAST = ("OU", "level", "Matern32", "trend")


def arguments(model, T=300, seed=0, R=0.3, scale=1.0, gaps=None):
    """y, dt, blocks, h, R, mean, covariance: irregular and equal times, values missing here and there."""
    kind, size, parameters = MODELS[model]
    rng = np.random.default_rng(seed)
    n = sum(size)
    parameters = np.array(parameters)
    for b, k in enumerate(kind):
        parameters[b, {RANDOM_WALK: [0], TREND: [0, 1]}.get(k, [1])] *= scale
    y = np.sqrt(scale) * rng.normal(size=T)
    y[5::11] = np.nan
    dt = rng.exponential(size=T) if gaps is None else gaps(rng, T)
    dt[3::17] = 0.0
    half = rng.normal(size=(n, n))
    h = np.eye(n)[0] * 1.2
    return y, dt, Blocks(kind, size, parameters), h, R, 0.1 * np.sqrt(scale) * np.ones(n), scale * half @ half.T


def with_a_silent_state(y, dt, blocks, h, R, mean, covariance):
    """A third (or second and third) state without noise that no row of h sees: another path through the kernel."""
    n = len(mean)
    more = 3 - n
    kind, size, parameters = (np.asarray(part) for part in blocks[:3])
    wider = np.zeros((3, 3))
    wider[:n, :n] = covariance
    wider[n:, n:] = np.eye(more) * np.trace(covariance)
    silent = blocks._replace(
        kind=np.append(kind, RANDOM_WALK), size=np.append(size, more), parameters=np.vstack([parameters, np.zeros(3)])
    )
    h = np.concatenate([h, np.zeros((*h.shape[:-1], more))], axis=-1)
    return y, dt, silent, h, R, np.append(mean, [0.0] * more), wider


def compare_gradients(given, rtol=1e-9):
    n, blocks = len(given[5]), len(given[2].kind)
    value, ours = kalman_gradient(*given)
    other, theirs = kalman_gradient(*with_a_silent_state(*given))
    assert_allclose(value, other, rtol=1e-11)
    assert_allclose(kalman_log_likelihood(*given), other, rtol=1e-11)
    pairs = {
        "parameters": (ours.parameters, theirs.parameters[:blocks]),
        "noise_variance": (ours.noise_variance, theirs.noise_variance),
        "observation": (ours.observation, theirs.observation[..., :n]),
        "mean": (ours.mean, theirs.mean[:n]),
        "covariance": (ours.covariance, theirs.covariance[:n, :n]),
    }
    for name, (a, b) in pairs.items():
        assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max(), err_msg=name)


@pytest.mark.parametrize("T", LENGTHS)
@pytest.mark.parametrize("model", MODELS)
def test_gradient_equals_that_of_three_states(model, T):
    compare_gradients(arguments(model, T))


@pytest.mark.parametrize("model", ["OU", "Matern32", "level + OU", "rotation"])
def test_each_sample_with_its_own_noise_and_row(model):
    y, dt, blocks, h, _, mean, covariance = arguments(model, T=600)
    rng = np.random.default_rng(4)
    R = rng.uniform(0.1, 2.0, size=len(y))
    along = np.outer(rng.normal(size=len(y)), np.eye(len(h))[0])
    compare_gradients((y, dt, blocks, along, R, mean, covariance))
    # a row that sees both states is for pair.py
    compare_gradients((y, dt, blocks, rng.normal(size=along.shape), R, mean, covariance))


@pytest.mark.parametrize("model", ["OU", "Matern32", "trend", "two OU", "oscillator"])
@pytest.mark.parametrize("where", [0, 40, 400, slice(None)])
def test_exact_observations(model, where):
    """R = 0 leaves the projective coordinates, in the middle of a record or from its beginning."""
    y, dt, blocks, h, _, mean, covariance = arguments(model, 600, gaps=lambda rng, T: rng.exponential(size=T) + 0.5)
    R = np.full(len(y), 0.3)
    R[where] = 0.0
    y[dt == 0.0] = np.nan
    compare_gradients((y, dt, blocks, h, R, mean, covariance), rtol=1e-7)


@pytest.mark.parametrize("scale", [1e-100, 1e-30, 1e30, 1e100])
@pytest.mark.parametrize("noise", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("model", ["OU", "level", "Matern32", "trend", "level + OU"])
def test_scaling_the_data_shifts_the_likelihood(model, noise, scale):
    plain = arguments(model, R=noise)
    scaled = arguments(model, R=noise * scale, scale=scale)
    observed = np.isfinite(plain[0]).sum()
    expected = kalman_log_likelihood(*plain) - 0.5 * observed * np.log(scale)
    assert_allclose(kalman_log_likelihood(*scaled), expected, rtol=1e-11)


def in_many_digits(y, dt, blocks, h, R, mean, covariance, away=0):
    """The filter's two lines in 60 digits, with the A(Δ) and Q(Δ) of float64; ``away`` moves the first mean."""
    with mpmath.workdps(60):
        transitions, noises = discretize_blocks(blocks, dt)
        a, P = mpmath.matrix(mean.tolist()), mpmath.matrix(covariance.tolist())
        a[0] += away
        h = mpmath.matrix(h.tolist())
        total = mpmath.mpf(0)
        for value, A, Q in zip(y.tolist(), transitions.tolist(), noises.tolist(), strict=True):
            A = mpmath.matrix(A)
            a, P = A * a, A * P * A.T + mpmath.matrix(Q)
            if value == value:
                m = P * h
                F = (h.T * m)[0] + R
                v = value - (h.T * a)[0]
                a, P = a + m * (v / F), P - m * m.T / F
                total += mpmath.log(2 * mpmath.pi * F) + v * v / F
        return float(-total / 2) if away == 0 else -total / 2


@pytest.mark.parametrize("noise", [1e-12, 1e-3, 1e3, 1e12])
@pytest.mark.parametrize("model", ["OU", "level", "Matern32", "trend", "two OU"])
def test_gaps_from_1e_9_to_1e_9(model, noise):
    """Equal times with different values at R = 1e-12 among them: what is left of P must keep its digits."""
    widest = 3 if model == "trend" else 9
    given = arguments(model, T=300, R=noise, gaps=lambda rng, T: 10.0 ** rng.uniform(-9, widest, size=T))
    assert_allclose(kalman_log_likelihood(*given), in_many_digits(*given), rtol=1e-12)


@pytest.mark.parametrize("model", ["level", "trend"])
def test_gradient_by_the_first_mean_keeps_its_digits(model):
    given = arguments(model, T=300, R=1e-3, gaps=lambda rng, T: 10.0 ** rng.uniform(-9, 3, size=T))
    with mpmath.workdps(60):
        step = mpmath.mpf(10) ** -20
        expected = float((in_many_digits(*given, step) - in_many_digits(*given, -step)) / (2 * step))
    assert_allclose(kalman_gradient(*given)[1].mean[0], expected, rtol=1e-11)


@pytest.mark.parametrize("model", ABREAST)
def test_segments_and_a_diffuse_start(model, monkeypatch):
    """Segments of 400 samples: 256 side by side and a rest in each, the first of them from a diffuse start on."""
    y, dt, blocks, h, R, mean, covariance = arguments(model, T=1000)
    y[:9] = np.nan
    given = (y, dt, blocks, h, R, mean, np.zeros_like(covariance), np.eye(len(mean)))
    value, whole = kalman_gradient(*given)
    assert_allclose(value, kalman_log_likelihood(*given, backend="reference"), rtol=1e-11)
    monkeypatch.setattr(cpu, "SEGMENT_BYTES", 400 * bytes_of_a_sample(len(mean), len(mean), TILES))
    other, parts = kalman_gradient(*given)
    assert_allclose(other, value, rtol=1e-13)
    step = 1e-5 * np.array(blocks.parameters)
    for k in np.flatnonzero(step[0]):
        each = np.zeros_like(step)
        each[0, k] = step[0, k]
        up, down = (
            kalman_log_likelihood(*given[:2], blocks._replace(parameters=blocks.parameters + s * each), *given[3:])
            for s in (1, -1)
        )
        assert_allclose(whole.parameters[0, k], (up - down) / (2 * each[0, k]), rtol=1e-6)
    for name in ("parameters", "noise_variance", "observation", "diffuse"):
        a, b = getattr(parts, name), getattr(whole, name)
        assert_allclose(a, b, rtol=1e-10, atol=1e-10 * np.abs(b).max(), err_msg=name)


@pytest.mark.parametrize("model", ABREAST)
def test_side_by_side_as_one_after_the_other(model, monkeypatch):
    given = arguments(model, T=1024)
    value, gradient = kalman_gradient(*given)
    monkeypatch.setattr(routes, "LONG", 10**9)
    other, expected = kalman_gradient(*given)
    assert_allclose(value, other, rtol=1e-13)
    for name in ("parameters", "noise_variance", "observation", "mean", "covariance"):
        a, b = getattr(gradient, name), getattr(expected, name)
        assert_allclose(a, b, rtol=1e-10, atol=1e-11 * np.abs(b).max(), err_msg=name)


def test_nothing_observed():
    y, dt, blocks, h, R, mean, covariance = arguments("Matern32")
    value, gradient = kalman_gradient(np.full(len(y), np.nan), dt, blocks, h, R, mean, covariance)
    assert value == 0.0
    assert all(np.all(part == 0.0) for part in gradient)


def test_a_variance_of_zero():
    y, dt, blocks, h, R, mean, covariance = arguments("Matern32")
    parameters = np.array(blocks.parameters)
    parameters[:, 1] = 0.0
    compare_gradients((y, dt, blocks._replace(parameters=parameters), h, R, mean, covariance))


def test_an_offset_costs_only_its_own_digits():
    y, dt, blocks, h, R, _, _ = arguments("trend")
    start = (np.zeros(2), np.zeros((2, 2)), np.eye(2))
    plain = kalman_log_likelihood(y, dt, blocks, [1.0, 0.0], R, *start)
    moved = kalman_log_likelihood(y + 2.0**27, dt, blocks, [1.0, 0.0], R, *start)
    assert_allclose(moved, plain, rtol=1e-6)


def test_tables_of_one_and_two_states():
    y, dt, blocks, h, R, mean, covariance = arguments("Matern32")
    rng = np.random.default_rng(2)
    index = rng.integers(-1, 3, size=len(y))
    A = 0.5 * rng.normal(size=(3, 4))
    half = rng.normal(size=(3, 2, 2))
    Q = (half @ half.transpose(0, 2, 1)).reshape(3, 4)
    table = Blocks([TABLE], [2], np.zeros((1, 3)), A, Q, index)
    both = Blocks([TABLE, TABLE], [1, 1], np.zeros((2, 3)), A[:, [0, 3]], Q[:, [0, 3]], index)
    for model in (table, both):
        given = (y, dt, model, h, R, mean, covariance)
        expected = kalman_filter(*given).log_likelihood
        assert_allclose(kalman_log_likelihood(*given), expected, rtol=1e-12)
        value, gradient = kalman_gradient(*given)
        assert_allclose(value, expected, rtol=1e-12)
        for name in ("transition", "process_noise"):
            step = np.zeros_like(getattr(model, name))
            step[1, 0] = 1e-6
            up, down = (
                kalman_log_likelihood(y, dt, model._replace(**{name: getattr(model, name) + s * step}), *given[3:])
                for s in (1, -1)
            )
            assert_allclose(getattr(gradient, name)[1, 0], (up - down) / 2e-6, rtol=1e-6)
