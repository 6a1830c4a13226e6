"""What a user may give as a model, and what the sentences say where it cannot be."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch

from statespace.kalman.nonlinear import (
    EnsembleKalmanFilter,
    ExtendedKalmanFilter,
    NonlinearModel,
    ParticleFilter,
    UnscentedKalmanFilter,
)

# jacfwd makes torch compile parts of its own with what it deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")

START = {"initial_mean": [1.0, 0.2], "initial_covariance": [0.3, 0.2], "observation_noise": 0.1}


def transition(x, dt, u):
    return np.stack([x[..., 0] + dt * x[..., 1], x[..., 1] - dt * np.sin(x[..., 0]) + u[0]], axis=-1)


def observation(x, t):
    return np.sin(x[..., :1]) + 0.1 * t


def build(**options):
    system = {"transition": transition, "process_noise": 0.05, "observation": observation}
    return NonlinearModel(**(system | START | options))


Y, U, TIMES = np.array([0.9, 0.5, np.nan, 0.1]), np.array([0.0, 0.1, -0.1, 0.2]), np.array([0.0, 0.5, 0.7, 2.0])


@pytest.fixture(scope="module")
def expected():
    return {f: f(build()).smooth(Y, TIMES, U) for f in (ExtendedKalmanFilter, UnscentedKalmanFilter)}


def torch_transition(x, dt, u):
    return torch.stack([x[..., 0] + dt * x[..., 1], x[..., 1] - dt * torch.sin(x[..., 0]) + u[0]], dim=-1)


def torch_observation(x, t):
    return torch.sin(x[..., :1]) + 0.1 * t


def transition_jacobian(x, dt):
    return np.array([[1.0, dt], [-dt * np.cos(x[0]), 1.0]])


def observation_jacobian(x):
    return np.array([[np.cos(x[0]), 0.0]])


def single_transition(x, dt, u):
    return [x[0] + dt * x[1], x[1] - dt * np.sin(x[0]) + u[0]]


GIVEN = {
    "torch": {"transition": torch_transition, "observation": torch_observation},
    "torch by name": {"transition": torch_transition, "observation": torch_observation, "jacobian": "torch"},
    "complex": {"jacobian": "complex"},
    "differences": {"jacobian": "differences"},
    "own": {"transition_jacobian": transition_jacobian, "observation_jacobian": observation_jacobian},
    "one by one": {
        "transition": single_transition, "observation": lambda x, t: [np.sin(x[0]) + 0.1 * t], "vectorized": False,
    },
    "functions for matrices": {
        "process_noise": lambda dt, u: 0.05 * np.eye(2), "observation_noise": lambda x, t: np.array([[0.1]]),
    },
    "a vector of variances": {"process_noise": [0.05, 0.05], "observation_noise": [[0.1]]},
    "the same time twice": {"observation": lambda x, t, u: np.sin(x[..., :1]) + 0.1 * t + 0 * u[0]},
}  # fmt: skip


@pytest.mark.parametrize("method", [ExtendedKalmanFilter, UnscentedKalmanFilter])
@pytest.mark.parametrize("given", GIVEN)
def test_the_same_system_in_other_words(expected, given, method):
    result = method(build(**GIVEN[given])).smooth(Y, TIMES, U)
    np.testing.assert_allclose(result.mean, expected[method].mean, rtol=1e-9)
    np.testing.assert_allclose(result.covariance, expected[method].covariance, rtol=1e-8, atol=1e-12)
    assert np.isclose(result.log_likelihood, expected[method].log_likelihood, rtol=1e-10)


def test_torch_runs_in_every_filter():
    model = build(transition=torch_transition, observation=torch_observation)
    for method in (ParticleFilter(model, n_particles=50, random_state=0), EnsembleKalmanFilter(model, random_state=0)):
        same = type(method)(build(), random_state=0, **({"n_particles": 50} if "n_particles" in vars(method) else {}))
        np.testing.assert_allclose(method.filter(Y, TIMES, U).mean, same.filter(Y, TIMES, U).mean, rtol=1e-9)
        assert method.smooth(Y, TIMES, U).mean.shape == (4, 2)


@pytest.mark.parametrize("kind", [ParticleFilter, EnsembleKalmanFilter])
def test_noises_of_each_state_are_the_constant_ones(kind):
    """Functions of the state that return the same matrix for each take another path to the same numbers."""
    functions = {
        "process_noise": lambda x: np.broadcast_to(0.05 * np.eye(2), (*x.shape[:-1], 2, 2)),
        "observation_noise": lambda x: np.full((*x.shape[:-1], 1, 1), 0.1),
    }
    expected = kind(build(), random_state=0)
    found = kind(build(**functions), random_state=0)
    np.testing.assert_allclose(found.filter(Y, TIMES, U).mean, expected.filter(Y, TIMES, U).mean, rtol=1e-9)
    np.testing.assert_allclose(found.smooth(Y, TIMES, U).mean, expected.smooth(Y, TIMES, U).mean, rtol=1e-8)
    drawn = [f.sample(4, u=U, n_samples=3, random_state=1) for f in (found, expected)]
    np.testing.assert_allclose(drawn[0].observation, drawn[1].observation, rtol=1e-12)


@pytest.mark.parametrize("method", [ExtendedKalmanFilter, UnscentedKalmanFilter])
def test_torch_in_continuous_time(pendulum, method):
    def drift(x):
        return torch.stack([x[..., 1], -9.8 * torch.sin(x[..., 0])], dim=-1)

    model = NonlinearModel(
        lambda x: torch.sin(x[..., :1]), 0.1, drift=drift, diffusion=[[0.0], [1.0]], spectral_density=0.1,
        initial_mean=[1.0, 0.0], initial_covariance=[0.05, 0.05],
    )  # fmt: skip
    y, times = [0.8, np.nan, 0.1], [0.0, 0.1, 0.3]
    result, expected = method(model).smooth(y, times), method(pendulum).smooth(y, times)
    np.testing.assert_allclose(result.mean, expected.mean, rtol=1e-8)
    np.testing.assert_allclose(result.covariance, expected.covariance, rtol=1e-8)


def test_one_state_at_a_time_in_continuous_time(pendulum):
    model = NonlinearModel(
        lambda x: [np.sin(x[0])], 0.1, drift=lambda x: [x[1], -9.8 * np.sin(x[0])], vectorized=False,
        diffusion=lambda x: [[0.0], [1.0]], spectral_density=0.1, initial_mean=[1.0, 0.0],
        initial_covariance=[0.05, 0.05],
    )  # fmt: skip
    y, times = [0.8, np.nan, 0.1], [0.0, 0.1, 0.3]
    for method in (ExtendedKalmanFilter, UnscentedKalmanFilter):
        result, expected = (method(m, tolerance=1e-8).smooth(y, times) for m in (model, pendulum))
        np.testing.assert_allclose(result.mean, expected.mean, rtol=1e-6)
    many = ParticleFilter(model, n_particles=20, random_state=0).filter(y, times)
    assert np.isfinite(many.mean).all()


@pytest.mark.parametrize("method", ["differences", "complex"])
def test_jacobians_have_their_digits(method):
    model = build(jacobian=method, observation=lambda x: np.exp(x[..., :1]) * np.cos(3 * x[..., 1:]))
    x = np.array([0.7, -0.4])
    found = model.observation_jacobian(x, lambda: np.array([0.5, 0.3]))
    wanted = [[np.exp(0.7) * np.cos(-1.2), -3 * np.exp(0.7) * np.sin(-1.2)]]
    np.testing.assert_allclose(found, wanted, rtol=1e-14 if method == "complex" else 1e-9)


def test_angles_do_not_jump_in_differences():
    model = build(
        observation=lambda x: np.arctan2(x[..., 1:], x[..., :1]), observation_angles=[0], initial_mean=[-1.0, 0.0]
    )
    found = model.observation_jacobian(np.array([-1.0, 0.0]), lambda: np.array([0.3, 0.3]))
    np.testing.assert_allclose(found, [[0.0, -1.0]], atol=1e-9)


@pytest.mark.parametrize("method", [ExtendedKalmanFilter, UnscentedKalmanFilter])
@pytest.mark.parametrize("turned", [0.0, 3.0, np.pi])
def test_a_circle_has_no_seam(method, turned):
    """Turning the compass turns the answer, wherever ±π lies; as angles or by the user's own residuals."""
    y = np.array([[0.1, 0.0], [0.2, 0.3], [np.nan, 0.9], [0.6, np.nan], [0.8, 1.2]])

    def bearing(x):
        return np.stack([x[..., 0], np.sin(x[..., 1] - turned)], axis=-1)

    def wrap(a, b):
        return (a - b + np.pi) % (2 * np.pi) - np.pi

    def first(a, b):
        return np.stack([wrap(a, b)[..., 0], (a - b)[..., 1]], axis=-1)

    results = []
    for options in (
        {"state_angles": [0, 1], "observation_angles": [0]}, {"state_residual": wrap, "observation_residual": first}
    ):  # fmt: skip
        model = NonlinearModel(
            observation=bearing, transition=lambda x: x + 0.2 * np.sin(x - turned), process_noise=0.01,
            observation_noise=0.02, initial_mean=[turned, turned + 0.1], initial_covariance=0.1, **options,
        )  # fmt: skip
        seen = y + np.array([turned, 0.0])
        if "state_angles" in options:
            seen = model.observation_difference.wrapped(seen)
        results.append(method(model).smooth(seen))
    plain = NonlinearModel(
        observation=lambda x: np.stack([x[..., 0], np.sin(x[..., 1])], axis=-1),
        transition=lambda x: x + 0.2 * np.sin(x), process_noise=0.01, observation_noise=0.02,
        initial_mean=[0.0, 0.1], initial_covariance=0.1,
    )  # fmt: skip
    expected = method(plain).smooth(y)
    for result in results:
        np.testing.assert_allclose(wrap(result.mean - turned, expected.mean), 0.0, atol=1e-9)
        np.testing.assert_allclose(result.covariance, expected.covariance, atol=1e-9)
        assert np.isclose(result.log_likelihood, expected.log_likelihood, atol=1e-9)
    assert (np.abs(results[0].mean) <= np.pi).all()


