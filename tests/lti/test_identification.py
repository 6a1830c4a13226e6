"""LTIRegressor against systems that are known, and against computations of another kind."""

import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.linalg import expm
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import r2_score
from sklearn.model_selection import TimeSeriesSplit, cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

import statespace
from statespace.lti import LinearSystem, LTIRegressor

# Where a search is cut short, it is to save time.
pytestmark = pytest.mark.filterwarnings("ignore:The likelihood was still rising")
EXPECTED = {
    "check_methods_sample_order_invariance": "rows are successive samples: in another order they are another record",
    "check_methods_subset_invariance": "the output at one time depends on the inputs before it",
}
ESTIMATORS = [
    LTIRegressor(order=1, max_iter=5),
    LTIRegressor(order=1, noise_model="output_error", domain="discrete", method="cva", max_iter=10),
]


@parametrize_with_checks(ESTIMATORS, expected_failed_checks=lambda estimator: EXPECTED)
def test_the_contract_of_scikit_learn(estimator, check):
    check(estimator)


def plant():
    """Two resonances, one input, one output."""
    A = np.zeros((4, 4))
    A[:2, :2], A[2:, 2:] = [[-0.15, 1.0], [-1.0, -0.15]], [[-0.4, 3.0], [-3.0, -0.4]]
    return LinearSystem(A, [[1.0], [0.5], [0.8], [1.0]], [[1.0, 0.3, 0.8, -0.5]])


def two_by_two():
    A = np.array([[-0.3, 1.0, 0.0], [-1.0, -0.3, 0.0], [0.0, 0.0, -0.8]])
    return LinearSystem(A, [[1.0, 0.0], [0.3, 0.5], [0.0, 1.0]], [[1.0, 0.2, 0.0], [0.0, 0.5, 1.0]])


def by_steps(system, u, times, x0=None, linear=False):
    """A simulation by one matrix exponential for each gap: independent of the package's own."""
    n, m = system.B.shape
    x, outputs = np.zeros(n) if x0 is None else np.array(x0, float), []
    for k, gap in enumerate(np.append(np.diff(times), 0.0)):
        outputs.append(system.C @ x + system.D @ u[k])
        slope = (u[k + 1] - u[k]) / gap if linear and gap > 0 else np.zeros(m)
        M = np.zeros((n + 2 * m, n + 2 * m))
        M[:n, :n], M[:n, n : n + m], M[n : n + m, n + m :] = system.A, system.B, np.eye(m)
        x = (expm(M * gap) @ np.concatenate([x, u[k], slope]))[:n]
    return np.array(outputs)


def record(system, n=400, seed=0, regular=False, linear=False, x0=None):
    rng = np.random.default_rng(seed)
    gaps = np.full(n, 0.4) if regular else rng.choice([0.15, 0.3, 0.45, 0.9], n)
    times, u = np.cumsum(gaps), rng.normal(size=(n, system.n_inputs))
    return u, by_steps(system, u, times, x0, linear), times


def in_order(poles):
    return np.sort_complex(np.asarray(poles, dtype=complex))


@pytest.mark.parametrize("method", ["n4sid", "moesp", "cva"])
@pytest.mark.parametrize("hold", ["zoh", "foh"])
def test_data_without_noise_give_the_system_exactly(method, hold):
    system = two_by_two()
    u, y, times = record(system, regular=True, linear=hold == "foh", x0=[1.0, -1.0, 2.0])
    model = LTIRegressor(3, method=method, hold=hold, noise_model="output_error", fit_intercept=False)
    model.fit(u, y, times=times)
    np.testing.assert_allclose(in_order(model.poles_), in_order(system.poles), atol=1e-8)
    frequencies = np.array([0.01, 0.1, 0.3, 1.0])
    np.testing.assert_allclose(
        model.system_.frequency_response(frequencies), system.frequency_response(frequencies), atol=1e-8
    )
    np.testing.assert_allclose(model.predict(u, times=times, initial_state="fitted"), y, atol=1e-8)


