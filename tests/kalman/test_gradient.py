"""The exact gradient of every component, and of sums, against complex steps of a model that is written down anew."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.linalg import block_diag

from statespace import KalmanRegressor
from statespace.kalman import (
    CARMA,
    Component,
    Cycle,
    DampedOscillator,
    DummySeasonal,
    Initial,
    LevelShift,
    LocalLevel,
    LocalTrend,
    Matern,
    OrnsteinUhlenbeck,
    Outlier,
    Regression,
    Seasonal,
    SlopeChange,
)
from tests.oracles.complex_step import gradient, log_likelihood

RNG = np.random.default_rng(3)
TIMES = np.cumsum(np.append(0.0, RNG.choice([0.0, 0.4, 0.9, 1.3, 2.7], size=24)))
GAPS = np.append(0.0, np.diff(TIMES))
Y = np.where(RNG.uniform(size=25) < 0.1, np.nan, np.sin(TIMES) + RNG.normal(size=25))
X = RNG.normal(size=(25, 2))
NOTHING = np.zeros((2, 0))
TURN = np.array([[0.0, 1.0], [-1.0, 0.0]])


def unit(n, k=0):
    return np.eye(n)[k]


def level(v):
    return np.zeros((1, 1)), v * np.eye(1), np.ones(1), np.zeros((1, 1)), np.eye(1)


def trend(level_variance, slope_variance):
    return np.array([[0.0, 1], [0, 0]]), np.diag([level_variance, slope_variance]), unit(2), np.zeros((2, 2)), np.eye(2)


def seasonal(variance, period=7.0):
    w = 2 * np.pi / period
    return block_diag(w * TURN, 2 * w * TURN), variance * np.eye(4), np.tile(unit(2), 2), np.zeros((4, 4)), np.eye(4)


def matern(length_scale, variance, nu=1.5):
    rate = np.sqrt(2 * nu) / length_scale
    if nu == 0.5:
        return (
            np.array([[-rate]]),
            np.array([[2 * rate * variance]]),
            np.ones(1),
            np.array([[variance]]),
            np.zeros((1, 0)),
        )
    if nu == 1.5:
        F, P = np.array([[0, 1], [-(rate**2), -2 * rate]]), np.diag([variance, variance * rate**2])
        return F, np.array([[0, 0], [0, 4 * rate**3 * variance]]), unit(2), P, NOTHING
    F = np.array([[0, 1, 0], [0, 0, 1], [-(rate**3), -3 * rate**2, -3 * rate]])
    G, k = np.zeros((3, 3), dtype=complex), variance * rate**2 / 3
    G[2, 2] = 16 / 3 * rate**5 * variance
    return F, G, unit(3), np.array([[variance, 0, -k], [0, k, 0], [-k, 0, variance * rate**4]]), np.zeros((3, 0))


def cycle(period, damping, variance):
    F = -damping * np.eye(2) + 2 * np.pi / period * TURN
    return F, 2 * damping * variance * np.eye(2), unit(2), variance * np.eye(2), NOTHING


def oscillator(frequency, quality, variance):
    w = 2 * np.pi * frequency
    P = np.diag([variance, variance * w**2])
    G = np.zeros((2, 2), dtype=complex)
    G[1, 1] = 2 * w**3 * variance / quality
    return np.array([[0, 1], [-(w**2), -w / quality]]), G, unit(2), P, NOTHING


def carma(*parameters, p):
    """In companion form, its stationary covariance from the Lyapunov equation."""
    rates, zeros, variance = parameters[:p], parameters[p:-1], parameters[-1]
    ar, ma = characteristic(rates), characteristic(zeros)
    F = np.zeros((p, p), dtype=complex)
    F[: p - 1, 1:] = np.eye(p - 1)
    F[-1] = -ar[:-1]
    G = np.zeros((p, p), dtype=complex)
    G[-1, -1] = 1.0
    eye = np.eye(p)
    P = np.linalg.solve(np.kron(eye, F) + np.kron(F, eye), -G.ravel()).reshape(p, p)
    h = np.append(ma, np.zeros(p - len(ma)))
    scale = variance / (h @ P @ h)
    return F, scale * G, h, scale * P, np.zeros((p, 0))


def characteristic(rates):
    """det(sI − F) of the Schwarz form, in ascending powers."""
    n = len(rates)
    if n == 0:
        return np.ones(1)
    F = np.zeros((n, n), dtype=complex)
    for i in range(n - 1):
        F[i, i + 1], F[i + 1, i] = rates[i], -rates[i]
    F[-1, -1] = -rates[-1]
    # Faddeev & LeVerrier: roots would lose digits where they repeat.
    coefficients, M = [1.0 + 0j], np.zeros((n, n), dtype=complex)
    for k in range(1, n + 1):
        M = F @ M + coefficients[-1] * np.eye(n)
        coefficients.append(-np.trace(F @ M) / k)
    return np.array(coefficients[::-1])


def times(one, two):
    F1, G1, h1, P1, D1 = one
    F2, G2, h2, P2, _ = two
    n1, n2 = len(F1), len(F2)
    F, P = np.kron(F1, np.eye(n2)) + np.kron(np.eye(n1), F2), np.kron(P1, P2)
    return F, -(F @ P + P @ F.T), np.kron(h1, h2), P, np.zeros((n1 * n2, 0))


def quasi(length_scale, variance, decay, period=7.0, nu=1.5):
    weights = np.array([1.0, 2.0**-decay, 3.0**-decay])
    weights = weights / weights.sum()
    parts = []
    for j, weight in enumerate(weights):
        w = 2 * np.pi * (j + 1) / period
        parts.append(times((w * TURN, None, unit(2), np.eye(2), None), matern(length_scale, weight * variance, nu)))
    return add(parts)


def add(parts):
    F, G, h, P, D = zip(*parts, strict=True)
    return block_diag(*F), block_diag(*G), np.concatenate(h), block_diag(*P), block_diag(*D)


class Walk(Component):
    """A component of one's own, with the four methods only."""

    def __init__(self, variance=1.0, variance_bounds=None):
        self.variance, self.variance_bounds = variance, variance_bounds

    def transition(self, dt):
        return np.ones((len(dt), 1, 1))

    def process_noise(self, dt):
        return self.variance * np.asarray(dt)[:, None, None]

    def observation(self):
        return np.ones(1)

    def initial(self):
        return Initial(np.zeros(1), np.zeros((1, 1)), np.ones((1, 1)))