@pytest.mark.parametrize("kind", [ParticleFilter, EnsembleKalmanFilter])
def test_particles_around_the_seam(kind):
    model = NonlinearModel(
        observation=np.eye(1), transition=lambda x: x, process_noise=0.01, observation_noise=0.05,
        observation_angles=[0], state_angles=[0], initial_mean=[np.pi], initial_covariance=0.1,
    )  # fmt: skip
    result = kind(model, random_state=0).smooth([3.1, -3.1, -3.0])
    assert (np.abs(result.mean) > 2.9).all()
    assert (result.covariance < 0.1).all()


def test_a_deterministic_simulation_and_its_shapes():
    model = build(process_noise=0.0, observation_noise=1e-12, initial_covariance=0.0)
    states, y = model.simulate(times=TIMES, u=U, random_state=0)
    x = np.array([1.0, 0.2])
    for k in range(1, 4):
        x = transition(x, TIMES[k] - TIMES[k - 1], U[k - 1 : k])
        np.testing.assert_allclose(states[k], x, atol=1e-12)
    np.testing.assert_allclose(y[:, 0], np.sin(states[:, 0]) + 0.1 * TIMES, atol=1e-5)
    many = model.simulate(times=TIMES, u=U, n_samples=7, random_state=0)
    assert many.states.shape == (7, 4, 2)
    assert many.observations.shape == (7, 4, 1)


