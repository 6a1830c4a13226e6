import copy
import json
import pickle
from typing import ClassVar

import mpmath
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.gaussian_process import kernels

from statespace import KalmanRegressor
from statespace.kalman import (
    CARMA,
    Component,
    Cycle,
    DampedOscillator,
    Initial,
    LevelShift,
    LocalLevel,
    LocalTrend,
    Matern,
    OrnsteinUhlenbeck,
    Outlier,
    Product,
    QuasiPeriodic,
    Regression,
    Seasonal,
    SlopeChange,
    Sum,
)
from statespace.kalman.composition import Rescaled
from statespace.kalman.description import description, restored
from statespace.kalman.interventions import Intervention
from statespace.kalman.scale import Scale

SCALE = Scale(value=3.0, time=0.5, span=200.0, columns=("a", "b"), covariates=np.array([2.0, 0.1]))
COMPONENTS = [
    LocalLevel(variance=2.0),
    LocalTrend(level_variance=0.5, slope_variance=3.0),
    Seasonal(period=7.0, harmonics=3, variance=0.2),
    OrnsteinUhlenbeck(length_scale=2.0, variance=3.0),
    Matern(nu=0.5, length_scale=2.0, variance=3.0),
    Matern(nu=1.5, length_scale=2.0, variance=3.0),
    Matern(nu=2.5, length_scale=2.0, variance=3.0),
    Regression(columns=[0, 1], variance=0.3),
    LocalTrend(level_variance=0.5) + Seasonal(period=7.0, harmonics=2) + Matern(nu=2.5, length_scale=0.3),
    Cycle(period=3.0, damping=0.2, variance=2.0),
    DampedOscillator(frequency=0.4, quality=3.0, variance=2.0),
    DampedOscillator(frequency=0.4, quality=0.5, variance=2.0),
    DampedOscillator(frequency=0.4, quality=0.02, variance=2.0),
    CARMA(ar=(1.0,), sigma=0.5),
    CARMA(ar=(1.0, 0.4), ma=(1.0, 0.3), sigma=0.5),
    CARMA(ar=(0.8, 3.0, 3.3, 5.1, 2.0), ma=(1.0, 0.7, 0.2), sigma=0.5),
    QuasiPeriodic(
        seasonal=Seasonal(period=7.0, harmonics=2), envelope=Matern(length_scale=9.0, variance=2.0), decay=1.5
    ),
    Product(factors=[Cycle(period=3.0, damping=0.2, variance=2.0), Matern(nu=2.5, length_scale=9.0)]),
    LevelShift(times=[1.0, 4.0]),
    SlopeChange(times=[2.0]),
    Outlier(times=[3.0], variance=2.0),
]


class Drift(Component):
    """A random walk of one's own, with the four methods only."""

    units: ClassVar = {"variance": (2, -1)}

    def __init__(self, variance=None, variance_bounds=None):
        self.variance = variance
        self.variance_bounds = variance_bounds

    def transition(self, dt):
        return np.ones((len(dt), 1, 1))

    def process_noise(self, dt):
        return self.value("variance") * np.asarray(dt)[:, None, None]

    def observation(self):
        return np.ones(1)

    def initial(self):
        return Initial(np.zeros(1), np.zeros((1, 1)), np.ones((1, 1)))


@pytest.mark.parametrize("component", COMPONENTS, ids=repr)
def test_shapes_follow_the_gaps(component):
    n = component.n_states
    for dt in (np.array([0.0, 0.3]), np.full((2, 3), 0.4), 1.0):
        assert component.transition(dt).shape == component.process_noise(dt).shape == (*np.shape(dt), n, n)
    np.testing.assert_allclose(component.transition(0.0), np.eye(n), atol=1e-15)
    np.testing.assert_array_equal(component.process_noise(0.0), np.zeros((n, n)))
    mean, covariance, diffuse = component.initial()
    assert mean.shape == (n,)
    assert covariance.shape == (n, n)
    assert diffuse.shape[0] == n


