"""Explicit models against dense Gaussian conditioning and a plain joint filter."""

import numpy as np
import pytest

from statespace.kalman import LinearGaussianModel
from tests.oracles.dense_gaussian import DenseGaussian
from tests.oracles.joint_filter import joint_filter

FORMS = ("covariance", "square_root")


def covariance(rng, n, rank=None):
    L = rng.normal(size=(n, rank or n))
    return L @ L.T / n


def stable(rng, n):
    A = rng.normal(size=(n, n))
    return 0.9 * A / np.abs(np.linalg.eigvals(A)).max()


def random_case(seed, *, n=3, p=2, T=9, varying=False, start="diffuse", cross=False, inputs=False, missing=0.3):
    """Arguments of a model, a record with missing entries, inputs or None, and the oracle's keywords."""
    rng = np.random.default_rng(seed)
    K, L = (T - 1, T) if varying else (1, 1)
    A = np.stack([stable(rng, n) for _ in range(K)])
    H = rng.normal(size=(L, p, n))
    joint = np.stack([covariance(rng, n + p) for _ in range(L)])
    Q, R, S = joint[:K, :n, :n], joint[:, n:, n:], joint[:K, :n, n:]
    c, d = rng.normal(size=(K, n)), rng.normal(size=(L, p))
    arguments = {"state_intercept": c, "observation_intercept": d}
    if cross:
        arguments["cross_covariance"] = S
    u = None
    total_c, total_d = c, d
    if inputs:
        u, B, D = rng.normal(size=(T, 2)), rng.normal(size=(K, n, 2)), rng.normal(size=(L, p, 2))
        arguments |= {"input_matrix": B, "feedthrough": D}
        total_c = c + np.einsum("tnk,tk->tn", np.broadcast_to(B, (T - 1, n, 2)), u[:-1])
        total_d = d + np.einsum("tpk,tk->tp", np.broadcast_to(D, (T, p, 2)), u)
    if not varying:
        arguments = {name: array[0] for name, array in arguments.items()}
    mean, P, diffuse = rng.normal(size=n), np.zeros((n, n)), np.zeros((n, 0))
    if start == "diffuse":
        diffuse = np.eye(n)
        arguments |= {"initial_covariance": "diffuse", "initial_mean": mean}
    elif start == "partly":
        P, diffuse = covariance(rng, n), rng.normal(size=(n, 1))
        arguments |= {"initial_covariance": P, "initial_diffuse": diffuse, "initial_mean": mean}
    else:
        P = covariance(rng, n)
        arguments |= {"initial_covariance": P, "initial_mean": mean}
    matrices = (A, H, Q, R) if varying else (A[0], H[0], Q[0], R[0])
    y = rng.normal(size=(T, p)) * 3
    y[rng.random((T, p)) < missing] = np.nan
    keywords = {
        "A": A, "H": H, "Q": Q, "R": R, "mean": mean, "covariance": P, "diffuse": diffuse, "c": total_c, "d": total_d,
        "S": S if cross else None,
    }  # fmt: skip
    return matrices, arguments, y, u, keywords


CASES = [
    {"start": "known"},
    {"start": "diffuse"},
    {"start": "partly", "inputs": True},
    {"start": "diffuse", "varying": True, "inputs": True, "T": 7},
    {"start": "diffuse", "cross": True},
    {"start": "partly", "cross": True, "varying": True, "inputs": True, "missing": 0.0},
    {"start": "known", "p": 1, "n": 2},
    {"start": "diffuse", "p": 1, "n": 2, "varying": True},
    {"start": "diffuse", "p": 5, "n": 2, "missing": 0.5},
    {"start": "known", "T": 1, "p": 3, "n": 1},
]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_smoother_equals_dense_conditioning(case, seed):
    matrices, arguments, y, u, keywords = random_case(seed, **case)
    model = LinearGaussianModel(*matrices, **arguments)
    dense = DenseGaussian(y, **keywords)
    result = model.smooth(y, u)
    tight = {"rtol": 1e-8, "atol": 1e-8}
    assert result.log_likelihood == pytest.approx(dense.log_likelihood, rel=1e-10)
    assert model.log_likelihood(y, u) == pytest.approx(dense.log_likelihood, rel=1e-10)
    for t in range(len(y)):
        mean, V = dense.state(t)
        np.testing.assert_allclose(result.mean[t], mean, **tight)
        np.testing.assert_allclose(result.covariance[t], V, **tight)
        noise, spread = dense.observation_disturbance(t)
        np.testing.assert_allclose(result.observation_disturbance[t], noise, **tight)
        np.testing.assert_allclose(result.observation_disturbance_covariance[t], spread, **tight)
    for t in range(len(y) - 1):
        np.testing.assert_allclose(result.lag_one_covariance[t], dense.lag_one(t), **tight)
        w, W = dense.state_disturbance(t)
        np.testing.assert_allclose(result.state_disturbance[t], w, **tight)
        np.testing.assert_allclose(result.state_disturbance_covariance[t], W, **tight)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize("p", [1, 3])
