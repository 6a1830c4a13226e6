"""Fitting explicit models: the gradient against differences, EM's monotony, EM = ML."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from statespace import KalmanRegressor
from statespace.kalman import LinearGaussianModel, LocalLevel, arima, dynamic_factor
from statespace.kalman.estimation import Objective
from statespace.kalman.free import Parameters, check_free
from statespace.kalman.sequential import Sequence
from statespace.persistence import load, save


def case(seed=0, n=2, p=2, T=12, **options):
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(n, n))
    A *= 0.8 / np.abs(np.linalg.eigvals(A)).max()
    joint = rng.normal(size=(n + p, n + p))
    joint = joint @ joint.T / (n + p) + 0.1 * np.eye(n + p)
    arguments = {
        "transition": A, "observation": rng.normal(size=(p, n)), "process_noise": joint[:n, :n],
        "observation_noise": joint[n:, n:], "state_intercept": rng.normal(size=n),
        "observation_intercept": rng.normal(size=p), "initial_mean": rng.normal(size=n),
        "initial_covariance": joint[:n, :n] + np.eye(n),
    }  # fmt: skip
    y, u = rng.normal(size=(T, p)) * 2, None
    y[rng.random(y.shape) < 0.2] = np.nan
    if options.pop("inputs", False):
        u = rng.normal(size=(T, 2))
        arguments |= {"input_matrix": rng.normal(size=(n, 2)), "feedthrough": rng.normal(size=(p, 2))}
    if options.pop("cross", False):
        arguments["cross_covariance"] = joint[:n, n:]
    if options.pop("selection", False):
        arguments["selection"] = rng.normal(size=(n, 1))
        arguments["process_noise"] = [[1.3]]
    arguments |= options
    return arguments, y, u


GRADIENTS = {
    "known": {},
    "inputs": {"inputs": True},
    "diffuse": {"initial_covariance": "diffuse", "inputs": True},
    "stationary": {"initial_covariance": "stationary", "initial_mean": None},
    "selection": {"selection": True, "initial_covariance": "stationary", "initial_mean": None},
    "one output": {"p": 1},
    "correlated noises": {"cross": True, "inputs": True},
    "diagonal": {"observation_noise": np.diag([0.3, 0.7])},
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradient_equals_central_differences(name):
    arguments, y, u = case(3, **GRADIENTS[name])
    model = LinearGaussianModel(**arguments)
    _, gradients = Sequence(model.system_, y, u, affine=True, rows=True, correlated=True).gradient()
    for key, gradient in gradients.items():
        if key.startswith("initial") and isinstance(arguments["initial_covariance"], str):
            continue
        start = getattr(model.system_, key)
        for index in np.ndindex(start.shape):
            width, total = 1e-3, 0.0
            for factor, weight in ((1, 8), (-1, -8), (2, -1), (-2, 1)):
                moved = start.copy()
                moved[index] += factor * width
                if key in ("process_noise", "observation_noise", "initial_covariance"):
                    moved = 0.5 * (moved + np.swapaxes(moved, -1, -2))
                system = model._settle(model.system_._replace(**{key: moved}))
                total += weight * Sequence(system, y, u).log_likelihood()
            assert gradient[index] == pytest.approx(total / (12 * width), rel=1e-7, abs=1e-7), (key, index)


@pytest.mark.parametrize(
    "free",
    [
        {"transition": True, "process_noise": True, "observation_noise": True},
        {
            "observation": np.array([[True, False], [True, True]]),
            "process_noise": "scalar",
            "observation_noise": "diagonal",
        },
        {"state_intercept": True, "observation_intercept": True, "input_matrix": True, "feedthrough": True},
        {"initial_mean": True, "initial_covariance": True, "observation_noise": np.array([False, True])},
    ],
    ids=str,
)  # fmt: skip
def test_gradient_by_theta_equals_central_differences(free):
    arguments, y, u = case(4, inputs=True)
    for name in ("process_noise", "observation_noise"):
        if name in free and free[name] is not True:
            arguments[name] = np.diag([0.5, 0.8])
    model = LinearGaussianModel(**arguments)
    parameters = Parameters(check_free(free, model.system_, set(), False), model.system_)
    objective = Objective(parameters, [(y, u, model.system_), (y[:5], u[:5], model.system_)], model._settle)
    theta = parameters.start + 0.05
    _, gradient = objective.gradient(theta)
    for j in range(len(theta)):
        shift = np.zeros(len(theta))
        shift[j] = 1e-3
        values = [objective.gradient(theta + k * shift)[0] for k in (1, -1, 2, -2)]
        assert gradient[j] == pytest.approx(np.dot(values, [8, -8, -1, 1]) / 12e-3, rel=1e-7, abs=1e-7)


def simulated(T=150, seed=0, missing=0.2):
    rng = np.random.default_rng(seed)
    model = LinearGaussianModel(
        [[0.9, 0.2], [-0.2, 0.7]], [[1.0, 0.0], [0.5, 1.0], [0.0, 1.0]], [[0.5, 0.1], [0.1, 0.3]],
        np.diag([0.3, 0.4, 0.5]), np.zeros(2), np.eye(2),
    )  # fmt: skip
    y = model.sample(T, random_state=seed).observation[0]
    y[rng.random(y.shape) < missing] = np.nan
    return model, y


EM = {
    "noises": ({"process_noise": True, "observation_noise": True}, {}),
    "transition": ({"transition": True, "process_noise": True, "observation_noise": "diagonal"}, {}),
    "observation": ({"observation": True, "observation_noise": "diagonal", "initial_mean": True}, {}),
    "scalar": ({"observation_noise": "scalar", "process_noise": "diagonal"}, {"process_noise": np.eye(2)}),
    "diffuse": ({"transition": True, "process_noise": True, "observation_noise": True},
                {"initial_covariance": "diffuse", "initial_mean": None}),
    "initial": ({"initial_mean": True, "initial_covariance": True, "process_noise": True}, {}),
    "intercepts": ({"state_intercept": True, "observation_intercept": True, "observation_noise": True}, {}),
    "masked": ({"transition": np.array([[True, False], [True, True]]), "process_noise": True}, {}),
    "masked observation": ({"observation": np.array([[True, False], [True, True], [False, True]]),
                            "observation_noise": True}, {}),
}  # fmt: skip


def start(model, changes):
    system = model.system_
    arguments = {
        "transition": system.transition[0], "observation": system.observation[0],
        "process_noise": system.process_noise[0], "observation_noise": np.diag([1.0, 2.0, 0.5]),
        "initial_mean": np.zeros(2), "initial_covariance": np.eye(2),
    }  # fmt: skip
    return LinearGaussianModel(**(arguments | changes))


@pytest.mark.parametrize("name", EM)
def test_em_never_lowers_the_likelihood(name):
    model, y = simulated()
    free, changes = EM[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = start(model, changes).fit(
            [y, y[:40] + 0.3], method="em", free=free, max_iter=40, tolerance=1e-15, standard_errors=False
        )
    assert fitted.history_[-1] - fitted.history_[0] > 0.1
    assert np.diff(fitted.history_).min() >= -1e-9
    values = fitted.log_likelihood(y) + fitted.log_likelihood(y[:40] + 0.3)
    assert values == pytest.approx(fitted.history_[-1], rel=1e-11)


@pytest.mark.parametrize("name", ["noises", "transition", "observation", "diffuse", "masked"])
def test_em_ends_where_maximum_likelihood_does(name):
    model, y = simulated(missing=0.1)
    free, changes = EM[name]
    em = start(model, changes).fit(y, method="em", free=free, max_iter=20_000, tolerance=1e-11, standard_errors=False)
    ml = start(model, changes).fit(y, method="ml", free=free)
    assert em.log_likelihood_ == pytest.approx(ml.log_likelihood_, abs=1e-4)
    np.testing.assert_allclose(
        em.params_["estimate"], ml.params_["estimate"], atol=0.03 * ml.params_["standard_error"].max()
    )
    assert (ml.params_["standard_error"] > 0).all()


def test_standard_errors_are_those_of_repeated_fits():
    """200 records of an autoregression: the spread of the estimates is what each fit says of itself."""
    model = LinearGaussianModel([[0.7]], [[1.0]], [[1.0]], [[0.5]], initial_covariance="stationary")
    y = model.sample(150, n_samples=100, random_state=0).observation
    estimates, errors = [], []
    for record in y:
        fresh = LinearGaussianModel([[0.6]], [[1.0]], [[0.8]], [[0.5]], initial_covariance="stationary")
        params = fresh.fit(record, free=("transition", "process_noise")).params_
        estimates.append(params["estimate"])
        errors.append(params["standard_error"])
    np.testing.assert_allclose(np.std(estimates, axis=0), np.mean(errors, axis=0), rtol=0.25)


def test_what_cannot_be_free_is_said():
    model, y = simulated(20)
    for free, method, message in (
        (["noise"], "ml", "free must name some of"),
        ({"observation": np.ones((2, 2), bool)}, "ml", "mask of shape"),
        ({"process_noise": "diagonal"}, "ml", "without correlations"),
        ([], "ml", "at least one of"),
        (["input_matrix"], "ml", "has no input_matrix"),
        (None, "gibbs", "method must be"),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(y, free=free, method=method)
    with pytest.raises(ValueError, match="everything is NaN"):
        model.fit(y * np.nan)
    diffuse = LinearGaussianModel(np.eye(2), np.eye(2), np.diag([1.0, 0.0]), np.eye(2))
    with pytest.raises(ValueError, match="diffuse start"):
        diffuse.fit(y[:, :2], free="initial_mean")
    with pytest.raises(ValueError, match="no process_noise"):
        diffuse.fit(y[:, :2], method="em", free="transition")
    with pytest.raises(ValueError, match="start above 0"):
        diffuse.fit(y[:, :2], free={"process_noise": "diagonal"})
    varying = LinearGaussianModel(np.ones((30, 1, 1)), [[1.0]], [[1.0]], [[1.0]])
    with pytest.raises(ValueError, match="only a constant array"):
        varying.fit(y[:, 0], free="transition")
    with pytest.warns(ConvergenceWarning):
        model.fit(y, method="em", max_iter=2, tolerance=1e-15, standard_errors=False)


def test_em_takes_the_steps_of_pykalman():
    """Rows that miss altogether, all matrices free: the same likelihood after ten iterations."""
    pykalman = pytest.importorskip("pykalman")
    model, y = simulated(60, missing=0.0)
    y[[3, 20, 21]] = np.nan
    system = model.system_
    A, H = system.transition[0], system.observation[0]
    fitted = LinearGaussianModel(A, H, np.eye(2), np.eye(3), np.zeros(2), np.eye(2))
    free = ("transition", "observation", "process_noise", "observation_noise", "initial_mean", "initial_covariance")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted.fit(y, method="em", free=free, max_iter=10, tolerance=1e-300, standard_errors=False)
    peer = pykalman.KalmanFilter(
        A, H, np.eye(2), np.eye(3), initial_state_mean=np.zeros(2), initial_state_covariance=np.eye(2)
    )
    names = ["transition_matrices", "observation_matrices", "transition_covariance", "observation_covariance"]
    masked = np.ma.masked_invalid(y)
    peer = peer.em(masked, n_iter=10, em_vars=[*names, "initial_state_mean", "initial_state_covariance"])
    assert fitted.log_likelihood_ == pytest.approx(peer.loglikelihood(masked), rel=1e-9)


def test_constant_noises_are_learned_on_irregular_times():
    """What varies is given, what is free is constant: gaps scale the noise through the selection."""
    rng = np.random.default_rng(0)
    gaps = rng.exponential(size=199)
    x = np.cumsum(np.append(0.0, np.sqrt(0.5 * gaps) * rng.normal(size=199)))
    y = x + rng.normal(size=200)
    y[rng.random(200) < 0.2] = np.nan
    arguments = ([[1.0]], [[1.0]], [[1.0]], [[2.0]])
    models = [LinearGaussianModel(*arguments, selection=np.sqrt(gaps)[:, None, None]) for _ in range(2)]
    ml = models[0].fit(y)
    em = models[1].fit(y, method="em", tolerance=1e-12, max_iter=5000, standard_errors=False)
    assert np.diff(em.history_).min() > -1e-9
    assert em.log_likelihood_ == pytest.approx(ml.log_likelihood_, abs=1e-6)
    np.testing.assert_allclose(em.params_["estimate"], ml.params_["estimate"], rtol=1e-3)

    from statespace import KalmanRegressor
    from statespace.kalman import LocalLevel

    times = np.append(0.0, np.cumsum(gaps))[:, np.newaxis]
    gp = KalmanRegressor(LocalLevel()).fit(times, y)
    assert ml.log_likelihood_ == pytest.approx(gp.log_marginal_likelihood(), abs=1e-6)


@pytest.mark.parametrize("method", ["ml", "em"])
def test_an_impossible_start_is_refused(method):
    model = LinearGaussianModel([[1.0]], [[1.0], [1.0]], [[1.0]], np.zeros((2, 2)), initial_covariance=[[1.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="log-likelihood is not finite at the start values"):
            model.fit([[0.0, 1.0], [1.0, 2.0]], method=method, free=["process_noise"])


def test_models_say_what_they_are():
    assert repr(LinearGaussianModel(np.eye(2), [[1.0, 0.0]], np.eye(2), [[1.0]])) == (
        "LinearGaussianModel(2 states, 1 output)"
    )
    assert repr(arima((0, 1, 1))).startswith("Arima(order=(0, 1, 1), seasonal_order=(0, 0, 0, 0)")
    assert repr(dynamic_factor(1)).startswith("DynamicFactor(n_factors=1, order=1")


def test_criteria_are_those_of_the_regressor_and_outlive_a_file(tmp_path):
    y = np.cumsum(np.random.default_rng(0).normal(size=60)) + np.random.default_rng(1).normal(size=60)
    y[[3, 20]] = np.nan
    model = LinearGaussianModel([[1.0]], [[1.0]], [[1.0]], [[1.0]]).fit(y)
    gp = KalmanRegressor(LocalLevel()).fit(np.arange(60.0)[:, None], y)
    assert (model.n_observed_, model.n_estimated_) == (gp.n_observed_, gp.n_estimated_) == (58, 3)
    save(model, tmp_path / "model")
    for one in (model, load(tmp_path / "model")):
        for name in ("aic_", "aicc_", "bic_", "hqic_"):
            assert getattr(one, name) == pytest.approx(getattr(gp, name), abs=1e-5)
    twice = LinearGaussianModel([[1.0]], [[1.0]], [[1.0]], [[1.0]]).fit([y, y[:30]])
    assert (twice.n_observed_, twice.n_estimated_) == (58 + 28, 4)
    factors = dynamic_factor(1).fit(np.random.default_rng(2).normal(size=(40, 3)))
    assert factors.aic_ == pytest.approx(2 * len(factors.params_) - 2 * factors.log_likelihood_)