def test_irregular_data_without_noise_give_the_system_exactly():
    system = two_by_two()
    u, y, times = record(system)
    model = LTIRegressor(3, noise_model="output_error", fit_intercept=False, tol=1e-10).fit(u, y, times=times)
    np.testing.assert_allclose(in_order(model.poles_), in_order(system.poles), atol=1e-8)
    fresh, truth, at = record(system, seed=1)
    np.testing.assert_allclose(model.simulate(fresh, at), truth, atol=1e-8)


def test_discrete_time():
    A = np.array([[0.7, 0.5], [-0.5, 0.7]])
    u = np.random.default_rng(0).normal(size=(200, 1))
    x, y = np.zeros(2), np.zeros(200)
    for k in range(200):
        y[k] = x[0] + 0.3 * u[k, 0]
        x = A @ x + [1.0, 0.4] * u[k]
    y[50:60] = np.nan
    model = LTIRegressor(2, domain="discrete", noise_model="output_error", feedthrough=True, fit_intercept=False)
    model.fit(u, y)
    np.testing.assert_allclose(in_order(model.poles_), [0.7 - 0.5j, 0.7 + 0.5j], atol=1e-8)
    np.testing.assert_allclose(model.system_.D, [[0.3]], atol=1e-8)
    assert model.system_.dt == 1.0
    with pytest.raises(ValueError, match=r"domain='discrete' needs a regular grid: .* times\[2\] is 2"):
        LTIRegressor(1, domain="discrete").fit(u[:20], y[:20], times=np.r_[0.0, 1.0, np.arange(3.0, 21.0)])