def test_a_series_brings_its_times():
    index = pd.date_range("2024-01-01", periods=4, freq="12h")
    model = build(transition=lambda x, dt: x * np.exp(-dt), observation=[[1.0, 0.0]])
    ukf = UnscentedKalmanFilter(model)
    expected = ukf.filter(Y, 0.5 * np.arange(4))
    np.testing.assert_allclose(ukf.filter(pd.Series(Y, index=index)).mean, expected.mean, rtol=1e-12)
    np.testing.assert_allclose(ukf.filter(Y, index.tz_localize("Europe/Berlin")).mean, expected.mean, rtol=1e-12)
    later = ukf.forecast(pd.Series(Y, index=index), future_times=index[-1:] + pd.Timedelta(1, "D")).mean
    np.testing.assert_allclose(later, ukf.forecast(Y, times=0.5 * np.arange(4), future_times=[2.5]).mean, rtol=1e-12)


def test_one_sample_and_none_seen():
    result = UnscentedKalmanFilter(build()).smooth([np.nan], u=[0.0])
    np.testing.assert_allclose(result.mean, [[1.0, 0.2]])
    assert result.log_likelihood == 0.0
    assert result.lag_one_covariance.shape == (0, 2, 2)


def test_models_and_states_can_be_pickled():
    ukf = UnscentedKalmanFilter(build())
    state = ukf.step(None, Y[:1], u=U[:1])
    copy, kept = pickle.loads(pickle.dumps((ukf, state)))
    np.testing.assert_array_equal(copy.step(kept, 0.3, 0.1, [0.0]).mean, ukf.step(state, 0.3, 0.1, [0.0]).mean)


def test_a_wrong_jacobian_is_found():
    build(**GIVEN["own"]).check_jacobians(dt=0.3, u=[0.0])
    model = build(transition_jacobian=lambda x, dt: np.eye(2), observation_jacobian=observation_jacobian)
    with pytest.raises(ValueError, match=r"transition_jacobian\[0, 1\] is 0 at x = \[1.0, 0.2\]"):
        model.check_jacobians(dt=0.3, u=[0.0])


def call(**options):
    return UnscentedKalmanFilter(build(**options)).filter(Y, TIMES, U)