@pytest.mark.parametrize("component", COMPONENTS, ids=repr)
def test_two_steps_are_one(component):
    A1, A2, A = (component.transition(dt) for dt in (0.3, 0.9, 1.2))
    Q1, Q2, Q = (component.process_noise(dt) for dt in (0.3, 0.9, 1.2))
    np.testing.assert_allclose(A2 @ A1, A, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(A2 @ Q1 @ A2.T + Q2, Q, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("component", [c for c in COMPONENTS if not c.initial().diffuse.shape[1]], ids=repr)
def test_the_stationary_start_stays(component):
    A, Q, P = component.transition(0.7), component.process_noise(0.7), component.initial().covariance
    np.testing.assert_allclose(A @ P @ A.T + Q, P, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("nu", [0.5, 1.5, 2.5])
def test_covariance_is_that_of_scikit_learn(nu):
    component = Matern(nu=nu, length_scale=2.0, variance=3.0)
    lags = np.array([0.0, 1e-3, 0.3, 2.0, 40.0])
    ours = (
        component.transition(lags) @ component.initial().covariance @ component.observation() @ component.observation()
    )
    theirs = 3.0 * kernels.Matern(length_scale=2.0, nu=nu)(lags[:, None], [[0.0]])[:, 0]
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def exact_noise(component, dt):
    """P − A P Aᵀ with 80 digits."""
    with mpmath.workdps(80):
        n = component.n_states
        rate = mpmath.sqrt(2 * component.nu) / mpmath.mpf(component.length_scale)
        F = mpmath.zeros(n)
        for i in range(n - 1):
            F[i, i + 1] = 1
        for j in range(n):
            F[n - 1, j] = -mpmath.binomial(n, j) * rate ** (n - j)
        P = mpmath.zeros(n)
        for i in range(n):
            for j in range(n):
                if (i + j) % 2 == 0:
                    spectral = {(1, 0): 1, (2, 0): 1, (2, 2): 1, (3, 0): 1, (3, 2): mpmath.mpf(1) / 3, (3, 4): 1}[
                        n, i + j
                    ]
                    P[i, j] = (-1) ** ((i - j) // 2) * spectral * component.variance * rate ** (i + j)
        A = mpmath.expm(F * mpmath.mpf(dt), method="taylor")
        return np.array((P - A * P * A.T).tolist(), dtype=float)


@pytest.mark.parametrize("nu", [0.5, 1.5, 2.5])
@pytest.mark.parametrize("dt", [1e-6, 1e-3, 0.1, 1.0, 20.0])
def test_process_noise_has_ten_digits(nu, dt):
    component = Matern(nu=nu, length_scale=np.sqrt(2 * nu), variance=3.0)
    np.testing.assert_allclose(component.process_noise(dt), exact_noise(component, dt), rtol=1e-10)


@pytest.mark.parametrize("component", COMPONENTS, ids=repr)
def test_theta_round_trips(component):
    theta = component.theta
    assert theta.shape == (len(component.hyperparameters()),)
    assert component.bounds.shape == (len(theta), 2)
    other = component.clone_with_theta(theta + 0.5)
    np.testing.assert_allclose(other.theta, theta + 0.5)
    assert (other != component) == (len(theta) > 0)
    assert other.clone_with_theta(theta).theta == pytest.approx(theta)
    for same in (clone(component), copy.deepcopy(component), pickle.loads(pickle.dumps(component))):
        assert same == component
        assert repr(same) == repr(component)
    with pytest.raises(ValueError, match=r"theta must have \d+ entries"):
        component.clone_with_theta(np.zeros(99))


def test_repr_is_code():
    for component in COMPONENTS:
        assert eval(repr(component)) == component


def test_sums_are_flat_and_named():
    process = LocalLevel() + (Seasonal(7) + Seasonal(365.25, harmonics=2)) + Matern()
    assert [name for name, _ in process.named()] == ["local_level", "seasonal_1", "seasonal_2", "matern"]
    assert Sum([LocalLevel(), Seasonal(7)]) == LocalLevel() + Seasonal(7)
    process.set_params(seasonal_2__variance=0.5, matern=OrnsteinUhlenbeck(length_scale=4.0))
    assert process.get_params()["seasonal_2__variance"] == 0.5
    assert process.get_params()["ornstein_uhlenbeck__length_scale"] == 4.0
    with pytest.raises(ValueError, match="Valid components are"):
        process.set_params(level__variance=1.0)
    with pytest.raises(ValueError, match="Valid parameters are"):
        process.set_params(seasonal_1__varience=1.0)
    with pytest.raises(TypeError):
        process + 1.0
    with pytest.raises(TypeError):
        process * 2.0


def test_fixed_parameters_leave_theta():
    process = LocalTrend(slope_variance=2.0, slope_variance_bounds="fixed") + Matern(length_scale_bounds=(0.1, 10.0))
    assert process.hyperparameters() == ["local_trend__level_variance", "matern__length_scale", "matern__variance"]
    np.testing.assert_allclose(process.bounds[1], np.log([0.1, 10.0]))
    assert process.clone_with_theta(np.ones(3)).components[0].slope_variance == 2.0
    assert Regression().hyperparameters() == []
    assert Regression(variance=1.0).hyperparameters() == ["variance"]


def test_none_is_taken_from_the_data():
    process = LocalTrend() + Seasonal(6.0) + Matern(variance=7.0) + Regression(["b"], variance=None)
    resolved = process.resolved(SCALE)
    assert process.components[0].level_variance is None
    assert 0 < resolved.components[0].slope_variance < resolved.components[0].level_variance
    assert resolved.components[1].harmonics == 6
    assert resolved.components[2].variance == 7.0
    assert SCALE.time < resolved.components[2].length_scale < SCALE.span
    theta, bounds = resolved.theta, resolved.bounds
    assert (bounds[:, 0] < theta).all()
    assert (theta < bounds[:, 1]).all()


@pytest.mark.parametrize("component", [*COMPONENTS, Drift(2.0), Drift(2.0) + LocalTrend()], ids=repr)
def test_rescaled_is_the_same_process_in_other_units(component):
    component = component.resolved(SCALE)
    scaled, dt = component.rescaled(SCALE), np.array([0.1, 2.0])
    x = np.array([[1.5, 0.2], [1.0, -0.3]])
    t = np.array([0.7, 4.0])
    ours, theirs = component.rows(x, t), scaled.rows(x, t / SCALE.time)
    ours, theirs = (np.broadcast_to(rows, (2, component.n_states)) for rows in (ours, theirs))
    Q, Q_scaled = component.process_noise(dt), scaled.process_noise(dt / SCALE.time)
    np.testing.assert_allclose(
        np.einsum("tn,tnm,tm->t", theirs, Q_scaled, theirs) * SCALE.value**2, np.einsum("tn,tnm,tm->t", ours, Q, ours)
    )
    # A path of one diffuse direction
    factor = component.diffuse_scale(SCALE)
    D, D_scaled = component.initial().diffuse, scaled.initial().diffuse * factor
    np.testing.assert_allclose(
        np.einsum("tn,tnm,md->td", theirs, scaled.transition(dt / SCALE.time), D_scaled),
        np.einsum("tn,tnm,md->td", ours, component.transition(dt), D),
        atol=1e-12,
    )


def test_a_rescaled_foreign_component_keeps_its_theta():
    scaled = Drift(2.0).rescaled(SCALE)
    assert isinstance(scaled, Rescaled)
    assert scaled.clone_with_theta(np.log([4.0])).process_noise(np.ones(1)).item() == pytest.approx(4.0 * 0.5 / 9.0)


@pytest.mark.parametrize(
    ("component", "words"),
    [
        (LocalLevel(variance=-1.0), "variance of LocalLevel must be a positive number.*Got -1.0"),
        (LocalLevel(variance=np.nan), "Got nan"),
        (LocalLevel(variance="x"), "Got 'x'"),
        (LocalLevel(variance_bounds=(2.0, 1.0)), "must be a pair 0 < lower <= upper"),
        (Seasonal(None), "needs a period"),
        (Seasonal(7, harmonics=0), "harmonics of Seasonal must be an integer >= 1"),
        (Matern(nu=2.0), "nu of Matern must be 0.5, 1.5 or 2.5"),
        (Regression("c"), r"knows no column 'c'. X has the covariates \['a', 'b'\]"),
        (Regression(2), "knows no column 2"),
        (Regression(variance=-1.0), "must be a positive number"),
        (Sum([LocalLevel(), 3]), "must be processes"),
        (Cycle(period=-1.0), "period of Cycle must be a positive number"),
        (DampedOscillator(quality=0.0), "quality of DampedOscillator must be a positive number"),
        (CARMA(), r"needs the coefficients ar, or order=\(p, q\)"),
        (CARMA(order=(2, 2)), r"must be a pair \(p, q\)"),
        (CARMA((1.0, 1.0), order=(3, 1)), "Give one of them only"),
        (CARMA((1.0,), (1.0, 2.0)), "fewer zeros than poles"),
        (CARMA((1.0, -0.5)), r"ar of CARMA is not stationary: the root 0.25\+0.968246j is not in the left half-plane"),
        (CARMA((1.0, 0.5, 3.0), (1.0, -1.0)), "ma of CARMA is not invertible: the root 1 is not.*mirrored"),
        (CARMA((1.0, np.nan)), "must be finite"),
        (CARMA((1.0, 1.0), sigma=-1.0), "sigma of CARMA must be a positive number"),
        (CARMA((1.0,), rate_bounds=(2.0, 1.0)), "rate_bounds of CARMA must be a pair"),
        (Product([LocalLevel(), Matern()]), "stationary, and LocalLevel starts diffuse"),
        (Product([Matern(), Matern() + Matern()]), "a product of a sum is a sum of products"),
        (QuasiPeriodic(Seasonal(5.0, variance=1.0), Matern()), "has no variance"),
        (QuasiPeriodic(Seasonal(5.0), Cycle()), "needs a Seasonal and a Matern"),
        (LevelShift([]), "needs at least one time"),
        (Outlier([np.nan]), "must be finite"),
        (SlopeChange([1.0], variance=0.0), "variance of SlopeChange must be a positive number"),
        (LevelShift("2020-01-01"), "LevelShift: `times` must be numbers"),
    ],
)
def test_bad_parameters_are_refused(component, words):
    with pytest.raises(ValueError, match=words):
        _ = component.resolved(SCALE).bounds


def test_wrong_shapes_of_a_foreign_component_are_named():
    class Wrong(Drift):
        def transition(self, dt):
            return np.ones(1)

    with pytest.raises(ValueError, match=r"Wrong.transition\(dt\) must have shape \(1, 1, 1\)"):
        Wrong().blocks()
    with pytest.raises(TypeError, match=r"Component must define observation\(\)"):
        Component().observation()


@pytest.mark.parametrize("component", [c for c in COMPONENTS if not isinstance(c, Regression)], ids=repr)
def test_a_file_holds_it(component):
    resolved = component.resolved(SCALE)
    again = restored(json.loads(json.dumps(description(resolved))))
    assert again == resolved
    assert repr(again) == repr(resolved)
    t = np.array([0.0, 1.0, 4.0])
    np.testing.assert_array_equal(again.rows(None, t), resolved.rows(None, t))
    np.testing.assert_allclose(again.process_noise(t), resolved.process_noise(t), rtol=1e-9, atol=1e-12)


# Whatever the process: rows between the samples where nothing was seen, and the origin of time, change nothing.


@pytest.mark.parametrize("component", COMPONENTS, ids=repr)
def test_splitting_gaps_and_shifting_time(component):
    component = component.clone_with_theta(component.theta)
    rng = np.random.default_rng(4)
    t = np.round(np.cumsum(rng.exponential(size=30)), 2)
    y, x = rng.normal(size=30) + np.sin(t), rng.normal(size=(30, 2))
    x = x if isinstance(component, Regression) else x[:, :0]

    def value(component, t, y, x, noise=0.3):
        gp = KalmanRegressor(component, noise_variance=noise, optimizer=None)
        return gp.fit(np.column_stack([t, x]), y).log_marginal_likelihood_value_

    plain = value(component, t, y, x)
    middle = 0.5 * (t[:-1] + t[1:])
    order = np.argsort(np.append(t, middle), kind="stable")
    split = [np.append(a, b, axis=0)[order] for a, b in ((t, middle), (y, np.full(29, np.nan)), (x, 0 * x[1:] + 1.0))]
    assert value(component, *split) == pytest.approx(plain, rel=1e-9)
    moved = component
    if isinstance(component, Intervention):
        moved = type(component)(np.asarray(component.times) + 2.0**30, component.variance)
    assert value(moved, t + 2.0**30, y, x) == pytest.approx(plain, rel=1e-6)


def test_a_component_written_for_covariates_only_still_works():
    class Old(Drift):
        def design(self, covariates=None):
            return self.observation() if covariates is None else covariates[:, :1]

    t = np.arange(20.0)
    X = np.column_stack([t, np.cos(t)])
    y = 2 * np.cos(t) + (t >= 10)
    gp = KalmanRegressor(Old(1e-6) + LevelShift([10.0]), noise_variance=1e-4, optimizer=None).fit(X, y)
    np.testing.assert_allclose(gp.predict(X), y, atol=0.02)