@pytest.mark.parametrize("noise_model", ["output_error", "innovations"])
@pytest.mark.parametrize("removed", ["outputs", "rows"])
def test_a_third_of_the_samples_gives_the_poles(removed, noise_model):
    system, rng = plant(), np.random.default_rng(0)
    n = 2000
    times = 0.2 * np.arange(n)
    u = np.repeat(rng.normal(size=n // 5), 5)[:, np.newaxis]
    keep = np.sort(rng.choice(n, int(0.3 * n), replace=False))
    if removed == "rows":
        times, u = times[keep], u[keep]
    y = by_steps(system, u, times)[:, 0]
    y += 0.01 * y.std() * rng.normal(size=len(y))  # 40 dB
    if removed == "outputs":
        y[np.setdiff1d(np.arange(n), keep)] = np.nan
    model = LTIRegressor(4, noise_model=noise_model).fit(u, y, times=times)
    error = np.abs(in_order(model.poles_) - in_order(system.poles))
    assert (error < 0.01 * np.abs(in_order(system.poles))).all()
    # The standard errors say how large the errors are.
    assert np.all(error < 5 * np.abs(model.pole_errors_).max())
    assert np.abs(model.pole_errors_).max() < 0.02


@pytest.mark.parametrize("criterion", ["aic", "bic", "singular_values"])
def test_the_order_is_found(criterion):
    u, y, times = record(plant(), n=600, regular=True)
    y += 0.01 * y.std() * np.random.default_rng(1).normal(size=y.shape)
    model = LTIRegressor(criterion=criterion, noise_model="output_error", max_order=6).fit(u, y, times=times)
    # AIC pays 2 for a parameter: it never takes too few, and now and then too many.
    assert model.order_ in ((4, 5, 6) if criterion == "aic" else (4,))
    assert (model.criterion_ is None) == (criterion == "singular_values")
    if model.criterion_ is not None:
        assert int(np.argmin(model.criterion_)) == model.order_ - 1


def test_a_weak_fast_mode_is_found_between_irregular_samples():
    # Interpolation loses a resonance that is sampled three times a period, with noise above half its response.
    A = [[0.0, 1.0, 0.0, 0.0], [-4.0, -0.25, 1.5, 0.0], [0.0, 0.0, 0.0, 1.0], [3.0, 0.0, -8.0, -0.5]]
    system, rng = LinearSystem(A, [0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.5, 0.0]), np.random.default_rng(0)
    times = 0.2 * np.sort(rng.choice(2000, 800, replace=False))
    u = rng.choice([-1.0, 1.0], size=(800, 1))
    y = by_steps(system, u, times)[:, 0]
    y += 0.05 * y.std() * rng.normal(size=800)
    model = LTIRegressor(noise_model="output_error", max_order=6).fit(u, y, times=times)
    assert model.order_ == 4
    np.testing.assert_allclose(in_order(model.poles_), in_order(system.poles), atol=0.2)


def test_noise_in_the_state_is_told_from_noise_in_the_output():
    rng = np.random.default_rng(0)
    n, a, q, r = 3000, np.exp(-0.3), 0.5, 0.2
    u, x, y = rng.normal(size=(n, 1)), 0.0, np.empty(n)
    for k in range(n):
        y[k] = x + np.sqrt(r) * rng.normal()
        x = a * x + (1 - a) / 0.3 * u[k, 0] + np.sqrt(q * (1 - a * a) / 0.6) * rng.normal()
    model = LTIRegressor(1, fit_intercept=False).fit(u, y)
    gain = float(model.system_.C[0, 0])
    np.testing.assert_allclose(model.poles_, [-0.3], rtol=0.1)
    np.testing.assert_allclose(gain**2 * model.process_noise_[0, 0], q, rtol=0.15)
    np.testing.assert_allclose(model.noise_covariance_[0, 0], r, rtol=0.15)
    # A predictor that sees y does better than a simulation, and the nearer the better.
    scores = [model.score(u, y, k=k) for k in (1, 3, np.inf)]
    assert scores[0] > scores[1] > scores[2]


def test_irregular_is_regular_where_the_gaps_agree():
    u, y, times = record(two_by_two(), n=150, regular=True)
    y += 0.05 * np.random.default_rng(2).normal(size=y.shape)
    model = LTIRegressor(3).fit(u, y, times=times)
    # The same record with every other output missing, and without those rows but with the input held twice as long.
    held = np.repeat(u[::2], 2, axis=0)
    sparse = y.copy()
    sparse[1::2] = np.nan
    full = model.predict(held, sparse, times)[::2]
    np.testing.assert_allclose(full, model.predict(held[::2], y[::2], times[::2], k=1), atol=1e-10)
    np.testing.assert_allclose(model.simulate(held, times)[::2], model.simulate(held[::2], times[::2]), atol=1e-10)


def test_shifting_and_rescaling_change_nothing():
    u, y, times = record(plant(), n=150)
    y += 0.05 * np.random.default_rng(2).normal(size=y.shape)
    model = LTIRegressor(2, max_iter=30)
    base = clone(model).fit(u, y, times=times)
    for other in (
        clone(model).fit(u, y, times=times + 1e9),
        clone(model).fit(u, y, times=pd.Timestamp("2024-01-01") + pd.to_timedelta(times, unit="D")),
    ):
        np.testing.assert_allclose(in_order(other.poles_), in_order(base.poles_), rtol=1e-4)
    scaled = clone(model).fit(1e3 * u + 7, 1e-6 * y - 3e-5, times=60 * times)
    np.testing.assert_allclose(in_order(scaled.poles_) * 60, in_order(base.poles_), rtol=1e-6)
    np.testing.assert_allclose(
        (scaled.predict(1e3 * u + 7, times=60 * times) + 3e-5) * 1e6, base.predict(u, times=times), atol=1e-6
    )


def test_several_records_together():
    system = two_by_two()
    records = [record(system, n=n, seed=n, x0=x0) for n, x0 in ((120, [1.0, 0, 0]), (7, [0, 2.0, 0]), (150, None))]
    X, y, times = (list(part) for part in zip(*records, strict=True))
    model = LTIRegressor(3, noise_model="output_error", fit_intercept=False, tol=1e-10).fit(X, y, times=times)
    np.testing.assert_allclose(in_order(model.poles_), in_order(system.poles), atol=1e-7)
    assert model.initial_states_.shape == (3, 3)
    for found, truth in zip(model.predict(X, times=times, initial_state="fitted"), y, strict=True):
        np.testing.assert_allclose(found, truth, atol=1e-7)
    frames = [pd.DataFrame(u, index=t) for u, t in zip(X, times, strict=True)]
    np.testing.assert_allclose(np.concatenate(model.predict(frames)), np.concatenate(model.predict(X, times=times)))
    alone = model.predict(X[0], times=times[0])
    np.testing.assert_allclose(alone, model.predict(X, times=times)[0], atol=1e-12)


def dense_predictions(model, u, y, times, k):
    """y_i given y_0 … y_{i−k} by conditioning one joint Gaussian, for one input and one output."""
    system, n, N = model.system_, model.order_, len(u)
    mean = by_steps(system, u - model.input_mean_, times)[:, 0] + model.output_offset_[0]
    P = model._parameters.P0
    crossing = np.empty((N, N))
    for i in range(N):
        if i:
            gap = times[i] - times[i - 1]
            M = np.block([[-system.A, model.process_noise_], [np.zeros((n, n)), system.A.T]]) * gap
            E = expm(M)
            P = E[n:, n:].T @ P @ E[n:, n:] + E[n:, n:].T @ E[:n, n:]
        for j in range(i, N):
            crossing[j, i] = crossing[i, j] = (system.C @ expm(system.A * (times[j] - times[i])) @ P @ system.C.T)[0, 0]
    noisy = crossing + model.noise_covariance_[0, 0] * np.eye(N)
    answers = mean.copy()
    for i in range(k, N):
        known = np.flatnonzero(~np.isnan(y[: i - k + 1]))
        if len(known):
            weights = np.linalg.solve(noisy[np.ix_(known, known)], crossing[known, i])
            answers[i] += weights @ (y - mean)[known]
    return answers


@pytest.mark.parametrize("k", [1, 4])
def test_predictions_equal_dense_conditioning(k):
    rng = np.random.default_rng(3)
    u, y, times = record(plant(), n=60)
    y = y[:, 0] + 0.3 * rng.normal(size=60)
    y[[5, 6, 20]] = np.nan
    model = LTIRegressor(2, max_iter=15).fit(u, y, times=times)
    np.testing.assert_allclose(
        model.predict(u, y, times, k=k), dense_predictions(model, u, y, times, k), rtol=1e-7, atol=1e-8
    )


@pytest.mark.parametrize("hold", ["zoh", "foh"])
def test_a_stream_is_the_prediction(hold):
    u, y, times = record(two_by_two(), n=80)
    y += 0.1 * np.random.default_rng(2).normal(size=y.shape)
    y[10, 0] = y[11] = np.nan
    model = LTIRegressor(2, max_iter=10, hold=hold).fit(u, y, times=times)
    stream = model.stream()
    answers = [stream.step(a, b, dt) for a, b, dt in zip(u, y, np.diff(times, prepend=0.0), strict=True)]
    np.testing.assert_allclose(answers, model.predict(u, y, times), rtol=1e-9, atol=1e-10)
    with pytest.raises(ValueError, match="u must be 2 finite number"):
        stream.step([1.0])
    with pytest.raises(ValueError, match="dt must be >= 0"):
        stream.step([1.0, 1.0], dt=-1.0)


def test_initial_states():
    system = plant()
    u, y, times = record(system, x0=[3.0, 0.0, -1.0, 1.0])
    model = LTIRegressor(4, noise_model="output_error", fit_intercept=False).fit(u, y, times=times)
    fresh, truth, at = record(system, seed=1, n=100, x0=[0.0, 4.0, 1.0, 0.0])
    # A window of the first outputs is enough to find it.
    window = truth.copy()
    window[8:] = np.nan
    np.testing.assert_allclose(model.predict(fresh, window, at, k=np.inf), truth, atol=1e-5)
    zero = model.predict(fresh, times=at)
    np.testing.assert_allclose(zero, by_steps(system, fresh, at), atol=1e-6)
    steady = model.predict(np.ones((5, 1)), times=np.arange(5.0), initial_state="steady")
    np.testing.assert_allclose(steady[:, 0], np.full(5, system.gain), atol=1e-6)
    given = model.predict(u, times=times, initial_state=model.initial_states_)
    np.testing.assert_array_equal(given, model.predict(u, times=times, initial_state="fitted"))
    for wrong in ("rest", np.zeros(3), "estimate"):
        with pytest.raises(ValueError, match="initial_state"):
            model.predict(u, times=times, initial_state=wrong)


def test_score_and_residuals():
    u, y, times = record(two_by_two(), n=100)
    y += 0.1 * np.random.default_rng(2).normal(size=y.shape)
    y[3, 1] = np.nan
    model = LTIRegressor(3, max_iter=10).fit(u, y, times=times)
    predicted = model.predict(u, times=times)
    seen = ~np.isnan(y[:, 1])
    expected = 0.5 * (r2_score(y[:, 0], predicted[:, 0]) + r2_score(y[seen, 1], predicted[seen, 1]))
    assert model.score(u, y, times) == pytest.approx(expected, abs=1e-12)
    np.testing.assert_allclose(model.residuals(u, y, times, k=2), y - model.predict(u, y, times, k=2))
    assert np.isnan(model.residuals(u, y, times)[3, 1])
    bode = model.bode([0.1, 0.2])
    response = model.system_.frequency_response([0.1, 0.2])
    np.testing.assert_allclose(bode.magnitude, 20 * np.log10(np.abs(response)))


def test_times_travel_in_the_index():
    u, y, times = record(plant(), n=160)
    frame = pd.DataFrame(u, index=times, columns=["force"])
    model = LTIRegressor(2, noise_model="output_error", max_iter=10)
    by_index, by_argument = clone(model).fit(frame, y), clone(model).fit(u, y, times=times)
    np.testing.assert_array_equal(by_index.predict(frame), by_argument.predict(u, times=times))
    assert list(by_index.feature_names_in_) == ["force"]
    assert len(cross_val_score(model, frame, y[:, 0], cv=TimeSeriesSplit(2))) == 2
    with pytest.raises(ValueError, match="not both"):
        clone(model).fit(frame, y, times=times)
    with pytest.raises(ValueError, match="fitted with times, and X has none"):
        by_argument.predict(u)
    with pytest.raises(ValueError, match="fitted without times"):
        clone(model).fit(u, y).predict(u, times=times)


def test_a_model_is_saved(tmp_path):
    u, y, times = record(two_by_two(), n=80)
    model = LTIRegressor(2, max_iter=5).fit(pd.DataFrame(u, columns=["a", "b"]), y, times=times)
    model.save(tmp_path / "plant")
    again = statespace.load(tmp_path / "plant")
    fresh = pd.DataFrame(u, columns=["a", "b"])
    np.testing.assert_array_equal(again.predict(fresh, y, times), model.predict(fresh, y, times))
    np.testing.assert_array_equal(again.pole_errors_, model.pole_errors_)
    assert again.get_params() == model.get_params()
    assert vars(again).keys() == vars(model).keys()
    with pytest.raises(NotFittedError):
        LTIRegressor().save(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"order": 0}, "order must be 'auto' or an int >= 1. Got 0"),
        ({"order": 2.0}, "order must be"),
        ({"method": "n4"}, "method must be one of 'n4sid', 'moesp', 'cva'. Got 'n4'"),
        ({"noise_model": "arma"}, "noise_model must be"),
        ({"criterion": "hqic"}, "criterion must be"),
        ({"domain": "s"}, "domain must be"),
        ({"hold": "linear"}, "hold must be"),
        ({"domain": "discrete", "hold": "foh"}, "hold='foh' has no meaning"),
        ({"horizon": 1}, "horizon must be"),
        ({"order": 5, "horizon": 3}, "horizon=3 is too short for order=5: it must be at least 6"),
        ({"order": 1, "horizon": 60}, "horizon=60 needs a record of at least 120 samples"),
        ({"max_order": 0}, "max_order must be"),
        ({"tol": 0.0}, "tol must be"),
    ],
)
def test_wrong_parameters(params, message):
    u, y, _ = record(plant(), n=100)
    with pytest.raises(ValueError, match=message):
        LTIRegressor(**params).fit(u, y)


