"""KalmanRegressor with Student-t and Huber noise: outliers, the normal limit, and consistency of all its answers."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_estimator

import statespace
from statespace import KalmanRegressor
from statespace.kalman import Component, Initial, LocalLevel, LocalTrend, Matern

RNG = np.random.default_rng(0)
T = np.sort(RNG.uniform(0.0, 100.0, 300))
SIGNAL = 2 * np.sin(T / 8)
CLEAN = SIGNAL + 0.3 * RNG.normal(size=300)
BAD = RNG.choice(300, 15, replace=False)
DIRTY = CLEAN.copy()
DIRTY[BAD] += RNG.choice([-1, 1], 15) * RNG.uniform(5, 30, 15)
X = T[:, np.newaxis]
ROBUST = {
    "student_t": {"noise": "student_t"},
    "student_t(4)": {"noise": "student_t", "df": 4},
    "huber": {"noise": "huber"},
}
FIXED = {"noise_variance": 0.1, "optimizer": None}


@pytest.mark.parametrize("options", ROBUST.values(), ids=ROBUST)
@pytest.mark.parametrize("process", [Matern(1.5), LocalTrend()], ids=["matern", "trend"])
def test_outliers_hardly_move_the_estimate(process, options):
    normal = KalmanRegressor(process).fit(X, CLEAN).predict(X)
    spoiled = KalmanRegressor(process).fit(X, DIRTY).predict(X)
    robust = KalmanRegressor(process, **options).fit(X, DIRTY)
    moved = np.sqrt(np.mean((robust.predict(X) - normal) ** 2))
    # The tails of Huber's noise are lighter, and its fitted scale grows with what they cannot explain.
    least = 0.2 if options["noise"] == "huber" else 0.1
    assert moved < least * np.sqrt(np.mean((spoiled - normal) ** 2))
    good = np.setdiff1d(np.arange(300), BAD)
    assert robust.weights_[BAD].max() < np.quantile(robust.weights_[good], 0.05)


@pytest.mark.parametrize("process", [Matern(1.5), LocalTrend()], ids=["matern", "trend"])
def test_normal_data_give_the_normal_answer(process):
    normal = KalmanRegressor(process).fit(X, CLEAN)
    robust = KalmanRegressor(process, noise="student_t").fit(X, CLEAN)
    assert robust.df_ > 20
    mean, std = normal.predict(X, return_std=True)
    assert np.sqrt(np.mean(((robust.predict(X) - mean) / std) ** 2)) < 0.2
    assert robust.log_marginal_likelihood_value_ == pytest.approx(normal.log_marginal_likelihood_value_, abs=0.5)


def test_degrees_of_freedom_are_found():
    rng = np.random.default_rng(5)
    t = np.arange(3000.0)
    y = np.sin(t / 50) + 0.2 * rng.standard_t(4, size=3000)
    gp = KalmanRegressor(Matern(1.5), noise="student_t").fit(t[:, np.newaxis], y)
    table = gp.params_
    assert [*table.index] == ["length_scale", "variance", "noise_variance", "df"]
    assert abs(gp.df_ - 4) < 3 * table.loc["df", "standard_error"] < 2
    assert abs(gp.noise_variance_ - 0.04) < 3 * table.loc["noise_variance", "standard_error"] < 0.01


@pytest.mark.parametrize("options", ROBUST.values(), ids=ROBUST)
def test_the_search_ends_at_a_maximum_of_the_bound(options):
    y = np.where(np.arange(300) % 7 == 0, np.nan, DIRTY)
    gp = KalmanRegressor(Matern(1.5), **options).fit(X, y)
    value, gradient = gp.log_marginal_likelihood(eval_gradient=True)
    assert value == gp.log_marginal_likelihood_value_
    assert np.abs(gradient).max() < 1e-2
    for shift in 0.05 * np.random.default_rng(0).normal(size=(5, len(gp.theta_))):
        assert gp.log_marginal_likelihood(gp.theta_ + shift) < value
    assert gp.log_marginal_likelihood() == value


@pytest.mark.parametrize("options", [{"noise": "student_t", "df": 4}, {"noise": "huber", "huber_threshold": 2.0}])
def test_all_answers_are_those_of_weighted_noise(options):
    gp = KalmanRegressor(LocalLevel(0.3) + Matern(1.5, 5.0, 1.0), **FIXED, **options).fit(X, DIRTY)
    weighted = KalmanRegressor(gp.process_, optimizer=None).fit(X, DIRTY, noise_variance=0.1 / gp.weights_)
    new = np.array([[-1.0], [30.3], [110.0]])
    np.testing.assert_allclose(gp.predict(new, return_std=True), weighted.predict(new, return_std=True), rtol=1e-9)
    np.testing.assert_allclose(gp.predict(new, return_cov=True)[1], weighted.predict(new, return_cov=True)[1])
    pd.testing.assert_frame_equal(gp.decompose(new), weighted.decompose(new))
    np.testing.assert_allclose(gp.sample_y(new, 3), weighted.sample_y(new, 3), rtol=1e-7)
    one, other = gp.stream(), weighted.stream()
    assert one.step(np.nan, dt=1.0) == pytest.approx(other.step(np.nan, dt=1.0, noise_variance=1.0), rel=1e-9)
    # New noise has the family's variance: R ν/(ν − 2) for Student-t.
    std, noisy = (gp.predict(new, return_std=True, include_noise=include)[1] for include in (False, True))
    factor = 2.0 if options["noise"] == "student_t" else gp._noise_factor()
    np.testing.assert_allclose(noisy**2, std**2 + 0.1 * factor, rtol=1e-9)
    drawn = gp.sample_y(new, 4000, include_noise=True)
    spread, expected = (np.quantile(part, 0.75, axis=1) - np.quantile(part, 0.25, axis=1) for part in (
        drawn, gp.sample_y(new, 4000) + np.sqrt(0.1) * gp._estimation.family(gp.theta_).draw(
            np.random.RandomState(1), (3, 4000))))  # fmt: skip
    np.testing.assert_allclose(spread, expected, rtol=0.1)


class Decay(Component):
    """A tabulated process."""

    def transition(self, dt):
        return np.exp(-0.2 * np.asarray(dt))[:, None, None]

    def process_noise(self, dt):
        return -np.expm1(-0.4 * np.asarray(dt))[:, None, None]

    def observation(self):
        return np.ones(1)

    def initial(self):
        return Initial(np.zeros(1), np.eye(1), np.zeros((1, 0)))


@pytest.mark.parametrize("process", [LocalLevel(0.3), LocalTrend(0.1, 0.01), Decay()], ids=repr)
@pytest.mark.parametrize("options", list(ROBUST.values())[1:], ids=list(ROBUST)[1:])
def test_streams_weigh_by_the_innovation(process, options):
    gp = KalmanRegressor(process, **FIXED, **options).fit(X[:100], DIRTY[:100])
    stream, plain = gp.stream(), KalmanRegressor(process, optimizer=None)
    plain = plain.fit(X[:100], DIRTY[:100], noise_variance=0.1 / gp.weights_).stream()
    mean, std = stream.step(0.5, dt=0.7)
    # The weight is the fixed point w(E[ε²]/R) of this one sample.
    noise = 0.1
    family = gp._estimation.family(gp.theta_)
    import copy

    for _ in range(200):
        trial = copy.deepcopy(plain)
        m, s = trial.step(0.5, dt=0.7, noise_variance=noise)
        noise = 0.1 / float(family.weight(((0.5 - m) ** 2 + s**2) / 0.1))
    assert (mean, std) == pytest.approx((m, s), rel=1e-6)
    # An outlier changes next to nothing, unlike a normal stream.
    normal = KalmanRegressor(process, **FIXED).fit(X[:100], DIRTY[:100]).stream()
    jump, normal_jump = (
        abs(copy.deepcopy(s).step(50.0, dt=0.1)[0] - copy.deepcopy(s).step(np.nan, dt=0.1)[0]) for s in (stream, normal)
    )
    assert jump < 0.1 * normal_jump
    assert stream.step(np.nan, dt=1.0)[1] > std


def test_a_new_robust_stream_starts_diffuse():
    gp = KalmanRegressor(LocalLevel(0.3), **FIXED, noise="student_t", df=4).fit(X, DIRTY)
    stream = gp.stream(from_prior=True, include_noise=True)
    assert np.isinf(stream.step(np.nan)[1])
    mean, std = stream.step(7.0, dt=1.0)
    assert mean == pytest.approx(7.0)
    assert std == pytest.approx(np.sqrt(0.1 + 0.2))


@pytest.mark.parametrize("options", ROBUST.values(), ids=ROBUST)
def test_a_file_brings_everything_back(options, tmp_path):
    Y = np.column_stack([DIRTY, DIRTY[::-1]])[:80]
    order = np.random.default_rng(2).permutation(80)
    gp = KalmanRegressor(LocalLevel(), **options).fit(X[:80][order], Y[order])
    gp.save(tmp_path / "model")
    again = statespace.load(tmp_path / "model")
    np.testing.assert_array_equal(again.predict(X), gp.predict(X))
    np.testing.assert_array_equal(again.weights_, gp.weights_)
    assert again.log_marginal_likelihood_value_ == pytest.approx(gp.log_marginal_likelihood_value_, rel=1e-12)
    assert again.get_params() == gp.get_params()
    np.testing.assert_allclose(again.stream().step([1.0, 2.0]), gp.stream().step([1.0, 2.0]))
    np.testing.assert_array_equal(again.standardized_innovations(), gp.standardized_innovations())
    assert vars(again).keys() == vars(gp).keys()


def test_outputs_and_rows_are_weighed_where_they_stand():
    Y = np.column_stack([CLEAN, DIRTY])
    order = np.random.default_rng(2).permutation(300)
    gp = KalmanRegressor(LocalLevel(0.3), **FIXED, noise="huber").fit(X[order], Y[order])
    for k in range(2):
        alone = KalmanRegressor(LocalLevel(0.3), **FIXED, noise="huber").fit(X, Y[:, k])
        np.testing.assert_allclose(gp.weights_[:, k], alone.weights_[order], rtol=1e-6)
        np.testing.assert_allclose(gp.predict(X)[:, k], alone.predict(X), rtol=1e-7)


def test_units_do_not_matter():
    one = KalmanRegressor(Matern(1.5), noise="student_t", df=4).fit(X, DIRTY)
    other = KalmanRegressor(Matern(1.5), noise="student_t", df=4).fit(X * 1e-6 + 1e3, DIRTY * 1e6)
    np.testing.assert_allclose(other.predict(X * 1e-6 + 1e3), 1e6 * one.predict(X), rtol=1e-3, atol=1e3)
    expected = one.log_marginal_likelihood_value_ - 300 * np.log(1e6)
    assert other.log_marginal_likelihood_value_ == pytest.approx(expected, abs=1e-3)


def test_scores_follow_the_noise():
    """Where the model holds, p-values are uniform and scores are normal."""
    rng = np.random.default_rng(7)
    t = np.arange(3000.0)
    y = np.sin(t / 40) + 0.3 * rng.standard_t(3, size=3000)
    gp = KalmanRegressor(Matern(1.5), noise="student_t").fit(t[:, np.newaxis], y)
    for method in ("ahead", "leave_one_out"):
        p = gp.anomaly_scores(method=method)["p_value"]
        for level in (0.01, 0.1, 0.5):
            assert (p < level).mean() == pytest.approx(level, abs=3.5 * np.sqrt(level * (1 - level) / 3000))
    assert gp.diagnostics().loc["jarque_bera", "p_value"] > 0.01
    assert KalmanRegressor(Matern(1.5)).fit(t[:, None], y).diagnostics().loc["jarque_bera", "p_value"] < 1e-10


def test_bad_names_are_refused():
    with pytest.raises(ValueError, match="noise must be 'gaussian', 'student_t' or 'huber'"):
        KalmanRegressor(noise="laplace").fit(X, CLEAN)
    with pytest.raises(ValueError, match="df, the degrees of freedom"):
        KalmanRegressor(noise="student_t", df=-1).fit(X, CLEAN)


def test_scikit_learn():
    check_estimator(clone(KalmanRegressor(noise="student_t", df=5, optimizer=None)))