def two(x):
    return np.stack([x[0], x[1]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"observation": lambda x: x}, r"observation must return \(..., 1\) .*, as y has 1 col.*; got \(2,\)"),
        ({"transition": lambda x: x[..., :1]}, r"transition must return \(..., 2\) .*; got \(1,\)"),
        ({"transition": two}, r"\(..., 2\) for states \(..., 2\); got \(2, 2\) for .* \(3, 2\). Write x\[..., i\]"),
        ({"transition": lambda x: [x[..., 0], x[..., 1]]}, r"got \(2, 3\) for states of shape \(3, 2\)"),
        ({"transition": lambda x: x * (1 + 0.1 * np.mean(x))}, "transition gives other values for states of shape"),
        ({"transition": lambda x: np.array(["a", "b"])}, r"transition must return numbers of shape \(..., 2\)"),
        ({"transition": lambda x, tau: x}, "may take the state first, then any of t, dt, u, by .* 'tau'"),
        ({"transition": None}, "Give one of drift"),
        ({"drift": lambda x: x}, "Give one of drift"),
        ({"transition": 3.0}, r"transition must be a function or a \(2, 2\) matrix. Got shape \(1, 1\)"),
        ({"process_noise": None}, "needs process_noise"),
        ({"process_noise": [[1.0, 0.0], [0.5, 1.0]]}, "process_noise must be symmetric"),
        ({"process_noise": [[1.0, 2.0], [2.0, 1.0]]}, "process_noise must be positive semi-definite"),
        ({"process_noise": np.eye(3)}, r"a variance, \(2,\) variances or a \(2, 2\) matrix. Got shape \(3, 3\)"),
        ({"process_noise": lambda dt: np.eye(3)}, r"process_noise must return \(..., 2, 2\)"),
        ({"initial_mean": [[1.0]]}, "initial_mean must be a vector"),
        ({"initial_covariance": np.nan}, "initial_covariance must be finite"),
        ({"observation_noise": None}, "Give observation_noise, or observation_log_density"),
        ({"observation_noise": [1.0, 2.0]}, r"observation_noise must be a variance, \(1,\) variances"),
        ({"jacobian": "exact"}, "jacobian must be one of auto, torch, complex, differences"),
        ({"state_angles": [2]}, "state_angles must be indices of the 2 entries"),
        ({"observation_angles": [1]}, "observation_angles must be indices of the 1 entries"),
        ({"state_angles": [0], "state_residual": np.subtract}, "not both"),
        ({"transition": lambda x: np.full_like(x, np.nan)}, "prediction at t = 0.5 is not finite"),
        ({"observation_noise": 0.0, "initial_covariance": 0.0}, "predicted without any uncertainty"),
        ({"diffusion": np.eye(2)}, "has process_noise, not diffusion"),
    ],
)  # fmt: skip
def test_what_a_model_is_refused_for(options, message):
    with pytest.raises(ValueError, match=message):
        call(**options)


@pytest.mark.parametrize(
    ("y", "times", "u", "message"),
    [
        ([], None, None, "at least one sample"),
        ([1.0, np.inf], None, [0, 0], r"y\[1, 0\] = inf"),
        (["a", "b"], None, [0, 0], "y must be numbers"),
        ([1.0, 2.0], [0.0, -1.0], [0, 0], "must not decrease"),
        ([1.0, 2.0], [0.0, np.nan], [0, 0], "must be finite"),
        ([1.0, 2.0], [0.0], [0, 0], "one entry for each of the 2 rows"),
        ([1.0, 2.0], None, [0.0], "one row of inputs for each of the 2 samples"),
        ([1.0, 2.0], None, [0.0, np.nan], r"u\[1\]"),
        ([1.0, 2.0], None, None, "transition takes u, and none was given"),
        (np.zeros((2, 3)), None, [0, 0], "as y has 3 columns"),
        (np.zeros((2, 1, 1)), None, [0, 0], r"\(T,\) or \(T, p\)"),
    ],
)
@pytest.mark.parametrize("method", [ExtendedKalmanFilter, UnscentedKalmanFilter, ParticleFilter, EnsembleKalmanFilter])
def test_what_a_record_is_refused_for(method, y, times, u, message):
    with pytest.raises(ValueError, match=message):
        method(build()).filter(y, times, u)


@pytest.mark.parametrize(
    ("y_t", "dt", "message"),
    [([1.0, 2.0], 0.1, r"y_t must have shape \(1,\)"), (1.0, -0.1, "dt must be finite"), (np.inf, 0.1, "finite")],
)
def test_what_a_step_is_refused_for(y_t, dt, message):
    ukf = UnscentedKalmanFilter(build())
    state = ukf.step(None, 0.5, u=[0.0])
    with pytest.raises(ValueError, match=message):
        ukf.step(state, y_t, dt, [0.0])


def test_torch_stays_away_until_it_is_asked_for():
    import subprocess
    import sys

    code = (
        "import numpy as np, sys\nfrom statespace.kalman.nonlinear import *\n"
        "m = NonlinearModel(lambda x: np.sin(x), 1.0, drift=lambda x: -x, initial_mean=[1.0], initial_covariance=1.0)\n"
        "ExtendedKalmanFilter(m).smooth([1.0, 2.0])\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