def test_wrong_data():
    u, y, times = record(two_by_two(), n=60)
    model = LTIRegressor(1, max_iter=3)
    hole = u.copy()
    hole[4, 1] = np.nan
    with pytest.raises(ValueError, match=r"input 1 at row 4 of X is missing.*ffill"):
        model.fit(hole, y)
    with pytest.raises(ValueError, match=r"must not decrease: times\[3\]"):
        model.fit(u, y, times=np.r_[0, 1, 2, 1, np.arange(4, 60)])
    with pytest.raises(ValueError, match="one entry for each of the 60 rows"):
        model.fit(u, y, times=times[:-1])
    with pytest.raises(ValueError, match="NaN only in output 1"):
        model.fit(u, np.column_stack([y[:, 0], np.full(60, np.nan)]))
    with pytest.raises(ValueError, match="1 sample"):
        model.fit(u[:1], y[:1])
    with pytest.raises(ValueError, match="infinity"):
        model.fit(u, np.where(y == y[3, 0], np.inf, y))
    with pytest.raises(ValueError, match="cannot be squared in float64"):
        model.fit(u, 1e200 * y)
    with pytest.raises(ValueError, match="X holds 2 records"):
        model.fit([u, u], y[:, 0])
    with pytest.raises(ValueError, match="k must be"):
        model.fit(u, y).predict(u, y, k=0)
    with pytest.raises(ValueError, match="y must have the 2 output"):
        model.predict(u, y[:, 0])


