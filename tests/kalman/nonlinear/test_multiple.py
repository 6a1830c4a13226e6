"""Several modes: one is its filter, known switching beats each alone, and two are the exact mixture for a while."""

from itertools import product

import numpy as np
import pytest
from scipy.special import logsumexp

from statespace.kalman.nonlinear import (
    ExtendedKalmanFilter,
    InteractingMultipleModel,
    NonlinearModel,
    UnscentedKalmanFilter,
)

CHAIN = np.array([[0.95, 0.05], [0.1, 0.9]])


def level(variance, noise=0.1, rate=0.0):
    return ExtendedKalmanFilter(
        NonlinearModel(
            [[1.0]], noise, drift=[[rate]], spectral_density=variance, initial_mean=[0.0], initial_covariance=1.0
        )
    )


@pytest.mark.parametrize("kind", ["matrix", "continuous", "discrete"])
def test_one_mode_is_its_filter(linear, kind):
    inner, inputs = UnscentedKalmanFilter(linear.model(kind)), linear.inputs(kind)
    imm = InteractingMultipleModel([inner])
    for got, expected in (
        (imm.filter(linear.y, linear.times, inputs), inner.filter(linear.y, linear.times, inputs)),
        (imm.smooth(linear.y, linear.times, inputs), inner.smooth(linear.y, linear.times, inputs)),
    ):
        np.testing.assert_allclose(got.mean, expected.mean, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(got.covariance, expected.covariance, rtol=1e-10, atol=1e-13)
        assert np.isclose(got.log_likelihood, expected.log_likelihood, rtol=1e-12)
        assert (got.extra["mode_probability"] == 1.0).all()
    later = None if inputs is None else np.append(inputs, [[0.1], [0.2]], axis=0)
    forecast, expected = (f.forecast(linear.y, steps=2, times=linear.times, u=later) for f in (imm, inner))
    np.testing.assert_allclose(forecast.mean, expected.mean, rtol=1e-11)
    np.testing.assert_allclose(forecast.covariance, expected.covariance, rtol=1e-10)


def test_equal_modes_are_one_filter(linear):
    inner = ExtendedKalmanFilter(linear.model("matrix"))
    imm = InteractingMultipleModel([inner, inner, inner], np.full((3, 3), 1 / 3))
    got, expected = imm.smooth(linear.y, linear.times), inner.smooth(linear.y, linear.times)
    np.testing.assert_allclose(got.mean, expected.mean, atol=1e-10)
    np.testing.assert_allclose(got.covariance, expected.covariance, atol=1e-10)
    np.testing.assert_allclose(got.extra["mode_probability"], 1 / 3, rtol=1e-10)
    assert np.isclose(got.log_likelihood, expected.log_likelihood, rtol=1e-12)


def test_two_samples_are_the_exact_mixture():
    """Before anything is merged twice, the mixture over all paths of modes is what the filter holds."""
    modes, y = [level(0.01, rate=-0.1), level(3.0, rate=-1.0)], np.array([0.4, 1.9])
    imm = InteractingMultipleModel(modes, CHAIN, initial_probability=[0.7, 0.3])
    weights, means, second, last = [], [], [], []
    for path in product((0, 1), repeat=2):
        state = modes[path[0]].step(None, y[:1])
        state = modes[path[1]].step(state, y[1:])
        weights.append(np.log([0.7, 0.3][path[0]]) + np.log(CHAIN[path]) + state.log_likelihood)
        means.append(state.mean[0])
        second.append(state.covariance[0, 0] + state.mean[0] ** 2)
        last.append(path[1])
    total = logsumexp(weights)
    weights = np.exp(weights - total)
    result = imm.filter(y)
    assert np.isclose(result.log_likelihood, total, rtol=1e-12)
    assert np.isclose(result.mean[1, 0], weights @ means, rtol=1e-12)
    assert np.isclose(result.covariance[1, 0, 0], weights @ second - (weights @ means) ** 2, rtol=1e-11)
    assert np.isclose(result.extra["mode_probability"][1, 1], weights @ last, rtol=1e-12)


@pytest.fixture(scope="module")
def switching():
    rng, n = np.random.default_rng(4), 400
    mode, x, states, modes = 0, 0.0, [], []
    for _ in range(n):
        mode = int(rng.random() < CHAIN[mode, 1])
        x += rng.normal() * np.sqrt([1e-3, 4.0][mode])
        states.append(x)
        modes.append(mode)
    return np.array(states), np.array(modes), np.array(states) + np.sqrt(0.1) * rng.standard_normal(n)


def test_switching_beats_each_mode_alone(switching):
    states, modes, y = switching
    single = [level(1e-3), level(4.0), level(1.3)]
    imm = InteractingMultipleModel(single[:2], CHAIN)
    filtered, smoothed = imm.filter(y), imm.smooth(y)
    rmse = [np.sqrt(np.mean((f.filter(y).mean[:, 0] - states) ** 2)) for f in single]
    own = np.sqrt(np.mean((filtered.mean[:, 0] - states) ** 2))
    later = np.sqrt(np.mean((smoothed.mean[:, 0] - states) ** 2))
    assert later < 0.95 * own < 0.95 * min(rmse)
    assert filtered.log_likelihood > max(f.log_likelihood(y) for f in single) + 20
    right = [np.mean(r.extra["mode_probability"].argmax(axis=1) == modes) for r in (filtered, smoothed)]
    assert right[1] > right[0] > 0.8
    # What it says about its errors is true.
    scaled = (filtered.mean[:, 0] - states) ** 2 / filtered.covariance[:, 0, 0]
    assert 0.8 < scaled.mean() < 1.25


def moving(variance):
    """Position and velocity, the position seen."""
    return ExtendedKalmanFilter(
        NonlinearModel(
            [[1.0, 0.0]], 0.05, drift=[[0.0, 1.0], [0.0, 0.0]], diffusion=[[0.0], [1.0]], spectral_density=variance,
            initial_mean=[0.1, 0.5], initial_covariance=0.1,
        )
    )  # fmt: skip


def test_the_smoother_is_near_the_mixture_over_all_paths():
    """Eight samples, 256 paths of two modes, each smoothed exactly."""
    modes, times = [moving(1e-3), moving(2.0)], np.cumsum([0.5, 0.8, 0.4, 1.0, 0.6, 0.9, 0.5, 0.7])
    imm = InteractingMultipleModel(modes, CHAIN)
    errors, scaled = [], []
    for seed in range(4):
        y = imm.sample(times=times, n_samples=1, random_state=seed).observation[0]
        weights, means = [], []
        for path in product((0, 1), repeat=len(y)):
            states, kernels, weight = [modes[path[0]].step(None, y[0])], [], np.log(0.5)
            for k in range(1, len(y)):
                f, gap = modes[path[k]], times[k] - times[k - 1]
                state, kernel = f._predict(states[-1], gap, None, with_kernel=True)
                states.append(f.update(state, y[k]))
                kernels.append(kernel)
                weight += np.log(CHAIN[path[k - 1], path[k]])
            mean, root = states[-1].mean, states[-1].root
            smoothed = [mean]
            for kernel in kernels[::-1]:
                mean, root = f._back(mean, root, kernel)
                smoothed.insert(0, mean)
            weights.append(weight + states[-1].log_likelihood)
            means.append(smoothed)
        weights, paths = np.exp(weights - logsumexp(weights)), np.array(list(product((0, 1), repeat=len(y))))
        result = imm.smooth(y, times)
        errors.append(np.abs(result.extra["mode_probability"][:, 1] - weights @ paths).max())
        deviation = np.sqrt(np.einsum("tii->ti", result.covariance))
        exact = np.tensordot(weights, means, axes=1)
        scaled.append(np.abs((result.mean - exact) / deviation).max())
        drawn = imm.sample(y=y, times=times, n_samples=400, random_state=0).state.mean(axis=0)
        assert np.abs((drawn - exact) / deviation).max() < 0.5
    assert np.median(errors) < 0.08
    assert max(errors) < 0.2
    assert max(scaled) < 0.35, scaled


def test_smoothing_helps_where_modes_disagree():
    """A quiet mode's confident estimate must not survive a later state that contradicts it."""
    times = np.cumsum(np.random.default_rng(0).exponential(0.5, size=60))
    imm = InteractingMultipleModel([moving(1e-3), moving(1.0)], transition_rate=[[-0.1, 0.1], [0.5, -0.5]])
    errors = []
    for seed in range(6):
        drawn = imm.sample(times=times, n_samples=1, random_state=seed)
        for method in (imm, imm.filters[1]):
            for result in (method.filter(drawn.observation[0], times), method.smooth(drawn.observation[0], times)):
                errors.append(np.mean((result.mean - drawn.state[0])[:, 0] ** 2))
    filtered, smoothed, _, single = np.sqrt(np.mean(np.reshape(errors, (6, 4)), axis=0))
    assert smoothed < 0.75 * filtered
    assert smoothed < 0.9 * single


def test_rates_make_probabilities_of_gaps():
    modes = [level(0.01), level(3.0)]
    rate = np.array([[-0.2, 0.2], [0.5, -0.5]])
    times, y = np.array([0.0, 0.3, 0.3, 2.0]), [0.1, 0.2, np.nan, np.nan]
    result = InteractingMultipleModel(modes, transition_rate=rate).filter(y, times).extra["mode_probability"]
    np.testing.assert_array_equal(result[1], result[2])  # no time passed
    stationary = np.array([0.5, 0.2]) / 0.7
    expected = stationary + (result[2] - stationary) * np.exp(-0.7 * 1.7)
    np.testing.assert_allclose(result[3], expected, rtol=1e-12)
    cut = InteractingMultipleModel(modes, transition_rate=rate).filter(
        [0.1, 0.2, np.nan, np.nan, np.nan], [0.0, 0.3, 0.3, 1.1, 2.0]
    )
    np.testing.assert_allclose(cut.extra["mode_probability"][-1], expected, rtol=1e-12)


def test_a_mode_that_is_never_reached_does_no_harm():
    imm = InteractingMultipleModel([level(0.1), level(3.0)], np.eye(2), initial_probability=[1.0, 0.0])
    y = [0.1, 0.4, 0.2]
    np.testing.assert_allclose(imm.smooth(y).mean, level(0.1).smooth(y).mean, rtol=1e-12)
    assert np.isclose(imm.log_likelihood(y), level(0.1).log_likelihood(y), rtol=1e-12)


def test_steps_equal_the_filter_and_draws_the_smoother(switching):
    imm = InteractingMultipleModel([level(1e-3), level(4.0)], CHAIN)
    y = switching[2][:30]
    state = None
    for y_t in y:
        state = imm.step(state, y_t)
    result = imm.filter(y)
    np.testing.assert_allclose(state.mean, result.mean[-1], rtol=1e-12)
    smoothed = imm.smooth(y)
    draws = imm.sample(y=y, n_samples=600, random_state=0).state[..., 0]
    error = (draws.mean(axis=0) - smoothed.mean[:, 0]) / np.sqrt(smoothed.covariance[:, 0, 0])
    assert np.abs(error).max() < 5 / np.sqrt(600) + 0.1  # both are approximations, of one order


def test_draws_from_the_model_switch():
    """The variance of a step is the modes' mixture's, and it persists with the modes."""
    imm = InteractingMultipleModel([level(0.01), level(4.0)], CHAIN, initial_probability=[2 / 3, 1 / 3])
    drawn = imm.sample(40, n_samples=400, random_state=0)
    squares = np.diff(drawn.state[..., 0], axis=1) ** 2
    assert abs(squares.mean() - (0.01 * 2 + 4.0) / 3) < 0.25
    lively = squares[:, :-1] > 0.1
    assert squares[:, 1:][lively].mean() > 5 * squares[:, 1:][~lively].mean()
    noise = drawn.observation - drawn.state
    assert abs(noise.var() - 0.1) < 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([level(1.0), level(2.0)],), "one of transition and transition_rate"),
        (([level(1.0), level(2.0)], [[0.5, 0.4], [0.1, 0.9]]), "whose sum is 1"),
        (([level(1.0), level(2.0)], [[1.0]]), r"shape \(2, 2\) for 2 modes"),
        (([],), "filters must be a list"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        InteractingMultipleModel(*arguments)
    with pytest.raises(ValueError, match="2 numbers >= 0"):
        InteractingMultipleModel([level(1.0), level(2.0)], CHAIN, initial_probability=[0.5, 0.6])
