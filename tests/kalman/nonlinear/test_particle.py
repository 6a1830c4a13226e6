"""Particles against the exact answers of a linear model, within several standard errors of a seeded run."""

import numpy as np
import pytest
from scipy.stats import norm, poisson

from statespace.kalman.nonlinear import ExtendedKalmanFilter, NonlinearModel, ParticleFilter, UnscentedKalmanFilter
from statespace.kalman.nonlinear.resampling import METHODS, resample

N = 4000


@pytest.mark.parametrize("kind", ["matrix", "discrete", "continuous"])
def test_the_filter_converges_to_the_exact_one(linear, blocks, kind):
    options = {"max_step": 0.1} if kind == "continuous" else {}
    inputs = linear.inputs(kind)
    result = ParticleFilter(linear.model(kind), n_particles=N, random_state=0, **options).filter(
        linear.y, linear.times, inputs
    )
    for k in (0, 3, 6, 12):
        _, mean, covariance = linear.dense(with_input=inputs is not None, n_given=k + 1)
        deviation = np.sqrt(np.diag(blocks(covariance, k, k)))
        effective = result.extra["effective_size"][: k + 1].min()
        assert np.abs((result.mean[k] - mean[k]) / deviation).max() < 5.0 / np.sqrt(0.3 * effective)
        scaled = (result.covariance[k] - blocks(covariance, k, k)) / np.outer(deviation, deviation)
        assert np.abs(scaled).max() < 8.0 / np.sqrt(0.3 * effective)


@pytest.mark.parametrize("resampling", METHODS)
def test_the_likelihood_is_unbiased(linear, resampling):
    n = 7
    model = linear.model("matrix")
    truth = ExtendedKalmanFilter(model).log_likelihood(linear.y[:n], linear.times[:n])
    filters = [ParticleFilter(model, n_particles=100, resampling=resampling, random_state=i) for i in range(150)]
    ratios = np.exp([f.log_likelihood(linear.y[:n], linear.times[:n]) - truth for f in filters])
    assert abs(ratios.mean() - 1.0) < 4.0 * ratios.std() / np.sqrt(len(ratios))
    assert ratios.std() < 1.5  # so that the line above can fail


def test_the_error_falls_with_the_root_of_the_number(linear):
    truth = linear.dense(with_input=False, n_given=6)[1][5]
    model = linear.model("matrix")

    def error(n, seeds):
        means = [
            ParticleFilter(model, n_particles=n, random_state=i).filter(linear.y[:6], linear.times[:6]).mean[-1]
            for i in seeds
        ]
        return np.sqrt(np.mean((np.array(means) - truth) ** 2))

    assert 2.5 < error(100, range(60)) / error(1600, range(60)) < 6.5


@pytest.mark.parametrize(
    ("kind", "smoother"),
    [("discrete", "backward"), ("angle", "backward"), ("matrix", "backward"), ("matrix", "ancestors")],
)
def test_smoothers_converge_to_the_exact_one(kind, smoother):
    rate, dt = -0.5, 1.0
    options = {"initial_mean": [1.0], "initial_covariance": 1.0}
    if kind == "matrix":
        model = NonlinearModel(np.eye(1), 0.5, drift=[[rate]], **options)
    else:
        noise = (1 - np.exp(2 * rate * dt)) / (-2 * rate)
        # A residual of the user's own takes the path that angles do.
        options["state_residual"] = np.subtract if kind == "angle" else None
        model = NonlinearModel(np.eye(1), 0.5, transition=lambda x: np.exp(rate) * x, process_noise=noise, **options)
    y = np.array([0.5, np.nan, 2.0, 1.5, 1.6, -0.5, 0.3])
    times = np.array([0.0, 1.0, 2.0, 3.0, 3.0, 4.0, 5.0])
    exact = ExtendedKalmanFilter(model).smooth(y, times)
    method = ParticleFilter(model, n_particles=1500, smoother=smoother, n_trajectories=1000, random_state=1)
    result = method.smooth(y, times)
    deviation = np.sqrt(exact.covariance[:, 0, 0])
    bound = 0.2 if smoother == "ancestors" else 0.1
    assert np.abs((result.mean[:, 0] - exact.mean[:, 0]) / deviation).max() < bound
    assert np.abs(result.covariance[:, 0, 0] / deviation**2 - 1.0).max() < 2 * bound
    lagged = (result.lag_one_covariance - exact.lag_one_covariance)[:, 0, 0]
    assert np.abs(lagged / (deviation[1:] * deviation[:-1])).max() < 2 * bound
    # The samples so far say something else: the bounds above would see a filter.
    assert np.abs((method.filter(y, times).mean[:, 0] - exact.mean[:, 0]) / deviation).max() > 0.4
    paths = method.sample(y=y, times=times, n_samples=3, random_state=0).state
    assert paths.shape == (3, 7, 1)
    np.testing.assert_array_equal(paths[:, 3], paths[:, 4])