@pytest.mark.parametrize("n", [2, 3, 5, 12])
@pytest.mark.parametrize("noise_model", ["output_error", "innovations"])
def test_short_records_work(n, noise_model):
    u, y, times = record(two_by_two(), n=n)
    model = LTIRegressor(noise_model=noise_model, max_iter=20, random_state=0).fit(u, y, times=times)
    assert np.isfinite(model.predict(u, times=times)).all()
    assert model.poles_.real.max() <= 0


def test_constant_series_and_many_inputs():
    rng = np.random.default_rng(0)
    constant = LTIRegressor(1, max_iter=5).fit(rng.normal(size=(50, 1)), np.full(50, 3.0))
    np.testing.assert_allclose(constant.predict(rng.normal(size=(9, 1))), 3.0, atol=1e-5)
    idle = LTIRegressor(1, max_iter=5).fit(np.ones((50, 1)), rng.normal(size=50))
    assert np.isfinite(idle.predict(np.ones((9, 1)))).all()
    u = rng.normal(size=(600, 20))
    weights = rng.normal(size=20)
    x, y = 0.0, np.empty(600)
    for k in range(600):
        y[k] = x
        x = 0.8 * x + weights @ u[k]
    many = LTIRegressor(1, domain="discrete", noise_model="output_error", fit_intercept=False).fit(u, y)
    np.testing.assert_allclose(many.poles_, [0.8], atol=1e-8)
    np.testing.assert_allclose((many.system_.C @ many.system_.B)[0], weights, atol=1e-7)