def drifting(variance):
    return np.zeros((2, 2)), variance * np.eye(2), X, np.zeros((2, 2)), np.eye(2)


# The component, and its model as a function of exp(θ).
CASES = {
    "level": (LocalLevel(0.7), level),
    "trend": (LocalTrend(0.7, 0.2), trend),
    "seasonal": (Seasonal(7.0, 2, 0.3), seasonal),
    "seasonal, period": (Seasonal(7.0, 2, 0.3, period_bounds=(5.0, 9.0)), lambda period, v: seasonal(v, period)),
    "ou": (OrnsteinUhlenbeck(2.0, 1.5), lambda a, v: matern(a, v, 0.5)),
    "matern32": (Matern(1.5, 2.0, 1.5), matern),
    "matern52": (Matern(2.5, 2.0, 1.5), lambda a, v: matern(a, v, 2.5)),
    "regression": (Regression(variance=0.4), drifting),
    "cycle": (Cycle(5.0, 0.3, 1.4), cycle),
    "oscillator": (DampedOscillator(0.2, 4.0, 1.4), oscillator),
    "critical oscillator": (DampedOscillator(0.2, 0.5, 1.4), oscillator),
    "overdamped oscillator": (DampedOscillator(0.2, 0.1, 1.4), oscillator),
    "carma(1,0)": (CARMA((0.7,), sigma=0.9), lambda *v: carma(*v, p=1)),
    "carma(2,1)": (CARMA((1.0, 0.4), (1.0, 0.5), 0.9), lambda *v: carma(*v, p=2)),
    "carma(3,0)": (CARMA((1.0, 3.0, 3.0), (1.0,), 0.9), lambda *v: carma(*v, p=3)),
    "carma(5,2)": (CARMA((0.8, 3.0, 3.3, 5.1, 2.0), (1.0, 0.7, 0.2), 0.9), lambda *v: carma(*v, p=5)),
    "carma(6,3)": (
        CARMA((0.5, 2.9, 6.1, 8.2, 5.4, 3.1), (1.0, 0.9, 0.6, 0.1), 0.9), lambda *v: carma(*v, p=6),
    ),
    "quasi-periodic": (Seasonal(7.0, 3) * Matern(1.5, 9.0, 1.2), quasi),
    "quasi-periodic, period": (
        Seasonal(7.0, 3, period_bounds=(5.0, 9.0)) * Matern(2.5, 9.0, 1.2),
        lambda period, a, v, decay: quasi(a, v, decay, period, 2.5),
    ),
    "product": (
        Cycle(5.0, 0.3, 1.4) * Matern(1.5, 2.0),
        lambda period, damping, v, a: times(cycle(period, damping, v), matern(a, 1.0)),
    ),
    "product of three": (
        Cycle(5.0, 0.3, 1.4) * OrnsteinUhlenbeck(3.0) * CARMA((1.0, 0.4), (1.0, 0.5), 0.9),
        lambda period, damping, v, a, *c: times(times(cycle(period, damping, v), matern(a, 1.0, 0.5)), carma(*c, p=2)),
    ),
    "one's own": (Walk(0.7), level),
    "sum of five": (
        LocalTrend(0.7, 0.2) + Seasonal(7.0, 2, 0.3) + CARMA((1.0, 0.4), (1.0, 0.5), 0.9)
        + DampedOscillator(0.3, 2.0, 0.5) + Seasonal(7.0, 3) * Matern(1.5, 9.0, 1.2),
        lambda *v: add([trend(*v[:2]), seasonal(v[2]), carma(*v[3:7], p=2), oscillator(*v[7:10]), quasi(*v[10:])]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_equals_complex_steps(case):
    process, written = CASES[case]
    covariates = X if case == "regression" else X[:, :0]
    gp = KalmanRegressor(process, optimizer=lambda objective, theta, bounds: (theta, 0.0))
    gp.fit(np.column_stack([TIMES, covariates]), Y)

    def model(theta):
        F, G, h, P, D = written(*np.exp(theta[:-1]))
        return F, G, h, np.exp(theta[-1]), P, D

    theta = gp.theta_
    value, ours = gp.log_marginal_likelihood(theta, eval_gradient=True)
    assert_allclose(value, log_likelihood(Y, GAPS, *model(theta)).real, rtol=1e-9)
    truth = gradient(model, theta, Y, GAPS)
    # A component of one's own has the derivatives of its small matrices by differences.
    assert_allclose(ours, truth, rtol=1e-8, atol=(1e-7 if case == "one's own" else 1e-9) * np.abs(truth).max())


def test_dummies_on_a_grid_equal_complex_steps():
    """Each sum of a year is noise: a companion matrix for every step of the grid, several over a gap."""
    n, steps = 4, np.append(0.0, RNG.choice([0.0, 1.0, 1.0, 2.0, 7.0], size=24))
    gp = KalmanRegressor(
        LocalLevel(0.7) + DummySeasonal(n, 0.4), optimizer=lambda objective, theta, bounds: (theta, 0.0)
    )
    gp.fit(np.cumsum(steps)[:, None], Y)
    companion = np.vstack([-np.ones(n - 1), np.eye(n - 1)[:-1]])

    def model(theta):
        v, w, noise = np.exp(theta)

        def over(gap):
            A, Q = np.eye(n), np.zeros((n, n))
            once, own = block_diag([[1.0]], companion), np.diag([v, w, *np.zeros(n - 2)])
            for _ in range(int(gap)):
                A, Q = once @ A, once @ Q @ once.T + own
            return A, Q

        return over, None, unit(n) + unit(n, 1), noise, np.zeros((n, n)), np.eye(n)

    value, ours = gp.log_marginal_likelihood(gp.theta_, eval_gradient=True)
    assert_allclose(value, log_likelihood(Y, steps, *model(gp.theta_)).real, rtol=1e-9)
    assert_allclose(ours, gradient(model, gp.theta_, Y, steps), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(
    "effect", [LevelShift([3.0, 9.1]), SlopeChange([4.0]), Outlier(TIMES[5]), LevelShift([3.0], variance=2.0)], ids=repr
)
def test_interventions_leave_the_gradient_of_the_others_exact(effect):
    gp = KalmanRegressor(Matern(1.5, 2.0, 1.5) + effect, optimizer=lambda objective, theta, bounds: (theta, 0.0))
    gp.fit(TIMES[:, None], Y)
    n = len(effect.observation())
    known = effect.variance is not None

    def model(theta):
        F, G, h, P, D = matern(*np.exp(theta[:2]))
        rows = np.column_stack([np.tile(h, (len(Y), 1)), effect.design(times=TIMES)])
        P, D = block_diag(P, known * 2.0 * np.eye(n)), block_diag(D, np.eye(n)[:, : 0 if known else n])
        return block_diag(F, np.zeros((n, n))), block_diag(G, np.zeros((n, n))), rows, np.exp(theta[2]), P, D

    value, ours = gp.log_marginal_likelihood(gp.theta_, eval_gradient=True)
    assert_allclose(value, log_likelihood(Y, GAPS, *model(gp.theta_)).real, rtol=1e-9)
    assert_allclose(ours, gradient(model, gp.theta_, Y, GAPS), rtol=1e-8, atol=1e-9)