def test_backward_needs_a_density(pendulum):
    y = np.zeros((3, 1))
    with pytest.raises(ValueError, match="no density to draw backward with: the drift is a function"):
        ParticleFilter(pendulum, n_particles=10, smoother="backward", random_state=0).smooth(y)
    assert ParticleFilter(pendulum, n_particles=10, random_state=0).smooth(y).mean.shape == (3, 2)


def test_counts_against_a_grid():
    """Poisson counts of an exponential rate: the filter by quadrature on a fine grid."""
    y = np.array([1.0, 0.0, 3.0, np.nan, 7.0, 9.0])
    model = NonlinearModel(
        transition=lambda x: 0.9 * x, process_noise=0.2, observation=np.exp, initial_mean=[0.0],
        observation_log_density=lambda x, y: poisson.logpmf(y[0], np.exp(x[..., 0])), initial_covariance=1.0,
    )  # fmt: skip
    grid = np.linspace(-8, 8, 1601)
    density, likelihood = norm.pdf(grid), 0.0
    move = norm.pdf(grid[:, None], 0.9 * grid, np.sqrt(0.2)) * (grid[1] - grid[0])
    means = []
    for k, count in enumerate(y):
        density = density if k == 0 else move @ density
        if np.isfinite(count):
            density = density * poisson.pmf(count, np.exp(grid))
            total = density.sum() * (grid[1] - grid[0])
            likelihood, density = likelihood + np.log(total), density / total
        means.append((grid * density).sum() * (grid[1] - grid[0]))
    result = ParticleFilter(model, n_particles=20_000, random_state=1).filter(y)
    np.testing.assert_allclose(result.mean[:, 0], means, atol=0.03)
    assert abs(result.log_likelihood - likelihood) < 0.06


def test_growth_model_beats_a_gaussian_filter():
    """The univariate nonstationary growth model: two humps, which particles see and a Gaussian does not."""
    model = NonlinearModel(
        transition=lambda x, t: x / 2 + 25 * x / (1 + x**2) + 8 * np.cos(1.2 * t), process_noise=10.0,
        observation=lambda x: x**2 / 20, observation_noise=1.0, initial_mean=[0.0], initial_covariance=5.0,
    )  # fmt: skip
    errors = {"particle": [], "smoothed": [], "unscented": []}
    for seed in range(3):
        states, y = model.simulate(60, random_state=seed)
        particles = ParticleFilter(model, n_particles=1000, n_trajectories=100, random_state=seed)
        means = particles.filter(y).mean, particles.smooth(y).mean, UnscentedKalmanFilter(model).filter(y).mean
        for name, mean in zip(errors, means, strict=True):
            errors[name].append(np.mean((mean - states) ** 2))
    rmse = {name: np.sqrt(np.mean(values)) for name, values in errors.items()}
    # Published for this model: bootstrap filter 4.5 to 5.5, unscented 7 to 11 (Särkkä and Svensson 2023, ch. 11).
    assert rmse["smoothed"] < rmse["particle"] < 5.6 < rmse["unscented"]


def test_the_same_seed_gives_the_same_numbers_in_one_go_and_in_steps(linear):
    method = ParticleFilter(linear.model("matrix"), n_particles=50, random_state=3, keep_particles=True)
    first, second = (method.filter(linear.y, linear.times) for _ in range(2))
    np.testing.assert_array_equal(first.extra["particles"], second.extra["particles"])
    assert first.extra["particles"].shape == (len(linear.y), 50, 3)
    state = method.initial_state(linear.times[0])
    for y_t, dt in zip(linear.y, np.diff(linear.times, prepend=0.0), strict=True):
        state = method.step(state, y_t, dt)
    np.testing.assert_allclose(state.mean, first.mean[-1], rtol=1e-9)
    assert np.isclose(state.log_likelihood, first.log_likelihood, rtol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_resampling_draws_in_proportion(method):
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.full(11, 0.5))
    counts = np.zeros(11)
    for _ in range(3000):
        index = resample(weights, method, rng)
        assert len(index) == 11
        counts += np.bincount(index, minlength=11)
    error = np.sqrt(11 * weights * (1 - weights) / 3000)
    assert (np.abs(counts / 3000 - 11 * weights) < 5 * error + 1e-12).all()
    assert set(resample(np.eye(5)[2], method, rng)) == {2}


def test_an_impossible_observation_is_an_error(linear):
    model = NonlinearModel(
        np.eye(1), transition=lambda x: x, process_noise=1.0, initial_mean=[0.0], initial_covariance=1.0,
        observation_log_density=lambda x, y: np.where(x[..., 0] > 1e6, 0.0, -np.inf),
    )  # fmt: skip
    with pytest.raises(ValueError, match="impossible for all 20 particles"):
        ParticleFilter(model, n_particles=20, random_state=0).filter([1.0])