def test_filter_equals_the_joint_update(p, varying, form):
    matrices, arguments, y, u, keywords = random_case(3, p=p, varying=varying, start="known", inputs=True, T=30)
    result = LinearGaussianModel(*matrices, **arguments, form=form).filter(y, u)
    keywords = {name: array for name, array in keywords.items() if name not in ("diffuse", "S")}
    value, (a, P, v, F, mean, V) = joint_filter(y, **keywords)
    assert result.log_likelihood == pytest.approx(value, rel=1e-11)
    for ours, theirs in zip(result[:6], (mean, V, a, P, v, F), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_forecast_equals_dense_conditioning(form):
    for cross in (False, True):
        matrices, arguments, y, u, keywords = random_case(5, T=12, cross=cross, inputs=True, missing=0.2)
        y[9:] = np.nan
        dense = DenseGaussian(y, **keywords)
        result = LinearGaussianModel(*matrices, **arguments, form=form).forecast(y[:9], 3, u)
        for h in range(3):
            for ours, theirs in zip((result.mean[h], result.covariance[h]), dense.output(9 + h), strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-9)
            np.testing.assert_allclose(result.state_mean[h], dense.state(9 + h)[0], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_square_root_gives_the_same_numbers(case):
    matrices, arguments, y, u, _ = random_case(2, **case)
    plain = LinearGaussianModel(*matrices, **arguments)
    root = LinearGaussianModel(*matrices, **arguments, form="square_root")
    assert root.log_likelihood(y, u) == pytest.approx(plain.log_likelihood(y, u), rel=1e-12)
    for ours, theirs in zip(root.filter(y, u), plain.filter(y, u), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", CASES[:6], ids=str)
def test_rows_without_observations_change_nothing(case):
    """A sample whose step is the identity without noise, and which sees nothing, leaves the others as they are."""
    matrices, arguments, y, u, _ = random_case(4, **(case | {"cross": False, "varying": True, "T": 7}))
    at = 3
    A, H, Q, R = (np.insert(array, at, array[at], axis=0) for array in matrices)
    A[at], Q[at] = np.eye(3), 0.0
    longer = {
        name: np.insert(array, at, array[at], axis=0) for name, array in arguments.items() if "initial" not in name
    }
    longer["state_intercept"][at] = 0.0
    if u is not None:
        longer["input_matrix"][at] = 0.0
        u_longer = np.insert(u, at, u[at], axis=0)
    starts = {name: array for name, array in arguments.items() if "initial" in name}
    short = LinearGaussianModel(*matrices, **arguments).smooth(y, u)
    long = LinearGaussianModel(A, H, Q, R, **longer, **starts).smooth(
        np.insert(y, at, np.nan, axis=0), None if u is None else u_longer
    )
    assert long.log_likelihood == pytest.approx(short.log_likelihood, rel=1e-11)
    np.testing.assert_allclose(np.delete(long.mean, at, axis=0), short.mean, rtol=1e-9, atol=1e-10)


def test_an_unstable_system_held_by_its_input_is_filtered_accurately():
    """A trajectory of the input alone would be 1e40 here."""
    rng = np.random.default_rng(0)
    T = 1000
    x, u, y = 0.0, np.zeros((T, 1)), np.zeros((T, 1))
    for t in range(T):
        y[t] = x + 0.1 * rng.normal()
        u[t] = -0.9 * y[t]
        x = 1.1 * x + u[t, 0] + 0.1 * rng.normal()
    A, H, Q, R = (np.full((1, 1, 1), v) for v in (1.1, 1.0, 0.01, 0.01))
    model = LinearGaussianModel(A[0], H[0], Q[0], R[0], [0.0], [[1.0]], input_matrix=[[1.0]])
    value, _ = joint_filter(y, A, H, Q, R, np.zeros(1), np.eye(1), c=u)
    assert model.log_likelihood(y, u) == pytest.approx(value, rel=1e-10)


def test_a_stationary_start_is_the_limit_of_a_long_past():
    rng = np.random.default_rng(1)
    A, Q = stable(rng, 3), covariance(rng, 3)
    model = LinearGaussianModel(
        A, np.ones((1, 3)), Q, [[1.0]], initial_covariance="stationary", state_intercept=[1.0, 2.0, 3.0]
    )
    P, m = np.zeros((3, 3)), np.zeros(3)
    for _ in range(2000):
        P, m = A @ P @ A.T + Q, A @ m + [1.0, 2.0, 3.0]
    np.testing.assert_allclose(model.initial_covariance_, P, rtol=1e-10)
    np.testing.assert_allclose(model.initial_mean_, m, rtol=1e-10)
    with pytest.raises(ValueError, match="unit circle"):
        LinearGaussianModel(np.eye(3), np.ones((1, 3)), Q, [[1.0]], initial_covariance="stationary")


def test_unbounded_states_are_said_to_be():
    """Two states, one of which is never seen: its variance is infinite, the other's is not."""
    model = LinearGaussianModel(np.eye(2), [[1.0, 0.0]], np.eye(2), [[1.0]])
    for form in FORMS:
        model.form = form
        result = model.filter([1.0, np.nan, 2.0])
        assert np.isinf(result.covariance[:, 1, 1]).all()
        assert np.isfinite(result.covariance[:, 0, 0]).all()
        assert np.isinf(result.predicted_covariance[0]).diagonal().tolist() == [True, True]
        assert np.isinf(result.innovation_covariance[:, 0, 0]).tolist() == [True, False, False]


def test_square_root_keeps_every_variance_positive():
    """Noises over 109 orders of magnitude within one record; the plain form may lose them, this one may not."""
    T, n = 110, 3
    rng = np.random.default_rng(0)
    scale = 10.0 ** -np.arange(T)
    A = np.triu(np.ones((n, n)))
    model = LinearGaussianModel(
        A, [[1.0, 0.0, 0.0]], scale[:-1, None, None] * np.diag([1.0, 0.1, 0.01]), scale[:, None, None],
        np.zeros(n), np.eye(n), form="square_root",
    )  # fmt: skip
    result = model.filter(rng.normal(size=T) * np.sqrt(scale))
    assert (result.innovation_covariance > 0.0).all()
    assert np.isfinite(result.log_likelihood)
    for V in (*result.covariance, *result.predicted_covariance):
        d = np.sqrt(np.diag(V))
        assert (d > 0.0).all()
        assert np.linalg.eigvalsh(V / np.outer(d, d)).min() > -1e-12


def test_samples_have_the_moments_of_the_model():
    matrices, arguments, y, u, keywords = random_case(7, T=4, start="known", inputs=True, cross=True)
    drawn = LinearGaussianModel(*matrices, **arguments).sample(4, u=u, n_samples=40_000, random_state=0)
    dense = DenseGaussian(np.full_like(y, np.nan), **keywords)
    for t in range(4):
        for draws, (mean, V) in ((drawn.state, dense.state(t)), (drawn.observation, dense.output(t))):
            scale = np.sqrt(np.diag(V))
            assert np.abs((draws[:, t].mean(axis=0) - mean) / scale).max() < 5 / 200
            assert np.abs((np.cov(draws[:, t].T) - V) / np.outer(scale, scale)).max() < 10 / 200


@pytest.mark.parametrize("cross", [False, True])
def test_simulation_smoother_has_the_moments_of_the_posterior(cross):
    matrices, arguments, y, u, keywords = random_case(8, T=4, inputs=True, cross=cross, missing=0.25)
    model = LinearGaussianModel(*matrices, **arguments)
    drawn = model.sample(y=y, u=u, n_samples=3000, random_state=0)
    dense = DenseGaussian(y, **keywords)
    observed = ~np.isnan(y)
    assert (~observed).any()
    for t in range(4):
        assert (drawn.observation[:, t, observed[t]] == y[t, observed[t]]).all()
        for draws, (mean, V), of in (
            (drawn.state, dense.state(t), np.ones(3, bool)),
            (drawn.observation, dense.output(t), ~observed[t]),
        ):
            if of.any():
                draws, mean, V = draws[:, t, of], mean[of], V[np.ix_(of, of)]
                scale = np.sqrt(np.diag(V))
                assert np.abs((draws.mean(axis=0) - mean) / scale).max() < 5 / np.sqrt(3000)
                assert np.abs((np.atleast_2d(np.cov(draws.T)) - V) / np.outer(scale, scale)).max() < 8 / np.sqrt(3000)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transition": np.eye(3)}, "observation must have shape"),
        ({"process_noise": [[1.0, 2.0], [2.0, 1.0]]}, "positive semi-definite"),
        ({"process_noise": [[1.0, 0.5], [0.1, 1.0]]}, "symmetric"),
        ({"observation": [[1.0, np.inf]]}, "finite"),
        ({"initial_covariance": "vague"}, "one of"),
        ({"initial_covariance": "stationary", "transition": np.eye(2)}, "unit circle"),
        ({"initial_mean": [0.0]}, "initial_mean must have shape"),
        ({"initial_diffuse": np.eye(2)}, "beside a matrix"),
        ({"initial_covariance": np.eye(2), "initial_diffuse": np.ones((2, 2))}, "linearly independent"),
        ({"cross_covariance": [[5.0], [0.0]]}, "semi-definite"),
        ({"form": "qr"}, "form must be"),
    ],
)  # fmt: skip
def test_wrong_matrices_are_refused(change, message):
    arguments = {
        "transition": 0.5 * np.eye(2), "observation": [[1.0, 0.0]], "process_noise": np.eye(2),
        "observation_noise": [[1.0]],
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        LinearGaussianModel(**(arguments | change))


def test_wrong_records_are_refused():
    model = LinearGaussianModel(np.eye(2), np.eye(2), np.eye(2), np.eye(2))
    for y, message in (
        ([1.0, 2.0], "y must have shape"),
        ([[1.0, np.inf]], r"y\[0, 1\] is infinite"),
        (np.zeros((0, 2)), "one sample"),
    ):
        with pytest.raises(ValueError, match=message):
            model.filter(y)
    with pytest.raises(ValueError, match="neither input_matrix"):
        model.filter([[1.0, 2.0]], u=[[1.0]])
    varying = LinearGaussianModel(np.ones((3, 1, 1)), [[1.0]], [[1.0]], [[1.0]])
    varying.filter(np.zeros(4))
    with pytest.raises(ValueError, match="transition has 3 entries in time, and 5 samples"):
        varying.forecast(np.zeros(4), steps=1)
    with pytest.raises(ValueError, match="steps must be"):
        model.forecast([[1.0, 2.0]], steps=0)
    with pytest.raises(ValueError, match="either n_times"):
        model.sample()
    held = LinearGaussianModel([[1.0]], [[1.0]], [[1.0]], [[1.0]], feedthrough=[[1.0]])
    with pytest.raises(ValueError, match="give u of shape"):
        held.filter([1.0, 2.0])


def test_time_axes_are_counted_and_not_guessed():
    """As many states as samples: two dimensions are constant, three vary."""
    constant = LinearGaussianModel(0.5 * np.eye(3), np.eye(3), np.eye(3), np.eye(3))
    varying = LinearGaussianModel(np.stack([0.5 * np.eye(3)] * 2), np.eye(3), np.eye(3), np.eye(3))
    y = np.random.default_rng(0).normal(size=(3, 3))
    assert constant.log_likelihood(y) == pytest.approx(varying.log_likelihood(y), rel=1e-13)


def test_from_component_equals_the_regressor():
    from statespace import KalmanRegressor
    from statespace.kalman import LocalTrend, Matern, Seasonal

    rng = np.random.default_rng(0)
    times = np.cumsum(rng.exponential(size=60))
    y = rng.normal(size=60).cumsum()
    y[[3, 10]] = np.nan
    process = LocalTrend(0.3, 0.1) + Seasonal(7.0, 2, 0.05) + Matern(1.5, 2.0, 0.7)
    gp = KalmanRegressor(process, noise_variance=0.4, optimizer=None).fit(times[:, None], y)
    model = LinearGaussianModel.from_component(process, times, 0.4)
    assert model.log_likelihood(y) == pytest.approx(gp.log_marginal_likelihood(), rel=1e-9)
    mean = model.smooth(y).mean @ process.observation()
    np.testing.assert_allclose(mean, gp.predict(times[:, None]), rtol=1e-7, atol=1e-7)


def test_missing_observations_are_drawn_with_what_their_noise_shares():
    """Noises that correlate by 0.99 and drown the state: what is missing lies where its neighbour says."""
    R = np.array([[1.0, 0.99], [0.99, 1.0]])
    model = LinearGaussianModel([[0.5]], [[1.0], [1.0]], [[1e-4]], R, [0.0], [[1e-4]])
    drawn = model.sample(y=[[3.0, np.nan], [np.nan, -2.0]], n_samples=2000, random_state=0).observation
    dense = DenseGaussian(
        np.array([[3.0, np.nan], [np.nan, -2.0]]), np.array([[[0.5]]]), np.ones((1, 2, 1)), np.array([[[1e-4]]]),
        R[np.newaxis], np.zeros(1), np.array([[1e-4]]), np.zeros((1, 0)),
    )  # fmt: skip
    for t, i in ((0, 1), (1, 0)):
        mean, V = dense.output(t)
        assert drawn[:, t, i].mean() == pytest.approx(mean[i], abs=0.02)
        assert drawn[:, t, i].std() == pytest.approx(np.sqrt(V[i, i]), rel=0.1)