def test_the_package_stands_alone():
    code = (
        "import sys, statespace.lti; "
        "print([m for m in ('torch', 'sktime', 'statespace.kalman', 'matplotlib') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_an_unstable_plant_is_found_when_it_may_be():
    system = LinearSystem([[0.05]], [[1.0]], [[1.0]])
    u, y, times = record(system, n=100)
    model = LTIRegressor(1, stable=False, noise_model="output_error", fit_intercept=False).fit(u, y, times=times)
    np.testing.assert_allclose(model.poles_, [0.05], atol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        held = LTIRegressor(1, noise_model="output_error", fit_intercept=False).fit(u, y, times=times)
    assert held.poles_.real.max() <= 0


def test_cascaded_tanks(data_path):
    table = np.genfromtxt(data_path("cascaded_tanks") / "dataBenchmark.csv", delimiter=",", skip_header=1)
    u, u_test, y, y_test = table[:, :4].T
    times = 4.0 * np.arange(len(u))
    model = LTIRegressor(2, noise_model="output_error").fit(u[:, np.newaxis], y, times=times)
    window = y_test.copy()
    window[5:] = np.nan  # the benchmark's window to find the initial state
    found = model.predict(u_test[:, np.newaxis], window, times, k=np.inf)
    assert np.sqrt(np.mean((y_test - found) ** 2)) < 0.62  # the best linear model published has 0.75
